"""Where exercises are and where learners work: the folders, the files, and how one is loaded."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

SUFFIXES = (".py", ".c")


def exercises_folder() -> Path:
    """Give the folder of the exercises: ``$ONEBIT_EXERCISES``, or ``exercises`` of the clone.

    Raises
    ------
    FileNotFoundError
        If there is none, as where onebit was installed from a wheel; the message tells the cure.
    """
    chosen = os.environ.get("ONEBIT_EXERCISES")
    folder = Path(chosen).expanduser() if chosen else Path(__file__).parents[3] / "exercises"
    if not (folder / "hints").is_dir():
        raise FileNotFoundError(
            f"no exercises in {folder}: a clone of the course has them, and an installed package "
            "does not; set ONEBIT_EXERCISES to the folder exercises of a clone"
        )
    return folder


def work_folder() -> Path:
    """Give the folder in which the learner works; it need not exist yet.

    ``$ONEBIT_WORK`` if that is set, otherwise ``work`` beside the exercises, and where there are no
    exercises, ``onebit`` in the user's folder for state.
    """
    if chosen := os.environ.get("ONEBIT_WORK"):
        return Path(chosen).expanduser()
    try:
        return exercises_folder() / "work"
    except FileNotFoundError:
        state = os.environ.get("XDG_STATE_HOME")
        return (Path(state) if state else Path.home() / ".local" / "state") / "onebit"


def stubs() -> Iterator[Path]:
    """Yield the exercise files in order, C sources included."""
    folder = exercises_folder()
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.stem.startswith(("chapter_", "exercise_")):
            yield path


def copy_missing() -> Iterator[tuple[Path, bool]]:
    """Copy to the work folder what is not there yet; yield each file and whether it was copied.

    What the learner has written is never touched.
    """
    work = work_folder()
    work.mkdir(parents=True, exist_ok=True)
    for stub in stubs():
        mine = work / stub.name
        new = not mine.exists()
        if new:
            shutil.copy(stub, mine)
        yield mine, new


def copy() -> int:
    """Do `copy_missing`, tell what was copied and what was kept, and return 0 for the shell."""
    try:
        done = list(copy_missing())
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    for path, new in done:
        print(f"{'copied' if new else 'kept  '}  {_short(path)}")
    activate = Path(sys.prefix) / "bin" / "activate"
    if activate.exists() and os.environ.get("VIRTUAL_ENV") != sys.prefix:
        print(f"First `source {_short(activate)}`, so that pytest and python are the course's.")
    print("Write there. `pytest exercises -k exercise_04` checks a file, `-k 04.2` one task.")
    return 0


def handed_in(stem: str) -> Path:
    """Give the learner's file of that name, or the stub where she has none yet.

    Where only the C of an exercise is there, it is the file that is missing beside it.
    """
    work = work_folder()
    begun = any((work / f"{stem}{suffix}").is_file() for suffix in SUFFIXES)
    return (work if begun else exercises_folder()) / f"{stem}.py"


def load(path: Path) -> ModuleType:
    """Run a file as a module of its own, from its text as it is now and never from a cache."""
    module = ModuleType(f"handed_in_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look a class up
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return module


def _short(path: Path) -> str:
    """Write a path as seen from the current folder, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
