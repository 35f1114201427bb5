"""The built book in a browser: offline, both themes, wide and narrow, and every slider moves."""

import functools
import http.server
import json
import threading
from pathlib import Path

import pytest
from chromium import chromium, missing, opened, overflow, settle

pytestmark = pytest.mark.browser

BOOK = Path(__file__).parents[1] / "_build" / "html"
PAGES = sorted(BOOK.glob("chapters/*.html"))
WIDGETS = [page for page in PAGES if "jupyter.widget-view+json" in page.read_text("utf-8")]


def name(page):
    return page.stem


@pytest.fixture(scope="module")
def browser():
    if not PAGES:
        missing("the book is not built", "make book")
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (360, "dark")])
@pytest.mark.parametrize("path", PAGES or [None], ids=name if PAGES else None)
def test_page_opens_from_disk_without_error_and_fits_the_window(browser, path, width, theme):
    with opened(browser, path, width=width, theme=theme) as page:
        settle(page)
        assert unneeded_or_missing_scripts(page, path) == []
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert overflow(page) <= 0
        assert page.locator("merror, mjx-merror").count() == 0
        for picture in page.locator(PICTURES).all():
            text = picture.evaluate(
                "node => node.alt || node.ariaLabel || node.textContent"
            ).strip()
            assert text and "_images/" not in text, f"no text for {picture.evaluate(MARKUP)}"


def unneeded_or_missing_scripts(page, path):
    """Name the large scripts that a page loads in vain or lacks."""
    loaded = page.evaluate("[...document.scripts].map(({ src }) => src)")
    # Sphinx gives the contents page what its chapters need of mathematics.
    math = page.locator(".math").count() > 0 or path.stem == "index"
    needed = {"embed-amd.js": path in WIDGETS, "tex-chtml.js": math}
    there = {script: any(f"/{script}" in address for address in loaded) for script in needed}
    return [script for script in needed if there[script] != needed[script]]


PICTURES = ".bd-article :is(img, [role=img]):not([aria-hidden=true])"
MARKUP = "node => node.outerHTML.slice(0, 200)"


def test_address_that_make_prints_leads_to_the_first_page(browser):
    with opened(browser, BOOK / "index.html") as page:
        page.wait_for_url("**/chapters/index.html")
        assert page.title().startswith("One Bit at a Time")


def test_pages_open_over_http(browser):
    # One page of each kind: with a widget, with a filter of its own, of text alone.
    kinds = [BOOK / f"chapters/{page}.html" for page in ("index", "claims_checked", "references")]
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in kinds:
            address = f"http://127.0.0.1:{server.server_port}/{path.relative_to(BOOK).as_posix()}"
            with opened(browser, address) as page:
                settle(page)
        server.shutdown()


@pytest.mark.parametrize("path", WIDGETS or [None], ids=name if WIDGETS else None)
def test_every_slider_shows_its_table_at_every_position(browser, path):
    if path is None:
        pytest.skip("no page of the built book has a widget")
    with opened(browser, path) as page:
        settle(page)
        for sweep, (spec, texts) in zip(
            page.locator(".onebit-sweep").all(), tables(page), strict=True
        ):
            handle = sweep.get_by_role("slider", name=spec["label"], exact=True)
            handle.focus()
            page.keyboard.press("Home")
            drawings = set()
            for position, text in zip(spec["positions"], texts, strict=True):
                assert sweep.locator(".ob-readout").text_content() == text
                assert handle.get_attribute("aria-valuetext") == position
                drawings.add(sweep.locator(".ob-figure").inner_html())
                page.keyboard.press("ArrowRight")
            assert len(drawings) > 1, f"the drawing of {spec['label']} never changes"


def tables(page):
    """Return drawing and readouts of every sweep, in the page's order, from its stored state."""
    state = json.loads(
        page.locator("script[type='application/vnd.jupyter.widget-state+json']").text_content()
    )["state"]
    found = []
    for view in page.locator("script[type='application/vnd.jupyter.widget-view+json']").all():
        model = state[json.loads(view.text_content())["model_id"]]["state"]
        for child in model.get("children", []):
            inner = state[child.removeprefix("IPY_MODEL_")]["state"]
            if "texts" in inner:
                found.append((inner["spec"], inner["texts"]))
    return found


@pytest.mark.parametrize("path", WIDGETS or [None], ids=name if WIDGETS else None)
def test_page_without_scripts_says_what_its_widgets_would_show(browser, path):
    if path is None:
        pytest.skip("no page of the built book has a widget")
    with opened(browser, path, scripts=False) as page:
        notes = page.locator(".cell_output noscript")
        assert notes.count() > 0
        for note in notes.all():
            assert note.is_visible()
            assert note.inner_text().strip()
