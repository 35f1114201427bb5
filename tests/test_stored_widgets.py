"""The widgets that the notebooks store: written by today's scripts, told without them, and true."""

import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from stored_sweeps import differences

from onebit.widgets import BitDot, KernelRace, Predict, Quiz
from onebit.widgets.sweep import MOST_OPEN, SweepView, _brief

CHAPTERS = Path(__file__).parents[1] / "chapters"
KINDS = {kind._esm: kind for kind in (BitDot, KernelRace, Predict, Quiz, SweepView)}
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def notebooks():
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        notebook = json.loads(path.read_text("utf-8"))
        models = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
        if models:
            yield pytest.param(notebook, models, id=path.stem)


STORED = list(notebooks())


@pytest.mark.parametrize(("notebook", "models"), STORED)
def test_stored_scripts_and_styles_are_those_of_the_package(notebook, models):
    drawn = [model["state"] for model in models.values() if "_esm" in model["state"]]
    assert drawn
    for state in drawn:
        known = state["_esm"] in {str(script) for script in KINDS}
        assert known and state["_css"] == SweepView._css, "a widget's script changed: make execute"


def tables(notebook, models):
    """Yield every sweep's stored view and the table that a page without scripts shows."""
    for cell in notebook["cells"]:
        outputs = [output.get("data", {}) for output in cell.get("outputs", ())]
        for live, note in pairwise(outputs):
            if VIEW not in live:
                continue
            for child in models[live[VIEW]["model_id"]]["state"].get("children", ()):
                view = models[child.removeprefix("IPY_MODEL_")]["state"]
                if "texts" in view:
                    yield view, "".join(note["text/html"])


def cells_of(html):
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(c) for c in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


@pytest.mark.parametrize(("notebook", "models"), STORED)
def test_table_without_scripts_is_the_table_that_is_drawn(notebook, models):
    for view, html in tables(notebook, models):
        spec, (heads, *rows) = view["spec"], cells_of(html)
        assert len(rows) == len(view["texts"]) == len(spec["positions"])
        assert ("<details open>" in html) == (len(rows) <= MOST_OPEN)
        if len(heads) == 1:
            assert [row[0] for row in rows] == view["texts"]
            continue
        assert heads[0] == spec["label"]
        assert [row[0] for row in rows] == spec["positions"]
        for series, data in zip(spec["series"], spec.get("series_data", ()), strict=False):
            column = heads.index(series["name"])
            assert [row[column] for row in rows] == [_brief(value) for value in data["y"]]


def test_some_sweep_is_stored():
    assert sum(len(list(tables(*param.values))) for param in STORED) > 10


@pytest.mark.parametrize("make", ["series_data", "frames"])
def test_a_run_that_computes_another_table_is_told(make):
    curve = {"x": [0, 1, 2], "y": [0.0, 0.5, 1.0]}
    spec = {
        "label": "α", "alt": "A line.", "positions": ["0", "1", "2"], "x_range": [0, 2],
        "y_range": [0, 1], "log_x": False, "log_y": False,
        make: [curve] if make == "series_data" else [[curve]] * 3,
    }  # fmt: skip
    stored = [spec, ["a", "b", "c"]]
    assert differences([stored], [stored]) == []
    assert differences([stored], []) == ["α: the run made no such sweep"]
    assert differences([stored], [[spec, ["a", "x", "c"]]]) == ["α: 'x', but stored is 'b'"]
    for change, told in ((1e-4, []), (2e-3, ["α: the drawing differs"])):
        moved = json.loads(json.dumps(spec))
        part = moved[make][0] if make == "series_data" else moved[make][0][0]
        part["y"][1] += change
        assert differences([stored], [[moved, stored[1]]]) == told
