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


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, width, theme):
    wear(page, width=width, theme=theme)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE)
        page.evaluate(EACH_KIND_OF_TOKEN_ONCE)
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
