"""What one neuron can compute: its Boolean functions, enumerated, and counted as regions."""

from collections.abc import Iterable
from functools import cache
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from onebit._operands import check_whole

MOST_TRUTH_TABLES = 20_000_000  # bytes before doubles are dropped
_Plane = tuple[int, ...]


def sign_vectors(k: int) -> NDArray[np.int64]:
    """Return all vectors of k signs, one a row.

    Parameters
    ----------
    k : int
        Length of a vector, 1 to 16.

    Returns
    -------
    int64 array (2**k, k)
        From all −1 to all +1, the last column changing fastest.

    Raises
    ------
    TypeError, ValueError
        If `k` is no whole number from 1 to 16.

    Examples
    --------
    >>> sign_vectors(2).tolist()
    [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    """
    k = check_whole("k", k, 1, 16)
    return np.array(list(product((-1, 1), repeat=k)), dtype=np.int64)


def neuron_functions(
    k: int, weights: Iterable[int] = (-1, 1), *, threshold: bool = False
) -> NDArray[np.bool_]:
    """Enumerate the different functions of one neuron with k inputs of ±1 and weights from a set.

    The neuron gives +1 where ``w · x ≥ θ`` and −1 elsewhere. Every vector of weights is tried,
    with every integer θ that makes a difference or with θ = 0 alone.

    Parameters
    ----------
    k : int
        Inputs, 1 to 16.
    weights : iterable of int
        The values that each weight can take: (−1, 1), (−1, 0, 1), or more.
    threshold : bool
        Whether θ is free, as it is where batch norm stands between product and sign.

    Returns
    -------
    bool array (functions, 2**k)
        One truth table a row, each different; the columns are the inputs, in the order of
        `sign_vectors`, and True is +1.

    Raises
    ------
    TypeError
        If `k` or a weight is no whole number.
    ValueError
        If `k` is out of range, `weights` is empty, or the enumeration does not fit into memory.

    Examples
    --------
    >>> len(neuron_functions(3)), len(neuron_functions(3, (-1, 0, 1)))
    (8, 27)
    >>> neuron_functions(1, threshold=True).astype(int).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    x = sign_vectors(k)
    values = sorted({check_whole("each of weights", w, -(2**20), 2**20) for w in weights})
    if not values:
        raise ValueError("weights is empty; give the values that a weight can take, as (-1, 1)")
    largest = k * max(abs(w) for w in values)
    thetas = range(-largest, largest + 2) if threshold else range(1)
    size = len(values) ** k * len(x) * len(thetas)
    if size > MOST_TRUTH_TABLES:
        raise ValueError(
            f"k={k} with {len(values)} values a weight makes {size} entries of truth tables, more "
            f"than {MOST_TRUTH_TABLES}; take fewer inputs or fewer values"
        )
    sums = np.array(list(product(values, repeat=k))) @ x.T
    tables = np.concatenate([sums >= theta for theta in thetas])
    return np.unique(tables, axis=0)


def regions(normals: Iterable[Iterable[int]]) -> int:
    """Count the regions into which planes through the origin cut space, exactly.

    A further plane adds as many regions as the others cut the plane itself into. So the count
    without it, plus the count within it, is the count with it, down to no planes and one region.

    Parameters
    ----------
    normals : iterable of vectors
        One a plane, of integers, all of one length, none of them zero. Multiples of one another
        are the same plane.

    Raises
    ------
    TypeError
        If an entry is no whole number.
    ValueError
        If lengths differ, or a vector is zero.

    References
    ----------
    Deletion and restriction, as in T. Zaslavsky, "Facing up to arrangements", 1975.

    Examples
    --------
    >>> regions([(1, 0), (0, 1), (1, 1)])  # three lines through a point
    6
    """
    planes = [tuple(check_whole("each entry of normals", c, -(2**53), 2**53) for c in v)
              for v in normals]  # fmt: skip
    if len({len(v) for v in planes}) > 1:
        raise ValueError("normals have different lengths; planes of one space have one length")
    if any(not any(v) for v in planes):
        raise ValueError("normals holds a zero vector, which is no plane's normal")
    return _regions(frozenset(map(_primitive, planes)))


@cache
def _regions(planes: frozenset[_Plane]) -> int:
    if not planes:
        return 1
    cut = max(planes)
    others = planes - {cut}
    return _regions(others) + _regions(frozenset(_within(cut, v) for v in others))


def _within(cut: _Plane, v: _Plane) -> _Plane:
    """Return where v's plane meets cut's, in coordinates of cut's plane."""
    p = next(i for i, c in enumerate(cut) if c)
    return _primitive(tuple(v[i] * cut[p] - cut[i] * v[p] for i in range(len(v)) if i != p))


def _primitive(v: _Plane) -> _Plane:
    """Return the one multiple of v without common divisor whose first entry is positive."""
    divisor = gcd(*v)
    if next(c for c in v if c) < 0:
        divisor = -divisor
    return tuple(c // divisor for c in v)


def threshold_functions(k: int) -> int:
    """Count the functions of k inputs of ±1 that one neuron with real weights and threshold has.

    Weights and threshold are a point in space of k + 1 dimensions. Each input is a plane through
    it, on one side of which the neuron answers +1; two points compute the same function exactly
    if they lie in the same region between the planes.

    Parameters
    ----------
    k : int
        Inputs, 1 to 5; the work grows as fast as the count.

    Raises
    ------
    TypeError, ValueError
        If `k` is no whole number from 1 to 5.

    References
    ----------
    Baldi and Vershynin, "On Neuronal Capacity", NeurIPS 2018, on how the logarithm of this count
    grows.

    Examples
    --------
    >>> [threshold_functions(k) for k in (1, 2, 3)]
    [4, 14, 104]
    """
    k = check_whole("k", k, 1, 5)
    return regions([*x, 1] for x in sign_vectors(k).tolist())
