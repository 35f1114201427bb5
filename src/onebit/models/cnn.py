"""A small convolutional network in the arms of XNOR-Net's ablation, with one head for all."""

from collections import OrderedDict
from typing import Any, Literal

from torch import nn

from onebit._operands import check_whole
from onebit.blocks import Sign
from onebit.layers import QuantConv2d
from onebit.quantizers import BinarySign, Quantizer, ScaledBinary

Weights = Literal["real", "sign", "scaled"]


def xnornet_cnn(
    weights: Weights = "scaled",
    activations: Literal["real", "sign"] = "sign",
    *,
    order: Literal["B-A-C-P", "C-B-A-P"] = "B-A-C-P",
    input_scale: bool = False,
    binary_first: bool = False,
    norm: bool = True,
    width: int = 16,
    classes: int = 10,
    in_channels: int = 1,
    size: int = 28,
    dtype: Any = None,
) -> nn.Sequential:
    """Return three 3 × 3 convolutions of 16, 32 and 64 filters, the last two in one arm's way.

    The first convolution and the linear output stay real, as XNOR-Net has them, and the head is
    batch norm, ReLU and linear in every arm, so that two arms differ in nothing but what they are
    named for. The order decides where the pooling between two convolutions stands: before batch
    norm and activation (B-A-C-P, seen from the second convolution: its block pools last), or
    behind them (C-B-A-P), where it takes the maximum over signs.

    Parameters
    ----------
    weights : {"real", "sign", "scaled"}
        Of the second and third convolution: floats, signs, or signs times one α per filter.
    activations : {"real", "sign"}
        What enters these convolutions: ReLU's output, or signs.
    order : {"B-A-C-P", "C-B-A-P"}
    input_scale : bool
        Multiply by K, the mean ``|x|`` of each window.
    binary_first : bool
        Binarise the first convolution's weights as well, as BinaryNet does.
    norm : bool
        Whether there is batch norm; without it the convolutions have a bias.
    width : int
        Filters of the first convolution; each further one has twice as many.
    classes, in_channels, size : int
        Of the task; images are `size` × `size`, at least 8.
    dtype
        Of the weights.

    Raises
    ------
    TypeError
        If a size is no whole number.
    ValueError
        If a word is none of its choices, a size too small, or `input_scale` asked for where there
        is no float input to take it from: it needs signs that the convolution makes itself.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Figure 3 and Table 3.

    Examples
    --------
    >>> import torch
    >>> model = xnornet_cnn()
    >>> model(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> " ".join(name for name, _ in model.named_children())
    'conv1 pool1 norm1 conv2 pool2 norm2 conv3 pool3 norm3 relu3 flatten output'
    """
    _check_word("weights", weights, ("real", "sign", "scaled"))
    _check_word("activations", activations, ("real", "sign"))
    _check_word("order", order, ("B-A-C-P", "C-B-A-P"))
    for name, number in (("width", width), ("classes", classes), ("in_channels", in_channels)):
        check_whole(name, number, 1, 2**31 - 1)
    check_whole("size", size, 8, 2**31 - 1)
    binary = activations == "sign"
    if input_scale and not (binary and order == "B-A-C-P"):
        raise ValueError(
            "input_scale=True needs activations='sign' and order='B-A-C-P': K is the size that "
            f"the convolution's own sign takes away, got {activations!r} and {order!r}"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def convolution(
        i: int, k: int, weight_quant: Quantizer | None, input_quant: Quantizer | None
    ) -> None:
        n = width * 2 ** (i - 1)
        layers[f"conv{i}"] = (
            nn.Conv2d(k, n, 3, padding=1, bias=not norm, dtype=dtype)
            if weight_quant is None and input_quant is None
            else QuantConv2d(
                k, n, 3, padding=1, bias=not norm, weight_quant=weight_quant,
                input_quant=input_quant, input_scale=input_scale and i > 1, dtype=dtype,
            )
        )  # fmt: skip

    def normalisation(i: int) -> None:
        if norm:
            layers[f"norm{i}"] = nn.BatchNorm2d(width * 2 ** (i - 1), dtype=dtype)

    convolution(1, in_channels, BinarySign() if binary_first else None, None)
    for i in (1, 2):
        if order == "B-A-C-P":
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            normalisation(i)
            if not binary:
                layers[f"relu{i}"] = nn.ReLU()
        else:
            normalisation(i)
            layers[f"sign{i}" if binary else f"relu{i}"] = Sign() if binary else nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        convolution(i + 1, width * 2 ** (i - 1), _weight_quantizer(weights), _sign(binary, order))
    layers["pool3"] = nn.MaxPool2d(2)
    normalisation(3)
    layers["relu3"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(4 * width * (size // 8) ** 2, classes, dtype=dtype)
    return nn.Sequential(layers)


def _weight_quantizer(weights: Weights) -> Quantizer | None:
    return {"real": None, "sign": BinarySign(), "scaled": ScaledBinary()}[weights]


def _sign(binary: bool, order: str) -> Quantizer | None:
    """Give the convolution's own sign; behind a `Sign` module it has no gradient to cancel."""
    if not binary:
        return None
    return BinarySign() if order == "B-A-C-P" else BinarySign(clip_value=None)


def _check_word(name: str, word: str, choices: tuple[str, ...]) -> None:
    if word not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {word!r}")
