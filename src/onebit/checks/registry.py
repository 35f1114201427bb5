"""Every exercise that there are checks for, and every task by its id."""

import difflib
import importlib
import pkgutil
from functools import cache

import onebit.checks
from onebit.checks.tasks import Exercise, Task


@cache
def exercises() -> tuple[Exercise, ...]:
    """Return the exercises in order: chapters 1 to 6, then exercise 4."""
    names = sorted(
        found.name
        for found in pkgutil.iter_modules(onebit.checks.__path__, "onebit.checks.")
        if found.name.rpartition(".")[2].startswith(("chapter_", "exercise_"))
    )
    return tuple(importlib.import_module(name).EXERCISE for name in names)


def find(id: str) -> tuple[Exercise, Task]:
    """Return a task by its id, and the exercise that it belongs to.

    Raises
    ------
    ValueError
        If there is no such task; the message names the one that was meant, and those there are.

    Examples
    --------
    >>> find("04.2")[1].names
    ('SignSTE',)
    """
    known = {task: exercise for exercise in exercises() for task in exercise.tasks}
    if isinstance(id, str) and id in known:
        return known[id], known[id].tasks[id]
    near = difflib.get_close_matches(str(id).strip().lower(), known, n=1, cutoff=0.8)
    meant = f'did you mean "{near[0]}"? There are' if near else "there are"
    ranges = ", ".join(f"{min(e.tasks)} to {max(e.tasks)}" for e in exercises())
    text = "" if isinstance(id, str) else '; an id is a text, such as "04.2"'
    raise ValueError(f"no task {id!r}: {meant} {ranges}{text}")
