"""BinaryConnect's Table 2 on MNIST, and what its test-time rule is worth.

Three hidden layers of 1 024 ReLUs, batch norm, batches of 200, squared hinge loss, and SGD without
momentum, whose rate falls exponentially from a start that validation chooses. The rate of binary
weights is multiplied by (fan_in + fan_out) / 1.5. Stochastic networks are tested with their real
weights, as the paper does; the probes test them with their signs, too.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe
from onebit.experiments.tasks import Images
from onebit.models import binaryconnect_mlp
from onebit.training import recalibrate_batch_norm


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


def signs_at_test_time(model: nn.Sequential, task: Images) -> dict[str, float]:
    """Test stochastically trained weights by their signs, a rule that the paper does not use."""
    weights = model.state_dict()
    signs = binaryconnect_mlp("deterministic", width=len(weights["0.weight"]))
    signs.to(weights["0.weight"].device).load_state_dict(weights)
    probes = {"signs": task.evaluate(signs, "test")}
    recalibrate_batch_norm(signs, task.inputs("train"))
    return probes | {"signs, recalibrated": task.evaluate(signs, "test")}


def _recipe(*rates: float, glorot: int) -> Recipe:
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


_REAL = _recipe(0.3, 1.0, 3.0, glorot=0)
_BINARY = _recipe(0.03, 0.1, 0.3, 1.0, glorot=2)
_MLP = "onebit.models:binaryconnect_mlp"

TABLE = Experiment(
    name="binaryconnect-mnist",
    about="BinaryConnect's Table 2: MNIST, 3 × 1024, permutation-invariant",
    metric="test error",
    unit="%",
    decimals=2,
    arms=(
        Arm("none", "no regulariser, full precision", Network(_MLP, {"weights": "real"}), _REAL),
        Arm(
            "det", "BinaryConnect, deterministic", Network(_MLP, {"weights": "deterministic"}),
            _BINARY,
        ),
        Arm(
            "stoch", "BinaryConnect, stochastic", Network(_MLP, {"weights": "stochastic"}),
            _BINARY,
            probes=("onebit.experiments.binaryconnect_mnist:signs_at_test_time",),
        ),
        Arm(
            "dropout", "50 % dropout",
            Network("onebit.experiments.binaryconnect_mnist:dropout_mlp", {"weights": "real"}),
            _REAL,
        ),
    ),
    budgets=(
        Budget("smoke", epochs=2, seeds=1, rows=500),
        Budget("short", epochs=5, seeds=3),
        Budget("book", epochs=60, seeds=3, search_epochs=10),
        Budget("paper", epochs=1000, seeds=6, search_epochs=10),
    ),
)  # fmt: skip
