"""Cases: which shapes on how many threads, who competes, and the record of each."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import onebit
from onebit import _native
from onebit.bench.avx2 import AVX2
from onebit.bench.binary import BINARY, this_kernel_cold
from onebit.bench.contest import Contestant, GapError, Maker
from onebit.bench.limits import ceiling_contestant
from onebit.bench.machine import cores
from onebit.bench.mlp import MLP_MACS, mlp_makers
from onebit.bench.operands import Operands, draw
from onebit.bench.signs import packing_makers
from onebit.bench.ternary import TERNARY, this_ternary_kernel_cold
from onebit.bench.turns import QUICK, Effort, compete

SHAPES = (
    (1, 4096, 4096),
    (32, 1024, 1024),
    (256, 4096, 4096),
    (1024, 1024, 1024),
    (3136, 64, 576),
    (4096, 4096, 4096),
)
AVX2_SHAPES = ((256, 4096, 4096), (1024, 1024, 1024))
TERNARY_SHAPES = ((1, 4096, 4096), (256, 4096, 4096))
QUICK_SHAPES = ((1, 512, 512), (32, 256, 512))


def prepare(
    makers: dict[str, Maker], o: Operands, expected: np.ndarray, threads: int
) -> tuple[list[Contestant], dict[str, str]]:
    """Make every contestant and compare its result; return those that may run, and the gaps.

    Who would run as halves in threads of Python is made a second time for one thread.
    """
    ready: list[Contestant] = []
    gaps: dict[str, str] = {}
    for name, make in makers.items():
        try:
            made = [make(o, threads)]
            if len(made[0].parts) > 1:
                made.append(make(o, 1))
            equal = all([_gives(contestant, expected) for contestant in made])
        except ImportError as error:
            gaps[name] = f"not installed ({error})"
        except Exception as error:  # whatever somebody else's library may raise
            gaps[name] = f"{type(error).__name__}: {error}".split("\n")[0]
        else:
            if equal:
                ready.extend(made)
            else:
                gaps[name] = "its result is wrong, so its time says nothing"
    return ready, gaps


def _gives(contestant: Contestant, expected: np.ndarray) -> bool:
    with contestant.mode():
        start = time.perf_counter()
        result = contestant.result()
        contestant.first_call = time.perf_counter() - start
        return np.array_equal(result, expected)


def _quicker_of_each(contestants: list[Contestant]) -> list[Contestant]:
    """Return one contestant of each name: whoever ran faster, on all threads or on one."""
    best: dict[str, Contestant] = {}
    for c in contestants:
        rival = best.get(c.name)
        if rival is None or statistics.median(c.turns) < statistics.median(rival.turns):
            best[c.name] = c
    return list(best.values())


@dataclass(frozen=True)
class Case:
    """One shape, one number of threads, and who competes."""

    title: str
    shape: tuple[int, ...]
    threads: int
    makers: dict[str, Maker]
    path: str
    macs: int
    ternary: bool = False

    def __str__(self) -> str:
        return f"{self.title} {'×'.join(map(str, self.shape))}, threads {self.threads}"


def measure(
    case: Case, o: Operands, expected: np.ndarray, effort: Effort
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Let everybody compete; return a record for each, and who is missing and why."""
    ready, missing = prepare(case.makers, o, expected, case.threads)
    ceilings = []
    widest = next(iter(_native._PATHS))
    for name in sorted({c.ceiling for c in ready if c.ceiling}):
        try:
            path = case.path if name == "xnor" else widest
            ceilings.append(ceiling_contestant(name, path, case.threads))
        except GapError as error:
            missing[f"ceiling {name}"] = str(error)
    compete([*ready, *ceilings], case.threads, effort)
    most = {c.name: c.work / statistics.median(c.turns) for c in ceilings}
    gaps = [{"case": str(case), "name": name, "reason": why} for name, why in missing.items()]
    halved = {c.name for c in ready if len(c.parts) > 1}
    ready = _quicker_of_each(ready)
    peers = [c for c in ready if not c.name.startswith("onebit")]
    fastest = min(peers, key=lambda c: statistics.median(c.turns), default=None)
    records = []
    for c in ready:
        seconds = statistics.median(c.turns)
        over = fastest if c.name == "onebit" else None
        records.append(
            {
                "case": case.title,
                "shape": list(case.shape),
                "threads": case.threads,
                "name": c.name,
                "seconds": seconds,
                "turns": c.turns,
                "calls_a_turn": c.calls,
                "giga_macs_a_second": case.macs / seconds / 1e9 or None,
                "gigabytes_a_second": c.work / seconds / 1e9 if "read" in c.ceiling else None,
                "ceiling": c.ceiling,
                "ceiling_rate": most.get(c.ceiling),
                "share_of_ceiling": (
                    c.work / seconds / most[c.ceiling] if c.ceiling in most else None
                ),
                "quicker_on_one_thread": c.name in halved and len(c.parts) == 1,
                "fastest_peer": over.name if over else None,
                "over_fastest_peer": statistics.median(over.turns) / seconds if over else None,
                "over_fastest_peer_at_best": (
                    min(min(peer.turns) for peer in peers) / min(c.turns) if over else None
                ),
                "packing_seconds": c.packing,
            }
        )
    return records, gaps


def cases(quick: bool) -> Iterator[Case]:
    """Give the products in order of shape, so that operands are drawn once a shape."""
    path = onebit.kernel_name()
    all_threads = sorted({1, cores()})
    for shape in QUICK_SHAPES if quick else SHAPES:
        cold = {"onebit, cold": this_kernel_cold} if shape[0] == 1 else {}
        for threads in all_threads:
            yield Case("binary", shape, threads, {**BINARY, **cold}, path, math.prod(shape))
    if "avx2" in onebit.available_kernels():
        for shape in QUICK_SHAPES[1:] if quick else AVX2_SHAPES:
            for threads in all_threads:
                yield Case("binary, avx2 only", shape, threads, AVX2, "avx2", math.prod(shape))
    for shape in QUICK_SHAPES if quick else TERNARY_SHAPES:
        cold = {"onebit, cold": this_ternary_kernel_cold} if shape[0] == 1 else {}
        for threads in all_threads:
            makers = {**TERNARY, **cold}
            yield Case("ternary", shape, threads, makers, path, math.prod(shape), ternary=True)


def measure_all(
    quick: bool, tell: Callable[[list[dict[str, Any]]], None]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Measure products, packing and networks; `tell` hears of every case as it ends."""
    effort = QUICK if quick else Effort()
    records: list[dict[str, Any]] = []
    gaps: list[dict[str, str]] = []

    def add(case: Case, o: Operands, expected: np.ndarray) -> None:
        more, missing = measure(case, o, expected, effort)
        tell(more)
        records.extend(more)
        gaps.extend(missing)

    drawn: tuple[Any, Operands] | None = None
    for case in cases(quick):
        if drawn is None or drawn[0] != (case.shape, case.ternary):
            drawn = (case.shape, case.ternary), draw(case.shape, case.ternary)
        add(case, drawn[1], drawn[1].product)

    path, nothing = onebit.kernel_name(), draw((1, 1, 1))
    side = 512 if quick else 4096
    x = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    x[x == 0] = 1  # whose sign is a matter of convention
    add(
        Case("packing float32", x.shape, 1, packing_makers(x), path, macs=0),
        nothing,
        onebit.pack_signs(x).view(np.uint8),
    )
    for batch in (1, 256):
        makers, expected = mlp_makers(batch)
        for threads in sorted({1, cores()}):
            case = Case(
                "MLP 784–3×1024–10, batch", (batch,), threads, makers, path, batch * MLP_MACS
            )
            add(case, nothing, expected)
    return records, gaps
