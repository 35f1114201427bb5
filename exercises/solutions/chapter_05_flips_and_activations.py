"""Solutions of chapter 5's exercises: flips, widths, activations of few bits, and Bop."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Run = Callable[[float, Callable[[nn.Module], None]], float]


def flip_ratio(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """ch05.1 The share that flipped."""
    flips = sum(((a >= 0) != (b >= 0)).sum().item() for a, b in zip(before, after, strict=True))
    return flips / sum(a.numel() for a in before)


def width_for(errors: dict[int, float], target: float) -> float:
    """ch05.2 A gap in width."""
    first = min(errors)
    if errors[first] <= target:
        return float(first)
    for (n, error), (m, lower) in pairwise(errors.items()):
        if lower <= target:
            way = (error - target) / (error - lower)
            return n * (m / n) ** way
    return math.inf


def levels(x: Tensor, bits: int) -> Tensor:
    """ch05.3 Activations of few bits."""
    steps = 2**bits - 1
    soft = x.clamp(-1, 1)
    step = ((soft.detach() + 1) / 2 * steps + 0.5).floor()
    return soft + (2 * step / steps - 1 - soft).detach()


def bop_step(w_b: Tensor, average: Tensor, grad: Tensor, gamma: float, threshold: float) -> None:
    """ch05.4 A step of Bop."""
    average.mul_(1 - gamma).add_(gamma * grad)
    flip = (average.abs() > threshold) & (average.sign() == w_b)
    w_b[flip] *= -1


def flips_at_rates(rates: Sequence[float], run: Run) -> dict[float, float]:
    """ch05.5 The rate sets the number of flips."""
    found = {}
    for rate in rates:
        seen: list[list[Tensor]] = []
        ratios: list[float] = []

        def watch(model: nn.Module, seen: list = seen, ratios: list = ratios) -> None:
            with torch.no_grad():
                seen.append([w.clone() for w in model.parameters() if w.dim() == 2])
            if len(seen) == 2:
                ratios.append(flip_ratio(seen.pop(0), seen[0]))

        run(rate, watch)
        found[rate] = 100 * sum(ratios) / len(ratios)
    return found
