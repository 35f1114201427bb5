"""`pytest exercises`: one test for each task, on the learner's file in work/, else on the stub."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from onebit.checks import CheckFailed
from onebit.checks.judge import judge_file
from onebit.checks.places import handed_in, work_folder
from onebit.checks.registry import exercises
from onebit.checks.tasks import Exercise, Task

HERE = Path(__file__).parent


class ExerciseFile(pytest.File):
    """An exercise file, whose tasks are the tests."""

    exercise: Exercise
    answer: Path

    def collect(self) -> Iterator[pytest.Item]:
        """Yield one test for each task."""
        for task in self.exercise.tasks.values():
            item = TaskItem.from_parent(self, name=task.id)
            item.task, item.answer = task, self.answer
            yield item


class TaskItem(pytest.Item):
    """One task: the same checks as `onebit.checks.check`, and the same message."""

    task: Task
    answer: Path

    def runtest(self) -> None:
        """Judge the file as it is now; what the checks measured goes to the output."""
        print(judge_file(self.task, self.answer))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the message for the learner alone, without the frames of the checks."""
        if isinstance(excinfo.value, CheckFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Give the report's headline."""
        return self.answer, 0, f"{self.task.id} {self.task.title}"


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Collect exercise files as such, and no other file here as anything."""
    yield
    for exercise in exercises():
        if file_path.name == f"{exercise.stem}.py":
            node = ExerciseFile.from_parent(parent, path=file_path)
            node.exercise = exercise
            if file_path.parent == HERE:
                node.answer = handed_in(exercise.stem)
                return [node]
            if file_path.parent == work_folder():
                node.answer = file_path
                return [node]
    return []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let ``-k 04.2`` mean that task alone, though the name ch04.2 holds the same characters."""
    wanted = config.option.keyword
    others = [item for item in items if item.name != wanted]
    if len(others) < len(items):
        items[:] = [item for item in items if item.name == wanted]
        config.hook.pytest_deselected(items=others)
