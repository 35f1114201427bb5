"""Every exercise that there are checks for, and every task by its id."""

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
        If there is no such task; the message lists those that there are.

    Examples
    --------
    >>> find("04.2")[1].names
    ('SignSTE',)
    """
    for exercise in exercises():
        if id in exercise.tasks:
            return exercise, exercise.tasks[id]
    known = ", ".join(task for exercise in exercises() for task in exercise.tasks)
    raise ValueError(f"no task {id!r}; there are {known}")
