"""Run a task's checks on what a learner hands in, and say what is wrong, where, and what next."""

import os
import signal
import sys
import sysconfig
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch

from onebit.checks import logbook
from onebit.checks.places import load
from onebit.checks.registry import exercises, find
from onebit.checks.tasks import Case, Check, Task, Wrong

WIDTH = 96
#: How many times as long by the clock a limit may take, where code waits or others use the cores.
PATIENCE = 20
T = TypeVar("T")
TraceFunction = Callable[[FrameType, str, Any], Any]


class CheckFailed(AssertionError):
    """What is wrong with a learner's answer, written for the learner.

    Attributes
    ----------
    task, check : str
        The id of the task, and the name of the check that failed first.
    """

    def __init__(self, message: str, task: str, check: str) -> None:
        super().__init__(message)
        self.task, self.check = task, check

    def _render_traceback_(self) -> list[str]:
        """Show the message alone where IPython would show the frames of the checks."""
        return str(self).splitlines()


class NotWrittenYet(CheckFailed, NotImplementedError):
    """The answer is still the stub."""


class TooLong(BaseException):
    """Raised in code that does not end; no `except Exception` of the learner's stops it."""


def check(task: str, *answers: Any) -> None:
    """Check your answer to a task: print that it is right, or raise what is wrong with it.

    Parameters
    ----------
    task : str
        Its id, such as ``"04.2"``.
    *answers
        What you wrote, in the order in which the task names it: functions and classes; for C, the
        source as a text or the path of its file.

    Raises
    ------
    CheckFailed
        With the smallest input that fails, what was expected, what came, the likely cause, and
        what to do next. `NotWrittenYet` if a NotImplementedError came.
    ValueError
        If there is no such task.
    TypeError
        If more or fewer answers are given than the task asks for.

    Examples
    --------
    >>> check("04.1", lambda x, w: x @ w.T)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onebit.checks.judge.CheckFailed: 04.1 Signs in the product: not right yet
      Positive weights count as +1 and negative ones as −1, whatever their size.
    ...
    """
    wanted = find(task)[1]
    if len(answers) != len(wanted.names):
        asked = ", ".join((repr(task), *wanted.names))
        raise TypeError(f"check({asked}) is how {task} is checked; got {len(answers)} answers")
    print(judge(wanted, dict(zip(wanted.names, answers, strict=True))))


def judge(task: Task, answers: Mapping[str, Any]) -> str:
    """Run all checks of a task, record that it passed, and return the sentence that says so.

    Raises
    ------
    CheckFailed
        By the first check that does not hold.
    """
    if task.isolated:
        from onebit.checks.isolated import judge_isolated

        notes = judge_isolated(task, answers[task.names[0]])
    else:
        notes = [note for f in task.checks if (note := run_check(task, f, answers))]
    unrecorded = None if task.id in logbook.passed() else logbook.record(task.id, "passed")
    return "\n".join(filter(None, [_praise(task), *notes, unrecorded]))


def _praise(task: Task) -> str:
    count = len(task.checks)
    ids = [id for exercise in exercises() if task.id in exercise.tasks for id in exercise.tasks]
    later = ids[ids.index(task.id) + 1 :]
    then = f" Next: {later[0]}, {find(later[0])[1].title}." if later else ""
    checks = "check" if count == 1 else "checks"
    return f"{task.id} passed: {task.title} ({count} {checks}).{then}"


def judge_file(task: Task, path: Path) -> str:
    """Load a learner's file and judge what it defines, as `judge` does.

    Raises
    ------
    CheckFailed
        By the first check that does not hold; its `check` is ``"load"`` if the file does not run,
        or lacks a name.
    """
    says = f"{path.name} runs, and defines {' and '.join(task.names)}"
    answers = told(task, "load", says, lambda: _named(task, path))
    return judge(task, answers)


def _named(task: Task, path: Path) -> dict[str, Any]:
    if not path.is_file():
        cause = "Both files of the exercise belong beside each other, the .py and the .c."
        raise Wrong("", f"a file {path.name}", f"none in {path.parent}", cause)
    defined = vars(load(path))
    missing = [name for name in task.names if name not in defined]
    if missing:
        cause = "It was renamed or deleted; the name has to be as in the exercise."
        raise Wrong("", f"{path.name} defines {' and '.join(missing)}", "nothing so named", cause)
    return {name: defined[name] for name in task.names}


def run_check(task: Task, function: Check, answers: Mapping[str, Any]) -> str | None:
    """Run one check and turn whatever it raises into a message; return its note, if it has one."""
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    says = (function.__doc__ or "").split("\n")[0].rstrip(".")
    return told(
        task, function.__name__, says, lambda: function(*(answers[name] for name in wanted)),
        limited=not task.isolated,  # C has a limit of its own, which the compiler is not under
    )  # fmt: skip


def told(task: Task, name: str, says: str, run: Callable[[], T], *, limited: bool = True) -> T:
    """Run something of the learner's, within the time limit, and turn what it raises into words."""
    Case.current = None
    limit = time_limit(task.seconds) if limited else nullcontext()
    try:
        with _fresh_state(), limit:
            return run()
    except Wrong as wrong:
        parts = {"input": wrong.given, "expected": wrong.expected, "got": wrong.got,
                 "likely cause": wrong.cause}  # fmt: skip
    except TooLong as late:
        parts = {"input": _given(), "expected": f"an answer within {task.seconds:g} s",
                 "got": f"none yet, at {where(late.__traceback__, 'the end of the time')}",
                 "likely cause": "A loop whose condition never becomes false, or far too much "
                                 "work."}  # fmt: skip
    except NotImplementedError as error:
        raise NotWrittenYet(unwritten(task, where(error.__traceback__)), task.id, name) from None
    except (Exception, SystemExit) as error:
        parts = {"input": _given(), "expected": "no exception",
                 "got": f"{type(error).__name__}: {error}",
                 "likely cause": f"Raised at {_place(error)}"}  # fmt: skip
    raise CheckFailed(message(task, says, parts), task.id, name) from None


def unwritten(task: Task, stub: str) -> str:
    """Say that a task is still to be done, and in place of what."""
    return (
        f"{task.id} is not written yet: {task.title}.\n"
        f"Write your answer in place of {stub}\n"
        f"and check again. A hint to start with: python -m onebit hint {task.id}"
    )


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {(error.text or '').strip()}"
    return where(error.__traceback__)


def _given() -> str:
    return Case.current.given if Case.current is not None else ""


def message(task: Task, says: str, parts: Mapping[str, str]) -> str:
    """Lay out what has to be said about a failure, a label before each part.

    Parameters
    ----------
    task : Task
    says : str
        What ought to hold: the first line of the check's docstring, without its full stop.
    parts : mapping
        From a label to a text; empty ones are left out.
    """
    parts = {**parts, "next step": f"python -m onebit hint {task.id}"}
    width = max(map(len, parts))
    told = [f"{task.id} {task.title}: not right yet", f"  {says}.", ""]
    for label, text in parts.items():
        if text:
            told += textwrap.wrap(
                text, WIDTH, initial_indent=f"  {label:<{width}}  ",
                subsequent_indent=" " * (width + 4), break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(told)


def where(
    trace: TracebackType | None,
    otherwise: str = "the call itself: do the parameters stand as the task has them?",
) -> str:
    """Name the learner's file and line that were running: the innermost outside of libraries."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if not _in_library(frame.filename)]
    if not own:
        return otherwise
    last = own[-1]
    file = Path(last.filename)
    return f"{file.name if file.exists() else 'your cell'}, line {last.lineno}: {last.line}"


_INSTALLED = (sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
_LIBRARIES = (f"{Path(__file__).parents[1]}{os.sep}", *(f"{p}{os.sep}" for p in _INSTALLED))


def _in_library(filename: str) -> bool:
    return filename.startswith(("<frozen", *_LIBRARIES))


@contextmanager
def _fresh_state() -> Iterator[None]:
    """Check in float32 with gradients on and one thread, and leave the learner's own state alone.

    The networks that exercises train are too small for a second thread to help.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the running code after some seconds, and again until it gives in.

    Seconds of processor time count, since others may use the machine; but no wait is endless.
    A signal does it, which Python delivers to the main thread, where notebooks and pytest run; in
    another thread there is no limit. Where a bare `except:` caught the first, the next ones raise
    at every line of the learner's that follows, in its `except:` block too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = False
    tracing = sys.gettrace()
    begun = time.process_time(), time.monotonic()

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal caught
        worked, waited = time.process_time() - begun[0], time.monotonic() - begun[1]
        if worked < seconds and waited < PATIENCE * seconds:
            return
        if caught:
            sys.settrace(insist)
            while frame is not None:
                frame.f_trace = insist
                frame = frame.f_back
        caught = True
        raise TooLong

    def insist(frame: FrameType, event: str, argument: Any) -> TraceFunction:
        # At an exception it would be inside the `try:` still, and caught once more.
        if event == "line" and not _in_library(frame.f_code.co_filename):
            raise TooLong
        return insist

    before: Callable | int | None = signal.signal(signal.SIGALRM, stop)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.settrace(tracing)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)  # of pytest-timeout, for instance
