"""The papers' blocks: the order of product, normalisation, sign and pooling."""

from typing import Any

from torch import nn

from onebit._operands import check_whole
from onebit.layers import BinaryConv2d, QuantLinear, XNORConv2d
from onebit.quantizers import BinarySign
from onebit.ste import check_clip_value, ste_sign


class Sign(nn.Module):
    """`ste_sign` as a module: the binary activation that stands behind batch norm.

    Parameters
    ----------
    clip_value : float or None
        Gradient cancellation bound; None lets every gradient through.

    Raises
    ------
    TypeError, ValueError
        If `clip_value` is no positive number.

    References
    ----------
    BinaryNet (NIPS 2016), Eqs. 1 and 4.

    Examples
    --------
    >>> import torch
    >>> Sign()(torch.tensor([-0.2, 3.0])).tolist()
    [-1.0, 1.0]
    """

    def __init__(self, clip_value: float | None = 1.0) -> None:
        super().__init__()
        check_clip_value(clip_value)
        self.clip_value = clip_value

    def forward(self, x: Any) -> Any:
        """Return the signs of x."""
        return ste_sign(x, self.clip_value)

    def extra_repr(self) -> str:
        """Show the clipping bound."""
        return f"clip_value={self.clip_value}"


def binarynet_block(
    in_features: int,
    out_features: int,
    *,
    first: bool = False,
    clip_value: float | None = 1.0,
    dtype: Any = None,
) -> nn.Sequential:
    """Return BinaryNet's block: binary linear, batch norm, sign.

    Parameters
    ----------
    in_features, out_features : int
    first : bool
        The network's first block takes its input as it is, since pixels are not ±1. Every other
        takes the signs of the block before, which cancelled their gradient already.
    clip_value : float or None
        Gradient cancellation bound of the block's sign.
    dtype
        Of the weights.

    References
    ----------
    BinaryNet (NIPS 2016), Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> block = binarynet_block(4, 3)
    >>> sorted(block(torch.randn(50, 4)).unique().tolist())
    [-1.0, 1.0]
    """
    linear = QuantLinear(
        in_features,
        out_features,
        bias=False,
        weight_quant=BinarySign(),
        # At ±1 a bound below 1 would cancel every gradient, so the input's own has none.
        input_quant=None if first else BinarySign(clip_value=None),
        dtype=dtype,
    )
    return nn.Sequential(linear, nn.BatchNorm1d(out_features, dtype=dtype), Sign(clip_value))


def binarynet_conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    padding: int = 1,
    pad_value: int = -1,
    pool: int = 1,
    dtype: Any = None,
) -> nn.Sequential:
    """Return BinaryNet's convolutional block (C-P-B-A): convolution, pooling, batch norm, sign.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, pad_value
        As in `onebit.BinaryConv2d`.
    pool : int
        Width and stride of the max-pooling; 1 is none.
    dtype
        Of the weights.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive whole number.

    References
    ----------
    BinaryNet (NIPS 2016), Section 2.

    Examples
    --------
    >>> import torch
    >>> binarynet_conv_block(2, 4, pool=2)(torch.randn(3, 2, 8, 8)).shape
    torch.Size([3, 4, 4, 4])
    """
    conv = BinaryConv2d(
        in_channels, out_channels, kernel_size, padding=padding, pad_value=pad_value, bias=False,
        dtype=dtype,
    )  # fmt: skip
    pooling = [nn.MaxPool2d(pool)] if check_whole("pool", pool, 1, 2**31 - 1) > 1 else []
    return nn.Sequential(conv, *pooling, nn.BatchNorm2d(out_channels, dtype=dtype), Sign())


def xnornet_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    padding: int = 1,
    input_scale: bool = False,
    pool: int = 1,
    dtype: Any = None,
) -> nn.Sequential:
    """Return XNOR-Net's block (B-A-C-P): batch norm, sign, scaled binary convolution, pooling.

    Batch norm comes first, so that the sign cuts a centred signal, and pooling comes last, since
    the maximum over a window of signs is nearly always +1. The sign is the convolution's own input
    quantizer, which sees the float input and can therefore compute K.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, input_scale
        As in `onebit.XNORConv2d`.
    pool : int
        Width and stride of the max-pooling; 1 is none.
    dtype
        Of the weights.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive whole number.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Figure 3 and Table 3.

    Examples
    --------
    >>> import torch
    >>> xnornet_block(2, 4, pool=2)(torch.randn(3, 2, 8, 8)).shape
    torch.Size([3, 4, 4, 4])
    """
    conv = XNORConv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=padding,
        input_scale=input_scale,
        dtype=dtype,
    )
    pooling = [nn.MaxPool2d(pool)] if check_whole("pool", pool, 1, 2**31 - 1) > 1 else []
    return nn.Sequential(nn.BatchNorm2d(in_channels, dtype=dtype), conv, *pooling)
