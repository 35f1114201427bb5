"""The first line of a task in an exercise file: id, title, difficulty, minutes and length."""

import re
from typing import NamedTuple

from onebit.checks.places import exercises_folder

HEADER = re.compile(
    r"(?P<id>[\w.]+) (?P<title>.+) \((?P<level>warm-up|easy|medium|hard|stretch), "
    r"(?P<minutes>\d+) minutes, about (?P<lines>\d+) lines?\)\."
)


class Header(NamedTuple):
    """What the first line of a task's docstring says."""

    id: str
    title: str
    level: str
    minutes: int
    lines: int


def headers(stem: str) -> list[Header]:
    """Read the tasks' first lines from an exercise's stub, its C included.

    Examples
    --------
    >>> headers("exercise_04_binary_linear")[1]
    Header(id='04.2', title='A gradient through the sign', level='medium', minutes=25, lines=8)
    """
    return [
        Header(m["id"], m["title"], m["level"], int(m["minutes"]), int(m["lines"]))
        for path in sorted(exercises_folder().glob(f"{stem}.*"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if (m := HEADER.match(line.strip().lstrip('#"*/ ')))
    ]
