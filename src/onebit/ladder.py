"""The ladder: one ±1 product computed in many ways, compared bit for bit and timed in turn.

A rung is a function of ``rows`` that multiplies the first rows of A by B. The slow rungs are given
few rows and the fast ones many, so that a Python loop and a vector unit can be timed side by side
within a second; what is compared is multiply-adds a second.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from onebit._native import available_kernels
from onebit.bench.roof import drawn
from onebit.compiling import NoCompilerError, compile_c
from onebit.facts import Table
from onebit.figures import BLUE, INK, ShownFigure, figure, show

__all__ = [
    "NoCompilerError",
    "Step",
    "climb",
    "compile_c",
    "draw",
    "fastest",
    "fastest_cold",
    "on_path",
    "one_core",
    "roofline",
    "table",
    "use_kernel",
]

Rung = Callable[[int], np.ndarray]

CACHE = 2**27
"""Bytes that drive everything else out of the caches."""


@dataclass(frozen=True)
class Step:
    """What one rung was measured to do.

    Attributes
    ----------
    name : str
        Which rung.
    rows : int
        How many rows of A it multiplied at a time.
    seconds : float
        The fastest of its turns, for one call.
    macs_a_second : float
        Multiply-adds a second.
    """

    name: str
    rows: int
    seconds: float
    macs_a_second: float


# ---- which instructions ----------------------------------------------------------------------


@contextlib.contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Compute on one kernel path for the length of a block, whatever was chosen before.

    Parameters
    ----------
    name : str
        One of `onebit.available_kernels`.

    Raises
    ------
    ValueError
        If this machine lacks it.

    Examples
    --------
    >>> from onebit import kernel_name
    >>> with use_kernel("numpy"):
    ...     kernel_name()
    'numpy'
    """
    if name not in available_kernels():
        raise ValueError(
            f"name={name!r} is no kernel path of this machine; choose one of "
            f"{', '.join(available_kernels())}"
        )
    before = os.environ.get("ONEBIT_KERNEL")
    os.environ["ONEBIT_KERNEL"] = name  # which the package reads at every call
    try:
        yield
    finally:
        if before is None:
            del os.environ["ONEBIT_KERNEL"]
        else:
            os.environ["ONEBIT_KERNEL"] = before


def on_path(name: str, rung: Rung) -> Rung:
    """Return a rung that runs on one kernel path.

    Parameters
    ----------
    name : str
        One of `onebit.available_kernels`.
    rung : callable
        What to run.

    Examples
    --------
    >>> from onebit import kernel_name
    >>> on_path("numpy", lambda rows: kernel_name() * rows)(2)
    'numpynumpy'
    """

    def forced(rows: int) -> np.ndarray:
        with use_kernel(name):
            return rung(rows)

    return forced


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep NumPy, torch and the kernel to one thread for the length of a block.

    Examples
    --------
    >>> with one_core():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the kernel takes no more than torch does
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


# ---- the climb -------------------------------------------------------------------------------


def fastest(call: Callable[[], Any], *, turn: float = 0.01, turns: int = 5) -> float:
    """Return the seconds a call takes: the fastest of some turns, each of several calls.

    Parameters
    ----------
    call : callable
        What to time; called once beforehand.
    turn : float
        About how many seconds of calls make a turn.
    turns : int
        How many.

    Examples
    --------
    >>> fastest(lambda: sum(range(1000)), turn=0.001) > 0
    True
    """
    start = time.perf_counter()
    call()
    calls = max(1, round(turn / max(time.perf_counter() - start, 1e-9)))
    return min(_turn(call, calls) for _ in range(turns))


def fastest_cold(call: Callable[[], Any], *, turns: int = 5) -> float:
    """Return the seconds a call takes with its operands in memory and in no cache.

    Parameters
    ----------
    call : callable
        What to time; before each turn, more bytes are read than caches hold.
    turns : int
        How many; the fastest counts.

    Examples
    --------
    >>> fastest_cold(lambda: sum(range(1000)), turns=1) > 0
    True
    """
    others = np.ones(CACHE, np.uint8)
    best = float("inf")
    for _ in range(turns):
        others.max()
        best = min(best, _turn(call, 1))
    return best


def _turn(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def climb(
    rungs: Mapping[str, Rung],
    product: np.ndarray,
    k: int,
    *,
    turn: float = 0.04,
    turns: int = 7,
) -> list[Step]:
    """Compare every rung's result with the right one, then time them turn by turn on one core.

    Parameters
    ----------
    rungs : mapping of str to callable
        ``rung(rows)`` returns the first `rows` rows of the product, as integers or floats.
    product : ndarray, shape (m, n)
        The right one.
    k : int
        The length of the dot products.
    turn : float
        About how many seconds a turn may take; a rung is given as many rows as fit, at least one.
    turns : int
        How many; the fastest counts.

    Returns
    -------
    list of Step
        In the order of `rungs`.

    Raises
    ------
    ValueError
        If a result differs from `product` anywhere.

    Examples
    --------
    >>> a = np.ones((4, 8), int)
    >>> [step.name for step in climb({"NumPy": lambda rows: a[:rows] @ a.T}, a @ a.T, 8, turns=1)]
    ['NumPy']
    """
    m, n = product.shape
    best = dict.fromkeys(rungs, float("inf"))
    with one_core():
        sizes = {name: _rows_for(rung, m, turn) for name, rung in rungs.items()}
        for name, rung in rungs.items():
            if not np.array_equal(rung(sizes[name][0]), product[: sizes[name][0]]):
                raise ValueError(f"{name!r} gives another product, so its time says nothing")
        for _ in range(turns):
            for name, rung in rungs.items():
                rows, calls = sizes[name]
                best[name] = min(best[name], _turn(functools.partial(rung, rows), calls))
    return [
        Step(name, sizes[name][0], seconds, sizes[name][0] * n * k / seconds)
        for name, seconds in best.items()
    ]


def _rows_for(rung: Rung, m: int, turn: float) -> tuple[int, int]:
    """Return how many rows, and how many calls with all of them, fit into a turn."""
    rows = 1
    while True:
        call = functools.partial(rung, rows)
        call()  # the first may build tables or wake threads
        seconds = _turn(call, 1)
        if rows == m or 4 * seconds > turn:
            return rows, max(1, round(turn / seconds))
        rows = min(m, 4 * rows)


def table(steps: Sequence[Step], against: str) -> Table:
    """Return the rungs as a table: rates, and times as fast as one of them.

    Parameters
    ----------
    steps : sequence of Step
        As `climb` returns them.
    against : str
        The name of the rung to compare with.

    Returns
    -------
    onebit.facts.Table
        Text in a terminal, HTML in a notebook.

    Raises
    ------
    ValueError
        If no step has that name.

    Examples
    --------
    >>> table([Step("loop", 1, 1.0, 2e7), Step("words", 9, 1.0, 3e10)], "loop")
           G MAC/s  times as fast
    loop      0.02              1
    words       30          1 500
    <BLANKLINE>
    Thousand millions of multiply-adds a second on one core of this machine.
    """
    base = {step.name: step.macs_a_second for step in steps}.get(against)
    if base is None:
        raise ValueError(
            f"against={against!r} is no rung; choose one of {', '.join(s.name for s in steps)}"
        )
    return Table(
        headings=("", "G MAC/s", "times as fast"),
        rows=tuple(
            (s.name, _short(s.macs_a_second / 1e9), _short(s.macs_a_second / base)) for s in steps
        ),
        caption=("Thousand millions of multiply-adds a second on one core of this machine.",),
    )


def _short(x: float) -> str:
    """Write a number with two digits or all before the point, thousands apart."""
    return f"{x:.2g}" if x < 10 else f"{x:,.0f}".replace(",", " ")


def draw(steps: Sequence[Step], ceilings: Mapping[str, float] | None = None) -> ShownFigure:
    """Draw the rungs as bars on a logarithmic axis, each with its ceiling where one is known.

    Parameters
    ----------
    steps : sequence of Step
        As `climb` returns them; at least one.
    ceilings : mapping of str to float, optional
        For the name of a rung, the multiply-adds a second that its instructions could do at most.

    Returns
    -------
    ShownFigure
        With an alt text that tells the rates.

    Examples
    --------
    >>> draw([Step("loop", 1, 1.0, 2e7), Step("words", 9, 1.0, 3e10)], {"words": 4e10})
    Figure: Bars on a logarithmic axis, in thousand million multiply-adds a second: loop 0.02, \
words 30 of at most 40.
    """
    limits = {} if ceilings is None else dict(ceilings)
    rates = [step.macs_a_second / 1e9 for step in steps]
    told = []
    with figure(size=(7.5, 0.9 + 0.36 * len(steps))) as (fig, ax):
        ax.barh(range(len(steps)), rates, color=BLUE, height=0.62)
        for i, (step, rate) in enumerate(zip(steps, rates, strict=True)):
            ceiling = limits.get(step.name)
            ends = max(rate, (ceiling or 0) / 1e9)
            ax.text(ends * 1.25, i, _short(rate), va="center")
            told.append(f"{step.name} {_short(rate)}")
            if ceiling:
                ax.plot([ceiling / 1e9] * 2, [i - 0.4, i + 0.4], color=INK, linestyle="-")
                told[-1] += f" of at most {_short(ceiling / 1e9)}"
        ax.set_yticks(range(len(steps)), [step.name for step in steps])
        ax.set(xscale="log", xlabel="10⁹ multiply-adds a second")
        ax.set_xlim(min(rates) / 2, max(rates) * 8)
        ax.invert_yaxis()
        ax.grid(False, axis="y")
    alt = "Bars on a logarithmic axis, in thousand million multiply-adds a second: "
    return show(fig, alt=f"{alt}{', '.join(told)}.")


def roofline(
    rates: Mapping[tuple[str, int, int, int], float], ceilings: Mapping[str, float]
) -> ShownFigure:
    """Draw products under the machine's ceilings, against the multiply-adds for each byte.

    Parameters
    ----------
    rates : mapping of (name, m, n, k) to float
        Thousand million multiply-adds a second on one core; the name is ``"onebit"``,
        ``"torch int8"`` or ``"torch float32"``.
    ceilings : mapping of str to float
        As `onebit.bench.ceilings` returns them.

    Returns
    -------
    ShownFigure
        With an alt text that tells the rates.

    Raises
    ------
    ValueError
        If `ceilings` lacks the bandwidth of memory, as where nothing could be measured.

    Examples
    --------
    >>> ceilings = {"xnor": 1200.0, "int8": 340.0, "fma": 85.0, "read memory": 12.0}
    >>> roofline({("onebit", 256, 4096, 4096): 1000.0}, ceilings).alt[:21]
    'Roofline of one core,'
    """
    results = [
        {"case": "binary", "threads": 1, "name": name, "shape": shape, "giga_macs_a_second": rate}
        for (name, *shape), rate in rates.items()
    ]
    fig = drawn({"ceilings": {"1": dict(ceilings)}, "results": results})
    told = ", ".join(
        f"{name} on {m} {'rows' if m > 1 else 'row'} {_short(rate)}"
        for (name, m, _, _), rate in rates.items()
    )
    alt = (
        "Roofline of one core, both axes logarithmic: attainable rates rise with the multiply-adds "
        "for each byte until arithmetic bounds them. Measured, in thousand million multiply-adds a "
        f"second: {told}."
    )
    return show(fig, alt)
