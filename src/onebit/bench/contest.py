"""Contestants: who computes a product, and how long a call takes, on one thread or on several.

A call is over when its whole result is there. A library with threads of its own sees to that; one
without is given halves of the product, one to each of as many Python threads, and after each call
these wait for each other. Two locks do it for a thread, one to begin and one to end, which is the
cheapest way there is in Python: a call of nothing at all took 7 µs at its quickest, where a
`Barrier` took 14, a `ThreadPoolExecutor` 24, and threads that spin on a counter in C, but need the
interpreter to make the next call, 74. Every run measures that time anew (`handing_over`). Where it
costs a library more than the second thread brings, the library is timed on one.
"""

import contextlib
import functools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from onebit.bench.operands import Operands


class GapError(Exception):
    """A peer that cannot take part; the message says why."""


@dataclass
class Contestant:
    """Somebody who computes a product, ready to be called.

    Attributes
    ----------
    name : str
        Who it is.
    parts : list of callables
        One for each thread of Python that takes part; a library with threads of its own has one.
    result : callable
        Gives the product of the last calls as it came, for the comparison.
    ceiling : str
        Which of the machine's ceilings bounds it; empty if no single one does.
    work : int
        What one call computes, in the unit of the ceiling: multiply-adds, or bytes read.
    packing : dict
        Seconds that bringing the operands into its form took, `a` once a call, `b` once in all.
    mode : context manager factory
        Switches that must be set while it runs.
    seconds : callable, optional
        The library's own clock for the last call, where it does more in a call than the product.
    first_call : float
        Seconds until the first result.
    turns : list of float
        Seconds a call in each turn, of `calls` calls.
    meets : bool
        Whether the threads meet after every call; loops that measure the machine do so after a
        turn, since what they find is to bound everybody.
    """

    name: str
    parts: list[Callable[[], Any]]
    result: Callable[[], Any]
    ceiling: str
    work: int
    packing: dict[str, float] = field(default_factory=dict)
    mode: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    seconds: Callable[[], float] | None = None
    first_call: float = 0.0
    turns: list[float] = field(default_factory=list)
    calls: int = 1
    meets: bool = True

    def time(self, calls: int, team: "Team") -> float:
        """Return the seconds that one of `calls` calls took."""
        if self.seconds is not None:
            return self._time_by_its_own_clock(calls)
        start = time.perf_counter()
        if self.meets and len(self.parts) > 1:
            for _ in range(calls):
                team.together(self.parts)
        else:
            team.together([functools.partial(_repeat, part, calls) for part in self.parts])
        return (time.perf_counter() - start) / calls

    def _time_by_its_own_clock(self, calls: int) -> float:
        assert self.seconds is not None
        total = 0.0
        for _ in range(calls):
            self.parts[0]()
            total += self.seconds()
        return total / calls


def _repeat(part: Callable[[], Any], calls: int) -> None:
    for _ in range(calls):
        part()


class _Worker(threading.Thread):
    """A thread that does its part each time `go` is released, and then releases `done`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()
        self.part: Callable[[], Any] | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.part is None:
                return
            try:
                self.part()
            except BaseException as error:
                self.error = error
            self.done.release()


class Team:
    """The caller's thread and some more, which do the parts of a call at the same time.

    Parameters
    ----------
    threads : int
        With the caller's own.

    Examples
    --------
    >>> done = []
    >>> with Team(2) as team:
    ...     team.together([lambda: done.append(1), lambda: done.append(1)])
    >>> done
    [1, 1]
    """

    def __init__(self, threads: int) -> None:
        self._workers = [_Worker() for _ in range(threads - 1)]

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.part = None
            worker.go.release()
            worker.join()

    def together(self, parts: Sequence[Callable[[], Any]]) -> None:
        """Do the parts, at most one to a thread, and return once all are done.

        Raises
        ------
        Exception
            Whatever a part raises, once all have ended.
        """
        first, *others = parts
        busy = self._workers[: len(others)]
        for worker, part in zip(busy, others, strict=True):
            worker.part = part
            worker.go.release()
        try:
            first()
        finally:
            for worker in busy:
                worker.done.acquire()
        for worker in busy:
            if worker.error is not None:
                error, worker.error = worker.error, None
                raise error


def handing_over(threads: int, calls: int = 1000, turns: int = 15) -> float:
    """Return the seconds that threads of Python take to begin a call together and to end it.

    Examples
    --------
    >>> handing_over(2, calls=10, turns=1) > 0
    True
    """
    nothing = Contestant("nothing", [lambda: None] * threads, lambda: None, "", 0)
    with Team(threads) as team:
        return statistics.median(nothing.time(calls, team) for _ in range(turns))


def timed(call: Callable[[], Any], packing: dict[str, float], side: str) -> Any:
    """Return what `call` returns, and note the median of its times where that is cheap."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 0.2:
        start = time.perf_counter()
        made = call()
        seconds.append(time.perf_counter() - start)
    packing[side] = packing.get(side, 0.0) + statistics.median(seconds)
    return made


Maker = Callable[[Operands, int], Contestant]
"""What makes a contestant ready for operands and a number of threads."""
