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

// Whatever scrolls sideways can be reached and scrolled with the keyboard. To measure is to lay out,
// so it is done a few at a time, while the page has nothing else to do.
const idle = () => new Promise((resolve) => (window.requestIdleCallback ?? setTimeout)(resolve));
let round = 0;
async function focusScrollers() {
  const mine = ++round;
  delete document.documentElement.dataset.scrollers;
  const boxes = [...document.querySelectorAll(".pst-scrollable-table-container, .formula, .bd-article pre")];
  while (boxes.length) {
    await idle();
    if (mine !== round) return; // the window has another width by now
    const few = boxes.splice(0, 8).map((box) => [box, box.scrollWidth > box.clientWidth]);
    for (const [box, scrolls] of few) {
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }
  document.documentElement.dataset.scrollers = "reachable";
}

// The page is parsed and the deferred scripts, which turn icons into drawings, have not run yet.
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
