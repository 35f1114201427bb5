"""Solutions of chapter 6's exercises: absmean ternary weights, int8 activations, and the layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


def absmean(w: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.1 Three codes and a scale."""
    gamma = w.abs().mean().clamp(min=EPS)
    return (w / gamma).round().clamp(-1, 1), gamma


def int_product(a: Tensor, w_b: Tensor) -> Tensor:
    """ch06.2 Integers in the middle."""
    return a.int() @ w_b.int().T


def absmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.3 Eight bits a token."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=EPS) / 127
    return (x / scale).round().to(torch.int8), scale


def pack_trits(codes: Tensor) -> Tensor:
    """ch06.4 Five trits in a byte: packing."""
    trits = codes.int() + 1
    missing = -len(codes) % 5
    trits = torch.cat([trits, trits.new_ones(missing)]).reshape(-1, 5)
    return (trits * 3 ** torch.arange(5)).sum(1).to(torch.uint8)


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """ch06.4 Five trits in a byte: unpacking."""
    trits = packed.int()[:, None] // 3 ** torch.arange(5) % 3
    return (trits - 1).flatten()[:count].to(torch.int8)


class BitLinear(nn.Module):
    """ch06.5 The layer, to be trained."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of x (m, in_features), (m, out_features)."""
        x = F.rms_norm(x, x.shape[-1:])
        codes, scale = absmax(x)
        x = x + (codes * scale - x).detach()
        w_b, gamma = absmean(self.weight)
        w = self.weight + (w_b * gamma - self.weight).detach()
        return x @ w.T


def best_ternary(w: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.6 The best three values."""
    sizes, order = w.abs().sort(descending=True)
    kept = torch.arange(1, len(w) + 1)
    sums = sizes.cumsum(0)
    m = int((sums.square() / kept).argmax()) + 1
    codes = torch.zeros_like(w)
    codes[order[:m]] = w[order[:m]].sign()
    return codes, sums[m - 1] / m
