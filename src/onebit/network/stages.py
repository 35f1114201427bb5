"""The stages of a packed network: where bits begin, and layers that take bits and give bits.

Each stage computes with torch and the kernels' operators, so that `torch.compile` and NumPy's path
see all of it; `onebit.network.chain` runs the same stages in C, many in one call.
"""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.bits import pack_signs, words_for
from onebit.kernels import prepack, xnor_gemm
from onebit.layers import Geometry, check_input, no_autocast, rescale
from onebit.packing import PackedConv2d, PackedLinear, pack_images, windows_in, words_by_place

PackedLayer = PackedLinear | PackedConv2d

MOST_PIXELS = 2**19
"""Pixels that a sum of 32 bits holds on its way through the kernel."""


def _pack(x: Tensor) -> Tensor:
    """Pack signs; in a compiled or exported program by the operator, which torch sees through."""
    pack = torch.ops.onebit.pack_signs if torch.compiler.is_compiling() else pack_signs
    words: Tensor = pack(x)
    return words


class PackSigns(nn.Module):
    """Where floats become bits: packs the signs of features (N, C) or images (N, C, H, W).

    Parameters
    ----------
    features : int
        C.
    images : bool
        Whether images come in; their words have the shape (N, H, W, ceil(C / 64)).
    dtype : torch.dtype or None
        To convert to first, as the layer behind would: what rounds to zero there is +1.

    Examples
    --------
    >>> PackSigns(3, images=False)(torch.tensor([[0.5, -0.5, 0.0]]))
    tensor([[5]])
    """

    def __init__(self, features: int, images: bool, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.features, self.images, self.dtype = features, images, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the words of x's signs."""
        check_input(self, x, self.features, dim=1 if self.images else -1)
        if not self.images and x.dim() != 2:
            raise ValueError(
                f"PackSigns wants x of shape (N, {self.features}), got {tuple(x.shape)}"
            )
        x = x.detach() if self.dtype is None else x.detach().to(self.dtype)
        if not self.images:
            return _pack(x)
        return _pack(x.permute(0, 2, 3, 1)) if torch.compiler.is_compiling() else pack_images(x)

    def extra_repr(self) -> str:
        """Show what comes in."""
        return f"features={self.features}, images={self.images}"


class _Thresholds(nn.Module):
    """What a layer before bits has: thresholds and flips, and the weights laid out."""

    thresholds: Tensor | None
    flip: Tensor | None

    def __init__(self, layer: PackedLayer, thresholds: Tensor | None, flip: Tensor | None) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("thresholds", thresholds)
        self.register_buffer("flip", flip)
        self.register_load_state_dict_post_hook(_lay_out_again)

    def _lay_out(self) -> None:
        raise NotImplementedError


def _lay_out_again(stage: _Thresholds, _: Any) -> None:
    stage._lay_out()


class PixelBlock(_Thresholds):
    """A first layer that takes 8-bit pixels and gives words: exact sums of integers.

    Bit j of the output is ``(Σ w·pixel >= thresholds[j]) xor flip[j]``; how pixels were scaled
    before the network saw them in training is in the thresholds.

    Parameters
    ----------
    layer : PackedLinear
        Without an input quantizer.
    thresholds : Tensor of int32, shape (n,)
        The least sum that gives +1.
    flip : Tensor of bool, shape (n,)
        Outputs to invert, where batch norm has a negative γ.

    Examples
    --------
    >>> from onebit.layers import BinaryConnectLinear
    >>> layer = PackedLinear.from_layer(BinaryConnectLinear(4, 2))
    >>> always = torch.full((2,), -4 * 255, dtype=torch.int32)
    >>> block = PixelBlock(layer, always, torch.tensor([False, True]))
    >>> block(torch.tensor([[0, 3, 255, 7]], dtype=torch.uint8))
    tensor([[1]])
    """

    layer: PackedLinear
    thresholds: Tensor
    flip: Tensor

    def __init__(self, layer: PackedLinear, thresholds: Tensor, flip: Tensor) -> None:
        super().__init__(layer, thresholds, flip)
        self._lay_out()

    def _lay_out(self) -> None:
        self.layer.drop_layout()
        self._weights = prepack(self.layer.weight_words, self.layer.k)
        self._limits, self._surplus, self._k = self.thresholds, 0, self.layer.k
        self._flip_words = pack_signs(self.flip)

    def check(self, x: Any) -> tuple[int, ...]:
        """Return the shape of one sample's pixels in a row, refusing what are no pixels."""
        if not isinstance(x, Tensor) or x.dtype != torch.uint8:
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                f"this network was packed for 8-bit pixels and wants x as a uint8 tensor, got "
                f"{given}; give it the pixels as they were before they were scaled"
            )
        if x.device.type != "cpu":
            raise ValueError(f"x is on {x.device}, but the kernels run on the CPU; use x.cpu()")
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.layer.k:
            raise ValueError(
                f"x must hold {self.layer.k} pixels a sample, (N, {self.layer.k}) or images of as "
                f"many, got {tuple(x.shape)}"
            )
        return (self.layer.k,)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample's words."""
        return (words_for(self.layer.out_features),)

    def forward(self, x: Tensor) -> Tensor:
        """Return words (N, ceil(n / 64)).

        Parameters
        ----------
        x : Tensor of uint8, shape (N, k) or (N, …)
            k pixels a sample.

        Raises
        ------
        TypeError, ValueError
            If they are of another dtype or number.
        """
        self.check(x)
        # In float64 every sum of 255 k is exact, in whatever order.
        sums = F.linear(x.flatten(1).double(), self.layer.codes().double())
        return _pack(sums >= self.thresholds) ^ self._flip_words


class PackedBlock(_Thresholds):
    """A packed layer between bits: words come in, and words go out, or floats at a chain's end.

    Bit j of the output is ``(accumulator >= thresholds[j]) xor flip[j]``. A maximum over
    accumulators reaches a threshold where one of them does, so pooling is an OR of the bits before
    the flip; behind a flip that is the AND of the flipped bits.

    Parameters
    ----------
    layer : PackedLinear or PackedConv2d
        With binary inputs, and without groups or K.
    channels : int
        Signs that share words in the input: the input features, or an image's channels.
    thresholds : Tensor of int32, shape (n,), optional
        The least accumulator that gives +1; without, the layer's own float outputs go out.
    flip : Tensor of bool, shape (n,), optional
        Outputs to invert, where batch norm has a negative γ.
    pool : Geometry, optional
        Max-pooling between product and threshold.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> layer = PackedLinear.from_layer(BinaryLinear(70, 3))
    >>> never = torch.full((3,), 71, dtype=torch.int32)
    >>> block = PackedBlock(layer, 70, never, torch.tensor([False, True, False]))
    >>> block(pack_signs(torch.randn(2, 70))).tolist()
    [[2], [2]]
    """

    def __init__(
        self,
        layer: PackedLayer,
        channels: int,
        thresholds: Tensor | None = None,
        flip: Tensor | None = None,
        pool: Geometry | None = None,
    ) -> None:
        super().__init__(layer, thresholds, flip)
        self.channels, self.pool = channels, pool
        self._lay_out()

    def _lay_out(self) -> None:
        """Order the weights as the words come in: by place, then channel, in whole words."""
        self.layer.drop_layout()
        self._words, self._k = words_by_place(self.layer.codes(), self.channels)
        self._weights = prepack(self._words, self._k)
        # The tail bits of input and weights are all 0: they agree, and each adds 1.
        self._surplus = self._k - self.layer.k
        if self.thresholds is not None and self.flip is not None:
            self._limits = self.thresholds + self._surplus
            self._flip_words = pack_signs(self.flip)

    def check(self, x: Any) -> tuple[int, ...]:
        """Return the shape of one sample's words, refusing what are no words."""
        if not isinstance(x, Tensor) or x.dtype != torch.int64 or x.dim() < 2:
            given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                f"PackedBlock wants packed words, int64 of shape (N, …), got {given}; PackSigns "
                "and the blocks before make them"
            )
        if x.device.type != "cpu":
            raise ValueError(f"words are on {x.device}, but the kernels run on the CPU; use .cpu()")
        return tuple(x.shape[1:])

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample's output, given that of its words.

        Raises
        ------
        ValueError
            If these are no words for this layer.
        """
        layer = self.layer
        if isinstance(layer, PackedLinear):
            if math.prod(shape) != words_for(self._k):
                raise ValueError(
                    f"PackedBlock wants {words_for(self._k)} words a sample, got {shape}: images "
                    "of another size, or words of another number of features"
                )
            places: tuple[int, ...] = ()
        else:
            if len(shape) != 3 or shape[-1] != words_for(self.channels):
                raise ValueError(
                    f"PackedBlock wants words of shape (N, H, W, {words_for(self.channels)}), got "
                    f"(N, {', '.join(map(str, shape))})"
                )
            places = windows_in(layer.geometry, shape[:2], layer.out_features)
        if self.thresholds is None:
            return (layer.out_features, *places)
        if self.pool:
            places = windows_in(self.pool, places, layer.out_features)
        return (*places, words_for(layer.out_features))

    def _rows(self, words: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return the words of every sum as a row, and the shape in which the rows stand."""
        if isinstance(self.layer, PackedLinear):
            return words.flatten(1), (len(words),)
        windows = torch.cat(_taps(words, self.layer.geometry, self.channels), -1)
        return windows.flatten(0, 2), tuple(windows.shape[:3])

    def _product(self, words: Tensor) -> Tensor:
        """Return the accumulators, channels last, without surplus and zero padding's share."""
        rows, shape = self._rows(words)
        if torch.compiler.is_compiling():
            product = torch.ops.onebit.xnor_gemm(rows, self._words, self._k)
        else:
            product = xnor_gemm(rows, self._weights, self._k)
        product = product.unflatten(0, shape) - self._surplus
        border = self.border(words.shape[1:])
        return product if border is None else product - border

    def border(self, shape: tuple[int, ...]) -> Tensor | None:
        """Return what zero padding, packed as +1, adds at each place: int32 (1, H, W, n), or None.

        `shape` is that of one sample's words.
        """
        if not (isinstance(self.layer, PackedConv2d) and self.layer._corrects_padding):
            return None
        size = self.layer.weight_scale.new_empty(0, self.channels, *shape[:2])
        with no_autocast(size):
            share = self.layer._border(size)
        return share.permute(0, 2, 3, 1).to(torch.int32)

    def forward(self, words: Tensor) -> Tensor:
        """Return words (N, ceil(n / 64)) or (N, H, W, ceil(n / 64)), or the layer's floats.

        Parameters
        ----------
        words : Tensor of int64
            (N, ceil(C / 64)) or (N, H, W, ceil(C / 64)); bits past C are 0.

        Raises
        ------
        ValueError
            If their shape does not fit.
        """
        self.output_shape(self.check(words))
        product = self._product(words)
        if self.thresholds is None:
            return self._floats(product)
        bits = _pack(product >= self.thresholds)
        if self.pool:
            taps = _taps(bits, self.pool, self.layer.out_features)
            bits = functools.reduce(torch.bitwise_or, taps)
        return bits ^ self._flip_words

    def _floats(self, product: Tensor) -> Tensor:
        product = self.layer._convert(product)
        scale, bias = self.layer.weight_scale, self.layer.bias
        y = rescale(product, scale, scale.new_ones(()), None, bias)
        return y.permute(0, 3, 1, 2).contiguous() if y.dim() == 4 else y

    def extra_repr(self) -> str:
        """Show what goes out."""
        pool = f", pool={self.pool.kernel_size}" if self.pool else ""
        return f"output={'floats' if self.thresholds is None else 'words'}{pool}"


def _taps(words: Tensor, geometry: Geometry, channels: int) -> list[Tensor]:
    """Return, for each position in a window, the words (N, H_out, W_out, …) it meets."""
    n, *size, _ = words.shape
    output = windows_in(geometry, tuple(size), channels)
    rows, columns = geometry.padding
    if rows or columns:
        # What zero padding adds as +1 is taken off the product again.
        frame = _pack(torch.tensor(geometry.pad_value >= 0).expand(channels))
        padded = frame.repeat(n, size[0] + 2 * rows, size[1] + 2 * columns, 1)
        padded[:, rows : rows + size[0], columns : columns + size[1]] = words
        words = padded
    starts = [
        [tap * d for tap in range(k)]
        for k, d in zip(geometry.kernel_size, geometry.dilation, strict=True)
    ]
    (s, t), (height, width) = geometry.stride, output
    return [
        words[:, y : y + s * (height - 1) + 1 : s, x : x + t * (width - 1) + 1 : t]
        for y in starts[0]
        for x in starts[1]
    ]
