"""ResNet-18 as XNOR-Net has it: every 3×3 convolution behind the first one real or binary."""

from typing import Any, Literal

from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.layers import QuantConv2d, XNORConv2d
from onebit.quantizers import ScaledBinary

Convolutions = Literal["real", "bwn", "xnor"]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, and a shortcut around them that is added to their output.

    Real and BWN blocks normalise behind each convolution and end in a ReLU. XNOR blocks run batch
    norm, sign, convolution twice; their sum stays real, since the next block's batch norm comes
    before the next sign.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : int
        Of the first convolution and of the shortcut.
    convolutions : {"real", "bwn", "xnor"}
        Real weights; binary weights with one α per filter on real inputs; or binary inputs too.
    binary_shortcut : bool
        Whether a 1×1 convolution in the shortcut is as binary as the others.
    dtype
        Of the weights.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Section 4.1.1 and Figure 3.

    Examples
    --------
    >>> import torch
    >>> ResidualBlock(4, 8, stride=2, convolutions="xnor")(torch.randn(2, 4, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        convolutions: Convolutions = "real",
        binary_shortcut: bool = False,
        dtype: Any = None,
    ) -> None:
        super().__init__()

        first = _convolution(in_channels, out_channels, 3, stride, convolutions, dtype)
        second = _convolution(out_channels, out_channels, 3, 1, convolutions, dtype)
        between = [] if convolutions == "xnor" else [nn.ReLU()]
        self.body = nn.Sequential(*first, *between, *second)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            kind = convolutions if binary_shortcut else "real"
            shortcut = _convolution(in_channels, out_channels, 1, stride, kind, dtype)
            self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.Identity() if convolutions == "xnor" else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, of shape (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int, kind: Convolutions, dtype: Any
) -> list[nn.Module]:
    """Return convolution and batch norm, or for XNOR-Net batch norm and binary convolution."""
    options: dict[str, Any] = {
        "stride": stride, "padding": kernel // 2, "bias": False, "dtype": dtype,
    }  # fmt: skip
    sizes = (in_channels, out_channels, kernel)
    if kind == "xnor":
        return [nn.BatchNorm2d(in_channels, dtype=dtype), XNORConv2d(*sizes, **options)]
    if kind == "bwn":
        conv: nn.Module = QuantConv2d(*sizes, weight_quant=ScaledBinary(), **options)
    else:
        conv = nn.Conv2d(*sizes, **options)
    return [conv, nn.BatchNorm2d(out_channels, dtype=dtype)]


def resnet18(
    convolutions: Convolutions = "real",
    *,
    binary_shortcuts: bool = False,
    classes: int = 1000,
    dtype: Any = None,
) -> nn.Sequential:
    """Return ResNet-18 for images of 224 × 224 pixels, untrained.

    The first convolution and the classifier stay real, as XNOR-Net leaves them, and so do the three
    1×1 convolutions of the shortcuts unless told otherwise.

    Parameters
    ----------
    convolutions : {"real", "bwn", "xnor"}
        What the sixteen 3×3 convolutions are: real; binary weights with one α per filter on real
        inputs; or binary inputs too.
    binary_shortcuts : bool
        Whether the 1×1 convolutions of the shortcuts are the same.
    classes : int
        ImageNet's thousand.
    dtype
        Of the weights.

    Raises
    ------
    TypeError
        If `classes` is no whole number.
    ValueError
        If `convolutions` is none of the three, or `classes` not positive.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Table 2. Shortcuts that change the shape are 1×1 convolutions
    ("type B").

    Examples
    --------
    >>> model = resnet18("xnor")
    >>> sum(p.numel() for p in model.parameters())
    11689640
    """
    if convolutions not in ("real", "bwn", "xnor"):
        raise ValueError(f"convolutions must be 'real', 'bwn' or 'xnor', got {convolutions!r}")
    check_whole("classes", classes, 1, 2**31 - 1)
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False, dtype=dtype),
        nn.BatchNorm2d(64, dtype=dtype),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    blocks = []
    channels = 64
    for out_channels in (64, 128, 256, 512):
        for stride in (1 if out_channels == 64 else 2, 1):
            blocks += [
                ResidualBlock(
                    channels, out_channels, stride=stride, convolutions=convolutions,
                    binary_shortcut=binary_shortcuts, dtype=dtype,
                )
            ]  # fmt: skip
            channels = out_channels
    # Other blocks end in a ReLU; the XNOR blocks' bare sum gets its batch norm and ReLU here.
    last = [nn.BatchNorm2d(512, dtype=dtype), nn.ReLU()] if convolutions == "xnor" else []
    head = [*last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes, dtype=dtype)]
    return nn.Sequential(*stem, *blocks, *head)
