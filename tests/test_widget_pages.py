"""The widgets in a browser without a kernel: every control moves, and what it says is right."""

import json
import random
import re
from pathlib import Path

import pytest
from chromium import chromium, opened, overflow
from ipywidgets.embed import dependency_state, embed_data

from onebit.widgets import BitDot, Frames, FrameSweep, Predict, Question, Quiz, Sweep

pytestmark = pytest.mark.browser

ASSETS = Path(__file__).parents[1] / "chapters" / "assets"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Write a page with one widget on it, as the book has it, and open it."""

    def page_of(widget, **options):
        state = dependency_state([widget], drop_defaults=False)
        data = embed_data(views=[widget], state=state, drop_defaults=False)
        state = json.dumps(data["manager_state"]).replace("</", "<\\/")
        dark = options.get("theme") == "dark"
        path = tmp_path / "page.html"
        path.write_text(
            f"""<!DOCTYPE html>
            <html lang="en" data-theme="{"dark" if dark else "light"}">
            <meta charset="utf-8"><meta name="viewport" content="width=device-width">
            <title>One widget</title>
            <link rel="icon" href="data:,">
            <link rel="stylesheet" href="{ASSETS.as_uri()}/course.css">
            <script defer src="{ASSETS.as_uri()}/vendor/widgets/require.js"></script>
            <script defer src="{ASSETS.as_uri()}/widgets.js"></script>
            <script type="application/vnd.jupyter.widget-state+json">{state}</script>
            <main><div class="cell_output"><script
              type="application/vnd.jupyter.widget-view+json"
              >{json.dumps(data["view_specs"][0])}</script></div></main></html>""",
            encoding="utf-8",
        )
        return opened(browser, path, **options)

    return page_of


def parabola():
    return Sweep(
        lambda a: {"error": (a - 0.8) ** 2, "floor": -0.1},
        [0.0, 0.4, 0.8, 1.2, 2.0],
        label="α",
        alt="A parabola with its minimum at 0.8.",
        marks={"α*": 0.8},
        start=0.4,
    )


def histogram():
    return Frames(
        lambda n: {"weights": ([0, 1, 2], [n, 10 - n]), "left": n},
        range(5),
        label="step",
        alt="Two bars.",
        x_label="w",
        y_label="count",
        kind="bars",
    )


def pictures():
    circle = '<?xml version="1.0"?><svg viewBox="0 0 9 9"><circle r="{}"/></svg>'
    return FrameSweep(
        [circle.format(r) for r in (1, 2, 3)],
        ["one", "two", "three"],
        label="radius",
        alt="A circle.",
    )


@pytest.mark.parametrize("make", [parabola, histogram, pictures])
def test_every_position_can_be_reached_with_the_keyboard_and_shows_its_own(show, make):
    sweep = make()
    with show(sweep) as page:
        page.locator(".ob-readout").wait_for()
        handle = page.get_by_role("slider", name=sweep.slider.description)
        handle.focus()
        page.keyboard.press("Home")
        seen = set()
        for text, position in zip(sweep.view.texts, sweep.view.spec["positions"], strict=True):
            assert page.locator(".ob-readout").text_content() == text
            assert handle.get_attribute("aria-valuetext") == position
            seen.add(page.locator(".ob-figure").inner_html())
            page.keyboard.press("ArrowRight")
        assert len(seen) == len(sweep.view.texts), "some positions look the same"


def test_marker_of_a_sweep_stands_on_its_curve_above_the_slider_s_handle(show):
    sweep = Sweep(lambda x: {"y": x}, [0, 1, 2, 3, 4], label="x", alt="A line.", start=3)
    with show(sweep) as page:
        page.locator(".ob-cursor").wait_for()
        # Read at once: a drawing that is fitted to its place is replaced by another.
        marker, handle, left, right = page.evaluate("""() => {
          const box = (selector) => document.querySelector(selector).getBoundingClientRect();
          const middle = ({ left, right }) => (left + right) / 2;
          const axis = box(".ob-axes > line:last-of-type");
          return [middle(box(".ob-cursor circle")), middle(box(".noUi-handle")), axis.left,
            axis.right];
        }""")
        assert marker == pytest.approx(handle, abs=2)
        assert marker == pytest.approx(left + (right - left) * 3 / 4, abs=1)


def test_slider_follows_the_mouse(show):
    sweep = parabola()
    with show(sweep) as page:
        page.locator(".ob-readout").wait_for()
        track = page.locator(".noUi-target").bounding_box()
        middle = track["y"] + track["height"] / 2
        start = page.locator(".noUi-handle").bounding_box()
        page.mouse.move(start["x"] + start["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(track["x"] + track["width"], middle, steps=5)
        page.mouse.up()
        assert page.locator(".ob-readout").text_content() == sweep.view.texts[-1]


def numbers(page):
    """Return what the widget says of a and b: agreements, k, dot, and every total's last number."""
    line = page.locator(".ob-readout").text_content().replace("−", "-")
    agree, k, dot = map(int, re.fullmatch(r"(\d+) of (\d+) agree · dot = (-?\d+)", line).groups())
    totals = page.locator(".ob-totals code").all_text_contents()
    return agree, k, dot, [int(total.replace("−", "-").split("= ")[1]) for total in totals]


def test_every_number_of_a_dot_product_follows_the_flips(show):
    rng = random.Random(0)
    a, b = ([rng.choice((-1, 1)) for _ in range(8)] for _ in "ab")
    with show(BitDot(8, a=a, b=b)) as page:
        for _ in range(12):
            row, i = rng.choice("ab"), rng.randrange(8)
            page.locator(f"[data-row={row}][data-i='{i}']").click()
            vector = a if row == "a" else b
            vector[i] = -vector[i]
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            agree = sum(x == y for x, y in zip(a, b, strict=True))
            assert numbers(page) == (agree, 8, dot, [dot, agree, dot])
            cells = page.locator(".ob-cell").all_text_contents()
            assert cells[:8] == [str(int(x == y)) for x, y in zip(a, b, strict=True)]
            assert cells[8:] == ["+1" if x == y else "−1" for x, y in zip(a, b, strict=True)]


def test_bits_are_flipped_with_the_keyboard_and_say_their_state(show):
    with show(BitDot(4, a=[1, 1, 1, 1], b=[1, 1, 1, 1])) as page:
        page.get_by_role("button", name="1 +1, a, element 1").focus()
        for key in ("ArrowRight", "ArrowDown", "Space"):
            page.keyboard.press(key)
        flipped = page.get_by_role("button", name="0 −1, b, element 2")
        assert flipped.get_attribute("aria-pressed") == "false"
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
            "0 −1, b, element 2"
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert numbers(page)[2] == 2
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "flip all of b"
        page.keyboard.press("Enter")
        assert numbers(page)[2] == -2
        page.get_by_role("button", name="reset").click()
        assert numbers(page)[2] == 4


@pytest.mark.parametrize(("k", "word", "bits"), [(12, 16, 16), (70, 64, 128)])
def test_padding_counted_as_agreement_is_shown_wrong_and_both_cures_right(show, k, word, bits):
    widget = BitDot(k=k, word=word)
    with show(widget) as page:
        agree, _, dot, totals = numbers(page)
        assert dot == widget.dot
        assert totals == [dot, agree + bits - k, 2 * (agree + bits - k) - bits, dot, dot]
        assert totals[2] != dot
        assert page.locator(".ob-totals li", has_text="wrong").count() == 1


QUESTIONS = [
    Question(
        "What is sign(0) here?",
        [("+1", True, "A bit has no third value."), ("0", False, "A bit cannot store <0>.")],
    ),
    Question("1 XNOR 0?", [("1", False, "They differ."), ("0", True, "They differ, so 0.")]),
]


def test_quiz_explains_every_option_and_remembers_what_was_chosen(show):
    with show(Quiz(QUESTIONS, name="trial")) as page:
        verdicts = page.locator(".ob-verdict")
        page.get_by_role("button", name="Check question 1").click()
        assert verdicts.nth(0).text_content() == "Choose an answer first."
        for i, question in enumerate(QUESTIONS):
            group = page.get_by_role("group", name=question.text)
            for text, is_right, why in question.options:
                group.get_by_role("radio", name=text, exact=True).check()
                page.get_by_role("button", name=f"Check question {i + 1}").click()
                said = verdicts.nth(i).locator("p").first.text_content()
                assert why in said
                assert said.startswith("✓ Right." if is_right else "✗ Not this one.")
        assert page.locator(".ob-readout").text_content() == "1 of 2 right"
        page.reload()
        page.locator(".ob-verdict b").first.wait_for()
        assert page.locator(".ob-readout").text_content() == "1 of 2 right"
        assert page.get_by_role("radio", checked=True).count() == 2
        page.get_by_role("button", name="Start again").click()
        assert page.get_by_role("radio", checked=True).count() == 0
        assert page.locator(".ob-readout").text_content() == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda: BitDot(8),
        lambda: Quiz(QUESTIONS, name="keys"),
        lambda: Predict("How many?", 3, low=0, high=9, step=1),
    ],
    ids=["bits", "quiz", "predict"],
)
def test_keys_pressed_in_a_widget_are_not_taken_by_the_notebook_around_it(show, make):
    with show(make()) as page:
        page.locator(".ob").first.wait_for()
        page.evaluate("taken = 0; document.addEventListener('keydown', () => { taken += 1 })")
        page.locator("[data-lm-suppress-shortcuts] :is(input, button)").first.focus()
        for key in ("ArrowDown", "Space", "ArrowUp"):
            page.keyboard.press(key)
        assert page.evaluate("taken") == 0, "JupyterLab would move between cells on an arrow key"


def test_prediction_hides_the_answer_until_it_is_locked_in(show):
    predict = Predict(
        "Accuracy?", 96.7, low=0, high=100, step=0.1, unit="%", reveal="Most guess lower."
    )
    with show(predict) as page:
        slider = page.get_by_role("slider", name="Accuracy?")
        slider.focus()
        assert slider.get_attribute("aria-valuetext") == "50.0 %"
        page.keyboard.press("ArrowRight")
        assert "96.7" not in page.locator("main").inner_text()
        page.get_by_role("button", name="Lock in my prediction").click()
        said = page.get_by_role("status").text_content()
        assert (
            "You predicted 50.1 %; computed: 96.7 %. Gap: 46.6 percentage points, too low." in said
        )
        assert "Most guess lower." in said
        assert slider.is_disabled()
        page.reload()
        page.get_by_text("You predicted").wait_for()
        page.get_by_role("button", name="Predict again").click()
        assert page.get_by_role("status").text_content() == ""
        assert slider.get_attribute("aria-valuetext") == "50.0 %"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "make",
    [
        parabola,
        histogram,
        pictures,
        lambda: BitDot(k=70, word=64),
        lambda: Quiz(QUESTIONS, name="narrow"),
        lambda: Predict("How many?", 3, low=0, high=9, step=1),
    ],
    ids=["sweep", "frames", "figures", "bits", "quiz", "predict"],
)
def test_widgets_fit_a_phone_and_are_readable_in_both_themes(show, make, theme):
    with show(make(), width=360, theme=theme) as page:
        page.locator(".ob").first.wait_for()
        assert overflow(page) == 0
        found = contrasts(page.locator(".ob :is(p, legend, label, li)"), theme)
        assert found
        for text, ratio in found:
            assert ratio >= 4.5, f"contrast {ratio:.2f}: {text}"


def contrasts(texts, theme):
    """Return each text with the contrast of its ink on the page's paper."""
    return texts.evaluate_all(CONTRASTS, "#16191e" if theme == "dark" else "#fdfcf9")


CONTRASTS = """(nodes, paper) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  return nodes.map((node) => {
    const [ink, back] = [light(getComputedStyle(node).color), light(paper)];
    return [node.textContent, Math.max(ink, back) / Math.min(ink, back)];
  });
}"""
