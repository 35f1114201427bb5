"""The permutation-invariant multilayer perceptrons of BinaryConnect and BinaryNet."""

from typing import Any, Literal

from torch import nn

from onebit._operands import check_whole
from onebit.blocks import binarynet_block
from onebit.layers import BinaryConnectLinear, QuantLinear
from onebit.quantizers import BinarySign


def _glorot(model: nn.Sequential) -> nn.Sequential:
    """Draw every weight matrix from Glorot's uniform distribution."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    return model


def _check_sizes(depth: int, **sizes: int) -> None:
    check_whole("depth", depth, 0, 2**31 - 1)
    for name, size in sizes.items():
        check_whole(name, size, 1, 2**31 - 1)


def binaryconnect_mlp(
    weights: Literal["real", "deterministic", "stochastic"] = "deterministic",
    *,
    width: int = 1024,
    depth: int = 3,
    in_features: int = 784,
    classes: int = 10,
    dtype: Any = None,
) -> nn.Sequential:
    """Return BinaryConnect's network: ReLU hidden layers with batch norm, and an SVM output.

    Parameters
    ----------
    weights : {"real", "deterministic", "stochastic"}
        How every weight matrix, first and last included, enters the products.
    width, depth : int
        Units of a hidden layer and number of hidden layers; the paper has 3 × 1024.
    in_features, classes : int
        784 pixels and ten digits.
    dtype
        Of the weights.

    Raises
    ------
    TypeError
        If a size is no whole number.
    ValueError
        If `weights` is none of the three, or a size not positive.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Section 3.1.

    Examples
    --------
    >>> import torch
    >>> binaryconnect_mlp(width=16)(torch.randn(2, 784)).shape
    torch.Size([2, 10])
    """
    if weights not in ("real", "deterministic", "stochastic"):
        raise ValueError(
            f"weights must be 'real', 'deterministic' or 'stochastic', got {weights!r}"
        )
    _check_sizes(depth, width=width, in_features=in_features, classes=classes)

    def linear(k: int, n: int) -> nn.Linear:
        if weights == "real":
            return nn.Linear(k, n, bias=False, dtype=dtype)
        stochastic = weights == "stochastic"
        return BinaryConnectLinear(k, n, bias=False, stochastic=stochastic, dtype=dtype)

    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [linear(width if i else in_features, width), nn.BatchNorm1d(width, dtype=dtype)]
        layers += [nn.ReLU()]
    layers += [linear(width if depth else in_features, classes)]
    return _glorot(nn.Sequential(*layers, nn.BatchNorm1d(classes, dtype=dtype)))


def binarynet_mlp(
    *,
    width: int = 4096,
    depth: int = 3,
    clip_value: float | None = 1.0,
    in_features: int = 784,
    classes: int = 10,
    dtype: Any = None,
) -> nn.Sequential:
    """Return BinaryNet's network: blocks of binary linear, batch norm and sign.

    Parameters
    ----------
    width, depth : int
        Units of a hidden layer and number of hidden layers; the paper's Theano run has 3 × 4096.
    clip_value : float or None
        Gradient cancellation bound of the activations; None turns cancellation off.
    in_features, classes : int
        784 pixels and ten digits. The first layer takes pixels, not signs.
    dtype
        Of the weights.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive whole number, or `clip_value` no positive one.

    References
    ----------
    BinaryNet (NIPS 2016), Section 2.

    Examples
    --------
    >>> import torch
    >>> binarynet_mlp(width=16)(torch.randn(2, 784)).shape
    torch.Size([2, 10])
    """
    _check_sizes(depth, width=width, in_features=in_features, classes=classes)
    blocks = [
        binarynet_block(
            width if i else in_features, width, first=i == 0, clip_value=clip_value, dtype=dtype
        )
        for i in range(depth)
    ]
    head = QuantLinear(
        width if depth else in_features,
        classes,
        bias=False,
        weight_quant=BinarySign(),
        # The blocks' signs cancelled their gradients already.
        input_quant=BinarySign(clip_value=None) if depth else None,
        dtype=dtype,
    )
    return _glorot(nn.Sequential(*blocks, head, nn.BatchNorm1d(classes, dtype=dtype)))
