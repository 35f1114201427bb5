"""What a run trains on and is judged by: images with classes, or a text."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.data import fashion_mnist, mnist, normalise
from onebit.training import error_rate, squared_hinge

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared_hinge": squared_hinge,
    "cross_entropy": F.cross_entropy,
}

#: As in BinaryConnect, Section 3.1: the last images of the training set.
VALIDATION = 10_000


class Images:
    """Classification, judged by the percentage of images that get the wrong class.

    Parameters
    ----------
    x, y
        The training set; its last 10 000 rows are kept for validation.
    x_test, y_test
        The test set.
    rows
        How many training images to use; the other two sets are cut in proportion. None is all.
    """

    def __init__(
        self, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, rows: int | None
    ) -> None:
        whole = len(x) - VALIDATION
        self.rows = whole if rows is None else rows
        kept = VALIDATION * self.rows // whole
        self._sets = {
            "train": (x[: self.rows], y[: self.rows]),
            "validation": (x[whole : whole + kept], y[whole : whole + kept]),
            "test": (x_test[:kept], y_test[:kept]),
        }

    def to(self, device: torch.device) -> None:
        """Move the sets to a device."""
        self._sets = {n: (x.to(device), y.to(device)) for n, (x, y) in self._sets.items()}

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw an epoch's order of examples."""
        return torch.randperm(self.rows, generator=generator)

    def inputs(self, split: str) -> Tensor:
        """Give the images of ``"train"``, ``"validation"`` or ``"test"``."""
        return self._sets[split][0]

    def loss(self, model: nn.Module, chosen: Tensor, name: str) -> Tensor:
        """Give the mean loss of the chosen training examples."""
        x, y = self._sets["train"]
        return _LOSSES[name](model(x[chosen]), y[chosen])

    def evaluate(self, model: nn.Module, split: str) -> float:
        """Give the error in % on ``"validation"`` or ``"test"``."""
        return error_rate(model, *self._sets[split])


def mnist_rows(rows: int | None) -> Images:
    """MNIST, one row of pixels from −1 to 1 an image."""
    (x, y), (x_test, y_test) = _mnist()
    return Images(normalise(x), y, normalise(x_test), y_test, rows)


def mnist_pixels(rows: int | None) -> Images:
    """MNIST, one row of pixels an image, integers from 0 to 255 kept as floats."""
    (x, y), (x_test, y_test) = _mnist()
    return Images(x.flatten(1).float(), y, x_test.flatten(1).float(), y_test, rows)


def fashion_rows(rows: int | None) -> Images:
    """Fashion-MNIST, one row of pixels from −1 to 1 an image."""
    (x, y), (x_test, y_test) = _fashion()
    return Images(normalise(x), y, normalise(x_test), y_test, rows)


def fashion_images(rows: int | None) -> Images:
    """Fashion-MNIST as images (1, 28, 28) with pixels from −1 to 1."""
    (x, y), (x_test, y_test) = _fashion()
    return Images(
        normalise(x, flatten=False), y, normalise(x_test, flatten=False), y_test, rows
    )  # fmt: skip


@cache
def _mnist() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return mnist("train"), mnist("test")


@cache
def _fashion() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return fashion_mnist("train"), fashion_mnist("test")
