"""Exercises of chapter 3: a scale for each filter, one for each window, and what becomes of them.

Six tasks, two hours; they belong to the sections from "The best scale" to "The gradient, as printed
and as computed" of chapter 3 of the book. `make exercises` copies this file to exercises/work:
write there, in place of each NotImplementedError.

    pytest exercises -k chapter_03         check all, or -k ch03.2 for one task
    python -m onebit hint ch03.2           one hint, and one more each time
    check("ch03.2", filter_scales)         the same in a notebook: from onebit.checks import check

The sign of zero is +1, that of weights and that of activations. Weights have the shape (n, k) in a
linear layer and (n, c, height, width) in a convolution: the first dimension is always the outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: F401, convolutions and pooling for your answers
from torch import Tensor, nn


def best_scale(w: Tensor) -> Tensor:
    """ch03.1 The best scale (warm-up, 10 minutes, about 1 line).

    Return the alpha for which alpha times the signs of w comes closest to w, all elements of w
    taken together, as a tensor without dimensions.
    """
    raise NotImplementedError


def filter_scales(w: Tensor) -> Tensor:
    """ch03.2 One scale for each filter (easy, 15 minutes, about 2 lines).

    Return the best scale of each output: w (n, k) gives (n, 1), and w (n, c, height, width) gives
    (n, 1, 1, 1), so that the scales multiply the weights.
    """
    raise NotImplementedError


def scaled_conv(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """ch03.3 Scale after the sum (medium, 20 minutes, about 5 lines).

    Return the convolution of an XNOR-Net: that of the signs of x (N, c, H, W) with the signs of w
    (n, c, height, width), without padding, then times the scale of each filter, then plus bias
    (n,). The signs have to be multiplied first, since that is what bits can do.
    """
    raise NotImplementedError


def input_scale(x: Tensor, size: int) -> Tensor:
    """ch03.4 The scale of every window (medium, 20 minutes, about 2 lines).

    Return K (N, 1, H, W) of x (N, c, H, W): the mean magnitude of what each window of size × size
    places sees, in all its channels. Size is odd, and there is a window around each place; where it
    reaches beyond the image it sees zeros, which count. Average over the channels only once.
    """
    raise NotImplementedError


class ScaledSign(torch.autograd.Function):
    """ch03.5 The gradient with its sum (hard, 35 minutes, about 10 lines).

    Forward alpha * sign(w) for w (n, k), with the scale of each row. Backward, by hand, the
    gradient through both: through the signs where |w| <= 1, and through alpha, which every weight
    of the row has a share in. Use: ScaledSign.apply(w).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        """Return alpha * sign(w), and keep in ctx what backward will need."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient for w, of its shape, from the gradient of the result."""
        raise NotImplementedError


def fold_scale(norm: nn.BatchNorm2d, alpha: Tensor) -> None:
    """ch03.6 Behind batch norm (stretch, 20 minutes, about 3 lines).

    Change batch norm in place so that it can do without the scales: in evaluation mode, norm(z) is
    to give afterwards what norm(alpha * z) gave before, for every z. Alpha (n,) is positive, one
    scale for each channel of z (N, n, H, W). It has to hold for each `eps` that norm may have.
    """
    raise NotImplementedError
