// Predict how many times as fast as float32 bits are, then race both as WebAssembly in a worker.

// ---- in the worker, which knows nothing but this function's text ---------------------------------

function contest() {
  const TURN = 10; // milliseconds: browsers blur their clocks, some to a whole millisecond
  const WARM_UP = 150; // a browser compiles quickly first, and well what runs often
  const BUDGET = 1600;
  const FLOAT32 = 2; // among the kernel's element types
  const now = () => performance.now();

  // Time a call, in so many that the clock sees them well: `calls` is doubled until it does, also
  // later, since a pause at the wrong moment may have made one call look long.
  function timed(racer) {
    for (; ; racer.calls *= 2) {
      const start = now();
      for (let call = 0; call < racer.calls; call++) racer.run();
      const spent = now() - start;
      if (spent >= TURN) return spent / racer.calls;
    }
  }

  // Where everything lies in the module's memory. Growing it invalidates every view, so that views
  // are made when all has its place.
  function layOut(c, m, n, k) {
    const words = Math.ceil(k / 64);
    let top = c.__heap_base.value;
    const place = (bytes) => {
      const start = Math.ceil(top / 64) * 64;
      top = start + bytes;
      return start;
    };
    const at = {
      a: place(4 * m * k), b: place(4 * n * k), sums: place(4 * m * n), products: place(4 * m * n),
      panels: place(4 * c.onebit_float32_panels_size(n, k)),
      aBits: place(8 * m * words), bBits: place(8 * n * words),
      lanes: place(4 * Number(c.onebit_lanes_size(BigInt(n), BigInt(k)))),
    };
    const missing = top - c.memory.buffer.byteLength;
    if (missing > 0) c.memory.grow(Math.ceil(missing / 65536));
    return at;
  }

  function pathNames(c) {
    const bytes = new Uint8Array(c.memory.buffer);
    return Array.from({ length: c.onebit_path_count() }, (_, path) => {
      const start = c.onebit_path_name(path);
      return String.fromCharCode(...bytes.subarray(start, bytes.indexOf(0, start)));
    });
  }

  function warmUp(runs, m) {
    const end = now() + WARM_UP;
    while (now() < end) for (const run of Object.values(runs)) run(Math.min(m, 8));
  }

  // Random signs; float32 and every path of the kernel multiply them; all must agree.
  function prepare(c, m, n, k) {
    const at = layOut(c, m, n, k);
    for (const [start, count] of [[at.a, m * k], [at.b, n * k]]) {
      const signs = new Float32Array(c.memory.buffer, start, count);
      for (let i = 0; i < count; i++) signs[i] = Math.random() < 0.5 ? -1 : 1;
    }
    const paths = pathNames(c);
    const best = paths.length - 1;
    const [wide, deep, stride] = [BigInt(n), BigInt(k), Math.ceil(k / 64)];
    c.onebit_float32_panels(at.b, n, k, at.panels);
    c.onebit_pack_signs(best, FLOAT32, at.b, wide, deep, at.bBits);
    c.onebit_lanes_from_words(at.bBits, stride, wide, deep, at.lanes);
    const runs = {
      float32: (rows) => c.onebit_float32_gemm(at.a, at.panels, rows, n, k, at.sums),
      pack: (rows) => c.onebit_pack_signs(best, FLOAT32, at.a, BigInt(rows), deep, at.aBits),
    };
    paths.forEach((name, path) => {
      runs[name] = (rows) =>
        c.onebit_xnor_gemm(path, 1, at.aBits, stride, at.lanes, BigInt(rows), wide, deep, at.products, n);
    });
    warmUp(runs, m);
    runs.float32(m);
    runs.pack(m);
    const sums = new Float32Array(c.memory.buffer, at.sums, m * n);
    const products = new Int32Array(c.memory.buffer, at.products, m * n);
    let wrong = 0;
    for (const name of paths) {
      products.fill(-k - 1);
      runs[name](m);
      wrong += products.reduce((count, product, i) => count + (product !== sums[i]), 0);
    }
    return { runs, paths, wrong };
  }

  // Rounds until the time is up, but three at least and fifteen at most.
  function measure(runs, m, tell) {
    const racers = Object.entries(runs).map(([name, run]) => ({ name, run: () => run(m), calls: 1, found: [] }));
    const start = now();
    let rounds = 0;
    let spent = 0;
    while (rounds < 3 || (rounds < 15 && spent < BUDGET)) {
      for (const racer of rounds % 2 ? racers.slice().reverse() : racers) racer.found.push(timed(racer));
      rounds += 1;
      spent = now() - start;
      tell(Math.max(rounds / 15, Math.min(1, spent / BUDGET)));
    }
    return { rounds, times: Object.fromEntries(racers.map(({ name, found }) => [name, Math.min(...found)])) };
  }

  self.onmessage = async ({ data: { wasm, size: [m, n, k] } }) => {
    try {
      const { instance } = await WebAssembly.instantiate(wasm);
      const { runs, paths, wrong } = prepare(instance.exports, m, n, k);
      self.postMessage({ done: 0 });
      const found = measure(runs, m, (done) => self.postMessage({ done }));
      self.postMessage({ ...found, paths, wrong });
    } catch (error) {
      self.postMessage({ failed: String(error) });
    }
  };
}

// ---- in the page ---------------------------------------------------------------------------------

const MOST = 64;
const grouped = (number) => number.toLocaleString("en").replaceAll(",", "\u00a0");
const few = (number) => (number < 100 ? +number.toPrecision(3) : grouped(Math.round(number)));
const times = (ratio) => `${ratio < 100 ? ratio.toFixed(1) : Math.round(ratio)}×`;
const fastestPath = ({ times: ms, paths }) => paths.reduce((best, path) => (ms[path] < ms[best] ? path : best));
const sizeName = ([m, n, k]) => `${grouped(m)} × ${grouped(n)} sums of ${grouped(k)} signs`;
const duration = (ms) => (ms < 1 ? `${few(1000 * ms)}\u00a0µs` : `${few(ms)}\u00a0ms`);

// What is missing here, as a sentence, or nothing.
function obstacle(wasm) {
  if (typeof WebAssembly !== "object") return "This browser runs no WebAssembly, so there is no race here.";
  if (!WebAssembly.validate(wasm)) {
    return "The WebAssembly of this browser has no vector instructions (SIMD), so there is no race here.";
  }
  if (typeof Worker !== "function") return "This browser has no workers, so there is no race here.";
  return null;
}

function resultTable(result, [m, n, k]) {
  const { times: ms, paths, rounds } = result;
  const macs = (m * n * k) / 1e6; // millions, a millisecond: thousand millions a second
  const best = fastestPath(result);
  const names = { scalar: "bits, 64 at a time", simd128: "bits, in vectors" };
  const rows = [["float32, in vectors", ms.float32], ...paths.map((path) => [names[path] ?? path, ms[path]]),
    ["packing A, then bits", ms.pack + ms[best]]];
  const fastest = Math.min(...rows.map(([, time]) => time));
  const cell = (text) => h("td", {}, String(text));
  return [
    h("table", { class: "ob-race-table" },
      h("thead", {}, h("tr", {}, h("td"), ["time", "G MAC/s", "× float32"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.map(([name, time]) => h("tr", {},
        h("th", { scope: "row" }, name,
          h("span", { class: "ob-race-bar", "aria-hidden": "true", style: `width:${(100 * fastest) / time}%` })),
        cell(duration(time)), cell(few(macs / time)), cell((ms.float32 / time).toFixed(1)))))),
    h("p", { class: "ob-hint" }, `The fastest of ${rounds} turns each, on one thread. G MAC/s: thousand million `
      + `multiply-adds a second. Packing the activations A alone: ${duration(ms.pack)}; weights are laid out beforehand, for both.`),
  ];
}

function render({ model, el }) {
  keepKeys(el);
  const sizes = model.get("sizes");
  const wasm = Uint8Array.from(atob(model.get("wasm")), (letter) => letter.charCodeAt(0));
  const number = Math.random().toString(36).slice(2);
  const choice = h("select", { id: `onebit-size-${number}` },
    sizes.map((size, i) => h("option", { value: i }, sizeName(size))));
  const slider = h("input", { type: "range", min: 1, max: MOST, step: 1, id: `onebit-guess-${number}` });
  const guess = h("span", { class: "ob-readout" });
  const start = h("button", { type: "button" }, "Lock in my prediction and race");
  const cancel = h("button", { type: "button", hidden: true }, "Cancel");
  const again = h("button", { type: "button", hidden: true }, "Race again");
  const bar = h("progress", { max: 1, value: 0, "aria-label": "the race", hidden: true });
  const said = h("div", { class: "ob-verdict", role: "status", "aria-live": "polite" });
  const details = h("div", { class: "ob-race-details" });
  let worker = null;

  const size = () => sizes[+choice.value];
  const native = () => {
    const ratio = model.get("native")[+choice.value];
    return ratio ? `In native code (${model.get("machine")}): ${times(ratio)} for ${sizeName(size())}.` : null;
  };
  const say = (...sentences) => said.replaceChildren(...sentences.filter(Boolean).map((sentence) => h("p", {}, sentence)));
  const follow = () => {
    guess.textContent = `${slider.value}×`;
    slider.setAttribute("aria-valuetext", `${slider.value} times`);
  };
  // "ready", "running" or "over": which controls there are, and where the focus goes with them.
  function show(phase) {
    const held = [start, cancel, again].includes(document.activeElement);
    choice.disabled = slider.disabled = phase !== "ready";
    start.hidden = phase !== "ready";
    cancel.hidden = bar.hidden = phase !== "running";
    again.hidden = phase !== "over";
    if (held) ({ ready: start, running: cancel, over: again })[phase].focus();
  }
  function stop() {
    worker?.terminate();
    worker = null;
  }
  function fail(sentence) {
    stop();
    say(sentence, native());
    show("over");
  }
  function finish(result) {
    stop();
    const count = grouped(size()[0] * size()[1]);
    const ratio = result.times.float32 / result.times[fastestPath(result)];
    if (result.wrong) {
      fail(`The products differ in ${grouped(result.wrong)} places, so that the times say nothing.`);
      return;
    }
    say(h("span", {}, "Bits were ", h("b", {}, times(ratio)), " as fast as float32 in this browser; you predicted ",
      h("b", {}, `${slider.value}×`), `. All ${count} sums are equal.`), native());
    details.replaceChildren(...resultTable(result, size()));
    show("over");
  }
  function hear({ data }) {
    if (data.failed) fail(`The race broke off: ${data.failed}.`);
    else if (data.times) finish(data);
    else bar.value = data.done;
    if (data.done === 0) say("The sums are computed and compared; now the clock runs.");
  }
  function race() {
    details.replaceChildren();
    bar.value = 0;
    show("running");
    say("Multiplying both ways and comparing …");
    const forbidden = "This page may not start workers here, so there is no race.";
    const address = URL.createObjectURL(new Blob([`(${contest})()`], { type: "text/javascript" }));
    try {
      worker = new Worker(address);
    } catch {
      fail(forbidden);
      return;
    } finally {
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    }
    worker.onmessage = hear;
    worker.onerror = (event) => {
      event.preventDefault();
      fail(forbidden);
    };
    worker.postMessage({ wasm, size: size() });
  }
  function reset() {
    stop();
    details.replaceChildren();
    say();
    show("ready");
  }

  slider.addEventListener("input", follow);
  start.addEventListener("click", race);
  cancel.addEventListener("click", () => {
    reset();
    say("Cancelled. Nothing was measured.");
  });
  again.addEventListener("click", reset);
  el.classList.add("ob", "ob-predict", "ob-race");
  el.append(h("p", { class: "ob-question" }, "How many times as fast as float32 are bits, in your browser?"));
  slider.value = MOST / 2;
  follow();
  const why = obstacle(wasm);
  el.append(
    h("p", { class: "ob-slide" }, h("label", { for: choice.id }, "Size"), choice),
    h("div", { class: "ob-slide", hidden: Boolean(why) }, h("label", { for: slider.id }, "My prediction"), slider, guess),
    h("p", { class: "ob-buttons", hidden: Boolean(why) }, start, cancel, again), bar, said, details);
  if (why) {
    const tell = () => say(why, native());
    choice.addEventListener("change", tell);
    tell();
  }
  return stop;
}

export default { render };
