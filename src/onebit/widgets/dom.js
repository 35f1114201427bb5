// What every widget needs: building elements, and remembering an answer in this browser.
// Python puts this text in front of each widget's own module.

const builder = (namespace) => (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(namespace, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
};
const h = builder("http://www.w3.org/1999/xhtml");
const s = builder("http://www.w3.org/2000/svg");

const minus = (number) => String(number).replaceAll("-", "−");
const signed = (number) => (number > 0 ? "+" : "") + minus(number);

// localStorage throws where the browser forbids it; then an answer lasts as long as the page.
const memory = (name) => {
  const key = `onebit.${name}`;
  const attempt = (action) => {
    try {
      return action();
    } catch {
      return null;
    }
  };
  return {
    load: () => attempt(() => JSON.parse(localStorage.getItem(key))),
    save: (value) => attempt(() => localStorage.setItem(key, JSON.stringify(value))),
    clear: () => attempt(() => localStorage.removeItem(key)),
  };
};

// JupyterLab takes arrows, space and Enter for itself: its shortcuts look for this attribute, and
// its notebook listens to what bubbles up.
const keepKeys = (el) => {
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => event.stopPropagation());
};
