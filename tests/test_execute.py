"""Running a notebook stores the same bytes twice, and nothing of a run that went wrong."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TOOLS = Path(__file__).parents[1] / "tools"
spec = importlib.util.spec_from_file_location("execute", TOOLS / "execute.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

STATE, VIEW = tool.WIDGET_STATE, tool.WIDGET_VIEW


def write(path, *sources, tags=()):
    cells = [new_markdown_cell("# Title")]
    cells += [new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_a_second_run_changes_not_a_byte(tmp_path):
    path = write(
        tmp_path / "widgets.ipynb",
        "import anywidget, ipywidgets, os, sys, threading, traitlets",
        "class Drawing(anywidget.AnyWidget):\n"
        "    _esm = 'export default {render() {}}'\n"
        "    index = traitlets.Int().tag(sync=True)\n"
        "unseen = ipywidgets.IntText()",
        "slider, drawing = ipywidgets.IntSlider(max=2), Drawing()\n"
        "link = ipywidgets.jslink((slider, 'value'), (drawing, 'index'))\n"
        "ipywidgets.VBox([slider, drawing])",
        "display(ipywidgets.IntSlider(), Drawing())",
        "for i in range(3):\n    print(i, flush=True)",
        "{name for name in 'abcdefgh'}, hash('a'), object()",
        "os.environ['TQDM_DISABLE'], os.environ.get('OMP_NUM_THREADS')",
        "x = 1",
        "x = 1",
    )
    assert tool.execute(path)
    first = path.read_bytes()
    assert not tool.execute(path)
    assert path.read_bytes() == first and first.endswith(b"}\n")

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, 10))
    assert "'1', None" in code[6].outputs[0].data["text/plain"]
    assert set(notebook.metadata) == {"kernelspec", "language_info", "widgets"}
    models = notebook.metadata.widgets[STATE].state
    names = [models[i].model_name for i in sorted(models)]
    assert names.count("IntSliderModel") == 2 and names.count("AnyModel") == 2
    assert "LinkModel" in names and "IntTextModel" not in names
    shown = [
        out.data[VIEW].model_id for c in code for out in c.outputs if VIEW in out.get("data", {})
    ]
    assert len(shown) == 3 and shown[0] == f"{1:032x}" and set(shown) <= set(models)


@pytest.mark.slow
@pytest.mark.parametrize(
    "source, says",
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys\nprint('careful', file=sys.stderr)", "careful"),
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),
    ],
)
def test_a_run_that_goes_wrong_is_not_stored_and_shows_the_cell(tmp_path, capsys, source, says):
    path = write(tmp_path / "wrong.ipynb", source)
    before = path.read_bytes()
    with pytest.raises(tool.Failed) as failure:
        tool.execute(path)
    assert source in str(failure.value) and says in str(failure.value)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_command_tells_time_and_failure(tmp_path, capsys, monkeypatch):
    good, bad = write(tmp_path / "good.ipynb", "1"), write(tmp_path / "bad.ipynb", "raise KeyError")
    monkeypatch.setattr("sys.argv", ["execute.py", str(bad), str(good)])
    assert tool.main() == 1
    told = capsys.readouterr()
    assert "good.ipynb: " in told.out and " s, stored" in told.out
    assert "bad.ipynb: FAILED, not stored" in told.err and "raise KeyError" in told.err
    assert nbformat.read(good, as_version=4).cells[1].outputs


@pytest.mark.slow
def test_an_expected_exception_is_stored(tmp_path):
    path = write(tmp_path / "raises.ipynb", "1 / 0", tags=["raises-exception"])
    assert tool.execute(path)
    cell = nbformat.read(path, as_version=4).cells[1]
    assert cell.outputs[0].ename == "ZeroDivisionError" and cell.metadata.tags


def test_ids_follow_the_text_of_a_cell_and_are_unique():
    ids = list(tool.content_ids(iter(["a", "b", "a", "a"])))
    assert len(set(ids)) == 4
    assert [ids[1], ids[0]] == list(tool.content_ids(iter(["b", "a"])))


def test_metadata_of_the_machine_is_left_out_and_tags_stay():
    cell = new_code_cell(
        "1", metadata={"tags": ["timing"], "execution": {"t": "1"}, "trusted": True}
    )
    notebook = new_notebook(
        cells=[cell],
        metadata={
            "language_info": {"name": "python", "version": "3.11.7"},
            "kernelspec": {"name": "mine", "display_name": "M"},
        },
    )
    text = tool.text(tool.normalised(notebook))
    assert "3.11.7" not in text and "trusted" not in text
    assert json.loads(text)["cells"][0]["metadata"] == {"tags": ["timing"]}


def model(name, **state):
    return {"model_name": name, "model_module": "m", "model_module_version": "1", "state": state}


def test_a_link_is_kept_with_what_it_joins_and_only_then():
    view = new_output("display_data", {VIEW: {"model_id": "b" * 32}})
    models = {
        "a" * 32: model("LinkModel", source=[f"IPY_MODEL_{'b' * 32}", "x"],
                        target=[f"IPY_MODEL_{'c' * 32}", "y"]),
        "b" * 32: model("Shown"),
        "c" * 32: model("Hidden", layout=f"IPY_MODEL_{'d' * 32}"),
        "d" * 32: model("LayoutModel"),
        "e" * 32: model("Unseen"),
        "f" * 32: model("LinkModel", source=[f"IPY_MODEL_{'e' * 32}", "x"],
                        target=[f"IPY_MODEL_{'e' * 32}", "y"]),
    }  # fmt: skip
    notebook = nbformat.from_dict(
        new_notebook(
            cells=[new_code_cell("x", outputs=[view])],
            metadata={"widgets": {STATE: {"state": models}}},
        )
    )
    stored = json.loads(tool.text(tool.normalised(notebook)))["metadata"]["widgets"][STATE]["state"]
    assert [stored[f"{n:032x}"]["model_name"] for n in range(1, 5)] == [
        "Shown", "LinkModel", "Hidden", "LayoutModel"
    ]  # fmt: skip
    assert len(stored) == 4
    assert stored[f"{2:032x}"]["state"]["target"] == [f"IPY_MODEL_{3:032x}", "y"]
    assert list(stored) == sorted(stored)
