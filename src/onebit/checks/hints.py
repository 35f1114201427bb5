"""Three hints a task, one more each time one is asked for, and then where the solution is."""

import re
from pathlib import Path

from onebit.checks import logbook
from onebit.checks.places import exercises_folder
from onebit.checks.registry import find


def read_hints(path: Path) -> dict[str, list[str]]:
    """Read a file of hints: a heading ``## 04.1`` for each task, below it a numbered list.

    Examples
    --------
    >>> hints = read_hints(exercises_folder() / "hints" / "exercise_04_binary_linear.md")
    >>> len(hints["04.1"])
    3
    """
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^## (\S+)\n", text, flags=re.M)[1:]
    return {
        id: [_dedented(item) for item in re.split(r"^\d\. ", body, flags=re.M)[1:]]
        for id, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _dedented(item: str) -> str:
    return re.sub(r"^   ", "", item.strip(), flags=re.M)


def next_hint(id: str) -> str:
    """Return the next hint of a task and count it as seen; after the last, say so.

    Parameters
    ----------
    id : str
        The task, such as ``"04.2"``.

    Raises
    ------
    ValueError
        If there is no such task.
    FileNotFoundError
        If the exercises are not there, as where onebit was installed from a wheel.
    """
    exercise, task = find(id)
    hints = read_hints(exercises_folder() / "hints" / f"{exercise.stem}.md")[id]
    seen = logbook.hints_seen(id)
    if seen < len(hints):
        said = f"{id} {task.title}, hint {seen + 1} of {len(hints)}:\n{hints[seen]}"
        unrecorded = logbook.record(id, "hint")
        return f"{said}\n({unrecorded})" if unrecorded else said
    again = "\n".join(f"{n}. {hint}" for n, hint in enumerate(hints, start=1))
    solution = f"exercises/solutions/{exercise.stem}.py"
    return f"{id} {task.title}: these were all the hints.\n{again}\nThe solution is in {solution}."


def hint(task: str) -> None:
    """Print the next hint of a task, one more each time.

    Parameters
    ----------
    task : str
        Its id, such as ``"04.2"``.

    Raises
    ------
    ValueError
        If there is no such task.
    FileNotFoundError
        If the exercises are not there, as where onebit was installed from a wheel.
    """
    print(next_hint(task))
