// Names, roles and keyboard access that the stock theme leaves out.

function nameControls() {
  // A visible text beats an aria-label that says less.
  const lessThanShown = ".search-button-field[aria-label], details.hide > summary[aria-label]";
  for (const control of document.querySelectorAll(lessThanShown)) {
    control.removeAttribute("aria-label");
  }
  // The icons' tooltips would be read as part of the button's name.
  for (const icon of document.querySelectorAll(".theme-switch[title]")) icon.removeAttribute("title");
}

function markRegions() {
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");
  for (const entry of document.querySelectorAll("[role=doc-biblioentry]")) {
    entry.setAttribute("role", "listitem");
  }
  // A long signature is set as a list of definitions that defines nothing: make it plain lines.
  for (const part of document.querySelectorAll("dt.sig :is(dl, dd)")) {
    const plain = document.createElement("div");
    if (part.tagName === "DD") plain.className = "sig-line";
    plain.append(...part.childNodes);
    part.replaceWith(plain);
  }
}

// The theme looks for what scrolls as well: at its start, at every resize and at every change of the
// page, all at once, measuring and setting in turn, so that one cell after the other is laid out for
// it. It is told that there is nothing, and all of it is done below.
const THEIRS = "pre, .nboutput > .output_area, .cell_output > .output, .jp-RenderedHTMLCommon, .pst-scrollable-table-container";
document.querySelectorAll = function (selectors) {
  const asked = selectors === THEIRS ? "theirs" : selectors;
  return Document.prototype.querySelectorAll.call(this, asked);
};

// Whatever scrolls can be reached and scrolled with the keyboard. To measure is to lay out, so it is
// done while the page has nothing else to do, and only for as long.
const SCROLLERS = `:is(${THEIRS}, .formula):not(:has(.ob, .onebit-sweep))`;
const idle = () => new Promise((resolve) => (window.requestIdleCallback ?? setTimeout)(resolve));
let round = 0;
async function focusScrollers() {
  const mine = ++round;
  delete document.documentElement.dataset.scrollers;
  const boxes = [...document.querySelectorAll(SCROLLERS)];
  while (boxes.length) {
    await idle();
    if (mine !== round) return; // the window has another width by now
    const until = performance.now() + 10, measured = [];
    do {
      const box = boxes.shift();
      measured.push([box, box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight]);
    } while (boxes.length && performance.now() < until);
    for (const [box, scrolls] of measured) {
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }
  document.documentElement.dataset.scrollers = "reachable";
}

// What lies around the focus is laid out only when it comes near, and can push the focus out of the
// window again.
function keepFocusInSight({ target }) {
  setTimeout(() => {
    const { top, bottom } = target.getBoundingClientRect();
    const lost = bottom <= 0 || top >= innerHeight;
    if (lost && target.matches(":focus-visible")) target.scrollIntoView({ block: "nearest" });
  }, 100);
}
document.addEventListener("focusin", keepFocusInSight);

// The page is parsed and the deferred scripts, which measure it, have not run yet.
document.addEventListener("readystatechange", () => {
  nameControls();
  markRegions();
}, { once: true });

// One page has a script of its own, which lies beside this one.
const claimsScript = new URL("claims.js", document.currentScript.src).href;
addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector(".claims-filter")) return;
  document.head.append(Object.assign(document.createElement("script"), { src: claimsScript }));
});

addEventListener("load", () => {
  focusScrollers();
  addEventListener("resize", focusScrollers);
});
