"""What axe-core finds on the pages of the built book: nothing, at two widths and in two themes."""

from importlib.resources import files

import pytest
from chromium import opened, settle, wear
from test_book_pages import PAGES, browser, name  # noqa: F401 (a fixture)

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module", params=PAGES or [None], ids=name)
def page(browser, request):  # noqa: F811
    with opened(browser, request.param) as page:
        settle(page)
        yield page


# Contrast is nine tenths of axe-core's work, and depends on the letters' colour, size and weight
# and on the colours behind them. Of all texts that are alike in these, and in what decides whether
# axe-core looks at them, it is given one; of texts in drawings, which may lie on anything, each.
ONE_TEXT_OF_EACH_KIND = """() => {
  const grounds = new Map([[null, ""]]);
  const ground = (node) => {
    if (!grounds.has(node)) {
      const { backgroundColor, backgroundImage, opacity, position, filter, mixBlendMode } =
        getComputedStyle(node);
      const lifted = ["static", "relative"].includes(position) ? "" : grounds.size;
      const own = [backgroundColor, backgroundImage, opacity, filter, mixBlendMode, lifted,
        node.matches(":disabled, [aria-disabled=true], [inert], [hidden], .sr-only")];
      const plain = "rgba(0, 0, 0, 0) none 1 none normal  false";
      const said = own.join(" ");
      grounds.set(node, ground(node.parentElement) + (said === plain ? "" : `|${said}`));
    }
    return grounds.get(node);
  };
  const seen = new Set();
  for (const node of document.querySelectorAll("body, body *")) {
    node.removeAttribute("data-judged");
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!text && !node.matches("button, input, select, textarea")) continue;
    const { color, fontSize, fontWeight, textShadow, display, visibility } = getComputedStyle(node);
    const kind = [node.tagName, node.className, node.type, color, fontSize, fontWeight, textShadow,
      display, visibility, node.checkVisibility(), node.labels?.length,
      node.control?.disabled, ground(node)].join(";");
    if (!seen.has(kind) || node.closest("svg")) node.setAttribute("data-judged", "");
    seen.add(kind);
  }
  axe.configure({ rules: [{ id: "color-contrast", selector: "[data-judged]" }] });
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, width, theme):
    wear(page, width=width, theme=theme)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE)
    page.evaluate(ONE_TEXT_OF_EACH_KIND)
    # Two of the four views are judged whole. The others differ from both only in what is shown at
    # this width in this theme's colours: their contrast.
    whole = (width, theme) in ((1280, "light"), (390, "dark"))
    found = page.evaluate(
        "(options) => axe.run(document, options)",
        {"resultTypes": ["violations"], "preload": False}
        | ({} if whole else {"runOnly": ["color-contrast"]}),
    )
    faults = [
        f"{fault['id']}: {node['html'][:160]}: {node['failureSummary'][:200]}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]
    assert not faults, "\n".join(faults[:10])
