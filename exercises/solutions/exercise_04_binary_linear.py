"""Solutions of exercise 4: a binary linear layer, from the sign of a weight to a third value."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Linear = Callable[[int, int], nn.Module]


def binary_linear(x: Tensor, w: Tensor) -> Tensor:
    """04.1 Signs in the product."""
    w_b = torch.where(w >= 0, 1.0, -1.0).to(x.dtype)
    return x @ w_b.T


class SignSTE(torch.autograd.Function):
    """04.2 A gradient through the sign."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, clip_value: float | None) -> Tensor:
        """Return the signs of w, and keep what backward will need."""
        ctx.save_for_backward(w)
        ctx.clip_value = clip_value
        return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for w, and None for clip_value, which has none."""
        (w,) = ctx.saved_tensors
        if ctx.clip_value is not None:
            grad = grad * (w.abs() <= ctx.clip_value)
        return grad, None


class BinaryLinear(nn.Module):
    """04.3 Train on digits: the layer."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times the signs of the weights, (m, out_features)."""
        return x @ SignSTE.apply(self.weight, None).T


@torch.no_grad()
def clip_latent(model: nn.Module) -> None:
    """04.3 Train on digits: the clipping."""
    for module in model.modules():
        if isinstance(module, BinaryLinear):
            module.weight.clamp_(-1, 1)


def compare(
    layers: dict[str, Linear],
    seeds: Sequence[int],
    rates: Sequence[float],
    error: Callable[[Linear, int, float], float],
) -> dict[str, list[float]]:
    """04.4 Compare with full precision."""
    best = {}
    for name, linear in layers.items():
        runs = [[error(linear, seed, rate) for seed in seeds] for rate in rates]
        best[name] = min(runs, key=sum)
    return best


def scaled_sign(w: Tensor) -> Tensor:
    """04.5 Scaling factors."""
    alpha = w.abs().flatten(1).mean(dim=1)
    return alpha.reshape(-1, *[1] * (w.dim() - 1)) * SignSTE.apply(w, None)


def ternary(w: Tensor) -> Tensor:
    """04.6 The third value: the rule."""
    gamma = w.abs().mean()
    values = gamma * (w / gamma).round().clamp(-1, 1)
    return w + (values - w).detach()


class TernaryLinear(nn.Module):
    """04.6 The third value: the layer."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times the ternary weights, (m, out_features)."""
        return x @ ternary(self.weight).T
