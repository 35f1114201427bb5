"""Exercises teach: solutions pass, stubs are friendly, every classic mistake is told as such."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from onebit.checks import CheckFailed, NotWrittenYet
from onebit.checks.headers import headers
from onebit.checks.hints import read_hints
from onebit.checks.judge import judge_file
from onebit.checks.places import load
from onebit.checks.registry import exercises, find

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "exercises"
EXERCISES = exercises()
STEMS = [exercise.stem for exercise in EXERCISES]
TASKS = [id for exercise in EXERCISES for id in exercise.tasks]


def mutants():
    for stem in STEMS:
        with open(FOLDER / "mutants" / f"{stem}.toml", "rb") as file:
            for mutant in tomllib.load(file)["mutant"]:
                yield pytest.param(stem, mutant, id=f"{mutant['task']}-{mutant['name']}")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Learn in a folder of the test's own."""
    monkeypatch.setenv("ONEBIT_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def needs_compiler(task):
    if task.isolated:
        from onebit.compiling import NoCompilerError, compile_c

        try:
            compile_c("int one(void) { return 1; }", "int one(void)")
        except NoCompilerError as error:
            pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("id", TASKS)
def test_a_solution_passes(id, work):
    exercise, task = find(id)
    needs_compiler(task)
    said = judge_file(task, FOLDER / "solutions" / f"{exercise.stem}.py")
    assert said.startswith(f"{id} passed: {task.title}")


@pytest.mark.parametrize("id", TASKS)
def test_a_stub_fails_with_a_friendly_word_and_the_line(id):
    exercise, task = find(id)
    needs_compiler(task)
    with pytest.raises(NotImplementedError) as caught:
        judge_file(task, FOLDER / f"{exercise.stem}.py")
    assert isinstance(caught.value, NotWrittenYet)
    said = str(caught.value)
    assert f"{id} is not written yet: {task.title}." in said
    assert task.isolated or f"{exercise.stem}.py, line" in said
    assert f"python -m onebit hint {id}" in said


@pytest.mark.slow
@pytest.mark.parametrize("stem, mutant", list(mutants()))
def test_a_mistake_fails_first_in_its_own_check_and_is_told(stem, mutant, tmp_path, monkeypatch):
    task = find(mutant["task"])[1]
    monkeypatch.setattr(task, "seconds", mutant.get("seconds", task.seconds))
    needs_compiler(task)
    changed = mutant.get("file", f"{stem}.py")
    for path in (FOLDER / "solutions").glob(f"{stem}.*"):
        text = path.read_text(encoding="utf-8")
        if path.name == changed:
            assert mutant["old"] in text, "the solution has no such passage any more"
            text = text.replace(mutant["old"], mutant["new"], 1)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckFailed) as caught:
        judge_file(task, tmp_path / f"{stem}.py")
    said = " ".join(str(caught.value).split())
    assert caught.value.check == mutant["check"], caught.value
    assert mutant["says"] in said, caught.value
    assert all(part in said for part in ("expected", "got", "likely cause", "next step"))


@pytest.mark.parametrize("stem", STEMS)
def test_every_file_has_at_least_six_mistakes_with_names_of_their_own(stem):
    told = [p.values[1] for p in mutants() if p.values[0] == stem]
    assert len(told) >= 6
    assert len({mutant["name"] for mutant in told}) == len(told)
    checks = {f.__name__ for task in find(told[0]["task"])[0].tasks.values() for f in task.checks}
    assert {mutant["check"] for mutant in told} <= checks | {"load"}


def public(module):
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    }


def signatures(value):
    """Return the signature of a function, or those of the methods that a class defines."""
    if not inspect.isclass(value):
        return {"": inspect.signature(value)}
    own = {n: getattr(value, n) for n, f in vars(value).items()
           if inspect.isfunction(f) or isinstance(f, staticmethod | classmethod)}  # fmt: skip
    return {name: inspect.signature(method) for name, method in own.items()}


@pytest.mark.parametrize("id", TASKS)
def test_stub_and_solution_have_the_same_signatures(id):
    exercise, task = find(id)
    stub, solution = (
        vars(load(FOLDER / folder / f"{exercise.stem}.py")) for folder in (".", "solutions")
    )
    for name in task.names:
        if not callable(stub[name]):
            assert type(stub[name]) is type(solution[name])
            continue
        written = [
            {n: str(s) for n, s in signatures(where[name]).items()} for where in (stub, solution)
        ]
        assert written[0] == written[1]


@pytest.mark.parametrize("id", TASKS)
def test_a_stub_says_id_title_difficulty_minutes_and_length(id):
    exercise, task = find(id)
    told = [header.title for header in headers(exercise.stem) if header.id == id]
    assert told == [task.title]


@pytest.mark.parametrize("id", TASKS)
def test_a_check_says_what_must_hold_and_takes_what_the_task_names(id):
    task = find(id)[1]
    assert task.checks
    for check in task.checks:
        assert check.__doc__.split("\n")[0].endswith("."), check.__name__
        assert set(inspect.signature(check).parameters) <= set(task.names)


@pytest.mark.parametrize("id", TASKS)
def test_every_task_has_three_hints(id):
    stem = find(id)[0].stem
    hints = read_hints(FOLDER / "hints" / f"{stem}.md")
    assert len(hints[id]) == 3
    assert all(hint.strip() for hint in hints[id])


def test_no_file_and_no_hint_is_without_its_exercise():
    for folder, suffixes in (
        (".", {".py", ".c"}), ("solutions", {".py", ".c"}), ("hints", {".md"}),
        ("mutants", {".toml"}),
    ):  # fmt: skip
        found = [p for p in (FOLDER / folder).iterdir() if p.is_file() and p.name != "conftest.py"]
        assert {p.stem for p in found} == set(STEMS)
        assert {p.suffix for p in found} <= suffixes
    for exercise in EXERCISES:
        assert list(read_hints(FOLDER / "hints" / f"{exercise.stem}.md")) == list(exercise.tasks)


@pytest.mark.parametrize("stem", STEMS)
def test_checks_do_not_look_at_the_solutions(stem):
    text = (ROOT / "src" / "onebit" / "checks" / f"{stem}.py").read_text(encoding="utf-8")
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not any("exercises" in name or "solution" in name for name in imported)
    assert "solutions" not in text


def test_a_task_is_chosen_by_its_id_alone():
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "exercises", "--collect-only", "-q", "-k", "04.2"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert [line for line in told.splitlines() if "::" in line] == [
        "exercises/exercise_04_binary_linear.py::04.2"
    ]
