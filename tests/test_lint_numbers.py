"""Every number in the prose has a source, and the linter that holds it so has no holes."""

import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("lint_numbers", ROOT / "tools" / "lint_numbers.py")
lint = sys.modules["lint_numbers"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)

PAGES = lint.pages_of(ROOT / "chapters")
BC = "{cite:p}`courbariaux2015binaryconnect`"
XNOR = "{cite:t}`rastegari2016xnornet`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_number_in_the_prose_has_a_source(path):
    problems = lint.check(path)
    assert not problems, "\n".join(map(str, problems))


def test_the_chapters_are_among_the_pages_read():
    assert {"01_binaryconnect", "02_binarynet", "index"} <= {page.stem for page in PAGES}


@pytest.fixture
def unsourced(tmp_path):
    """Give the numbers of a page or notebook that the linter finds without a source."""

    def find(markdown, *outputs, tags=(), name="page.ipynb"):
        cell = new_code_cell("x", outputs=list(outputs), execution_count=1)
        cell.metadata["tags"] = list(tags)
        nbformat.write(new_notebook(cells=[cell, new_markdown_cell(markdown)]), tmp_path / name)
        return [problem.number.written for problem in lint.check(tmp_path / name)]

    return find


def printed(text):
    return new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize(
    "claim, written",
    [
        ("a decimal 0.5 stands", "0.5"),
        ("a percentage of 42 % stands", "42 %"),
        ("a percentage of 42% stands", "42%"),
        ("a percentage of 42 percent", "42 percent"),
        ("it lost 14 points there", "14 points"),
        ("it is 58× as fast", "58×"),
        ("it is 58 × as fast", "58 ×"),
        ("it is 58x as fast", "58x"),
        ("a ×58 speed-up", "58"),
        ("it is 23-fold", "23-fold"),
        ("it is 7 times faster", "7 times"),
        ("it takes 60 s", "60 s"),
        ("it takes 45 minutes", "45 minutes"),
        ("it takes 3 MB", "3 MB"),
        ("it takes 10 pJ", "10 pJ"),
        ("at 45 nm", "45 nm"),
        ("a model of 3B parameters", "3B"),
        ("a model of 30 billion parameters", "30 billion"),
        ("at 333 tokens/s", "333 tokens/s"),
        ("there are 1000 of them", "1000"),
        ("there are 60\N{THIN SPACE}000 of them", "60\N{THIN SPACE}000"),
        ("there are 60\N{NARROW NO-BREAK SPACE}000 of them", "60\N{NARROW NO-BREAK SPACE}000"),
        ("there are 60,000 of them", "60,000"),
        ("there are 60 000 of them", "60 000"),
        ("learning rate 1e-3 there", "1e-3"),
        ("about 1.67×10⁸ operations", "1.67"),
        ("**1.30 %**", "1.30 %"),
        ("error (1.30)", "1.30"),
        ("loss −0.25 or", "0.25"),
        ("in a list\n\n- of 2.5\n", "2.5"),
        ("| a |\n|---|\n| 2.5 |\n", "2.5"),
        ("```{note}\n:class: x\nIt is 2.5.\n```", "2.5"),
        (":::{margin} Title\nIt is 2.5.\n:::", "2.5"),
        ("````{note}\n```{tip}\nIt is 2.5.\n```\n````", "2.5"),
        ("```{list-table} Title\n* - 2.5\n```", "2.5"),
        ("```{figure} a.svg\n:alt: x\n\nIt is 2.5.\n```", "2.5"),
        ("> quoted 2.5", "2.5"),
        ("term\n: means 2.5", "2.5"),
        ("[see 2.5](#there)", "2.5"),
        ("![2.5 curves](a.svg)", "2.5"),
        ("<p>and 2.5</p>", "2.5"),
        ("words[^1]\n\n[^1]: noted 2.5 times", "2.5"),
    ],
)
def test_a_number_needs_a_source_and_a_stored_output_is_one(unsourced, claim, written):
    assert unsourced(claim) == [written]
    plain = written.replace("\N{THIN SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")
    as_printed = {"7 times": "7×", "58": "×58"}.get(written, plain)
    assert unsourced(claim, printed(f"so {as_printed} it is\n")) == []


@pytest.mark.parametrize(
    "text",
    [
        "# 2.5 in a heading", "Setext 2.5\n===", "`2.5`", "```python\n2.5\n```", "$\\alpha = 2.5$",
        "$$2.5$$", "```{math}\n2.5\n```", "```{code-block} python\n2.5\n```", "<!-- 2.5 -->",
        "\\begin{align}2.5\\end{align}", "[link](page-2.5.html)", "<https://x.org/2.5>",
        "```{figure} a-2.5.svg\n:alt: 2.5\n:width: 2.5\n```", "```{note} Title 2.5\n```",
        "{ref}`sec-2.5`", f"{BC}", "{cite}`x2.5`", "---\ntitle: 2.5\n---\n",
        "```{toctree}\n2.5\n```",
        # small counts, names, places, versions, products
        "8 bits, 3 epochs, 512 kernels, 64 elements, 8 bytes, 999 images", "b1.58 and 2B4T",
        "ResNet-18, AVX-512, W1.58A8, int8", "Section 2.6, Sections 2.5 and 2.6, §4.1",
        "Table 2, Eqs. 2–3, Fig. 4a, Tables 1 and 2", "Python 3.11 to 3.13, torch ≥ 2.6, 3.11.7",
        "arXiv:1511.00363, arXiv 1602.02830v3", "CC BY 4.0", "28 × 28, 3×3, (2) × 7 and n×3",
        "on 2026-01-31", "the 1st of 2nd", "10 times in a row", "K times M", "0s and ±1s",
        # years
        "In 2015", "(2015)", "(Hubara et al., 2016)", "NIPS 2016, ECCV 2018", "since 2016.",
        "2015–2016", "from 2016 to 2022", "2016: BinaryNet", "Done. 2017 was quiet", "the 1990s",
        "| 2016 |\n|---|\n| 2017 |\n", "Hinton's 2012 course", "January 2026",
    ],
)  # fmt: skip
def test_what_needs_no_source(unsourced, text):
    assert unsourced(text) == []


@pytest.mark.parametrize(
    "text", ["2 048 units", "2048 units", "of 2000 images", "about 2016 times", "2,016 it is",
             "in 2015 steps", "takes 2020 ms", "holds 1 990 of them"],
)  # fmt: skip
def test_a_count_is_not_taken_for_a_year(unsourced, text):
    assert len(unsourced(text)) == 1


def test_a_number_has_to_stand_in_the_output_digit_for_digit(unsourced):
    assert unsourced("error 2.3", printed("2.30")) == ["2.3"]
    assert unsourced("error 2.30", printed("2.3")) == ["2.30"]
    assert unsourced("error 2.3", printed("12.3 and 2.31 and 2.3.1 and v2.3")) == ["2.3"]
    assert unsourced("error 2.3", printed("[1., 2.3, 4.]")) == []
    assert unsourced("60 000 digits", printed("torch.Size([60000, 28, 28])")) == []
    assert unsourced("1 200 of them", printed("1 2001")) == ["1 200"]


def test_a_small_integer_has_to_stand_there_with_its_unit(unsourced):
    assert unsourced("42 % of them", printed("42 of them")) == ["42 %"]
    assert unsourced("42 % of them", printed("42%")) == []
    assert unsourced("42 % of them", printed("42×")) == ["42 %"]
    assert unsourced("32 times smaller, 32×", printed("32.0x")) == ["32 times", "32×"]
    assert unsourced("32 times smaller, 32×", printed("32x")) == []


def test_a_range_shares_its_unit(unsourced):
    assert unsourced("10–20 %") == ["10", "20 %"]
    assert unsourced("10 to 20 %", printed("10 %, 20 %")) == []
    assert unsourced("8 to 20 images") == []


@pytest.mark.parametrize(
    "output",
    [
        new_output("execute_result", {"text/plain": "2.5"}, execution_count=1),
        new_output("display_data", {"text/html": "<table><td>2.5</td></table>"}),
        new_output("display_data", {"text/markdown": "**2.5**"}),
    ],
)
def test_results_and_displays_are_sources(unsourced, output):
    assert unsourced("2.5", output) == []


@pytest.mark.parametrize(
    "output",
    [
        new_output("display_data", {"text/html": "<p><svg><text>2.5</text></svg></p>"}),
        new_output("display_data", {"text/html": "<p data-x='2.5'><!-- 2.5 --></p>"}),
        new_output("display_data", {"text/html": "<figure>2.5</figure>", "text/plain": "2.5"}),
        new_output("error", ename="E", evalue="2.5", traceback=["2.5"]),
        new_output("stream", name="stderr", text="2.5"),
    ],
)
def test_drawings_figures_and_errors_are_not(unsourced, output):
    assert unsourced("2.5", output) == ["2.5"]


def test_a_cell_that_times_is_not_a_source(unsourced):
    assert unsourced("2.5 s", printed("2.5 s"), tags=["timing", "nbval-ignore-output"]) == ["2.5 s"]


def test_the_ledger_is_a_source_where_its_paper_is_cited_in_the_same_paragraph(unsourced):
    assert unsourced("It reported 1.29 ± 0.08 %.") == ["1.29", "0.08 %"]
    assert unsourced(f"It reported 1.29 ± 0.08 % {BC}.") == []
    assert unsourced(f"It reported 1.29 % {XNOR}.") == ["1.29 %"]
    assert unsourced(f"{BC} reported.\n\nIt was 1.29 %.") == ["1.29 %"]
    assert unsourced(f"- {BC}\n- 1.29 %") == ["1.29 %"]
    assert unsourced(f"| {BC} | 1.29 % |\n|---|---|\n| 1.18 | 9.90 |") == []
    assert unsourced(f":::{{list-table}} From {BC}\n* - 1.29 %\n:::") == []
    assert unsourced(f"It reported 1.28 % {BC}.") == ["1.28 %"]
    assert unsourced("58× {cite}`courbariaux2015binaryconnect, rastegari2016xnornet`") == []
    assert unsourced("`{cite}courbariaux2015binaryconnect` 1.29 %") == ["1.29 %"]


def test_a_small_quoted_integer_needs_the_unit_that_the_ledger_gives(unsourced):
    assert unsourced(f"58× {XNOR}") == []
    assert unsourced(f"58 times faster {XNOR}") == []
    assert unsourced(f"58 % {XNOR}") == ["58 %"]


def test_a_second_hand_figure_may_cite_the_text_that_quotes_it(unsourced):
    assert unsourced("3.7 pJ {cite:p}`horowitz2014energy`") == []
    assert unsourced("3.7 pJ {cite:p}`hubara2016bnn`") == []
    assert unsourced(f"3.7 pJ {BC}") == ["3.7 pJ"]


def test_a_page_may_quote_the_notebook_that_the_paragraph_links_to(unsourced, tmp_path):
    unsourced("x", printed("2.5"), name="01_other.ipynb")
    for link in ("[there](01_other.ipynb)", "[there](01_other.ipynb#cell)", "{doc}`01_other`",
                 "{doc}`there <01_other>`"):  # fmt: skip
        page = tmp_path / "index.md"
        page.write_text(f"We measured 2.5 {link}.\n\nAnd 2.5 again.\n")
        problems = lint.check(page)
        assert [p.number.written for p in problems] == ["2.5"], link


def test_a_markdown_page_is_read_too(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"---\nx: 1.5\n---\n# T 1.5\n\nIt is 1.29 % {BC}. It is 1.5.\n")
    assert [p.number.written for p in lint.check(page)] == ["1.5"]


def test_a_problem_names_page_cell_number_and_cure(tmp_path, capsys, monkeypatch):
    path = tmp_path / "page.ipynb"
    cells = [new_markdown_cell("# T"), new_markdown_cell("35.4 % and 99.125 and 43 %")]
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.setattr("sys.argv", ["lint_numbers.py", str(path)])
    assert lint.main() == 1
    quoted, computed, with_unit = capsys.readouterr().out.splitlines()
    assert quoted.startswith(f"{path}, cell 1: '35.4 %' has no source.")
    assert "{cite}`rastegari2016xnornet` for xnor.table1.top1.bc" in quoted
    assert "'99.125'" in computed and "Print it in a cell" in computed and "ledger" in computed
    assert "Print it with its unit" in with_unit
    nbformat.write(new_notebook(cells=cells[:1]), path)
    assert lint.main() == 0 and capsys.readouterr().out == ""
