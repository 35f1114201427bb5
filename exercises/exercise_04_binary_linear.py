"""Exercise 4: a binary linear layer, from the sign of a weight to a third value.

Six tasks, two and a half hours; the page "Exercise" of the book tells the story to them. `make
exercises` copies this file to exercises/work: write there, in place of each NotImplementedError.

    pytest exercises -k exercise_04        check all, or -k 04.2 for one task
    python -m onebit hint 04.2             one hint, and one more each time
    check("04.2", SignSTE)                 the same in a notebook: from onebit.checks import check

Latent weights are called w and have shape (n, k): n outputs, k inputs. The sign of zero is +1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Makes a layer of so many inputs and outputs.
Linear = Callable[[int, int], nn.Module]


def binary_linear(x: Tensor, w: Tensor) -> Tensor:
    """04.1 Signs in the product (easy, 10 minutes, about 2 lines).

    Return x times the signs of w: x (m, k) and w (n, k) give (m, n), in the dtype of x. The latent
    weights themselves stay as they are.
    """
    raise NotImplementedError


class SignSTE(torch.autograd.Function):
    """04.2 A gradient through the sign (medium, 25 minutes, about 8 lines).

    Forward the sign of w, of any shape; backward the gradient as it came where |w| <= clip_value,
    and zero elsewhere. With clip_value None it passes everywhere. Use: SignSTE.apply(w, 1.0).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, clip_value: float | None) -> Tensor:
        """Return the signs of w, and keep in ctx what backward will need."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for w, and None for clip_value, which has none."""
        raise NotImplementedError


class BinaryLinear(nn.Module):
    """04.3 Train on digits (medium, 35 minutes, about 12 lines).

    A layer without bias that multiplies by the signs of its latent weights, a parameter `weight`
    of shape (out_features, in_features), drawn uniformly within 1 / sqrt(in_features) of zero.
    Gradients pass the sign everywhere. `clip_latent` below belongs to the task.

    Try it: `network` and `fit` of onebit.checks.digits build and train a small network of your
    layers, fit(network(BinaryLinear, seed=0), 0.01, clip_latent).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times the signs of the weights, (m, out_features)."""
        raise NotImplementedError


def clip_latent(model: nn.Module) -> None:
    """Set the latent weights of BinaryLinear layers beyond ±1 to ±1, in place; nothing else."""
    raise NotImplementedError


def compare(
    layers: dict[str, Linear],
    seeds: Sequence[int],
    rates: Sequence[float],
    error: Callable[[Linear, int, float], float],
) -> dict[str, list[float]]:
    """04.4 Compare with full precision (easy, 20 minutes, about 5 lines).

    For each kind of layer, return the test errors of all seeds, in their order, at the one rate
    whose mean over the seeds is lowest. `error(linear, seed, rate)` trains a network of such
    layers and returns its test error in %: call it once for each combination.
    """
    raise NotImplementedError


def scaled_sign(w: Tensor) -> Tensor:
    """04.5 Scaling factors (medium, 30 minutes, about 3 lines).

    Return alpha * sign(w) with one alpha for each output, the mean magnitude of its weights: w has
    shape (n, k), or (n, c, height, width) for a convolution. The gradient passes the sign
    everywhere, and reaches w through alpha as well.
    """
    raise NotImplementedError


def ternary(w: Tensor) -> Tensor:
    """04.6 The third value (hard, 30 minutes, about 10 lines).

    Return gamma * clip(round(w / gamma), -1, 1), where gamma is the mean of |w| over the whole
    tensor. Backward, the gradient passes to w unchanged, as if nothing had been rounded.
    `TernaryLinear` below belongs to the task.
    """
    raise NotImplementedError


class TernaryLinear(nn.Module):
    """A layer like `BinaryLinear`, with `ternary` in place of the signs."""

    def __init__(self, in_features: int, out_features: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times the ternary weights, (m, out_features)."""
        raise NotImplementedError
