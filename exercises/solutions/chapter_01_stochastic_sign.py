"""Solutions of chapter 1: bits drawn at random, latent weights in bounds, and a fair test."""

import torch
from torch import Tensor, nn


def plus_probability(w: Tensor) -> Tensor:
    """ch01.1 How likely is plus one."""
    return ((w + 1) / 2).clamp(0, 1)


def draw_signs(w: Tensor, generator: torch.Generator | None) -> Tensor:
    """ch01.2 Draw the bit."""
    return 2 * torch.bernoulli(plus_probability(w), generator=generator) - 1


def draw_through(w: Tensor, generator: torch.Generator | None) -> Tensor:
    """ch01.3 Straight through a draw."""
    w_b = draw_signs(w.detach(), generator)
    return w_b + (w - w.detach())


def clipped_step(optimizer: torch.optim.Optimizer, latent: list[Tensor]) -> None:
    """ch01.4 Clip after the step."""
    optimizer.step()
    with torch.no_grad():
        for w in latent:
            w.clamp_(-1, 1)


class StochasticLinear(nn.Module):
    """ch01.5 Drawn in training, real in the test."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (m, in_features) times drawn signs or real weights, (m, out_features)."""
        weight = draw_through(self.weight, None) if self.training else self.weight
        return x @ weight.T


@torch.no_grad()
def remeasure(model: nn.Module, x: Tensor) -> None:
    """ch01.6 Measure batch norm anew."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
