"""The directive ``{exercise-overview}``: tasks, minutes, checks and known mistakes of one file.

All of it is read from the stub, the checks and the mutants when the book is built, so that what
instructors read is what learners meet.
"""

import tomllib
from collections import defaultdict
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from onebit.checks.headers import headers
from onebit.checks.places import exercises_folder
from onebit.checks.registry import exercises
from onebit.checks.tasks import Exercise

COLUMNS = ("Task", "Level", "Minutes", "What the checks hold", "Mistakes told by name")
WIDTHS = (16, 9, 9, 38, 28)


def mistakes(stem: str) -> dict[str, list[str]]:
    """Return the names of a file's classic mistakes, task by task, in words."""
    text = (exercises_folder() / "mutants" / f"{stem}.toml").read_text(encoding="utf-8")
    told = defaultdict(list)
    for mutant in tomllib.loads(text)["mutant"]:
        told[mutant["task"]].append(mutant["name"].replace("_", " "))
    return told


def rows(exercise: Exercise) -> list[tuple[str, str, str, list[str], list[str]]]:
    """Return the cells of an exercise's table."""
    of_task = {header.id: header for header in headers(exercise.stem)}
    known = mistakes(exercise.stem)
    return [
        (
            f"{id} {task.title}",
            of_task[id].level,
            str(of_task[id].minutes),
            [(check.__doc__ or "").split("\n")[0] for check in task.checks],
            known[id],
        )
        for id, task in exercise.tasks.items()
    ]


def _paragraph(text: str) -> nodes.paragraph:
    """Build a paragraph in which what stands between backticks is code."""
    parts = enumerate(text.split("`"))
    return nodes.paragraph(
        "", "", *(nodes.literal(text=part) if i % 2 else nodes.Text(part) for i, part in parts)
    )


def _cell(content: str | list[str]) -> nodes.entry:
    if isinstance(content, str):
        return nodes.entry("", _paragraph(content))
    items = [nodes.list_item("", _paragraph(text)) for text in content]
    return nodes.entry("", nodes.bullet_list("", *items)) if items else nodes.entry()


def _row(cells: Any) -> nodes.row:
    return nodes.row("", *(_cell(cell) for cell in cells))


class ExerciseOverview(SphinxDirective):
    """A table of one exercise file, named by its stem."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the sum of minutes and the table; refuse a name that no exercise has."""
        stem = self.arguments[0]
        by_stem = {exercise.stem: exercise for exercise in exercises()}
        if stem not in by_stem:
            raise self.error(f"no exercise {stem!r}; there are {', '.join(by_stem)}")
        for path in (*exercises_folder().glob(f"{stem}.*"), exercises_folder() / "mutants"):
            self.env.note_dependency(str(path))
        cells = rows(by_stem[stem])
        total = sum(int(minutes) for _, _, minutes, _, _ in cells)
        summary = f"{len(cells)} tasks, {total} minutes in all."
        group = nodes.tgroup(
            "",
            *(nodes.colspec(colwidth=width) for width in WIDTHS),
            nodes.thead("", _row(COLUMNS)),
            nodes.tbody("", *map(_row, cells)),
            cols=len(COLUMNS),
        )
        return [nodes.paragraph(text=summary), nodes.table("", group, classes=["overview"])]


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer the directive."""
    app.add_directive("exercise-overview", ExerciseOverview)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
