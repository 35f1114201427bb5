"""What axe-core finds on the pages of the built book: nothing, at two widths and in two themes."""

from importlib.resources import files

import pytest
from chromium import opened, settle, wear
from test_book_pages import PAGES, browser, name  # noqa: F401 (a fixture)

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def tab(browser):  # noqa: F811
    # A tab that is kept has read before what pages share, and opens the next in half the time.
    with opened(browser, PAGES[0]) as tab:
        yield tab


@pytest.fixture(scope="module", params=PAGES or [None], ids=name)
def page(tab, request):
    tab.goto(request.param.as_uri())
    settle(tab)
    return tab


# Of thousands of tokens in the code, one of each kind on each ground stays an element of its own;
# the others have its colours and become plain text. What axe-core has to say is the same, and it
# says so three times as soon.
EACH_KIND_OF_TOKEN_ONCE = """() => {
  const seen = new Set();
  for (const code of document.querySelectorAll(".highlight pre, dt.sig")) {
    const ground = code.closest("[class*='highlight-'], dt")?.className;
    for (const token of code.querySelectorAll("span, em")) {
      const kind = `${ground} ${token.className}`;
      if (seen.has(kind)) token.replaceWith(...token.childNodes);
      seen.add(kind);
    }
    code.normalize();
  }
}"""

# Contrast takes axe-core nine tenths of its time, for thousands of texts in few colours. It is
# asked about one of each kind: of one colour, size and weight on the same grounds, those of
# everything around it. Where something is placed by itself, and so might lie on another ground,
# axe-core is asked about each.
ONE_TEXT_OF_EACH_KIND = """() => {
  const grounds = new Map([[document.documentElement, ""]]);
  const seen = new Set();
  const chosen = [];
  const plain = "rgba(0, 0, 0, 0) none 1 none false";
  for (const node of document.querySelectorAll("body, body *")) {
    if (!node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const { backgroundColor, backgroundImage, opacity, filter, position } = style;
    const placed = /absolute|fixed|sticky/.test(position);
    const own = [backgroundColor, backgroundImage, opacity, filter, placed].join(" ");
    const ground = (grounds.get(node.parentElement) ?? "") + (own === plain ? "" : `/${own}`);
    grounds.set(node, ground);
    const text = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text && !node.matches("input, select, textarea")) continue;
    const { color, fontSize, fontWeight, textShadow } = style;
    const kind = [ground, color, fontSize, fontWeight, textShadow].join("|");
    if (seen.has(kind) && !ground.includes("true")) continue;
    seen.add(kind);
    chosen.push(node);
  }
  return axe.run({ include: chosen }, { resultTypes: ["violations"], preload: false,
    runOnly: ["color-contrast"] });
}"""

ALL_BUT_CONTRAST = """() => axe.run(document, { resultTypes: ["violations"], preload: false,
  rules: { "color-contrast": { enabled: false } } })"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, width, theme):
    wear(page, width=width, theme=theme)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE)
        page.evaluate(EACH_KIND_OF_TOKEN_ONCE)
    found = page.evaluate(ONE_TEXT_OF_EACH_KIND)["violations"]
    # Colours differ in all four views; what else axe-core judges differs only in what is shown.
    if (width, theme) in ((1280, "light"), (390, "dark")):
        found += page.evaluate(ALL_BUT_CONTRAST)["violations"]
    faults = [
        f"{fault['id']}: {node['html'][:160]}: {node['failureSummary'][:200]}"
        for fault in found
        for node in fault["nodes"]
    ]
    assert not faults, "\n".join(faults[:10])
