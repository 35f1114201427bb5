"""The built book in a browser: each page is opened once, with the network off, and used.

What it shows, what it weighs, where the focus goes, and what every slider does by keyboard and by
mouse. What axe-core finds is in `test_access`, so that two cores share the work.
"""

import gzip
import http.server
import json
import re
import threading
from functools import partial
from pathlib import Path

import pytest
from chromium import chromium, missing, opened, overflow, settle, wear
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

BOOK = Path(__file__).parents[1] / "_build" / "html"
ASSETS = Path(__file__).parents[1] / "chapters" / "assets"
PAGES = [*sorted(BOOK.glob("chapters/*.html")), *sorted(BOOK.glob("[!i]*.html"))]
VIEW = "jupyter.widget-view+json"
WIDGETS = [path for path in PAGES if VIEW in path.read_text("utf-8")]


def name(path):
    return path.stem if path else "no book"


@pytest.fixture(scope="module")
def browser():
    if not PAGES:
        missing("the book is not built", "make book")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=PAGES or [None], ids=name)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def page(browser, path):
    with opened(browser, path) as page:
        settle(page)
        yield page


def test_page_loads_the_widget_runtime_only_for_widgets(page, path):
    loaded = page.evaluate("[...document.scripts].map(({ src }) => src)")
    assert any("/vendor/widgets/" in address for address in loaded) == (path in WIDGETS)


def test_every_formula_is_set(page, path):
    text = path.read_text("utf-8")
    assert text.count("<math") == len(re.findall(r'class="math [^"]*notranslate', text))
    assert page.locator("math merror").count() == 0
    for height in page.locator(".bd-article math").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height)"
    ):
        assert height > 4


@pytest.mark.parametrize("width", [1280, 390, 360])
def test_page_fits_the_window(page, width):
    wear(page, width=width, theme="light")
    assert overflow(page) <= 0


#: Of every drawing that is shown: how far it reaches out of the window, and how large each of its
#: texts is there, in pixels. `getScreenCTM` is how a unit of the drawing is scaled.
DRAWN = """all => all.filter(e => e.checkVisibility()).map(svg => [
    svg.getBoundingClientRect().right - innerWidth,
    [...svg.querySelectorAll("text")].map(
        text => [text.textContent,
                 parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a]
    ),
])"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_text_of_every_figure_can_be_read(page, width):
    wear(page, width=width, theme="light")
    figures = page.locator(".onebit-figure")
    drawings = figures.locator("svg").evaluate_all(DRAWN)
    assert len(drawings) == figures.count()  # of two drawings one
    for beyond, texts in drawings:
        assert beyond <= 0 and texts
        for text, pixels in texts:
            assert pixels >= 9.5, f"{text!r} is {pixels:.1f} px"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_numbers_of_every_axis_end_inside_its_drawing(page, width):
    wear(page, width=width, theme="light")
    for number, beyond in page.locator(".ob-axes text").evaluate_all(
        "all => all.map(e => [e.textContent, e.getBoundingClientRect().right"
        " - e.ownerSVGElement.getBoundingClientRect().right])"
    ):
        assert beyond <= 0, f"{number!r} ends {beyond:.1f} px outside"


def test_what_is_folded_is_called_by_its_name(page):
    for words, output in page.locator("details.hide > summary").evaluate_all(
        "all => all.map(e => [e.textContent, e.parentElement.classList.contains('below-input')])"
    ):
        assert ("output" in words) == output, words


PICTURES = ".bd-article :is(img, [role=img]):not([aria-hidden=true])"


def test_every_picture_has_a_text_of_its_own(page):
    for markup, text in page.locator(PICTURES).evaluate_all(
        "all => all.map(e => [e.outerHTML.slice(0, 200), e.alt || e.ariaLabel || e.textContent])"
    ):
        assert text.strip() and "_images/" not in text, f"no text for {markup}"


def test_every_icon_is_drawn(page):
    assert page.locator("svg.icon").count() > 5
    assert page.locator(":is(i, span):is([class*='fa-'], .fas, .far, .fab)").count() == 0
    for width, height in page.locator("svg.icon").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => [e.clientWidth, e.clientHeight])"
    ):
        assert 8 <= width <= 32 and 12 <= height <= 32


# Tab is held down. Each press judges where the one before has put the focus, and moves it on.
# Where the focus is out of sight, the page has a moment to bring it back before the walk goes on.
WALK = """() => {
  const judge = (node, box) => {
    const { left, right, top, bottom, width, height } = box;
    const x = Math.min(Math.max((left + right) / 2, 0), innerWidth - 1);
    const y = Math.min(Math.max(top, 0) + Math.min(height / 2, 12), innerHeight - 1);
    const spots = [[x, y], [left + 3, top + 3], [right - 3, bottom - 3],
      ...[...node.getClientRects()].map((r) => [(r.left + r.right) / 2, (r.top + r.bottom) / 2])];
    const label = node.labels?.[0];
    const hit = spots.map(([x, y]) => document.elementFromPoint(x, y)).filter(Boolean);
    return {
      markup: node.outerHTML.slice(0, 160),
      marked: [node, label].some((e) => e && getComputedStyle(e).outlineStyle !== "none")
        || getComputedStyle(node).boxShadow !== "none",
      inside: bottom > 0 && top < innerHeight && width > 0 && height > 0,
      uncovered: hit.some((e) => node.contains(e) || e.contains(node) && e.contains(label ?? node)),
    };
  };
  window.walk = { stops: [], ended: false };
  let lost;
  addEventListener("keydown", (press) => {
    const node = document.activeElement;
    if (node === document.body) walk.ended = walk.stops.length > 0;
    if (node === document.body || walk.ended) return;
    const box = node.getBoundingClientRect();
    const away = box.bottom <= 0 || box.top >= innerHeight;
    if (lost?.node !== node) lost = { node, since: performance.now() };
    if (away && performance.now() - lost.since < 300) press.preventDefault();
    else walk.stops.push(judge(node, box));
  }, true);
}"""


def test_the_focus_goes_through_the_page_and_is_always_seen(page):
    wear(page, width=1280, theme="light")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.evaluate(WALK)
    stops = []
    for _ in range(150):
        for _ in range(20):
            page.keyboard.down("Tab")
        stops += page.evaluate("walk.stops.splice(0)")
        if page.evaluate("walk.ended"):
            break
    else:
        pytest.fail("the focus never leaves the page, or never enters it")
    page.keyboard.up("Tab")
    for stop in stops:
        assert stop["marked"], f"focus is not marked: {stop['markup']}"
        assert stop["inside"], f"focus is outside the window: {stop['markup']}"
        assert stop["uncovered"], f"something lies over the focus: {stop['markup']}"
    controls = page.locator(
        ".bd-article :is(a[href], button, summary, input, [tabindex='0'])"
    ).evaluate_all("all => all.filter(e => e.checkVisibility() && !e.disabled).length")
    # Of radio buttons and toggles, one a group.
    assert len(stops) >= controls / 2 and len(stops) > 10


SHOWN = """sweep => [
  sweep.querySelector(".ob-readout").textContent,
  sweep.querySelector("[role=slider]").getAttribute("aria-valuetext"),
  sweep.querySelector(".ob-figure").innerHTML,
]"""


def sweeps(page):
    """Yield a function that tells what a sweep shows, its slider, its positions and readouts."""
    tables = stored_tables(page)
    for sweep, (spec, texts) in zip(page.locator(".onebit-sweep").all(), tables, strict=True):
        handle = sweep.get_by_role("slider", name=spec["label"], exact=True)
        # To look an element up anew takes a locator as long as ten readings.
        yield partial(sweep.element_handle().evaluate, SHOWN), handle, spec["positions"], texts


def stored_tables(page):
    """Return drawing and readouts of every sweep, in the page's order, from its stored state."""
    states = page.locator("script[type='application/vnd.jupyter.widget-state+json']")
    if states.count() == 0:
        return []
    state = json.loads(states.text_content())["state"]
    found = []
    for view in page.locator(f"script[type='application/vnd.{VIEW}']").all():
        model = state[json.loads(view.text_content())["model_id"]]["state"]
        for child in model.get("children", []):
            inner = state[child.removeprefix("IPY_MODEL_")]["state"]
            if "texts" in inner:
                found.append((inner["spec"], inner["texts"]))
    return found


def test_every_slider_shows_its_table_by_keyboard(page):
    wear(page, width=1280, theme="light")
    for shown, handle, positions, texts in sweeps(page):
        handle.focus()
        page.keyboard.press("Home")
        drawings = set()
        for position, text in zip(positions, texts, strict=True):
            said, value, drawing = shown()
            assert (said, value) == (text, position)
            drawings.add(drawing)
            page.keyboard.press("ArrowRight")
        assert len(drawings) > 1, f"the drawing of {positions} never changes"


def test_every_slider_shows_its_table_by_mouse(page):
    wear(page, width=1280, theme="light")
    for shown, handle, positions, texts in sweeps(page):
        handle.scroll_into_view_if_needed()
        track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-base')]").bounding_box()
        grip = handle.bounding_box()
        y = grip["y"] + grip["height"] / 2
        page.mouse.move(grip["x"] + grip["width"] / 2, y)
        page.mouse.down()
        for i in (*range(len(positions)), 0):
            page.mouse.move(track["x"] + track["width"] * i / (len(positions) - 1), y)
            said, value, drawing = shown()
            assert (said, value) == (texts[i], positions[i])
            assert "<svg" in drawing
        page.mouse.up()


@pytest.fixture(scope="module")
def bare(browser):
    with opened(browser, PAGES[0], scripts=False) as bare:
        yield bare


def test_page_without_scripts_shows_text_figures_formulas_and_tables(bare, path, page):
    tables = stored_tables(page)
    bare.goto(path.as_uri())
    assert len(bare.locator("main").inner_text()) > 200 or name(path) == "search"
    for selector in (".bd-article math", ".bd-article .cell_output img"):
        for node in bare.locator(selector).all()[:3]:
            assert node.is_visible()
    notes = bare.locator(".cell_output noscript")
    assert notes.count() == bare.locator(f"script[type='application/vnd.{VIEW}']").count()
    for note in notes.all():
        note.scroll_into_view_if_needed()  # what lies off screen is not laid out
        expect(note).to_have_text(re.compile(r"\w"), use_inner_text=True)
    shown = notes.locator("table")
    assert shown.count() == len(tables)
    for table, (spec, texts) in zip(shown.all(), tables, strict=True):
        assert table.locator("tbody tr").count() == len(texts)
        first = table.locator("tbody td").first.text_content()
        assert first in (spec["positions"][0], texts[0])


# What a page weighs, as a server sends it: text packed with gzip, fonts and pictures as they are.
SHARED, OWN = 2_500_000, 1_500_000


def weight(path):
    content = path.read_bytes()
    text = path.suffix in (".html", ".js", ".css", ".svg", ".json", ".mjs")
    return len(gzip.compress(content, 6)) if text else len(content)


def test_page_stays_light(path):
    pictures = re.findall(r'<img[^>]* src="([^":]+)"', path.read_text("utf-8"))
    own = {(path.parent / picture).resolve() for picture in pictures}
    assert weight(path) + sum(map(weight, own)) <= OWN


def test_all_that_pages_can_share_stays_light(browser):
    addresses = {
        (path.parent / address.split("?")[0]).resolve()
        for path in PAGES
        for address in re.findall(
            r'(?:src|href)="([^":]+\.(?:js|css)(?:\?[^"]*)?)"', path.read_text("utf-8")
        )
    }
    runtime = (
        BOOK / "_static" / file.relative_to(ASSETS) for file in ASSETS.rglob("vendor/**/*.*")
    )
    used = {file for file in (*addresses, *runtime) if file.suffix in (".js", ".css", ".woff2")}
    assert sum(map(weight, used)) <= SHARED


def test_address_that_make_prints_leads_to_the_first_page(browser):
    with opened(browser, BOOK / "index.html") as page:
        page.wait_for_url("**/chapters/index.html")
        assert page.title().startswith("One Bit at a Time")


def test_pages_open_over_http(browser):
    # One page of each kind: with a widget, with a filter of its own, of text alone.
    kinds = [BOOK / f"chapters/{page}.html" for page in ("index", "claims_checked", "references")]
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = partial(quiet, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in kinds:
            address = f"http://127.0.0.1:{server.server_port}/{path.relative_to(BOOK).as_posix()}"
            with opened(browser, address) as page:
                settle(page)
        server.shutdown()
