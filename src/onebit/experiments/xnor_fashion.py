"""XNOR-Net's ablations on Fashion-MNIST: α, K and block order, with batch norm and without.

The paper's Table 3 is measured on AlexNet and ImageNet. Here a network of three convolutions
stands for it, and all arms share everything that they are not named for: the first convolution,
the head, the order of examples. Behind batch norm no scale per filter can show, since BN(αz) =
BN(z), so the arms that ask what α does are there a second time without batch norm, each at the
rate that validation finds best for it. All arms with batch norm share one rate; among 0.001, 0.003
and 0.01 the last was the best for each of full precision, BWN, XNOR-Net and BinaryNet. At 0.03,
again for two epochs, full precision validates worse and XNOR-Net better, by a quarter of a point
at most.
"""

from dataclasses import replace
from typing import Any

from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe

_RECIPE = Recipe(
    data="onebit.experiments.tasks:fashion_images",
    optimizer="adam",
    rate=1e-2,
    final=0.02,
    batch_size=100,
    loss="cross_entropy",
    clip=True,
)

# Without batch norm the size of the activations depends on the arm, and so does the rate it wants.
_OWN_RATE = replace(_RECIPE, rate=None, rates=(1e-3, 3e-3, 1e-2))


def _arm(name: str, label: str, keep: bool = False, norm: bool = True, **arguments: Any) -> Arm:
    network = Network("onebit.models:xnornet_cnn", {"norm": norm, **arguments})
    return Arm(name, label, network, _RECIPE if norm else _OWN_RATE, keep=keep)


_FLOAT: dict[str, Any] = {"weights": "real", "activations": "real"}
_BWN: dict[str, Any] = {"weights": "scaled", "activations": "real"}
_BWN_NO_ALPHA: dict[str, Any] = {"weights": "sign", "activations": "real"}
_XNOR: dict[str, Any] = {"weights": "scaled", "activations": "sign"}
_XNOR_NO_ALPHA: dict[str, Any] = {"weights": "sign", "activations": "sign"}

TABLE = Experiment(
    name="xnor-fashion",
    about="XNOR-Net's ablations (its Table 3), a 16-32-64 convolutional network on Fashion-MNIST",
    metric="test error",
    unit="%",
    decimals=2,
    arms=(
        _arm("float", "full precision", keep=True, **_FLOAT),
        _arm("float-cbap", "full precision, C-B-A-P", order="C-B-A-P", **_FLOAT),
        _arm("bwn", "BWN", keep=True, **_BWN),
        _arm("bwn-no-alpha", "BWN without α", **_BWN_NO_ALPHA),
        _arm("xnor", "XNOR-Net without K", keep=True, **_XNOR),
        _arm("xnor-k", "XNOR-Net with K", keep=True, input_scale=True, **_XNOR),
        _arm("xnor-no-alpha", "XNOR-Net without α and K", **_XNOR_NO_ALPHA),
        _arm("xnor-no-alpha-k", "XNOR-Net without α, with K", input_scale=True, **_XNOR_NO_ALPHA),
        _arm("xnor-cbap", "XNOR-Net without K, C-B-A-P", order="C-B-A-P", **_XNOR),
        _arm("binarynet", "BinaryNet", keep=True, binary_first=True, **_XNOR_NO_ALPHA),
        _arm("float-no-bn", "full precision, no batch norm", norm=False, **_FLOAT),
        _arm("bwn-no-bn", "BWN, no batch norm", norm=False, **_BWN),
        _arm("bwn-no-alpha-no-bn", "BWN without α, no batch norm", norm=False, **_BWN_NO_ALPHA),
        _arm("xnor-no-bn", "XNOR-Net without K, no batch norm", norm=False, **_XNOR),
        _arm(
            "xnor-no-alpha-no-bn", "XNOR-Net without α and K, no batch norm",
            norm=False, **_XNOR_NO_ALPHA,
        ),
    ),
    budgets=(
        Budget("smoke", epochs=2, seeds=2, rows=500),
        Budget("short", epochs=2, seeds=3, search_epochs=2, search_rows=10_000),
        Budget("book", epochs=24, seeds=3, search_epochs=2),
        Budget("paper", epochs=60, seeds=5, search_epochs=5),
    ),
)  # fmt: skip
