"""What the machine can do at most: the loops of kernels/ceilings.c, timed like everybody else."""

import contextlib
import ctypes
import functools
import os
import statistics
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import onebit
from onebit import _native
from onebit.bench.contest import Contestant, GapError
from onebit.bench.machine import cores
from onebit.bench.turns import QUICK, Effort, compete

CACHE = 2**27
"""Bytes that no cache holds: weights in sum larger than this come from memory."""

CEILINGS = ("xnor", "popcount", "logic", "fma", "int8")
KERNELS = Path(__file__).parents[3] / "kernels"


@functools.cache
def loops() -> Any:
    """Compile kernels/ceilings.c and load it; GapError where there is no source or no compiler."""
    source = KERNELS / "ceilings.c"
    if _native.lib is None or not source.is_file():
        raise GapError("kernels/ceilings.c and the C kernel come with a clone of the course")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ceilings.so"
        command = [*compiler, "-std=c11", "-O3", "-shared", "-fPIC", f"-I{KERNELS}"]
        try:
            subprocess.run(
                [*command, str(source), "-o", str(library)], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise GapError(f"kernels/ceilings.c does not compile: {error}") from error
        loaded = ctypes.CDLL(str(library))
    loaded.onebit_ceiling.restype = ctypes.c_int64
    loaded.onebit_ceiling.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    loaded.onebit_read.restype = None
    loaded.onebit_read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
    return loaded


def _path(name: str) -> int:
    return _native._PATHS[name]


def loop(kind: str, path: str) -> tuple[Callable[[], Any], int]:
    """Return a loop of some tenths of a millisecond that does nothing but `kind`, and its size."""
    library, number = loops(), CEILINGS.index(kind)
    rounds = 20_000
    work = library.onebit_ceiling(number, _path(path), rounds) if path != "numpy" else 0
    if not work:
        raise GapError(f"the path {path} has no instruction for it")
    return functools.partial(library.onebit_ceiling, number, _path(path), rounds), work


def reader(memory: np.ndarray) -> Callable[[], Any]:
    """Return a call that loads every byte of `memory` with the widest registers."""
    call, address = loops().onebit_read, memory.ctypes.data
    path = _path(next(iter(_native._PATHS)))

    def read() -> None:
        call(path, address, memory.nbytes // 512 * 512)

    return read


def ceiling_contestant(name: str, path: str, threads: int) -> Contestant:
    """Return what measures a ceiling: every thread runs the loop, or reads its piece of memory."""
    if not name.startswith("read"):
        run, work = loop(name, path)
        parts: list[Callable[[], Any]] = [run] * threads
        return Contestant(name, parts, lambda: None, name, work * threads, meets=False)
    size = CACHE if name == "read memory" else int(name.split()[1])
    memory = np.ones(size, np.uint8)
    parts = [reader(piece) for piece in np.array_split(memory, threads)]
    return Contestant(name, parts, lambda: None, name, size, meets=False)


def ceilings(
    threads: int = 1,
    *,
    effort: Effort = QUICK,
    of_turns: Callable[[Sequence[float]], float] = min,
) -> dict[str, float]:
    """Return what the machine does at most, in thousand millions a second.

    Parameters
    ----------
    threads : int
        How many run the loops at the same time.
    effort : Effort
        How long to measure.
    of_turns : callable
        Which of the turns' times counts: `min`, or `statistics.median` as in the benchmark.

    Returns
    -------
    dict
        ``xnor``, for the kernel path in use, ``popcount``, ``logic``, ``fma``, ``int8`` and
        ``read memory``, in bytes; empty where there is no compiler or no clone.

    Examples
    --------
    >>> all(rate > 0 for rate in ceilings().values())
    True
    """
    widest, path = next(iter(_native._PATHS)), onebit.kernel_name()
    contestants = []
    for name in (*CEILINGS, "read memory"):
        with contextlib.suppress(GapError):
            contestants.append(
                ceiling_contestant(name, path if name == "xnor" else widest, threads)
            )
    compete(contestants, threads, effort)
    return {c.name: c.work / of_turns(c.turns) / 1e9 for c in contestants}


def ceilings_alone(effort: Effort) -> dict[str, dict[str, float]]:
    """Return the medians of what the machine does at most, by threads."""
    return {
        str(threads): ceilings(threads, effort=effort, of_turns=statistics.median)
        for threads in sorted({1, cores()})
    }
