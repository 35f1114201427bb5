"""What two or three values leave of a weight: the least-squares residual of binary and ternary.

A ternary quantizer with a threshold and a scale turns w into scale · sign(w) where ``|w|`` is
beyond the threshold, and into 0 elsewhere; with threshold 0 it is binary. Its relative residual is
E(w − ŵ)² / E w². Distributions here have an absmean of 1, so that thresholds and scales are in
absmeans: BitNet b1.58's are 0.5 and 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class Distribution(NamedTuple):
    """A symmetric distribution of weights with ``mean |w| = 1``, by its tails.

    Attributes
    ----------
    name : str
    mean_square : float
        E w².
    beyond : callable
        Threshold t to ``P(|w| > t)``.
    mass_beyond : callable
        Threshold t to ``E[|w|; |w| > t]``, which is 1 at t = 0.
    """

    name: str
    mean_square: float
    beyond: Callable[[float], float]
    mass_beyond: Callable[[float], float]


GAUSSIAN = Distribution(
    "Gaussian",
    math.pi / 2,
    lambda t: math.erfc(t / math.sqrt(math.pi)),
    lambda t: math.exp(-(t**2) / math.pi),
)
LAPLACE = Distribution("Laplace", 2.0, lambda t: math.exp(-t), lambda t: (1 + t) * math.exp(-t))
UNIFORM = Distribution(
    "uniform", 4 / 3, lambda t: max(0.0, 1 - t / 2), lambda t: max(0.0, 1 - t**2 / 4)
)


def zeros(distribution: Distribution, threshold: float) -> float:
    """Return the share of weights that become 0.

    Parameters
    ----------
    distribution : Distribution
    threshold : float
        In absmeans, not negative.

    Raises
    ------
    ValueError
        If the threshold is negative.

    Examples
    --------
    >>> [round(zeros(d, 0.5), 3) for d in (UNIFORM, GAUSSIAN, LAPLACE)]
    [0.25, 0.31, 0.393]
    """
    _check(threshold)
    return 1 - distribution.beyond(threshold)


def best_scale(distribution: Distribution, threshold: float) -> float:
    """Return the scale with the least residual at a threshold: the mean of ``|w|`` beyond it.

    Parameters
    ----------
    distribution : Distribution
    threshold : float
        In absmeans, not negative.

    Raises
    ------
    ValueError
        If the threshold is negative, or so large that no weight is beyond it.

    References
    ----------
    Ternary Weight Networks (arXiv:1605.04711); XNOR-Net (arXiv:1603.05279), Eq. 6, for
    threshold 0.

    Examples
    --------
    >>> best_scale(GAUSSIAN, 0.0), best_scale(LAPLACE, 1.0)
    (1.0, 2.0)
    """
    _check(threshold)
    if not distribution.beyond(threshold) > 0:
        raise ValueError(f"threshold {threshold} leaves no weight of the {distribution.name} one")
    return distribution.mass_beyond(threshold) / distribution.beyond(threshold)


def residual(distribution: Distribution, threshold: float, scale: float | None = None) -> float:
    """Return E(w − ŵ)² / E w², what the quantised weights do not reproduce.

    Parameters
    ----------
    distribution : Distribution
    threshold : float
        In absmeans, not negative; 0 makes the weights binary.
    scale : float, optional
        In absmeans; by default the best one.

    Raises
    ------
    ValueError
        If the threshold is negative, or no weight is beyond it.

    Examples
    --------
    >>> round(residual(GAUSSIAN, 0.0), 3), round(residual(GAUSSIAN, 0.5, scale=1.0), 3)
    (0.363, 0.263)
    """
    if scale is None:
        scale = best_scale(distribution, threshold)
    _check(threshold)
    kept = 2 * scale * distribution.mass_beyond(threshold)
    return 1 - (kept - scale**2 * distribution.beyond(threshold)) / distribution.mean_square


def best_threshold(distribution: Distribution) -> float:
    """Return the threshold with the least residual, where it is half its own best scale.

    There a weight on the threshold is as far from 0 as from the scale (Lloyd's condition).

    Parameters
    ----------
    distribution : Distribution

    Examples
    --------
    >>> [round(best_threshold(d), 3) for d in (UNIFORM, GAUSSIAN, LAPLACE)]
    [0.667, 0.767, 1.0]
    """
    threshold = 0.5
    for _ in range(100):  # each pass at least halves what is missing for these distributions
        threshold = best_scale(distribution, threshold) / 2
    return threshold


def _check(threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more, in absmeans, got {threshold}")
