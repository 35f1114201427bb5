"""What the landing page knows of every chapter: its quiz and its exercises, for progress.js.

Quizzes are read from the stored widgets of the notebooks, exercises from the package's list of
tasks, so that the list follows what there is.
"""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

from onebit.checks.registry import exercises

PLACE = 'class="course-progress'
WIDGETS = "application/vnd.jupyter.widget-state+json"
QUIZ = "onebit.widgets.quiz.Quiz"


def quizzes(path: Path) -> list[dict[str, Any]]:
    """Return name and questions of a notebook's quizzes: each question with its right option."""
    metadata = nbformat.read(path, 4).metadata
    models = metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}).values()
    return [
        {
            "name": state["name"],
            "questions": [
                {
                    "text": question["text"],
                    "right": [option["right"] for option in question["options"]].index(True),
                }
                for question in state["questions"]
            ],
        }
        for state in (model["state"] for model in models)
        if state.get("_anywidget_id") == QUIZ
    ]


def tasks() -> dict[str, list[dict[str, str]]]:
    """Return the exercises' tasks by the page they belong to: "01" to "06", or "exercise"."""
    found = {}
    for exercise in exercises():
        chapter = re.match(r"chapter_(\d\d)_", exercise.stem)
        found[chapter[1] if chapter else "exercise"] = [
            {"id": task.id, "title": task.title} for task in exercise.tasks.values()
        ]
    return found


def pages(app: Sphinx) -> list[dict[str, Any]]:
    """Return every page that has a quiz or exercises, in the book's order."""
    of_page = tasks()
    found = []
    for name in app.env.toctree_includes[app.config.root_doc]:
        short = name.rpartition("/")[2]
        path = Path(app.env.doc2path(name))
        number = app.env.toc_secnumbers.get(name, {}).get("")
        page = {
            "title": app.env.titles[name].astext(),
            "number": number[0] if number else None,
            "address": f"{short}.html",
            "quizzes": quizzes(path) if path.suffix == ".ipynb" else [],
            "tasks": of_page.get(short, of_page.get(short[:2], [])),
        }
        if page["quizzes"] or page["tasks"]:
            found.append(page)
    return found


def embed(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Put the data and the script on the page that has a place for them."""
    if doctree is None or PLACE not in context.get("body", ""):
        return
    data = json.dumps(pages(app), ensure_ascii=False).replace("</", "<\\/")
    context["body"] += f'\n<script type="application/json" id="course-pages">{data}</script>'
    app.add_js_file("progress.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the data with Sphinx."""
    app.connect("html-page-context", embed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
