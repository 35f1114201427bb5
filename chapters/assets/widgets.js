// Bring the page's stored widgets to life, with no kernel and no other machine.
//
// html-manager, which books bring along for this, can show every kind of notebook output and is six
// times as large; sliders and boxes need the two modules they are written in, and a manager that
// makes models from the stored state and views from models. The page is painted first; then the
// widgets follow one by one, those in view before the others, and the page answers in between.

(() => {
  const folder = new URL("vendor/widgets/", document.currentScript.src).href;
  // However slow the line: no time-out.
  requirejs.config({ waitSeconds: 0, paths: { anywidget: `${folder}anywidget`, "@jupyter-widgets": folder } });
  const load = (name) => new Promise((resolve, reject) => requirejs([name], resolve, reject));
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

  const stored = (kind) => [...document.querySelectorAll(`script[type="application/vnd.jupyter.widget-${kind}+json"]`)];

  // Lowest in the cascade, so that the book's own style has the last word.
  function addStyle() {
    const link = document.createElement("link");
    return new Promise((resolve, reject) => {
      Object.assign(link, { rel: "stylesheet", href: `${folder}css/widgets.css`, onload: resolve, onerror: reject });
      document.head.prepend(link);
    });
  }

  // What models and views ask of their manager, over the state that the notebook stored.
  class Manager {
    constructor(state) {
      this.state = state;
      this.models = new Map();
    }
    get_model(id) {
      if (!this.models.has(id)) this.models.set(id, this.make(id, this.state[id]));
      return this.models.get(id);
    }
    async make(id, { model_module, model_name, state }) {
      const Model = (await load(model_module))[model_name];
      const model = new Model(await Model._deserialize_state(state, this), { widget_manager: this, model_id: id });
      Object.assign(model, { name: model_name, module: model_module });
      return model;
    }
    async create_view(model, options = {}) {
      const View = (await load(model.get("_view_module")))[model.get("_view_name")];
      const view = new View({ model, options });
      view.listenTo(model, "destroy", view.remove);
      await view.render();
      return view;
    }
    callbacks() {
      return {};
    }
  }

  async function draw(manager, base, script) {
    const model = await manager.get_model(JSON.parse(script.textContent).model_id);
    const view = await manager.create_view(model);
    const place = document.createElement("div");
    place.className = "widget-subarea";
    script.before(place);
    base.JupyterLuminoWidget.attach(view.luminoWidget, place);
  }

  function distance(script) {
    const { top } = script.parentElement.getBoundingClientRect();
    return Math.max(-top, top - innerHeight, 0);
  }

  // What a page without JavaScript shows is in the page already, as text that is not drawn.
  function showWithoutScript() {
    for (const note of document.querySelectorAll(".cell_output noscript")) {
      const text = document.createElement("div");
      text.innerHTML = note.textContent;
      note.parentElement.style.display = "block";
      note.replaceWith(text);
    }
  }

  async function start() {
    await painted();
    const parts = ["base", "controls"].map((name) => load(`@jupyter-widgets/${name}`));
    const [base] = await Promise.all([...parts, load("anywidget"), addStyle()]);
    await pause();
    const states = stored("state").map((script) => JSON.parse(script.textContent).state);
    const manager = new Manager(Object.assign({}, ...states));
    for (const id of Object.keys(manager.state)) await manager.get_model(id); // the links between them too
    const views = stored("view").map((script) => ({ script, far: distance(script) }));
    for (const { script } of views.sort((a, b) => a.far - b.far)) {
      await pause();
      await draw(manager, base, script);
    }
    document.documentElement.dataset.widgets = "drawn";
  }

  start().catch((error) => {
    showWithoutScript();
    throw error;
  });
})();
