"""Solutions of chapter 3: a scale for each filter, one for each window, and where they go."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def best_scale(w: Tensor) -> Tensor:
    """ch03.1 The best scale."""
    return w.abs().mean()


def filter_scales(w: Tensor) -> Tensor:
    """ch03.2 One scale for each filter."""
    dims = tuple(range(1, w.dim()))
    return w.abs().mean(dim=dims, keepdim=True)


def scaled_conv(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """ch03.3 Scale after the sum."""
    x_b = torch.where(x >= 0, 1.0, -1.0)
    w_b = torch.where(w >= 0, 1.0, -1.0)
    product = F.conv2d(x_b, w_b)
    alpha = filter_scales(w).reshape(1, -1, 1, 1)
    return alpha * product + bias.reshape(1, -1, 1, 1)


def input_scale(x: Tensor, size: int) -> Tensor:
    """ch03.4 The scale of every window."""
    magnitude = x.abs().mean(dim=1, keepdim=True)
    return F.avg_pool2d(magnitude, size, stride=1, padding=size // 2)


class ScaledSign(torch.autograd.Function):
    """ch03.5 The gradient with its sum."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        """Return alpha * sign(w), and keep what backward will need."""
        ctx.save_for_backward(w)
        return filter_scales(w) * torch.where(w >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient for w."""
        (w,) = ctx.saved_tensors
        s = torch.where(w >= 0, 1.0, -1.0)
        by_sign = filter_scales(w) * grad * (w.abs() <= 1)
        by_alpha = s * (grad * s).mean(dim=1, keepdim=True)
        return by_sign + by_alpha


@torch.no_grad()
def fold_scale(norm: nn.BatchNorm2d, alpha: Tensor) -> None:
    """ch03.6 Behind batch norm."""
    norm.running_mean /= alpha
    norm.weight *= alpha
