"""Strict means strict: one changed digit in a stored output makes nbval fail."""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams, get_sanitize_patterns

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
RULES = get_sanitize_patterns((ROOT / "tests" / "nbval_sanitize.cfg").read_text())
NOT_COMPARED_TAGS = ["timing", "nbval-ignore-output"]


@pytest.fixture
def cells_of(request, monkeypatch):
    """Give what nbval makes of a notebook: its cells, with nbval's own comparison."""
    monkeypatch.setattr(IPyNbCell, "format_output_compare", lambda *_: None)  # only a report

    def collect(path: Path) -> list[IPyNbCell]:
        file = IPyNbFile.from_parent(request.session, path=path)
        file.setup_sanitize_files()
        assert len(file.sanitize_patterns) == len(RULES)
        return list(file.collect())

    return collect


def texts(outputs: list) -> Iterator[tuple[dict, str]]:
    """Yield every text of a cell's outputs as (where it stands, under which key)."""
    for output in outputs:
        for key in ("text", "evalue"):
            if key in output:
                yield output, key
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/") and isinstance(content, str):
                yield output["data"], kind


def compared_digits(text: str) -> list[int]:
    """Give the places of the digits that no rule of the sanitizer covers."""
    covered = [m.span() for regex, _ in RULES for m in re.finditer(regex, text)]
    return [
        m.start()
        for m in re.finditer(r"\d", text)
        if not any(start <= m.start() < end for start, end in covered)
    ]


def unnoticed(cell: IPyNbCell) -> list[str]:
    """Change each digit of a cell's outputs in turn; tell the changes that nbval lets pass."""
    stored = coalesce_streams(copy.deepcopy(cell.cell.outputs))
    assert cell.compare_outputs(copy.deepcopy(stored), stored), "a cell must agree with itself"
    passed = []
    for place, (holder, key) in enumerate(texts(stored)):
        text = holder[key]
        for at in compared_digits(text):
            changed = copy.deepcopy(stored)
            other, _ = list(texts(changed))[place]
            other[key] = f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"
            if cell.compare_outputs(stored, changed):
                passed.append(f"{key}: {text[max(0, at - 20) : at + 20]!r}")
    return passed


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_changing_any_digit_of_a_chapters_output_fails(path, cells_of):
    checked = 0
    for cell in cells_of(path):
        if "timing" in cell.cell.metadata.get("tags", ()):
            continue
        assert cell.options["check"] and not cell.options["skip"]
        assert not unnoticed(cell)
        checked += sum(len(compared_digits(h[k])) for h, k in texts(cell.cell.outputs))
    assert checked, f"{path.name} stores no digit, so there is nothing to compare"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_only_timing_cells_of_a_chapter_are_not_compared(path, cells_of):
    for cell in cells_of(path):
        tags = cell.cell.metadata.get("tags", [])
        assert ("nbval-ignore-output" in tags) == ("timing" in tags)
        assert cell.options["check"] == ("timing" not in tags)
        assert not cell.options["skip"]


OUTPUTS = {
    "printed": new_output(
        "stream", name="stdout", text="error 2.31 % after 3 epochs\n32x, 0.5 s\n"
    ),
    "printed twice": new_output("stream", name="stdout", text="0x00000000000000ff\n2026-01-31"),
    "result": new_output("execute_result", {"text/plain": "tensor([1., -1.])"}, execution_count=1),
    "html": new_output(
        "display_data",
        {
            "text/html": '<figure aria-label="12 bars"><svg width="1"><path d="M 1 2"/></svg>'
            "<figcaption>Error 2.31 %</figcaption></figure><svg>\n3</svg><p>4</p>",
            "text/plain": "<Figure of 12 bars at 0x7f12ab>, torch 2.13.0+cpu, 7",
            "text/latex": "$x^2$",
            "text/markdown": "**5**",
        },
    ),
    "error": new_output(
        "error", ename="ValueError", evalue="k is 70, want 64", traceback=["In[3]"]
    ),
}


@pytest.mark.parametrize("names", [[name] for name in OUTPUTS] + [list(OUTPUTS)], ids="+".join)
def test_changing_any_digit_of_any_kind_of_output_fails(tmp_path, cells_of, names):
    outputs = [OUTPUTS[name] for name in names]
    cell = new_code_cell("x", outputs=outputs, execution_count=1)
    path = tmp_path / "kinds.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    (collected,) = cells_of(path)
    assert sum(len(compared_digits(h[k])) for h, k in texts(outputs)) > 0
    assert not unnoticed(collected)


def test_the_mutations_would_be_noticed_if_the_comparison_were_lax(tmp_path, cells_of):
    """With a rule that hides decimals, as durations tempt one to write, the proof must fail."""
    cell = new_code_cell("x", outputs=[OUTPUTS["printed"]], execution_count=1)
    path = tmp_path / "lax.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    (collected,) = cells_of(path)
    collected.parent.sanitize_patterns[r"\d+\.\d+"] = "NUMBER"
    assert len(unnoticed(collected)) == len("231" + "05")


@pytest.mark.parametrize(
    "before, after",
    [
        ("<function f at 0x7f3ce4>", "<function f at ADDRESS>"),
        ("&lt;V object at 0x0&gt;", "&lt;V object at ADDRESS&gt;"),
        ("/tmp/ipykernel_12/3456.py:1: x", "CELL:1: x"),
        ("torch 2.13.0+cpu and Python 3.11.7", "torch VERSION and Python VERSION"),
        ('<div><svg viewBox="0 0 1 1"><text>5</text></svg>6</div>', "<div>DRAWING6</div>"),
        ("<svg>1</svg>2<svg>3</svg>", "DRAWING2DRAWING"),
    ],
)
def test_what_the_sanitizer_hides(before, after):
    for regex, replace in RULES:
        before = re.sub(regex, replace, before)
    assert before == after


@pytest.mark.parametrize(
    "result",
    ["1.5 s", "32x", "58×", "2.31 %", "0xff00", "word 0 at 0xff00", "1e-5", "60 000", "torch 2 s",
     "Python 3.14 times faster", "0.9000", "numpy 0.25 ms", "10 MB", "loss 0.693", "2026-11-22"],
)  # fmt: skip
def test_what_the_sanitizer_must_not_hide(result):
    for regex, replace in RULES:
        assert re.sub(regex, replace, result) == result


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Run pytest on one notebook with the project's own settings."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_whole_run_passes_as_stored_and_fails_with_one_digit_changed(tmp_path):
    cells = [
        new_code_cell("x = 6 * 7\nx", execution_count=1, outputs=[
            new_output("execute_result", {"text/plain": "42"}, execution_count=1)]),
        new_code_cell("import time\ntime.time()", execution_count=2, outputs=[
            new_output("execute_result", {"text/plain": "0"}, execution_count=2)],
            metadata={"tags": NOT_COMPARED_TAGS}),
    ]  # fmt: skip
    path = tmp_path / "copy.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    good = nbval(path)
    assert good.returncode == 0 and "2 passed" in good.stdout, good.stdout + good.stderr
    path.write_text(path.read_text().replace('"42"', '"43"'))
    bad = nbval(path)
    assert bad.returncode == 1 and "1 failed, 1 passed" in bad.stdout, bad.stdout + bad.stderr
