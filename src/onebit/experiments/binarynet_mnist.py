"""BinaryNet's Table 1 on MNIST, with and without gradient cancellation.

Binary weights and activations throughout; the first layer takes the pixels as integers from 0 to
255. Dropout of 20 % of the pixels and 50 % of the hidden signs, batches of 100, squared hinge loss,
Adam from 0.003 with Glorot's coefficients, falling to 10⁻⁴ of it over the whole training; latent
weights start uniform in [−1, 1], as in the authors' code. The paper's network is 3 × 4096 and
trains for 1 000 epochs; each arm's width stands in its label.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onebit.experiments.binaryconnect_mnist import uniform_start
from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe
from onebit.models import binarynet_mlp
from onebit.optim import quantized_layers


class BinaryNetDropout(nn.Sequential):
    """BinaryNet's blocks and head with dropout in front of each, by the same names of weights.

    Parameters
    ----------
    net
        From `onebit.models.binarynet_mlp`. What dropout sets to zero must stay zero, so the layers
        take their inputs unquantised; without dropout, in evaluation, these are signs anyway.
    pixels, hidden
        Shares to drop.
    """

    def __init__(self, net: nn.Sequential, pixels: float, hidden: float) -> None:
        super().__init__(*net)
        self.pixels, self.hidden = pixels, hidden
        for layer in quantized_layers(self):
            layer.input_quant = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of a batch (rows, pixels)."""
        for i, module in enumerate(self):
            if i < len(self) - 1:
                x = F.dropout(x, self.hidden if i else self.pixels, self.training)
            x = module(x)
        return x


def dropout_binarynet(*, pixels: float = 0.2, hidden: float = 0.5, **arguments: Any) -> nn.Module:
    """Build `onebit.models.binarynet_mlp` with dropout, and start its weights uniformly."""
    return uniform_start(BinaryNetDropout(binarynet_mlp(**arguments), pixels, hidden))


_RECIPE = Recipe(
    data="onebit.experiments.tasks:mnist_pixels",
    optimizer="adam",
    rate=3e-3,
    final=1e-4,
    batch_size=100,
    glorot=1,
    clip=True,
)


def _arm(name: str, label: str, seeds: int | None = None, **arguments: Any) -> Arm:
    network = Network("onebit.experiments.binarynet_mnist:dropout_binarynet", arguments)
    return Arm(name, label, network, _RECIPE, seeds=seeds)


_ARMS = (
    _arm("1024", "BinaryNet, 3 × 1024", width=1024),
    _arm("1024-no-cancellation", "BinaryNet, 3 × 1024, no gradient cancellation", width=1024,
         clip_value=None),
    _arm("2048", "BinaryNet, 3 × 2048", seeds=1, width=2048),
    _arm("4096", "BinaryNet, 3 × 4096", width=4096),
    # Small enough to be shipped, and packed by the chapter on the kernel.
    Arm("256-plain", "BinaryNet, 3 × 256, no dropout",
        Network("onebit.models:binarynet_mlp", {"width": 256}), _RECIPE, keep=True),
)  # fmt: skip
_SMALL = ("1024", "1024-no-cancellation", "256-plain")

TABLE = Experiment(
    name="binarynet-mnist",
    about="BinaryNet's Table 1: MNIST, binary weights and activations, 3 × 1024 and wider",
    metric="test error",
    unit="%",
    decimals=2,
    arms=_ARMS,
    budgets=(
        Budget("smoke", epochs=1, seeds=1, rows=500, arms=_SMALL),
        Budget("short", epochs=3, seeds=3, arms=_SMALL),
        Budget("book", epochs=30, seeds=3, arms=(*_SMALL, "2048")),
        Budget("paper", epochs=1000, seeds=6),
    ),
)
