"""What a learner has passed and which hints she has seen, kept as lines of a local file.

The file is ``progress.jsonl`` in the work folder. Lines are only ever added, each in one write, so
that nothing that is there can be lost, not by two notebooks at once and not by a damaged line:
what cannot be read is left where it is, and told.
"""

import html
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onebit.checks.places import work_folder
from onebit.checks.registry import exercises

FILE = "progress.jsonl"


def records() -> tuple[list[dict[str, Any]], str]:
    """Return what was recorded, and a sentence about what could not be read, if anything."""
    path = work_folder() / FILE
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{path} cannot be read: {error.strerror}; set ONEBIT_WORK to another folder."
    good = [entry for line in lines if (entry := _entry(line)) is not None]
    bad = len(lines) - len(good)
    if not bad:
        return good, ""
    what = "1 line" if bad == 1 else f"{bad} lines"
    were = "was left as it is" if bad == 1 else "were left as they are"
    return good, f"{what} of {path} cannot be read and {were}."


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(entry, dict) and entry.get("what") in ("passed", "hint")
    return entry if known and isinstance(entry.get("task"), str) else None


def record(task: str, what: str) -> str | None:
    """Add a line for a task that was ``"passed"`` or got a ``"hint"``.

    Returns
    -------
    str or None
        Why it could not be written, if it could not; a check is not to fail for that.
    """
    path = work_folder() / FILE
    entry = {"task": task, "what": what, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    line = json.dumps(entry).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _ends_in_the_middle(path):
            line = b"\n" + line
        with open(path, "ab", buffering=0) as file:
            file.write(line)
    except OSError as error:
        return f"not recorded in {path}: {error.strerror}; set ONEBIT_WORK to another folder"
    return None


def _ends_in_the_middle(path: Path) -> bool:
    """Tell whether the last line was cut off, as by a full disk."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def passed() -> set[str]:
    """Return the ids of the tasks that were passed."""
    return {entry["task"] for entry in records()[0] if entry["what"] == "passed"}


def hints_seen(task: str) -> int:
    """Return how many hints were shown for a task."""
    return sum(e["task"] == task and e["what"] == "hint" for e in records()[0])


def progress() -> "Progress":
    """Return which tasks were passed: a table in JupyterLab, and a list when printed.

    Examples
    --------
    >>> "exercise_04_binary_linear" in str(progress())
    True
    """
    return Progress()


class Progress:
    """Which tasks were passed, file by file: text in a terminal, a table in JupyterLab."""

    def __init__(self) -> None:
        self.passed = passed()
        self.unreadable = records()[1]
        self.rows = [
            (exercise.stem, [(task.id, task.title) for task in exercise.tasks.values()])
            for exercise in exercises()
        ]

    def _done(self, tasks: Iterable[tuple[str, str]]) -> int:
        return sum(id in self.passed for id, _ in tasks)

    def __str__(self) -> str:
        lines = []
        for stem, tasks in self.rows:
            lines.append(f"{stem}: {self._done(tasks)} of {len(tasks)} passed")
            lines += [f"  {'[x]' if id in self.passed else '[ ]'} {id} {t}" for id, t in tasks]
        return "\n".join([*lines, *([self.unreadable] if self.unreadable else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = []
        for stem, tasks in self.rows:
            head = f"{stem}: {self._done(tasks)} of {len(tasks)} passed"
            rows.append(f'<tr><th colspan="3" scope="rowgroup">{html.escape(head)}</th></tr>')
            rows += [
                f'<tr><td>{id}</td><td style="text-align: left">{html.escape(title)}</td>'
                f"<td>{'passed' if id in self.passed else 'open'}</td></tr>"
                for id, title in tasks
            ]
        remark = f"<p>{html.escape(self.unreadable)}</p>" if self.unreadable else ""
        return f"<table><caption>Exercises</caption>{''.join(rows)}</table>{remark}"
