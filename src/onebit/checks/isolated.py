"""Check a learner's C in a process of its own, so that a crash or an endless loop is a message.

    python -m onebit.checks.isolated TASK SOURCE LOG

The process writes to the log, line by line, which check it runs and on which input, and at last
what came of it. When it dies, the log says where.
"""

import ctypes
import json
import mmap
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onebit.checks.judge import CheckFailed, NotWrittenYet, message, run_check, unwritten
from onebit.checks.registry import find
from onebit.checks.tasks import Case, Task, Wrong
from onebit.compiling import NoCompilerError, compile_c

#: What the process exits with where a stub of C is called: ``_Exit(77)``.
UNWRITTEN = 77
CAUSES = {
    signal.SIGSEGV: "It read or wrote past the end of an array: compare each index with the sizes.",
    signal.SIGBUS: "It read or wrote past the end of an array: compare each index with the sizes.",
    signal.SIGFPE: "It divided an integer by zero.",
    signal.SIGVTALRM: "A loop whose condition never becomes false.",
}


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
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    try:
        return compile_c(text, declaration, *flags)
    except NoCompilerError as error:
        raise Wrong(
            "", f"C11 that compiles, with {declaration}", *_complaint(text, str(error))
        ) from error
    except AttributeError as error:
        cause = "The name or the signature in your source differs, or the function is static."
        raise Wrong("", f"a function {declaration}", "none of that name", cause) from error


def _complaint(source: str, said: str) -> tuple[str, str]:
    """Return the compiler's first error with the line of the source, and what to do about it."""
    first = re.search(r":(\d+):(?:\d+:)? (?:fatal )?error: (.*)", said)
    if first is None:
        return said, "Look for a C compiler: `python -m onebit doctor` tells how to get one."
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
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        if not isinstance(source, Path):
            text, source = source, Path(folder) / "answer.c"
            source.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "onebit.checks.isolated", task.id, str(source), str(log)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    print(done.stdout, end="")  # what the learner's own printf wrote
    if not lines:
        raise RuntimeError(f"the checks of {task.id} did not start: {done.stderr}")
    entries = [json.loads(line) for line in lines]
    last = entries[-1]
    if "failed" in last:
        kind = NotWrittenYet if last["unwritten"] else CheckFailed
        raise kind(last["failed"], task.id, last["check"])
    if "notes" in last:
        return last["notes"]
    raise _died(task, entries, done.returncode, done.stderr)


def _died(task: Task, entries: list[dict[str, Any]], status: int, said: str) -> CheckFailed:
    """Say in which check and on which input the process ended before its time."""
    name = next(entry["check"] for entry in reversed(entries) if "check" in entry)
    if status == UNWRITTEN:
        return NotWrittenYet(unwritten(task, "NOT_WRITTEN_YET"), task.id, name)
    number = -status
    function = next(function for function in task.checks if function.__name__ == name)
    if number in CAUSES:
        loop = number == signal.SIGVTALRM
        got = "no end" if loop else f"a crash: {signal.strsignal(number)}"
    else:
        got = f"the process ended early ({signal.strsignal(number) if number > 0 else said[-200:]})"
    parts = {
        "input": entries[-1].get("given", ""),
        "expected": f"an answer within {task.seconds:g} s",
        "got": got,
        "likely cause": CAUSES.get(number, "The C code ended the whole process."),  # type: ignore[call-overload]
    }
    says = (function.__doc__ or "").split("\n")[0].rstrip(".")
    return CheckFailed(message(task, says, parts), task.id, name)


def main(id: str, source: str, log: str) -> None:
    """Run the checks of a task in this process and write down how far they came."""
    task = find(id)[1]
    answers = dict.fromkeys(task.names, Path(source))
    with open(log, "w", encoding="utf-8", buffering=1) as file:

        def write(**entry: Any) -> None:
            file.write(json.dumps(entry) + "\n")

        Case.announce = lambda case: write(given=case.given)
        notes = []
        for function in task.checks:
            write(check=function.__name__)
            # Nothing but the signal's own action stops a loop in C.
            signal.setitimer(signal.ITIMER_VIRTUAL, task.seconds + 1)
            try:
                note = run_check(task, function, answers)
            except CheckFailed as failure:
                unwritten = isinstance(failure, NotWrittenYet)
                write(failed=str(failure), check=failure.check, unwritten=unwritten)
                return
            notes += [note] if note else []
        write(notes=notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
