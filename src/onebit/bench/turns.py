"""Turns: whoever is compared runs in every round, in a new order each time.

So a slow second of the machine meets all of them; what counts is the median of the turns.
"""

import math
import random
import time
from dataclasses import dataclass

from onebit.bench.contest import Contestant, Team


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds a turn, rounds, and how long a call may be to join them all.

    Whoever takes longer joins the first, the middle and the last round.
    """

    turn: float = 0.02
    rounds: int = 9
    slow: float = 1.0


QUICK = Effort(turn=0.001, rounds=3)


def compete(contestants: list[Contestant], threads: int, effort: Effort) -> None:
    """Fill every contestant's `turns`: seconds for one call, one value a round."""
    with Team(threads) as team:
        slow: set[int] = set()
        for c in contestants:
            once = c.first_call
            if once <= effort.slow:  # what took long took it not by being the first
                with c.mode():
                    start = time.perf_counter()
                    c.time(1, team)
                    once = time.perf_counter() - start
            c.calls = max(1 if c.seconds is None else 3, math.ceil(effort.turn / once))
            if once > effort.slow:
                slow.add(id(c))
        draw = random.Random(0)
        last = effort.rounds - 1
        spread = {0, last // 2, last}
        for number in range(effort.rounds):
            turn = [c for c in contestants if id(c) not in slow or number in spread]
            for c in draw.sample(turn, len(turn)):
                with c.mode():
                    if c.calls > 1:
                        c.time(1, team)  # brings its operands back to the caches
                    c.turns.append(c.time(c.calls, team))
