"""Operands: two matrices drawn for a shape, their product, and how threads share its rows."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Operands:
    """Two matrices to multiply, a @ b.T, in int8 and float32, and their product."""

    a: np.ndarray
    b: np.ndarray
    a_float: torch.Tensor
    b_float: torch.Tensor
    product: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, outputs and inputs: m, n, k."""
        return len(self.a), len(self.b), self.a.shape[1]

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return math.prod(self.shape)


def draw(shape: tuple[int, ...], ternary: bool = False) -> Operands:
    """Return signs, or int8 activations and ternary weights, the same at every run."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    if ternary:
        a = rng.integers(-127, 128, (m, k), dtype=np.int8)
        a[:, ::64] = 127  # so that a peer that scales by the largest of a block scales by 1
        b = rng.integers(-1, 2, (n, k), dtype=np.int8)
    else:
        a, b = (2 * rng.integers(0, 2, (rows, k), dtype=np.int8) - 1 for rows in (m, n))
    a_float, b_float = (torch.from_numpy(x).float() for x in (a, b))
    # Exact: no partial sum passes 2^24.
    product = (a_float @ b_float.T).to(torch.int32).numpy()
    return Operands(a, b, a_float, b_float, product)


def bound(o: Operands, ceiling: str, weight_bytes: int) -> tuple[str, int]:
    """Return what bounds a product: arithmetic, or for a single row reading the weights."""
    if len(o.a) == 1:
        return f"read {weight_bytes}", weight_bytes
    return ceiling, o.work


def halves(o: Operands, threads: int) -> list[tuple[slice, slice]]:
    """Share rows of the product among threads, or outputs where there is one row."""
    m, n, _ = o.shape
    size = m if m > 1 else n
    cuts = [size * i // threads for i in range(threads + 1)]
    pieces = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
    whole = slice(None)
    return [(piece, whole) if m > 1 else (whole, piece) for piece in pieces]


def shared(
    o: Operands, threads: int, make: Callable[[slice, slice], Callable[[], Any]]
) -> tuple[list[Callable[[], Any]], Callable[[], np.ndarray]]:
    """Make one call for each thread; the second value computes and joins their results."""
    parts = [make(rows, outputs) for rows, outputs in halves(o, threads)]
    axis = 0 if len(o.a) > 1 else 1
    return parts, lambda: np.concatenate([np.asarray(part()) for part in parts], axis=axis)


def bits_of(x: np.ndarray) -> np.ndarray:
    """Return signs as bytes of bits, the form that the Hamming-distance libraries take."""
    return np.packbits(x > 0, axis=1, bitorder="little")


def from_distances(o: Operands, distances: Callable[[], Any]) -> Callable[[], np.ndarray]:
    """Return what turns the Hamming distances of a call into products: k − 2·distance."""
    k = o.shape[2]
    return lambda: k - 2 * np.asarray(distances()).astype(np.int64)
