"""Buttons that run a page on Binder or Colab, and the cell that sets a downloaded notebook up.

All of it needs the repository's address; without one the pages have none of it.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

# Colab opens notebooks from GitHub only, and as they are. So the ones with the set-up cell are
# pushed to a branch of their own when the book is published (.github/workflows/test.yml).
COLAB_BRANCH = "colab"
CELL = "set-up"
FOLDER = "one-bit-at-a-time"
# What the notebooks import beside the package's own requirements.
NEEDED = ("anywidget", "ipywidgets", "matplotlib", "pooch", "safetensors", "threadpoolctl", "tqdm")


def setup_source(repository: str) -> str:
    """Return the source of the set-up cell: where onebit is missing, install it from a clone.

    A clone, since the chapters read the data and the stored runs that lie beside the package.
    """
    packages = ", ".join(f'"{name}"' for name in ("-e", FOLDER, *NEEDED))
    return f"""\
# Set-up, for Colab or wherever the course is not installed: takes two or three minutes, once.
import importlib.util, os, subprocess, sys

def run(*command):
    subprocess.run(command, check=True)

if importlib.util.find_spec("onebit") is None:
    if not os.path.isdir("{FOLDER}"):
        run("git", "clone", "--quiet", "--depth", "1", "{repository}", "{FOLDER}")
    run(sys.executable, "-m", "pip", "install", "--quiet",
        {packages})
    sys.path.insert(0, os.path.abspath("{FOLDER}/src"))"""


def with_setup(notebook: nbformat.NotebookNode, repository: str) -> nbformat.NotebookNode:
    """Put the set-up cell first, in place of one that is there; "" only takes it away."""
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != CELL]
    if repository:
        cell = nbformat.v4.new_code_cell(setup_source(repository), id=CELL)
        notebook.cells.insert(0, cell)
    return notebook


def binder(repository: str, page: str) -> str:
    """Return the address that opens a notebook on Binder."""
    parts = urlsplit(repository)
    path = parts.path.strip("/")
    known = {"github.com": f"gh/{path}", "gitlab.com": f"gl/{quote(path, safe='')}"}
    where = known.get(parts.netloc, f"git/{quote(repository, safe='')}")
    return f"https://mybinder.org/v2/{where}/HEAD?urlpath={quote(f'lab/tree/{page}', safe='')}"


def colab(repository: str, page: str) -> str | None:
    """Return the address that opens a notebook on Colab; None if it is not on GitHub."""
    parts = urlsplit(repository)
    if parts.netloc != "github.com":
        return None
    return f"https://colab.research.google.com/github{parts.path}/blob/{COLAB_BRANCH}/{quote(page)}"


def launchers(repository: str, page: str) -> list[tuple[str, str]]:
    """Return name and address of every service that can run a notebook of the repository."""
    if not repository:
        return []
    places = [("Binder", binder(repository, page)), ("Colab", colab(repository, page))]
    return [(name, url) for name, url in places if url]


def add_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Add the launchers and the repository to the buttons at the head of a page."""
    repository = app.config.onebit_repository
    if not repository or doctree is None:
        return
    source = context.get("sourcename", "")
    if source.endswith(".ipynb"):
        buttons = [
            {"type": "link", "text": name, "url": url, "tooltip": f"Run this page on {name}"}
            for name, url in launchers(repository, source)
        ]
        context["header_buttons"].append(
            {
                "type": "group",
                "tooltip": "Run this page",
                "icon": "fas fa-rocket",
                "buttons": buttons,
                "label": "launch-buttons",
            }
        )
    context["header_buttons"].append(
        {
            "type": "link",
            "url": repository,
            "tooltip": "Source repository",
            "icon": "fas fa-code-branch",
            "label": "source-repository-button",
        }
    )


def add_setup_cells(app: Sphinx, exception: Exception | None) -> None:
    """Give every notebook that the pages offer for download its set-up cell."""
    if exception is not None or app.builder.format != "html":
        return
    for path in sorted(Path(app.outdir, "_sources").rglob("*.ipynb")):
        notebook = with_setup(nbformat.read(path, 4), app.config.onebit_repository)
        path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register buttons and cells with Sphinx."""
    # After the theme has made its own buttons.
    app.connect("html-page-context", add_buttons, priority=600)
    app.connect("build-finished", add_setup_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
