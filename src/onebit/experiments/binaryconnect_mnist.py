"""BinaryConnect's Table 2 on MNIST, and what its test-time rule is worth.

Three hidden layers of 1 024 ReLUs, batch norm, batches of 200, squared hinge loss, and SGD without
momentum, whose rate falls exponentially from a start that validation chooses. The rate of binary
weights is multiplied by (fan_in + fan_out) / 1.5, and their latent weights start uniform in
[−1, 1], as in the authors' code.

Stochastic networks are tested with their real weights, as in the paper, and by that rule validation
chooses rate and epoch. It asks for weights near ±1. A sign drawn from w has the mean w but the
variance 1 − w², and batch norm's running statistics hold that noise. At a low rate the weights stay
as they started, with a mean square of 1/3, and the statistics describe another network than the
one that is tested; a higher rate drives weights to the bounds. So the probes test by three other
rules: the signs of the weights, and both kinds of weights with statistics measured anew.
"""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe
from onebit.experiments.tasks import Images
from onebit.models import binaryconnect_mlp
from onebit.optim import quantized_layers
from onebit.training import recalibrate_batch_norm


def uniform_start(model: nn.Module) -> nn.Module:
    """Draw the latent weights of quantised layers anew, uniform in [−1, 1].

    Real weights in their place would start some thirty times smaller. A stochastic network would
    then be tested with real weights much smaller than the signs that it was trained on, and that
    batch norm's running statistics describe.
    """
    for layer in quantized_layers(model):
        nn.init.uniform_(layer.weight, -1, 1)
    return model


def binary_mlp(**arguments: Any) -> nn.Module:
    """Build `onebit.models.binaryconnect_mlp` with binary weights, and start them uniformly."""
    return uniform_start(binaryconnect_mlp(**arguments))


class HiddenDropout(nn.Sequential):
    """BinaryConnect's network with dropout behind every ReLU, by the same names of weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of a batch (rows, pixels)."""
        for module in self:
            x = module(x)
            if isinstance(module, nn.ReLU):
                x = F.dropout(x, 0.5, self.training)
        return x


def dropout_mlp(**arguments: Any) -> HiddenDropout:
    """Build `onebit.models.binaryconnect_mlp` with 50 % dropout of hidden units."""
    return HiddenDropout(*binaryconnect_mlp(**arguments))


def other_test_rules(model: nn.Sequential, task: Images) -> dict[str, float]:
    """Test stochastically trained weights by rules that the paper does not use.

    It takes real weights and the statistics that batch norm gathered from drawn signs. Here are
    the signs of the weights instead, and for both kinds statistics measured anew on the training
    images, with the weights that are tested.
    """
    weights = model.state_dict()
    kinds: dict[str, Literal["deterministic", "stochastic"]] = {
        "signs": "deterministic",
        "real weights": "stochastic",
    }
    probes = {}
    for name, kind in kinds.items():
        net = binaryconnect_mlp(kind, width=len(weights["0.weight"]))
        net.to(weights["0.weight"].device).load_state_dict(weights)
        probes[name] = task.evaluate(net, "test")
        recalibrate_batch_norm(net, task.inputs("train"))
        probes[f"{name}, recalibrated"] = task.evaluate(net, "test")
    return probes


def _recipe(*rates: float, glorot: int = 0) -> Recipe:
    return Recipe(
        data="onebit.experiments.tasks:mnist_rows",
        optimizer="sgd",
        rate=None,
        rates=rates,
        final=3e-3,
        batch_size=200,
        glorot=glorot,
        clip=bool(glorot),
    )


_REAL = _recipe(0.3, 1.0, 3.0)
_BINARY = _recipe(0.3, 1.0, 3.0, 10.0, glorot=2)
_HERE = "onebit.experiments.binaryconnect_mnist"

TABLE = Experiment(
    name="binaryconnect-mnist",
    about="BinaryConnect's Table 2: MNIST, 3 × 1024, permutation-invariant",
    metric="test error",
    unit="%",
    decimals=2,
    arms=(
        Arm(
            "none",
            "no regulariser, full precision",
            Network("onebit.models:binaryconnect_mlp", {"weights": "real"}),
            _REAL,
        ),
        Arm(
            "det",
            "BinaryConnect, deterministic",
            Network(f"{_HERE}:binary_mlp", {"weights": "deterministic"}),
            _BINARY,
        ),
        Arm(
            "stoch",
            "BinaryConnect, stochastic",
            Network(f"{_HERE}:binary_mlp", {"weights": "stochastic"}),
            _BINARY,
            probes=(f"{_HERE}:other_test_rules",),
        ),
        Arm(
            "dropout",
            "50 % dropout",
            Network(f"{_HERE}:dropout_mlp", {"weights": "real"}),
            _REAL,
        ),
    ),
    budgets=(
        Budget("smoke", epochs=2, seeds=1, rows=500),
        Budget("short", epochs=3, seeds=3, search_rows=10_000),
        Budget("book", epochs=60, seeds=3, search_epochs=10),
        Budget("paper", epochs=1000, seeds=6, search_epochs=10),
    ),
)
