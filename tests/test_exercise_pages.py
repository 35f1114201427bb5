"""What the book says of the exercises is what the exercise files say."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from onebit_book.overview import _paragraph, mistakes, rows  # noqa: E402

from onebit.checks.headers import headers  # noqa: E402
from onebit.checks.registry import exercises  # noqa: E402

EXERCISES = exercises()
STEMS = [exercise.stem for exercise in EXERCISES]
ROW = re.compile(
    r"^\| (?P<id>\w+\.\d) \| (?P<title>.+) \| (?P<level>.+) \| (?P<minutes>\d+) \|$", re.M
)


def page(stem):
    """Return the text of the page that an exercise belongs to."""
    number = re.match(r"chapter_(\d\d)_", stem)
    (path,) = (ROOT / "chapters").glob(f"{number[1]}_*.ipynb" if number else "exercise.ipynb")
    cells = nbformat.read(path, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem.startswith("chapter_")])
def test_a_chapter_lists_its_tasks_as_the_stub_has_them(stem):
    text = page(stem)
    assert f"`exercises/{stem}." in text
    assert "(exercise.ipynb#how-to-work-on-the-exercises)" in text
    told = {
        row["id"]: (row["title"], row["level"], int(row["minutes"])) for row in ROW.finditer(text)
    }
    assert told == {h.id: (h.title, h.level, h.minutes) for h in headers(stem)}


@pytest.mark.parametrize("exercise", EXERCISES, ids=STEMS)
def test_every_solution_is_folded_away_on_its_page_by_inclusion(exercise):
    folded = dict(re.findall(r":::\{dropdown\} Solution of (\S+)\n(.*?)\n:::$", page(exercise.stem),
                             re.S | re.M))  # fmt: skip
    assert list(folded) == list(exercise.tasks)
    for id, task in exercise.tasks.items():
        assert f"../exercises/solutions/{exercise.stem}." in folded[id]
        if not task.isolated:
            assert re.findall(r":pyobject: (\w+)", folded[id]) == list(task.names)


def test_the_exercise_page_leads_to_the_exercises_of_every_chapter():
    text = page("exercise_04_binary_linear")
    for path in (ROOT / "chapters").glob("0*.ipynb"):
        assert f"({path.name}#exercises)" in text


def test_instructors_find_every_exercise_with_its_checks_and_mistakes():
    text = (ROOT / "chapters" / "instructors.md").read_text(encoding="utf-8")
    assert re.findall(r"\{exercise-overview\} (\w+)", text) == STEMS
    for exercise in EXERCISES:
        assert set(mistakes(exercise.stem)) <= set(exercise.tasks)
        for _, level, minutes, held, _ in rows(exercise):
            assert level and int(minutes) > 0 and all(held)


def test_words_between_backticks_are_code_in_the_tables():
    told = _paragraph("One `weight` of shape `(out, in)`.")
    assert [(type(part).__name__, part.astext()) for part in told] == [
        ("Text", "One "), ("literal", "weight"), ("Text", " of shape "), ("literal", "(out, in)"),
        ("Text", "."),
    ]  # fmt: skip
