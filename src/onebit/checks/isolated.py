"""Check a learner's C in a process of its own, so that a crash or an endless loop is a message.

The process writes to a log, line by line, which check it runs and on which input, and at last what
came of it. When it dies, the log says where.
"""

import ctypes
import json
import mmap
import os
import re
import signal
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from onebit.checks.judge import CheckFailed, NotWrittenYet, message, run_check, told, unwritten
from onebit.checks.registry import find
from onebit.checks.standby import Standby
from onebit.checks.tasks import Case, Task, Wrong
from onebit.compiling import NoCompilerError, compile_c

#: What the process exits with where a stub of C is called: ``_Exit(77)``.
UNWRITTEN = 77
CAUSES: dict[int, str] = {
    signal.SIGSEGV: "It read or wrote past the end of an array: compare each index with the sizes.",
    signal.SIGBUS: "It read or wrote past the end of an array: compare each index with the sizes.",
    signal.SIGFPE: "It divided an integer by zero.",
    signal.SIGILL: "The compiler saw that it cannot go on there: it divides by zero, for instance.",
    signal.SIGABRT: "It called abort, or free and malloc found their memory overwritten.",
    signal.SIGPROF: "A loop whose condition never becomes false.",
    signal.SIGKILL: "It waits for what never comes, or asked for all of the memory.",
}
ENDLESS = (signal.SIGPROF, signal.SIGKILL)
#: Seconds by the clock for all checks of a task, where C waits and uses no processor time.
PATIENCE = 90.0
MOST_SHOWN = 4_000
#: A call of what was never declared is an error with a line, and not a library that does not load.
FLAGS = ("-Werror=implicit-function-declaration",)

_standby = Standby()
_library = cache(compile_c)  # all checks of a task call the same function


def compiled(source: Path | str, declaration: str, *flags: str) -> Callable[..., Any]:
    """Compile a function of the learner's C, for a check to call.

    Parameters
    ----------
    source : Path or str
        The file, or its text.
    declaration : str
        The function as a header would declare it.
    *flags : str
        For the compiler.

    Raises
    ------
    Wrong
        If the compiler refuses, with the first thing that it said, or finds no such function.
    """
    text = str(source)
    if isinstance(source, Path):
        text = source.read_text(encoding="utf-8", errors="replace")
    try:
        return _library(text, declaration, *FLAGS, *flags)
    except NoCompilerError as error:
        raise Wrong(
            "", f"C11 that compiles, with {declaration}", *_complaint(text, str(error))
        ) from error
    except AttributeError as error:
        cause = "The name or the signature in your source differs, or the function is static."
        raise Wrong("", f"a function {declaration}", "none of that name", cause) from error
    except OSError as error:
        cause = "It is declared and used, but defined nowhere in your source."
        missing = re.search(r"undefined symbol: \w+", str(error))
        raise Wrong(
            "", "C that can be loaded", missing[0] if missing else str(error), cause
        ) from error


def _complaint(source: str, said: str) -> tuple[str, str]:
    """Return the compiler's first error with the line of the source, and what to do about it."""
    first = re.search(r"rung\.c:(\d+):(?:\d+:)? (?:fatal )?error: (.*)", said)
    if first is None:
        return said, "Is the compiler there? `python -m onebit doctor` tells how to get one."
    line = source.splitlines()[int(first[1]) - 1].strip()
    return f"{first[2]} (line {first[1]}: {line})", "The compiler stopped there, or just before."


def guarded(array: np.ndarray) -> np.ndarray:
    """Return a copy whose last byte is the last that may be touched: to go further is a crash.

    Examples
    --------
    >>> guarded(np.arange(3))
    array([0, 1, 2])
    """
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    nothing = 0  # PROT_NONE: neither read nor write
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + size), mmap.PAGESIZE, nothing)
    copy = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    copy[...] = array
    return copy


def judge_isolated(task: Task, source: Path | str) -> list[str]:
    """Run all checks of a task on C in a process of its own, and return their notes.

    Raises
    ------
    CheckFailed
        By the first check that does not hold, or that the process died in.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = told(
            task, "load", f"{task.names[0]} is C", lambda: _file(source, folder), limited=False
        )
        status = _standby.run(
            id=task.id, source=str(file), seconds=task.seconds, patience=PATIENCE,
            folder=name, environment=dict(os.environ),
        )  # fmt: skip
        said, complained, log = (
            path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for path in (folder / "stdout", folder / "stderr", folder / "log")
        )
    print(said[:MOST_SHOWN], end="")  # what the learner's own printf wrote
    if not log:
        raise RuntimeError(f"the checks of {task.id} did not start: {complained}")
    entries = [json.loads(line) for line in log.splitlines()]
    last = entries[-1]
    if "failed" in last:
        kind = NotWrittenYet if last["unwritten"] else CheckFailed
        raise kind(last["failed"], task.id, last["check"])
    if "notes" in last:
        return last["notes"]
    raise _died(task, entries, status, complained)


def _file(given: Any, folder: Path) -> Path:
    """Return the file that holds the learner's C, given as a text or by its path."""
    if isinstance(given, str) and "\n" not in given and given.endswith(".c"):
        given = Path(given)
    if isinstance(given, Path):
        if not given.is_file():
            cause = "Both files of the exercise belong beside each other, the .py and the .c."
            raise Wrong("", f"a file {given.name}", f"none in {given.resolve().parent}", cause)
        return given.resolve()
    if not isinstance(given, str):
        cause = "The source is wanted, and not a function: it is compiled here."
        raise Wrong("", "C as a text, or the path of its file", type(given).__name__, cause)
    file = folder / "answer.c"
    file.write_text(given, encoding="utf-8")
    return file


def _died(task: Task, entries: list[dict[str, Any]], status: int, said: str) -> CheckFailed:
    """Say in which check and on which input the process ended before its time."""
    name = next(entry["check"] for entry in reversed(entries) if "check" in entry)
    if status == UNWRITTEN:
        return NotWrittenYet(unwritten(task, "NOT_WRITTEN_YET"), task.id, name)
    number = -status
    function = next(function for function in task.checks if function.__name__ == name)
    last = said.strip().splitlines()[-1:]  # such as what the C library found in its memory
    if number in ENDLESS:
        got = "no end"
    elif number > 0:
        got = ": ".join(["a crash", signal.strsignal(number) or f"signal {number}", *last])
    else:
        got = ": ".join([f"the end of the process, with status {status}", *last])
    parts = {
        "input": entries[-1].get("given", ""),
        "expected": f"an answer within {task.seconds:g} s",
        "got": got,
        "likely cause": CAUSES.get(number, "The C code called exit: it is to return."),
    }
    says = (function.__doc__ or "").split("\n")[0].rstrip(".")
    return CheckFailed(message(task, says, parts), task.id, name)


def answer(id: str, source: str, seconds: float, log: Path) -> None:
    """Run the checks of a task in this process and write down how far they came."""
    task = find(id)[1]
    task.seconds = seconds
    answers = dict.fromkeys(task.names, Path(source))
    with open(log, "w", encoding="utf-8", buffering=1) as file:

        def write(**entry: Any) -> None:
            file.write(json.dumps(entry) + "\n")

        Case.announce = lambda case: write(given=case.given)
        notes = []
        for function in task.checks:
            write(check=function.__name__)
            # Nothing but the signal's own action stops a loop in C. The compiler is not timed.
            signal.setitimer(signal.ITIMER_PROF, seconds + 1)
            try:
                note = run_check(task, function, answers)
            except CheckFailed as failure:
                unwritten = isinstance(failure, NotWrittenYet)
                write(failed=str(failure), check=failure.check, unwritten=unwritten)
                return
            notes += [note] if note else []
        write(notes=notes)
