"""The widgets' Python side: what they store, what they refuse, and how a notebook keeps them."""

import json
import re

import numpy as np
import pytest
import torch

from onebit.widgets import BitDot, Frames, FrameSweep, Predict, Question, Quiz, Sweep


def sweep(f=lambda a: {"error": a * a}, values=(0, 1, 2), **options):
    return Sweep(f, values, **{"label": "α", "alt": "A parabola."} | options)


def frames(f=lambda n: {"w": ([0, 1], [n, n])}, values=(1, 2), **options):
    given = {"label": "n", "alt": "A line.", "x_label": "x", "y_label": "y"} | options
    return Frames(f, values, **given)


def question(options=(("yes", True, "It is."), ("no", False, "It is not."))):
    return Question("Is it?", options)


WIDGETS = [
    sweep,
    frames,
    lambda: FrameSweep(["<svg></svg>"] * 2, ["a", "b"], label="step", alt="Nothing."),
    BitDot,
    lambda: Quiz([question()], name="one"),
    lambda: Predict("How many?", 3, low=0, high=9, step=1),
]
NAMES = ["Sweep", "Frames", "FrameSweep", "BitDot", "Quiz", "Predict"]


def test_table_holds_what_f_gives_at_every_position():
    values = np.linspace(-2, 2, 41)
    made = sweep(lambda a: {"square": a**2, "index": 7, "tensor": torch.tensor(a)}, values)
    assert len(made.table) == 41
    for value, row in zip(values, made.table, strict=True):
        assert row == {
            "square": float(f"{value**2:.6g}"),
            "index": 7,
            "tensor": float(f"{torch.tensor(value).item():.6g}"),
        }
    made.verify()


def test_drawn_curves_are_the_table():
    made = sweep(lambda a: {"a": a, "b": -a}, (0, 1, 3), curves=["b"])
    assert made.view.spec["series_data"] == [{"x": [0, 1, 3], "y": [0, -1, -3]}]
    assert made.view.spec["series"] == [{"name": "b", "kind": "curve"}]


def test_verify_notices_a_function_that_gives_something_else():
    calls = []
    made = sweep(lambda a: {"n": calls.append(a) or len(calls)})
    with pytest.raises(AssertionError, match=r"at 0 the table holds \{'n': 1\}, but f gives"):
        made.verify()


def test_readout_is_formatted_for_every_position_with_true_minus_signs():
    made = sweep(values=(-1.0, 0.5), readout="α = {value:.1f} · error {error:.2f} (XNOR-Net)")
    assert made.view.texts == [
        "α = −1.0 · error 1.00 (XNOR-Net)",
        "α = 0.5 · error 0.25 (XNOR-Net)",
    ]
    assert sweep(values=(-1, 1)).view.texts[0] == "α = −1 · error 1"
    assert sweep(readout=lambda row: f"{row['value']}!").view.texts == ["0!", "1!", "2!"]


def test_slider_and_view_start_together_and_are_linked_in_the_browser():
    made = sweep(start=2)
    assert (made.slider.value, made.slider.max, made.view.index) == (2, 2, 2)
    assert made.link.source == (made.slider, "value")
    assert made.link.target == (made.view, "index")


def test_bars_take_edges_and_start_at_zero():
    counts, edges = np.histogram([1.0, 1.5, 4.0], bins=3)
    made = frames(lambda n: {"w": (edges, counts + n)}, kind="bars")
    assert made.table[0]["w"] == [edges.tolist(), (counts + 1).tolist()]
    assert made.view.spec["y_range"][0] <= 0


def test_axes_hold_every_frame_and_every_mark():
    spec = frames(lambda n: {"w": ([0, n], [0, n * n])}, (1, 5), levels={"top": 30}).view.spec
    assert spec["x_range"][0] <= 0 and spec["x_range"][1] >= 5
    assert spec["y_range"][1] >= 30
    assert sweep(y_range=(-1, 9)).view.spec["y_range"] == [-1, 9]


def test_figures_lose_their_xml_declaration():
    made = FrameSweep(
        ['<?xml version="1.0"?>\n<svg id="1"/>', "<svg/>"], ["a", "b"], label="l", alt="t"
    )
    assert made.view.spec["drawings"] == ['<svg id="1"/>', "<svg/>"]
    assert made.view.texts == ["l = a", "l = b"]


def test_figure_where_the_slider_starts_is_seen_without_scripts():
    made = FrameSweep(
        ["<svg id='1'/>", "<svg id='2'/>"], ["a", "b"], label="step", alt="Dots.", start=1
    )
    text = made.without_script()
    assert "<svg id='2'/>" in text and "<svg id='1'/>" not in text
    assert text.index("<p>step = b</p>") < text.index("<p>Dots.") < text.index("<table>")


def test_drawing_where_the_slider_starts_is_seen_without_scripts():
    def at(n):
        return {"line a": ([1, 10], [n, 9]), "bars b": ([1, 2, 10], [n, 2]), "dots c": ([2], [n])}

    made = Frames(
        at, [3, 5], label="n", alt="Lines.", x_label="x axis", y_label="y axis", start=5,
        kind={"line a": "steps", "bars b": "bars", "dots c": "points"}, log_x=True,
        marks={"here": 4}, levels={"zero": 0},
    )  # fmt: skip
    text = made.without_script()
    assert text.index("<svg") < text.index("<p>n = 5</p>") < text.index("<p>Lines.")
    for told in ("line a", "bars b", "dots c", "x axis", "y axis", "here", "zero"):
        assert f">{told}</text>" in text
    made.view.index = 0
    before = text[text.index("<svg") : text.index("</svg>")]
    assert before not in made.without_script()  # it is drawn from the position's own data


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sweep(lambda a: {"e": float("nan")}), ValueError, r"f\(0\)\['e'\] is nan"),
        (lambda: sweep(lambda a: {"e": "x"}), TypeError, "must be a number, got str"),
        (lambda: sweep(lambda a: 3), TypeError, "must be a dict"),
        (lambda: sweep(lambda a: {f"e{a}": 1}), ValueError, r"f\(1\) names \['e1'\]"),
        (
            lambda: sweep(lambda a: {"e": (1, 2)}),
            TypeError,
            "x must be a sequence of numbers, got int",
        ),
        (lambda: sweep(lambda a: {"e": ([1], [2])}), TypeError, "use Frames"),
        (lambda: sweep(values=[1]), ValueError, "two positions at least, got 1"),
        (lambda: sweep(values=[2, 1]), ValueError, "must ascend"),
        (lambda: sweep(lambda a: {"e": 1}, "ab"), TypeError, r"values\[0\] must be a number"),
        (lambda: sweep(start=7), ValueError, "start must be one of the values"),
        (lambda: sweep(curves=["e"]), ValueError, "curves names 'e', but f returns"),
        (lambda: sweep(lambda a: dict.fromkeys("abcde", a)), ValueError, "1 to 4 curves"),
        (lambda: sweep(log_y=True), ValueError, "numbers above 0, got 0"),
        (lambda: sweep(y_range=(1, 1)), ValueError, "low < high"),
        (lambda: sweep(label=""), ValueError, "label is empty"),
        (lambda: sweep(alt=" "), ValueError, "alt is empty"),
        (lambda: sweep(alt=None), TypeError, "alt must be a string, got NoneType"),
        (lambda: sweep(values=range(40_000)), ValueError, "sweep fewer positions"),
        (lambda: frames(kind="pie"), ValueError, "kind of 'w' must be one of"),
        (lambda: frames(kind="bars"), ValueError, "bars with 2 y need 3 x, got 2"),
        (lambda: frames(lambda n: {"n": n}), ValueError, "1 to 4 drawings"),
        (lambda: frames(lambda n: {"w": ([1], [])}), ValueError, "line with 0 y need 0 x, got 1"),
        (lambda: FrameSweep(["<svg/>"], ["a"], label="l", alt="t"), ValueError, "two or more"),
        (
            lambda: FrameSweep(["<svg/>"] * 2, "ab", label="l", alt="t", start=2),
            ValueError,
            "start must be from 0 to 1",
        ),
        (lambda: BitDot(0), ValueError, "k must be an integer from 1 to 128, got 0"),
        (lambda: BitDot(2, a=[1, 0]), ValueError, r"\+1 and −1 only, got 0"),
        (lambda: BitDot(2, b=[1, 1, 1]), ValueError, "b has 3 elements, but k = 2"),
        (lambda: BitDot(2, word=0), ValueError, "word must be"),
        (lambda: question([("a", True, "x")]), ValueError, "two options at least"),
        (lambda: question([("a", True, "x"), ("b", True, "y")]), ValueError, "exactly one option"),
        (
            lambda: question([("a", False, "x"), ("b", False, "y")]),
            ValueError,
            "exactly one option",
        ),
        (
            lambda: question([("a", True, ""), ("b", False, "y")]),
            ValueError,
            "explanation of option",
        ),
        (lambda: question([("a", True, "x"), ("a", False, "y")]), ValueError, "same text"),
        (lambda: question([("a", 1, "x"), ("b", 0, "y")]), TypeError, "is_right must be a bool"),
        (lambda: question([("a", True)]), TypeError, "must be .text, is_right, why."),
        (lambda: Quiz([], name="n"), ValueError, "questions is empty"),
        (lambda: Quiz(["Is it?"], name="n"), TypeError, "must hold Question objects"),
        (lambda: Quiz([question(), question()], name="n"), ValueError, "same text"),
        (lambda: Quiz([question()], name=""), ValueError, "name is empty"),
        (lambda: Predict("?", 10, low=0, high=9, step=1), ValueError, "outside the slider's range"),
        (lambda: Predict("?", 1, low=9, high=0, step=1), ValueError, "low < high"),
        (lambda: Predict("?", 1, low=0, high=9, step=0), ValueError, "0 < step"),
        (lambda: Predict("?", float("inf"), low=0, high=9, step=1), ValueError, "must be finite"),
        (lambda: Predict("", 1, low=0, high=9, step=1), ValueError, "question is empty"),
    ],
)
def test_bad_input_is_refused_in_words(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_dot_product_follows_the_vectors():
    pair = BitDot(3, a=torch.tensor([1.0, -1.0, 1.0]), b=np.array([1, 1, 1]))
    assert (pair.k, pair.dot, pair.bits) == (3, 1, 3)
    pair.b = [-1, -1, -1]
    assert pair.dot == -1
    assert BitDot(bits=5).k == 5
    assert (BitDot(k=70, word=64).bits, BitDot(k=64, word=64).bits) == (128, 64)


def test_prediction_shows_the_answer_with_the_decimals_of_its_step():
    assert Predict("?", 96.738, low=0, high=100, step=0.1).answer == 96.7
    assert Predict("?", 96.738, low=0, high=100, step=1).digits == 0
    assert Predict("?", 3e4, low=0, high=1e5, step=100).digits == 0


def published(widget):
    """Return the outputs that displaying the widget leaves in a notebook."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as captured:
        widget._ipython_display_()
    return [output.data for output in captured.outputs]


@pytest.mark.parametrize("make", WIDGETS, ids=NAMES)
def test_stored_text_names_the_widget_and_no_address(make):
    live, _ = published(make())
    assert live["text/plain"] == repr(make())
    assert not re.search(r"0x[0-9a-f]+| at |object", live["text/plain"])
    assert list(live) == ["text/plain", "application/vnd.jupyter.widget-view+json"]


@pytest.mark.parametrize("make", WIDGETS, ids=NAMES)
def test_page_without_scripts_gets_a_text(make):
    _, fallback = published(make())
    text = re.fullmatch("<noscript>(.+)</noscript>", fallback["text/html"], re.DOTALL).group(1)
    assert len(re.sub("<[^>]+>", "", text)) > 10


def test_questions_and_explanations_are_in_the_text_without_scripts_escaped():
    asked = question([("a < b", True, "x & y"), ("c", False, "z")])
    text = Quiz([asked], name="n").without_script()
    for part in ("Is it?", "a &lt; b", "x &amp; y", "c", "z"):
        assert part in text


@pytest.mark.parametrize("make", WIDGETS, ids=NAMES)
def test_state_is_plain_json_and_the_module_and_style_travel_with_it(make):
    widget = make()
    view = getattr(widget, "view", widget)
    state = view.get_state()
    json.dumps({key: value for key, value in state.items() if key != "layout"})
    assert state["_esm"].count("export default") == 1
    assert ".ob" in state["_css"]
    assert not re.search(r"https?://(?!www\.w3\.org/)", state["_esm"] + state["_css"])
