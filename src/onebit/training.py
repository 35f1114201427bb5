"""A training loop short enough to read, the squared hinge loss, and the error it is judged by."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit._operands import check_whole


class Epoch(NamedTuple):
    """What one epoch left behind: its number from 1, mean training loss, and test error in %."""

    number: int
    loss: float
    error: float


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while, and every module back into its own mode after.

    Parameters
    ----------
    model : nn.Module

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluation_mode(model):
    ...     print(model[0].training)
    False
    >>> model[0].training, model[1].training
    (True, False)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared hinge loss of an L2-SVM with one ±1 target per class.

    Parameters
    ----------
    outputs : Tensor
        (batch, classes), float.
    targets : Tensor
        (batch,), class numbers, int64.

    Returns
    -------
    Tensor
        A scalar: ``max(0, 1 − t · output)²``, averaged over batch and classes, with t = +1 for
        the right class and −1 for the others.

    Raises
    ------
    TypeError
        If `targets` is not int64.
    ValueError
        If the shapes do not fit.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Section 3.1.

    Examples
    --------
    >>> squared_hinge(torch.tensor([[1.0, -1.0]]), torch.tensor([0])).item()
    0.0
    >>> squared_hinge(torch.tensor([[0.0, 0.0]]), torch.tensor([0])).item()
    1.0
    """
    if outputs.dim() != 2 or targets.shape != outputs.shape[:1]:
        raise ValueError(
            f"outputs must have shape (batch, classes) and targets (batch,), got "
            f"{tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"targets must be class numbers, int64, got {targets.dtype}; use .long()")
    signs = 2 * F.one_hot(targets, outputs.shape[1]).to(outputs.dtype) - 1
    return (1 - signs * outputs).clamp(min=0).square().mean()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """Return the class number with the largest output for every row of x, in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        Put back into its mode afterwards.
    x : Tensor
        (rows, ...), as the model wants it.
    batch_size : int
        Rows per forward pass.

    Returns
    -------
    Tensor
        (rows,), int64.

    Raises
    ------
    TypeError, ValueError
        If `model` is not a module, or `batch_size` no positive whole number.

    Examples
    --------
    >>> predict(nn.Identity(), torch.tensor([[0.1, 0.9], [2.0, 1.0]])).tolist()
    [1, 0]
    """
    check_whole("batch_size", batch_size, 1, 2**31 - 1)
    with evaluation_mode(model):
        return torch.cat([model(batch).argmax(1) for batch in x.split(batch_size)])


def error_rate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the percentage of rows of x that the model misclassifies, in evaluation mode.

    Parameters
    ----------
    model : nn.Module
    x, y : Tensor
        Inputs (rows, ...) and class numbers (rows,).

    Raises
    ------
    ValueError
        If inputs and class numbers differ in number, or there are none.

    Examples
    --------
    >>> error_rate(nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    25.0
    """
    _check_pairs("x and y", x, y)
    if len(x) == 0:
        raise ValueError("x has no rows, and so no error rate")
    wrong = int((predict(model, x) != y).sum())
    return 100 * wrong / len(y)


def _check_pairs(name: str, x: Tensor, y: Tensor) -> None:
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must hold as many inputs as class numbers, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}; class numbers have shape (rows,)"
        )


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch_size: int = 100,
    loss: Callable[[Tensor, Tensor], Tensor] = squared_hinge,
    scheduler: Any = None,
    on_step: Callable[[int], None] | None = None,
    progress: str | None = None,
) -> list[Epoch]:
    """Train with shuffled minibatches and return one `Epoch` per pass.

    The order of the examples comes from torch's global generator, so `torch.manual_seed` before
    the model is built fixes the whole run.

    Parameters
    ----------
    model, optimizer
        Already tied together; clip latent weights by `onebit.clip_after_step`.
    train_set, test_set : (Tensor, Tensor)
        Inputs and class numbers. An incomplete last minibatch is left out.
    epochs, batch_size : int
    loss : callable
        `loss(outputs, targets)`, a scalar.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
        Stepped after every minibatch.
    on_step : callable, optional
        Called with the number of steps taken, after every one.
    progress : str, optional
        Label of a progress bar, which tqdm draws; None shows none.

    Returns
    -------
    list of Epoch

    Raises
    ------
    TypeError
        If `model` is not a module, or `epochs` or `batch_size` no whole number.
    ValueError
        If the training set is smaller than one minibatch, inputs and targets differ in number, or
        `epochs` is negative.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(200, 2)
    >>> y = (x[:, 0] > 0).long()
    >>> model = nn.Linear(2, 2)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    >>> history = train(model, optimizer, (x, y), (x, y), epochs=5)
    >>> [epoch.number for epoch in history], history[-1].loss < history[0].loss
    ([1, 2, 3, 4, 5], True)
    """
    x, y = train_set
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_whole("epochs", epochs, 0, 2**31 - 1)
    check_whole("batch_size", batch_size, 1, 2**31 - 1)
    _check_pairs("train_set", x, y)
    _check_pairs("test_set", *test_set)
    if len(x) < batch_size:
        raise ValueError(f"train_set has {len(x)} rows, fewer than batch_size={batch_size}")
    history = []
    steps = 0
    for number in _counter(epochs, progress):
        model.train()
        total = 0.0
        batches = torch.randperm(len(x)).split(batch_size)[: len(x) // batch_size]
        for rows in batches:
            optimizer.zero_grad()
            value = loss(model(x[rows]), y[rows])
            value.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            steps += 1
            if on_step is not None:
                on_step(steps)
            total += value.item()
        history.append(Epoch(number, total / len(batches), error_rate(model, *test_set)))
    return history


def _counter(epochs: int, progress: str | None) -> Any:
    numbers = range(1, epochs + 1)
    if progress is None:
        return numbers
    from tqdm.auto import tqdm

    return tqdm(numbers, desc=progress, unit="epoch")


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, x: Tensor, batch_size: int = 2000) -> None:
    """Measure every batch norm's running statistics anew on x, with the weights as they are.

    Parameters
    ----------
    model : nn.Module
        Its statistics are changed in place; meanwhile its quantizers run in evaluation mode and
        its batch norms in training mode, and afterwards every module is back in its own.
    x : Tensor
        (rows, ...), as the model wants it.
    batch_size : int
        Largest number of rows per forward pass. The rows are split evenly, and the statistics are
        the average over passes.

    Raises
    ------
    TypeError
        If `model` is not a module, or `batch_size` no whole number.
    ValueError
        If x has no rows, or `batch_size` is not positive.

    Examples
    --------
    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> recalibrate_batch_norm(model, torch.tensor([[1.0], [3.0]]))
    >>> model[0].running_mean.item()
    2.0
    """
    check_whole("batch_size", batch_size, 1, 2**31 - 1)
    if len(x) == 0:
        raise ValueError("x has no rows to measure statistics on")
    with evaluation_mode(model):
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for batch in x.tensor_split(math.ceil(len(x) / batch_size)):
                model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
