"""Layers that compute on codes: an integer product first, then the scales, then the bias.

Each layer holds latent weights in `weight`, quantises them anew in every forward pass, and returns

    ((product · w_scale) · a_scale) · K + bias

in exactly that order of float operations. A packed layer repeats the order with the product taken
from bits, and so returns the same floats.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Int8AbsMaxB1,
    Quantizer,
    ScaledBinary,
    StochasticBinary,
    TernaryAbsMean,
)

#: Integers up to this bound are exact in float32, whatever order they are added in.
EXACT_FLOAT32 = 2**24


def _check_quantizer(name: str, quantizer: object) -> None:
    if quantizer is not None and not isinstance(quantizer, Quantizer):
        given = quantizer.__name__ if isinstance(quantizer, type) else type(quantizer).__name__
        raise TypeError(
            f"{name} must be a Quantizer instance or None, got {given}; "
            f"pass an instance, for example {name}=BinarySign()"
        )


def _check_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        check_whole(name, size, 1, 2**31 - 1)


def check_exact(weight_quant: Quantizer | None, input_quant: Quantizer | None, k: int) -> None:
    """Refuse a product of codes whose sums might not be exact in float32.

    Raises
    ------
    ValueError
        If k products of the largest codes reach 2²⁴.

    Examples
    --------
    >>> check_exact(TernaryAbsMean(), Int8AbsMax(), 100_000)
    """
    if weight_quant is None or input_quant is None:
        return
    largest = weight_quant.max_code * input_quant.max_code * k
    if largest >= EXACT_FLOAT32:
        raise ValueError(
            f"a sum over {k} products of codes can reach {largest}, but float32 is exact only "
            f"below 2**24 = {EXACT_FLOAT32}; split the layer so that fewer inputs meet in one sum"
        )


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which x's device computes in the dtypes it is given.

    Examples
    --------
    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", torch.bfloat16), no_autocast(x):
    ...     print((x @ x).dtype)
    torch.float32
    """
    device = x.device.type
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def _quantize(quantizer: Quantizer | None, x: Tensor) -> tuple[Tensor, Tensor]:
    return (x, x.new_ones(())) if quantizer is None else quantizer.quantize(x)


def output_scale(w_scale: Tensor, w: Tensor) -> Tensor:
    """Return a weight's scale as one factor or one per output, refusing any other.

    Raises
    ------
    ValueError
        If the scale differs among the weights of one output: one factor behind the product cannot
        stand for several before it.

    Examples
    --------
    >>> output_scale(torch.ones(5, 1), torch.ones(5, 3)).shape
    torch.Size([5])
    """
    one_each = w_scale.dim() == w.dim() and w_scale.shape[1:].numel() == 1
    if w_scale.numel() != 1 and not one_each:
        raise ValueError(
            f"weight_quant gives scales of shape {tuple(w_scale.shape)} for weights of shape "
            f"{tuple(w.shape)}; a layer needs one per output or one in all "
            "(granularity='channel' or 'tensor')"
        )
    return w_scale.reshape(-1)


def row_scale(a_scale: Tensor) -> Tensor:
    """Return the input scale of a linear layer, refusing one that varies inside a row.

    Raises
    ------
    ValueError
        If the scale differs among the inputs that meet in one sum.

    Examples
    --------
    >>> row_scale(torch.ones(5, 1)).shape
    torch.Size([5, 1])
    """
    if a_scale.numel() != 1 and a_scale.shape[-1] != 1:
        raise ValueError(
            f"input_quant gives scales of shape {tuple(a_scale.shape)}, which vary inside a row; "
            "a linear layer needs one per row or one in all (granularity='token' or 'tensor')"
        )
    return a_scale


def image_scale(a_scale: Tensor) -> Tensor:
    """Return the input scale of a convolution, refusing one that varies inside an image.

    Raises
    ------
    ValueError
        If the scale differs within an image: the windows of a convolution mix its pixels, so one
        factor behind the product cannot stand for several before it.

    Examples
    --------
    >>> image_scale(torch.ones(2, 1, 1, 1)).shape
    torch.Size([2, 1, 1, 1])
    """
    one_each = a_scale.dim() == 4 and a_scale.shape[1:].numel() == 1
    if a_scale.numel() != 1 and not one_each:
        raise ValueError(
            f"input_quant gives scales of shape {tuple(a_scale.shape)}, which vary inside an "
            "image; a convolution needs one per image or one in all (granularity='tensor')"
        )
    return a_scale


def check_input(layer: nn.Module, x: object, expected: int, dim: int) -> None:
    """Refuse an input that is no float tensor, or has not `expected` features in dimension `dim`.

    Raises
    ------
    TypeError
        If x is not a float tensor.
    ValueError
        If its shape does not fit; `dim` 1 stands for images (N, C, H, W).

    Examples
    --------
    >>> check_input(nn.Linear(3, 2), torch.ones(5, 3), 3, dim=-1)
    """
    name = type(layer).__name__
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} wants a float tensor as x, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} wants a float tensor as x, got {x.dtype}; use x.float()")
    if dim == 1 and x.dim() != 4:
        raise ValueError(f"{name} wants x of shape (N, C, H, W), got {tuple(x.shape)}")
    if x.dim() == 0 or x.shape[dim] != expected:
        raise ValueError(
            f"{name} wants x with {expected} features in dimension {dim}, got {tuple(x.shape)}"
        )


def rescale(
    product: Tensor, w_scale: Tensor, a_scale: Tensor, K: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Return ((product · w_scale) · a_scale) · K + bias, each step rounded on its own.

    Layers and packed layers share this order, so that they return the same floats.

    Parameters
    ----------
    product : Tensor
        The integer product, in a float dtype.
    w_scale, a_scale, K, bias : Tensor
        Factors and bias, already shaped to broadcast against `product`; None is left out.

    Examples
    --------
    >>> one = torch.ones(())
    >>> rescale(torch.tensor([3.0]), torch.tensor([0.5]), one, None, torch.tensor([1.0])).tolist()
    [2.5]
    """
    y = (product * w_scale) * a_scale
    if K is not None:
        y = y * K
    return y if bias is None else y + bias


class QuantLinear(nn.Linear):
    """A linear layer whose weights and inputs pass through quantizers.

    Parameters
    ----------
    in_features, out_features : int
        Sizes k and n.
    bias : bool
        Whether to learn a bias; it stays a float, and is added last.
    weight_quant, input_quant : Quantizer or None
        None leaves that operand in floating point.
    device, dtype
        As in `torch.nn.Linear`.

    Raises
    ------
    TypeError
        If a quantizer is not a `Quantizer` instance, a size no whole number, or the input not a
        float tensor.
    ValueError
        If a size is not positive, the input's last dimension is not `in_features`, a quantizer's
        scale varies inside a sum, or a sum of codes could leave the integers that float32 holds
        exactly.

    Examples
    --------
    >>> layer = QuantLinear(3, 2, weight_quant=BinarySign(), input_quant=BinarySign())
    >>> layer(torch.randn(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_quant: Quantizer | None = None,
        input_quant: Quantizer | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_quantizer("weight_quant", weight_quant)
        _check_quantizer("input_quant", input_quant)
        _check_sizes(in_features=in_features, out_features=out_features)
        check_exact(weight_quant, input_quant, in_features)
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.weight_quant = weight_quant
        self.input_quant = input_quant

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, of shape (..., out_features) and the weights' dtype.

        Parameters
        ----------
        x : Tensor
            (..., in_features), any float dtype; converted to that of the weights.
        """
        check_input(self, x, self.in_features, dim=-1)
        with no_autocast(x):
            a, a_scale = _quantize(self.input_quant, x.to(self.weight.dtype))
            w_b, w_scale = _quantize(self.weight_quant, self.weight)
            w_scale = output_scale(w_scale, self.weight)
            return rescale(F.linear(a, w_b), w_scale, row_scale(a_scale), None, self.bias)


class Geometry(NamedTuple):
    """How the windows of a convolution lie on the image, padding value included.

    A layer and its packed form share one, so that they agree on every window.

    Examples
    --------
    >>> geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1, pad_value=-1)
    >>> geometry.pad(torch.ones(1, 1, 2, 2)).sum().item()
    -8.0
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    pad_value: int

    def pad(self, a: Tensor, value: float | None = None) -> Tensor:
        """Surround quantised images (N, C, H, W) with `pad_value`, or with `value` instead."""
        rows, columns = self.padding
        value = float(self.pad_value) if value is None else value
        return F.pad(a, (columns, columns, rows, rows), value=value)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H_out, W_out) for an image of `size` (H, W)."""
        windows = zip(size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        return tuple((s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in windows)

    def convolve(self, a: Tensor, w_b: Tensor) -> Tensor:
        """Return the product of codes (N, C, H, W) with weights (n, C / groups, kh, kw)."""
        return F.conv2d(self.pad(a), w_b, None, self.stride, 0, self.dilation, self.groups)

    def window_scale(self, x: Tensor) -> Tensor:
        """Return XNOR-Net's K of shape (N, 1, H_out, W_out) from the float input."""
        # Contiguous, since the order of the sum over channels follows the layout in memory, and a
        # packed layer hands on its images channels last.
        A = x.contiguous().abs().mean(1, keepdim=True)
        box = x.new_full((1, 1, *self.kernel_size), 1 / math.prod(self.kernel_size))
        return F.conv2d(A, box, None, self.stride, self.padding, self.dilation)


class QuantConv2d(nn.Conv2d):
    """A 2-D convolution whose weights and inputs pass through quantizers.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in `torch.nn.Conv2d`, with `padding` given in numbers.
    pad_value : {0, 1, -1}
        What surrounds the image. It is put there after quantising: a bit cannot be zero, so +1
        or −1 keeps the padded image binary, and 0 needs a correction when packed.
    input_scale : bool
        Multiply by XNOR-Net's K: the mean ``|x|`` over channels, averaged over each window.
    weight_quant, input_quant : Quantizer or None
        None leaves that operand in floating point.
    device, dtype
        As in `torch.nn.Conv2d`.

    Raises
    ------
    TypeError
        If a quantizer is not a `Quantizer` instance, or the input is not a float tensor.
    ValueError
        If `pad_value` is something else, `padding` is a word, `input_scale` meets groups, the
        input has the wrong shape, a quantizer's scale varies inside a sum, or a sum of codes could
        leave the integers that float32 holds exactly.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Section 3.2 and Eq. 11.

    Examples
    --------
    >>> layer = QuantConv2d(3, 8, 3, padding=1, pad_value=1, weight_quant=ScaledBinary(),
    ...                     input_quant=BinarySign())
    >>> layer(torch.randn(2, 3, 6, 6)).shape
    torch.Size([2, 8, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        pad_value: int = 0,
        input_scale: bool = False,
        weight_quant: Quantizer | None = None,
        input_quant: Quantizer | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        _check_quantizer("weight_quant", weight_quant)
        _check_quantizer("input_quant", input_quant)
        if isinstance(padding, str):
            raise ValueError(f"padding must be a number or a pair of numbers, got {padding!r}")
        _check_sizes(in_channels=in_channels, out_channels=out_channels)
        if pad_value not in (0, 1, -1):
            raise ValueError(f"pad_value must be 0, 1 or -1, got {pad_value!r}")
        if input_scale and groups != 1:
            raise ValueError(
                f"input_scale averages over all channels and so needs groups=1, got {groups}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            device=device, dtype=dtype,
        )  # fmt: skip
        check_exact(weight_quant, input_quant, self.weight[0].numel())
        self.pad_value = pad_value
        self.input_scale = input_scale
        self.weight_quant = weight_quant
        self.input_quant = input_quant
        if min(self.geometry.padding) < 0:
            raise ValueError(f"padding must not be negative, got {padding!r}")

    @property
    def geometry(self) -> Geometry:
        """How the windows of this convolution lie on the image."""
        return Geometry(
            self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.pad_value
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, of shape (N, out_channels, H_out, W_out).

        Parameters
        ----------
        x : Tensor
            (N, in_channels, H, W), any float dtype; converted to that of the weights.
        """
        check_input(self, x, self.in_channels, dim=1)
        with no_autocast(x):
            x = x.to(self.weight.dtype)
            a, a_scale = _quantize(self.input_quant, x)
            w_b, w_scale = _quantize(self.weight_quant, self.weight)
            K = self.geometry.window_scale(x) if self.input_scale else None
            bias = None if self.bias is None else self.bias.reshape(-1, 1, 1)
            product = self.geometry.convolve(a, w_b)
            w_scale = output_scale(w_scale, self.weight).reshape(-1, 1, 1)
            return rescale(product, w_scale, image_scale(a_scale), K, bias)


class BinaryConnectLinear(QuantLinear):
    """BinaryConnect's layer: binary weights, float inputs, identity estimator.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    stochastic : bool
        Draw the signs at random in training and use the real weights in evaluation; otherwise
        take the sign in both.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Algorithm 1. Clip the latent weights after every update:
    `onebit.clip_latent_weights_`.

    Examples
    --------
    >>> layer = BinaryConnectLinear(4, 2, bias=False)
    >>> layer(torch.ones(1, 4)).abs().max().item() <= 4
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        stochastic: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        quantizer = StochasticBinary() if stochastic else BinarySign(clip_value=None)
        super().__init__(
            in_features, out_features, bias, weight_quant=quantizer, device=device, dtype=dtype
        )


class BinaryLinear(QuantLinear):
    """BinaryNet's layer: binary weights and binary inputs, gradients cancelled beyond ±1.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    clip_value : float or None
        Gradient cancellation bound for the inputs and the weights.

    References
    ----------
    BinaryNet (NIPS 2016), Algorithm 1 and Eq. 4.

    Examples
    --------
    >>> layer = BinaryLinear(64, 10, bias=False)
    >>> y = layer(torch.randn(1, 64))
    >>> bool(((y + 64) % 2 == 0).all())
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        clip_value: float | None = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            bias,
            weight_quant=BinarySign(clip_value),
            input_quant=BinarySign(clip_value),
            device=device,
            dtype=dtype,
        )


class XNORLinear(QuantLinear):
    """XNOR-Net's layer: binary inputs, binary weights with one α per output.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    input_scale : bool
        Scale each input row by its mean ``|x|``, the β of the paper.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Eqs. 6 to 10.

    Examples
    --------
    >>> XNORLinear(8, 2)(torch.randn(3, 8)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        input_scale: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            bias,
            weight_quant=ScaledBinary(),
            input_quant=ScaledBinary(granularity="token") if input_scale else BinarySign(),
            device=device,
            dtype=dtype,
        )


class BitLinear(QuantLinear):
    """BitNet's layer: normalise, quantise the activations to int8, multiply 1- or 1.58-bit weights.

    Parameters
    ----------
    in_features, out_features, device, dtype
        As in `torch.nn.Linear`.
    bias : bool
        BitNet uses none.
    version : {"b1.58", "b1"}
        "b1.58" has ternary weights behind an RMSNorm; "b1" binary weights behind a LayerNorm, and
        one activation scale per tensor in training.
    norm : bool
        Whether the layer holds its own normalisation, as BitNet's do.

    References
    ----------
    BitNet (arXiv:2310.11453), Eq. 11; BitNet b1.58 (arXiv:2402.17764), Section 2, and its
    "Training Tips, Code and FAQ", Figure 3.

    Examples
    --------
    >>> BitLinear(8, 2)(torch.randn(3, 8)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        version: Literal["b1.58", "b1"] = "b1.58",
        norm: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if version not in ("b1.58", "b1"):
            raise ValueError(f"version must be 'b1.58' or 'b1', got {version!r}")
        modern = version == "b1.58"
        super().__init__(
            in_features,
            out_features,
            bias,
            weight_quant=TernaryAbsMean() if modern else BinaryAbsMean(),
            input_quant=Int8AbsMax() if modern else Int8AbsMaxB1(),
            device=device,
            dtype=dtype,
        )
        self.norm: nn.Module = nn.Identity()
        if norm:
            norm_class = nn.RMSNorm if modern else nn.LayerNorm
            self.norm = norm_class(in_features, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, of shape (..., out_features) and the weights' dtype.

        Parameters
        ----------
        x : Tensor
            (..., in_features), any float dtype; converted to that of the weights.
        """
        check_input(self, x, self.in_features, dim=-1)
        with no_autocast(x):
            return super().forward(self.norm(x.to(self.weight.dtype)))


class XNORConv2d(QuantConv2d):
    """XNOR-Net's convolution: binary inputs, binary weights with one α per filter.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in `torch.nn.Conv2d`.
    input_scale : bool
        Multiply by K, the mean ``|x|`` of each window.
    pad_value : {0, 1, -1}
        What surrounds the binarised image.
    device, dtype
        As in `torch.nn.Conv2d`.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Eq. 11.

    Examples
    --------
    >>> XNORConv2d(3, 4, 3)(torch.randn(1, 3, 8, 8)).shape
    torch.Size([1, 4, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        input_scale: bool = False,
        pad_value: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            pad_value=pad_value, input_scale=input_scale,
            weight_quant=ScaledBinary(), input_quant=BinarySign(),
            device=device, dtype=dtype,
        )  # fmt: skip


class BinaryConv2d(QuantConv2d):
    """BinaryNet's convolution: binary inputs and weights, no scale.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in `torch.nn.Conv2d`.
    pad_value : {0, 1, -1}
        What surrounds the binarised image.
    device, dtype
        As in `torch.nn.Conv2d`.

    References
    ----------
    BinaryNet (NIPS 2016), Section 1 and Eq. 4.

    Examples
    --------
    >>> BinaryConv2d(3, 4, 3, padding=1, pad_value=-1)(torch.randn(1, 3, 8, 8)).shape
    torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        pad_value: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            pad_value=pad_value, weight_quant=BinarySign(), input_quant=BinarySign(),
            device=device, dtype=dtype,
        )  # fmt: skip
