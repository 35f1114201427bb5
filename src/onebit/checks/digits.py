"""A small network on some of MNIST's digits, which trains in a second: the exercises' workbench."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit import data
from onebit.training import train

TEST = 2_000
BATCH = 100

Linear = Callable[[int, int], nn.Module]


@cache
def digits(count: int = 10_000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first `count` training digits and 2 000 test digits, with their class numbers.

    Returns
    -------
    x, y, x_test, y_test : Tensor
        Images (digits, 784), float32 in [−1, 1]; class numbers (digits,), int64.
    """
    (x, y), (x_test, y_test) = map(data.mnist, ("train", "test"))
    return data.normalise(x[:count]), y[:count], data.normalise(x_test[:TEST]), y_test[:TEST]


def network(linear: Linear, seed: int, *, norm: bool = True, width: int = 32) -> nn.Sequential:
    """Build three layers of `width`, `width` and 10 outputs, from their own seed.

    Parameters
    ----------
    linear : callable
        ``linear(in_features, out_features)`` makes a layer without bias.
    seed : int
        For torch's global generator, so that the run that follows is fixed too.
    norm : bool
        Whether batch norm follows each layer.
    width : int
        Units of the two hidden layers.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for k, n in ((784, width), (width, width), (width, 10)):
        layers += [linear(k, n), *([nn.BatchNorm1d(n)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(
    model: nn.Module,
    lr: float = 0.01,
    after_step: Callable[[nn.Module], None] | None = None,
    *,
    epochs: int = 1,
    count: int = 10_000,
) -> float:
    """Train by Adam, with a rate that falls to zero, and return the test error in %.

    Parameters
    ----------
    model : nn.Module
    lr : float
        The rate at the first step.
    after_step : callable, optional
        Called with the model after each step, such as a function that clips latent weights.
    epochs : int
        Passes over the training digits.
    count : int
        How many training digits.
    """
    x, y, x_test, y_test = digits(count)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.Adam(model.parameters(), lr)
    if after_step is not None:
        optimizer.register_step_post_hook(lambda *_: after_step(model))
    steps = epochs * (len(x) // BATCH)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    history = train(
        model, optimizer, (x.to(dtype), y), (x_test.to(dtype), y_test), epochs=epochs,
        batch_size=BATCH, loss=F.cross_entropy, scheduler=decay,
    )  # fmt: skip
    return history[-1].error
