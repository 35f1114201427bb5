"""The first page keeps the reader's progress, pages say what they take, print light and search."""

import functools
import http.server
import json
import re
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from chromium import chromium, missing, opened, settle
from docutils import nodes
from docutils.utils import new_document

from onebit.checks.registry import exercises

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"
FIRST = BOOK / "chapters" / "index.html"
CHAPTERS = sorted((ROOT / "chapters").glob("0[1-9]_*.ipynb"))
sys.path.append(str(ROOT / "tools"))

from onebit_book import progress, reading, sharing  # noqa: E402


def prose(path):
    cells = nbformat.read(path, 4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_says_how_long_it_takes(path):
    assert 20 <= reading.minutes(prose(path)) <= 75


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("Reading takes some forty minutes.", 40),
        ("Reading takes some forty-five minutes.", 45),
        ("Reading is fun.", None),
    ],
)
def test_minutes_are_read_from_the_words(text, minutes):
    assert reading.minutes(text) == minutes


@pytest.mark.parametrize("words", ["forty-three", "ninety"])
def test_minutes_that_are_not_understood_are_refused(words):
    with pytest.raises(ValueError, match="round to five minutes"):
        reading.minutes(f"Reading takes some {words} minutes.")


@pytest.mark.parametrize(("head", "minutes"), [("minutes", 35), ("level", None)])
def test_minutes_of_an_exercise_are_the_sum_over_its_tasks(head, minutes):
    rows = [
        nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))
        for texts in (("task", head), ("first", "10"), ("second", "25"))
    ]
    group = nodes.tgroup("", nodes.thead("", rows[0]), nodes.tbody("", *rows[1:]), cols=2)
    page = new_document("page")
    page += nodes.table("", group)
    assert reading.minutes_of_tasks(page) == minutes


def test_a_number_in_bits_is_that_number():
    for number in range(256):
        cells = re.findall(r"<i( class=on)?></i>", reading.bits(number))
        assert int("".join("1" if cell else "0" for cell in cells), 2) == number


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_s_quiz_is_found_with_its_right_answers(path):
    (quiz,) = progress.quizzes(path)
    source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    assert f'name="{quiz["name"]}"' in source.replace("'", '"')
    assert len(quiz["questions"]) == source.count("Question(")
    for question in quiz["questions"]:
        assert question["right"] >= 0


def test_every_task_of_the_exercises_belongs_to_one_page():
    listed = [task["id"] for tasks in progress.tasks().values() for task in tasks]
    assert listed == [task for exercise in exercises() for task in exercise.tasks]
    numbers = {path.stem[:2] for path in CHAPTERS}
    assert set(progress.tasks()) <= numbers | {"exercise"}


def test_tags_that_need_an_address_are_there_with_one_only():
    bare = sharing.tags('A "title"', "Words & more.")
    assert 'content="A &quot;title&quot;"' in bare and "Words &amp; more." in bare
    assert "og:url" not in bare and "og:image" not in bare and "http" not in bare
    full = sharing.tags("t", "d", site="https://host/book/", page="a.html")
    assert '<meta property="og:url" content="https://host/book/a.html" />' in full
    assert '<meta property="og:image" content="https://host/book/_static/card.png" />' in full


def test_a_long_description_is_cut_between_words():
    assert sharing.shortened("two  words\n here") == "two words here"
    cut = sharing.shortened("word " * 100)
    assert len(cut) <= sharing.MOST and cut.endswith("word…")


def test_the_card_has_the_size_that_the_tags_say_and_is_light_to_send():
    card = (ROOT / "chapters/assets/card.png").read_bytes()
    assert card[:8] == b"\x89PNG\r\n\x1a\n"
    size = tuple(int.from_bytes(card[16 + 4 * i : 20 + 4 * i]) for i in range(2))
    assert size == sharing.CARD_SIZE
    assert len(card) <= 200_000


# --- in a browser


@pytest.fixture(scope="module")
def browser():
    if not FIRST.is_file():
        missing("the book is not built", "make book")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(browser):
    """Serve the book, and give the address of a page."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()


def course(page):
    return json.loads(page.locator("#course-pages").text_content())


def total(page):
    """Return what the page says in all: questions right, ticks."""
    said = page.locator(".progress-total").text_content()
    return tuple(int(n) for n in re.findall(r"(\d+) of \d+", said))


@pytest.mark.browser
def test_a_quiz_answered_in_a_chapter_counts_on_the_first_page(browser, served):
    with opened(browser, served("chapters/index.html")) as page:
        chapter = next(entry for entry in course(page) if entry["quizzes"])
        row = page.locator(".course-progress ol > li").first
        (quiz,) = chapter["quizzes"]
        wanted = len(quiz["questions"])
        assert total(page)[0] == 0
        assert f"{wanted} questions, not answered yet" in row.text_content()

        page.goto(served(f"chapters/{chapter['address']}"))
        settle(page)
        for n, question in enumerate(quiz["questions"]):
            group = page.get_by_role("group", name=question["text"])
            right = question["right"]
            # The first question gets a wrong answer.
            chosen = right if n else int(right == 0)
            group.get_by_role("radio").nth(chosen).check()
            group.get_by_role("button", name=f"check question {n + 1}").click()

        page.goto(served("chapters/index.html"))
        assert total(page)[0] == wanted - 1
        assert f"Quiz: {wanted - 1} of {wanted} right" in row.text_content()
        assert row.locator(".bits .on").count() == wanted - 1
        assert row.locator(".bits .off").count() == 1


@pytest.mark.browser
def test_exercises_are_ticked_with_the_keyboard_kept_and_forgotten_when_asked(browser, served):
    with opened(browser, served("chapters/index.html")) as page:
        entry = next(entry for entry in course(page) if entry["tasks"])
        fold = page.locator(".course-progress details").first
        name = re.compile(re.escape(entry["tasks"][0]["id"]))
        box = page.get_by_role("checkbox", name=name)
        fold.locator("summary").focus()
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
        for key in ("Enter", "Tab", "Space"):
            page.keyboard.press(key)
        assert box.is_checked() and page.evaluate(outline) == "solid"
        assert total(page)[1] == 1
        assert page.get_by_role("status").filter(has_text="In all").count() == 1
        assert f"1 of {len(entry['tasks'])} ticked" in fold.locator("summary").text_content()

        page.reload()
        assert total(page)[1] == 1
        fold.locator("summary").click()
        assert box.is_checked()

        asked = []
        answers = iter((False, True))

        def decide(dialog):
            asked.append(dialog.message)
            dialog.accept() if next(answers) else dialog.dismiss()

        page.on("dialog", decide)
        forget = page.get_by_role("button", name="Forget my progress")
        forget.click()
        assert "cannot be undone" in asked[0] and total(page)[1] == 1
        forget.focus()
        page.keyboard.press("Enter")
        assert total(page) == (0, 0) and not box.is_checked()
        assert page.locator(".progress-total").text_content().startswith("Forgotten.")
        page.reload()
        assert total(page) == (0, 0)


NO_STORAGE = """
  Object.defineProperty(window, "localStorage", {
    get() { throw new DOMException("storage is forbidden", "SecurityError"); }, configurable: true,
  });
"""


@pytest.mark.browser
def test_where_storage_is_forbidden_the_page_says_so_and_all_of_it_works(browser, served):
    with opened(browser, served("chapters/references.html")) as page:
        page.add_init_script(NO_STORAGE)
        page.goto(served("chapters/index.html"))
        settle(page)
        note = page.locator(".progress-note")
        assert "does not let this page keep anything" in note.text_content()
        page.locator(".course-progress summary").first.click()
        page.get_by_role("checkbox").first.check()
        assert total(page)[1] == 1
        page.get_by_role("button", name="flip all of b").click()
        theme = "document.documentElement.dataset.mode"
        before = page.evaluate(theme)
        page.locator(".theme-switch-button").click()
        assert page.evaluate(theme) != before


@pytest.mark.browser
def test_opened_from_disk_the_page_says_what_may_not_count(browser):
    with opened(browser, FIRST) as page:
        assert "opened from disk" in page.locator(".progress-note").text_content()
        page.locator(".course-progress summary").first.click()
        page.get_by_role("checkbox").first.check()
        assert total(page)[1] == 1


@pytest.mark.browser
def test_the_root_leads_to_the_first_page_and_it_reads_without_scripts(browser, served):
    with opened(browser, served(""), scripts=False) as page:
        page.wait_for_url("**/chapters/index.html")
        stations = page.locator(".course-map li")
        assert stations.count() == len(CHAPTERS)
        for station in stations.all():
            assert re.search(r"\d\d minutes$", station.inner_text())
        assert page.locator(".course-progress").is_visible()
        said = page.locator(".course-progress").evaluate(
            "node => getComputedStyle(node, '::after').content"
        )
        assert "needs JavaScript" in said
        assert page.get_by_role("link", name="Start with BinaryConnect").is_visible()


@pytest.mark.browser
def test_a_page_prints_light_and_without_what_can_only_be_clicked(browser):
    with opened(browser, next(BOOK.glob("chapters/01_*.html")), theme="dark") as page:
        settle(page)
        theme = "document.documentElement.dataset.theme"
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(theme) == "light"
        ink = "getComputedStyle(document.querySelector('.bd-article em')).color"
        assert max(map(int, re.findall(r"\d+", page.evaluate(ink))[:3])) < 80
        for hidden in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-area",
                       ".ob-buttons", ".noUi-target", "#jb-print-docs-body"):  # fmt: skip
            for node in page.locator(hidden).all():
                assert not node.is_visible(), hidden
        assert page.locator("h1").last.is_visible()
        for drawing in page.locator(".ob-figure").all():
            drawing.locator("svg").first.wait_for(state="attached")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(theme) == "dark"


@pytest.mark.browser
def test_printed_links_show_where_they_lead(browser):
    with opened(browser, BOOK / "chapters" / "references.html") as page:
        page.emulate_media(media="print")
        links = page.locator(".bd-article a[href^='http']").all()
        assert links
        for link in links:
            shown = link.evaluate("link => getComputedStyle(link, '::after').content")
            assert link.get_attribute("href") in shown or "attr(href)" in shown


@pytest.mark.browser
def test_search_finds_with_excerpts_when_served_and_says_why_not_from_disk(browser, served):
    with opened(browser, served("search.html?q=popcount")) as page:
        results = page.locator("#search-results li")
        results.first.wait_for()
        page.locator("#search-results li .context").first.wait_for()
        assert results.count() > 1
        assert not page.locator(".search-from-disk").is_visible()
    with opened(browser, f"{(BOOK / 'search.html').as_uri()}?q=popcount") as page:
        page.locator("#search-results li").first.wait_for()
        page.wait_for_timeout(300)
        assert "make serve" in page.locator(".search-from-disk").inner_text()


@pytest.mark.browser
def test_text_and_code_are_set_in_the_book_s_own_faces(browser):
    with opened(browser, next(BOOK.glob("chapters/01_*.html"))) as page:
        page.evaluate("document.fonts.ready.then(() => null)")
        loaded = page.evaluate(
            "[...document.fonts].filter(({ status }) => status === 'loaded').map(f => f.family)"
        )
        assert {"Plex Serif", "Plex Sans", "Plex Mono"} <= {name.strip('"') for name in loaded}


@pytest.mark.browser
def test_the_card_is_what_its_script_draws(browser, tmp_path):
    import importlib.util

    from matplotlib.image import imread

    spec = importlib.util.spec_from_file_location("card", ROOT / "tools" / "card.py")
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    width, height = sharing.CARD_SIZE
    sheet = browser.new_page(viewport={"width": width, "height": height})
    source = tmp_path / "card.html"
    source.write_text(card.page(), encoding="utf-8")
    sheet.goto(source.as_uri())
    sheet.evaluate("document.fonts.ready.then(() => null)")
    sheet.screenshot(path=tmp_path / "card.png")
    sheet.close()
    drawn, kept = (imread(path)[..., :3] for path in
                   (tmp_path / "card.png", ROOT / "chapters/assets/card.png"))  # fmt: skip
    # Another version of the browser smooths letters otherwise; another bit would change far more.
    assert (abs(drawn - kept) > 0.5).mean() < 0.002
