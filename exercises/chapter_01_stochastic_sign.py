"""Exercises of chapter 1: bits drawn at random, latent weights in bounds, and a fair test.

Six tasks, two hours; they belong to the sections from "Keep the doubt within bounds" to "The trap,
made visible" of chapter 1 of the book. `make exercises` copies this file to exercises/work: write
there, in place of each NotImplementedError.

    pytest exercises -k chapter_01         check all, or -k ch01.2 for one task
    python -m onebit hint ch01.2           one hint, and one more each time
    check("ch01.2", draw_signs)            the same in a notebook: from onebit.checks import check

Latent weights are called w; those of a layer have the shape (n, k), n outputs and k inputs. Where a
generator is asked for, all chance comes from it, and from torch's own where it is None.
"""

import torch
from torch import Tensor, nn


def plus_probability(w: Tensor) -> Tensor:
    """ch01.1 How likely is plus one (warm-up, 5 minutes, about 1 line).

    Return the probability with which BinaryConnect draws +1 for each latent weight, the hard
    sigmoid of w: of any shape, in the dtype of w.
    """
    raise NotImplementedError


def draw_signs(w: Tensor, generator: torch.Generator | None) -> Tensor:
    """ch01.2 Draw the bit (easy, 15 minutes, about 2 lines).

    Return +1 or −1 for each latent weight, drawn by itself with that probability: of the shape and
    dtype of w, which stays as it is. torch.rand and torch.bernoulli take a generator.
    """
    raise NotImplementedError


def draw_through(w: Tensor, generator: torch.Generator | None) -> Tensor:
    """ch01.3 Straight through a draw (medium, 25 minutes, about 2 lines).

    Return what `draw_signs` returns, exactly ±1; backward, the gradient passes to w as it came, for
    every w. A torch.autograd.Function can do it; so can one line without.
    """
    raise NotImplementedError


def clipped_step(optimizer: torch.optim.Optimizer, latent: list[Tensor]) -> None:
    """ch01.4 Clip after the step (easy, 15 minutes, about 4 lines).

    Let the optimizer do a step, then set those of the latent weights that lie beyond ±1 to ±1, in
    place. What else the optimizer moves, such as the parameters of batch norm, is free.
    """
    raise NotImplementedError


class StochasticLinear(nn.Module):
    """ch01.5 Drawn in training, real in the test (medium, 30 minutes, about 8 lines).

    A layer without bias with latent weights in a parameter `weight` (out_features, in_features),
    drawn uniformly within 1 / sqrt(in_features) of zero. In training mode it multiplies by signs
    that are drawn anew at each call, and gradients pass the draw; in evaluation mode it multiplies
    by the real latent weights, as the paper's stochastic networks are tested.

    Try it: `network` and `fit` of onebit.checks.digits build and train a small network of your
    layers. Chance slows learning down, so the rate is high: fit(network(StochasticLinear, seed=0),
    0.2, after_step), where after_step(model) clips the latent weights.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times drawn signs or real weights, (m, out_features)."""
        raise NotImplementedError


def remeasure(model: nn.Module, x: Tensor) -> None:
    """ch01.6 Measure batch norm anew (stretch, 30 minutes, about 10 lines).

    Somebody exchanged the weights of a trained network. Set the running mean and variance of each
    nn.BatchNorm1d in it to those that x, all rows in one pass, has there now, and change nothing
    else: momenta and weights stay, all other modules are in evaluation mode during the pass, and
    the whole model is afterwards.
    """
    raise NotImplementedError
