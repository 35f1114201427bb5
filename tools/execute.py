"""Run the notebooks and store their outputs, the same bytes for the same results.

    python tools/execute.py                           every notebook of chapters/
    python tools/execute.py chapters/02_binarynet.ipynb

A run that ends in an error or writes to stderr leaves the file as it was and shows the cell.
What a run adds by chance (times, random ids, versions) is left out or numbered in order, so that
a second run changes nothing but cells that measure time.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

CHAPTERS = Path(__file__).parents[1] / "chapters"
SECONDS_A_CHAPTER = 60
SECONDS_A_CELL = 600
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
KEPT_CELL_METADATA = ("tags", "mystnb", "jupyter")


class Failed(Exception):
    """A notebook that did not run cleanly; the message shows the cell."""


def main() -> int:
    """Run the notebooks named on the command line, or all, and tell how long each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default, all of chapters/")
    paths = parser.parse_args().notebooks or sorted(CHAPTERS.glob("*.ipynb"))
    if not paths:
        parser.error(f"no notebooks in {CHAPTERS}")
    failures = 0
    for path in paths:
        start = time.perf_counter()
        try:
            changed = execute(path)
        except Failed as failure:
            failures += 1
            print(f"{path}: FAILED, not stored\n{failure}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        slow = f"  more than the {SECONDS_A_CHAPTER} s a chapter may take"
        print(
            f"{path}: {seconds:.1f} s, {'stored' if changed else 'as it was'}"
            f"{slow if seconds > SECONDS_A_CHAPTER else ''}"
        )
    return 1 if failures else 0


def execute(path: Path) -> bool:
    """Run one notebook and store it; tell whether the file changed."""
    before = path.read_bytes()
    notebook = nbformat.reads(before.decode(), as_version=4)
    run(notebook, path.parent)
    after = text(normalised(notebook)).encode()
    if after != before:
        path.write_bytes(after)
    return after != before


def run(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel in ``folder``, which replaces the outputs."""
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_A_CELL,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=environment())
    except CellExecutionError as error:
        raise Failed(str(error)) from None
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                raise Failed(f"{cell.source}\n------ wrote to stderr:\n{output.text}")


def environment() -> dict[str, str]:
    """Give the environment of the kernel: quiet, with torch's own choice of threads."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    threads = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}  # as in the Makefile
    return env | threads | {"PYTHONHASHSEED": "0", "TQDM_DISABLE": "1"}


def normalised(notebook: NotebookNode) -> NotebookNode:
    """Leave out what depends on the run or the machine, and name cells after their content."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata["kernelspec"] = KERNEL
    notebook.metadata["language_info"] = LANGUAGE
    names = content_ids(cell.source for cell in notebook.cells)
    for cell, name in zip(notebook.cells, names, strict=True):
        cell["id"] = name
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        )
    drop_unseen_widgets(notebook)
    return notebook


def content_ids(sources: Iterator[str]) -> Iterator[str]:
    """Give each cell an id made of its text, so that moving a cell does not rename the others."""
    seen: dict[str, int] = {}
    for source in sources:
        name = hashlib.sha256(source.encode()).hexdigest()[:12]
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


def drop_unseen_widgets(notebook: NotebookNode) -> None:
    """Keep the widgets that the page shows, those inside them, and the links between them."""
    if WIDGET_STATE not in notebook.metadata.get("widgets", {}):
        return
    models = notebook.metadata.widgets[WIDGET_STATE]["state"]
    kept = set(in_order_of_appearance(notebook, models))
    if kept:
        for model_id in set(models) - kept:
            del models[model_id]
    else:
        del notebook.metadata["widgets"]


def in_order_of_appearance(notebook: NotebookNode, models: Mapping[str, Any]) -> list[str]:
    """List the widgets on the page: as displayed, each followed by what it contains."""
    order: dict[str, None] = {}

    def visit(model_id: str) -> None:
        if model_id in models and model_id not in order:
            order[model_id] = None
            for inner in references(models[model_id]["state"]):
                visit(inner)

    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if WIDGET_VIEW in output.get("data", {}):
                visit(output.data[WIDGET_VIEW]["model_id"])
    # Nothing contains a jslink; it belongs to the page if one of its ends does.
    links = [i for i, model in models.items() if model["model_name"].endswith("LinkModel")]
    while found := [
        link
        for link in links
        if link not in order and any(end in order for end in references(models[link]["state"]))
    ]:
        for link in sorted(found, key=lambda i: ends(models[i], order)):
            visit(link)
    return list(order)


def references(state: Any) -> Iterator[str]:
    """Yield the ids of the widgets that a widget's state names, in a fixed order."""
    if isinstance(state, str):
        yield from re.findall(r"^IPY_MODEL_(\w+)$", state)
    elif isinstance(state, Mapping):
        for key in sorted(state):
            yield from references(state[key])
    elif isinstance(state, list):
        for item in state:
            yield from references(item)


def ends(link: Mapping[str, Any], order: Mapping[str, None]) -> list[tuple[int, str]]:
    """Sort key of a link: the places of its ends on the page, and the traits it joins."""
    places = {model_id: place for place, model_id in enumerate(order)}
    return [
        (places.get(next(references(end)), len(places)), str(end[1]))
        for end in (link["state"]["source"], link["state"]["target"])
    ]


def text(notebook: NotebookNode) -> str:
    """Write the notebook as JSON: widget ids count from 1, objects have no address in memory."""
    written = nbformat.writes(notebook, version=4).rstrip("\n") + "\n"
    written = re.sub(r"(?<= at )0x[0-9a-f]+(?=>|&gt;)", "0x0", written)
    if WIDGET_STATE in notebook.metadata.get("widgets", {}):
        models = notebook.metadata.widgets[WIDGET_STATE]["state"]
        order = in_order_of_appearance(notebook, models)
        numbers = {model_id: f"{n:032x}" for n, model_id in enumerate(order, start=1)}
        written = re.sub("|".join(numbers), lambda match: numbers[match[0]], written)
        # JSON keys are sorted, so put the renamed ones in order again.
        renamed = nbformat.reads(written, as_version=4)
        written = nbformat.writes(renamed, version=4).rstrip("\n") + "\n"
    return written


if __name__ == "__main__":
    sys.exit(main())
