"""Every chapter is executed, in order and without noise, and nothing in it is hidden or mute."""

import importlib.util
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
MOST_LINES = 30
# What a cell may be tagged. None hides a result, and code is folded, never left out, except where
# it only draws.
TAGS = {
    "timing", "nbval-ignore-output", "raises-exception", "hide-input", "remove-input",
    "hide-output", "scroll-output", "margin", "full-width",
}  # fmt: skip
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])(?:/(?:work|tmp|root|home|Users|var|usr|opt|mnt)/|[A-Z]:\\)"
)
NBVAL_COMMENT = re.compile(r"#\s*(?:NBVAL_|PYTEST_VALIDATE_)\w+")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def problems(notebook: NotebookNode) -> list[str]:
    """Tell all that is wrong with a notebook, each with the number of the cell.

    nbformat mends ids that are not unique on reading, so these show when the file is compared with
    what `make execute` stores.
    """
    told = [
        f"cell {n}: {problem}"
        for n, cell in enumerate(notebook.cells)
        for problem in (*problems_of_any(cell), *PROBLEMS_OF_KIND[cell.cell_type](cell))
    ]
    code = code_cells(notebook)
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        told.append(f"execution counts are {counts}, not 1 to {len(code)}: run `make execute`")
    for n, (cell, following) in enumerate(zip(code, [*code[1:], None], strict=True), start=1):
        judged = following is not None and "timing" not in tags(following)
        if "timing" in tags(cell) and not re.search(
            r"\bassert\b", f"{cell.source}\n{following.source if judged else ''}"
        ):
            told.append(f"code cell {n}: is tagged timing, but neither it nor the next asserts")
    return told


def problems_of_any(cell: NotebookNode) -> Iterator[str]:
    if not cell.source.strip():
        yield "is empty"
    if unknown := tags(cell) - TAGS:
        yield f"has the tags {sorted(unknown)}; allowed are {sorted(TAGS)}"
    if ("timing" in tags(cell)) != ("nbval-ignore-output" in tags(cell)):
        yield "timing and nbval-ignore-output go together"


def problems_of_code(cell: NotebookNode) -> Iterator[str]:
    if (lines := cell.source.count("\n") + 1) > MOST_LINES:
        yield f"has {lines} lines; at most {MOST_LINES} are read"
    if comment := NBVAL_COMMENT.search(cell.source):
        yield f"switches the comparison off in a comment: {comment[0]}"
    for output in cell.outputs:
        if output.output_type == "stream" and output.name != "stdout":
            yield f"writes to {output.name}: {output.text[:80]!r}"
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            yield f"ends in {output.ename}: {output.evalue[:80]!r}"
        for text in output_texts(output):
            if path := MACHINE_PATH.search(text):
                yield f"shows a path of this machine: {text[path.start() : path.start() + 60]!r}"
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                yield f"shows {kind} without alt text: end with onebit.figures.show(fig, alt=…)"
        yield from mute_images(output.get("data", {}).get("text/html", ""))


def problems_of_markdown(cell: NotebookNode) -> Iterator[str]:
    prose = re.sub(r"`[^`\n]+`", "", cell.source)
    for match in re.finditer(r"!\[\s*\]\([^)]*\)", prose):
        yield f"an image has no alt text: {match[0]}"
    for match in re.finditer(r"^([`:]{3,})\{(figure|image)\}(.*?)^\1", cell.source, re.M | re.S):
        if not re.search(r"^:?alt: *\S", match[3], re.M):
            yield f"a {match[2]} directive has no :alt:"
    yield from mute_images(prose)


PROBLEMS_OF_KIND = {
    "code": problems_of_code,
    "markdown": problems_of_markdown,
    "raw": lambda cell: ["is raw, so nobody reads it"],
}


def output_texts(output: NotebookNode) -> Iterator[str]:
    yield from (output[key] for key in ("text", "evalue") if key in output)
    yield from output.get("traceback", ())
    yield from (content for content in output.get("data", {}).values() if isinstance(content, str))


class MuteImages(HTMLParser):
    """Find drawings that say nothing to who does not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []  # each open element, and whether it is described
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: (value or "").strip() for name, value in attrs}
        named = bool(has.get("aria-label") or has.get("aria-labelledby"))
        described = (has.get("role") == "img" and named) or has.get("aria-hidden") == "true"
        described = described or any(inside for _, inside in self.open)
        if tag == "img" and not has.get("alt") and not described:
            self.found.append("img without alt")
        if tag == "svg" and not described:
            self.found.append('svg outside of an element with role="img" and aria-label')
        if tag not in ("img", "br", "hr", "input", "meta", "link"):
            self.open.append((tag, described))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        for place in reversed(range(len(self.open))):
            if self.open[place][0] == tag:
                del self.open[place:]
                break


def mute_images(html: str) -> Iterator[str]:
    parser = MuteImages()
    parser.feed(html)
    yield from parser.found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_executed_clean_and_described(path):
    assert not problems(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_stored_as_make_execute_stores_it(path):
    spec = importlib.util.spec_from_file_location("execute", ROOT / "tools" / "execute.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    notebook = nbformat.read(path, as_version=4)
    assert tool.text(tool.normalised(notebook)) == path.read_text(), "run `make execute`"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_begins_with_its_title(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and re.match(r"(\(\S+\)=\n+)?# \S", first.source)


def test_every_notebook_is_in_the_book_and_every_page_of_the_book_is_there():
    listed = re.findall(r"^\s*(?:- file|root):\s*(\S+)", (ROOT / "_toc.yml").read_text(), re.M)
    assert {path.stem for path in CHAPTERS} <= {Path(page).stem for page in listed}
    missing = [
        page
        for page in listed
        if not any((ROOT / f"{page}{end}").exists() for end in (".md", ".ipynb"))
    ]
    assert not missing


def a_notebook(source="1", outputs=(), tag=(), count=1, markdown="# Title", more=()):
    cell = new_code_cell(source, outputs=list(outputs), execution_count=count)
    cell.metadata["tags"] = list(tag)
    return new_notebook(cells=[new_markdown_cell(markdown), cell, *more])


def html(text):
    return [new_output("display_data", {"text/html": text, "text/plain": "x"})]


TIMING = ("timing", "nbval-ignore-output")
FIGURE = '<figure><div role="img" aria-label="A line."><svg><g></g></svg></div></figure>'
GOOD = {
    "plain": a_notebook(outputs=[new_output("stream", name="stdout", text="1/2 https://x/home/")]),
    "figure": a_notebook(outputs=html(FIGURE), tag=["remove-input"]),
    "hidden drawing": a_notebook(outputs=html('<svg aria-hidden="true"></svg><img alt="a">')),
    "expected error": a_notebook(
        outputs=[new_output("error", ename="E", evalue="v", traceback=[])], tag=["raises-exception"]
    ),
    "timing asserts": a_notebook("t = f()\nassert t < 1", tag=TIMING),
    "next asserts": a_notebook(tag=TIMING, more=[new_code_cell("assert t", execution_count=2)]),
    "alt": a_notebook(markdown="![A bit](b.svg) `![](x)`\n```{figure} a.svg\n:alt: A bit\n```"),
    "thirty lines": a_notebook("\n".join(["x = 1"] * MOST_LINES)),
}  # fmt: skip
BAD = {
    "execution counts": [a_notebook(count=None), a_notebook(count=2),
                         a_notebook(more=[new_code_cell("2", execution_count=1)])],
    "is empty": [a_notebook(source=" \n"), a_notebook(markdown="")],
    "has the tags ['remove-cell']": [a_notebook(tag=["remove-cell"])],
    "has the tags ['nbval-skip']": [a_notebook(tag=["nbval-skip"])],
    "go together": [a_notebook(tag=["timing"]), a_notebook(tag=["nbval-ignore-output"])],
    "neither it nor the next asserts": [
        a_notebook("t = f()", tag=TIMING),
        a_notebook("asserted = f()", tag=TIMING, more=[new_code_cell("2", execution_count=2)]),
        a_notebook("t = f()", tag=TIMING, more=[new_code_cell(
            "assert t", execution_count=2, metadata={"tags": list(TIMING)})]),
    ],
    "31 lines": [a_notebook("\n".join(["x = 1"] * 31))],
    "in a comment": [a_notebook("# NBVAL_IGNORE_OUTPUT\n1"), a_notebook("1\n#NBVAL_SKIP")],
    "writes to stderr": [a_notebook(outputs=[new_output("stream", name="stderr", text="1%")])],
    "ends in ValueError": [
        a_notebook(outputs=[new_output("error", ename="ValueError", evalue="v", traceback=[])])],
    "path of this machine": [
        a_notebook(outputs=[new_output("stream", name="stdout", text=text)])
        for text in ("saved to /tmp/x", "'/home/ada/x'", "C:\\Users\\ada")
    ] + [a_notebook(outputs=html("<p>(/root/x)</p>"))],
    "without alt text": [a_notebook(outputs=[new_output("display_data", {"image/png": "aGk="})])],
    "svg outside": [a_notebook(outputs=html("<svg></svg>")),
                    a_notebook(outputs=html(FIGURE + "<svg></svg>")),
                    a_notebook(outputs=html('<div role="img" aria-label=" "><svg></svg></div>'))],
    "img without alt": [a_notebook(outputs=html('<img src="a">')), a_notebook(markdown="<img>"),
                        a_notebook(outputs=html('<img alt="" src="a">'))],
    "no alt text": [a_notebook(markdown="![](a.png)")],
    "no :alt:": [a_notebook(markdown="```{figure} a.png\nBits\n```"),
                 a_notebook(markdown=":::{image} a.png\n:alt:\n:::")],
    "is raw": [a_notebook(more=[nbformat.v4.new_raw_cell("x")])],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_clean_notebook_has_no_problem(name):
    assert problems(GOOD[name]) == []


@pytest.mark.parametrize("says", BAD)
def test_each_problem_is_told(says):
    for notebook in BAD[says]:
        assert any(says in problem for problem in problems(notebook)), problems(notebook)
