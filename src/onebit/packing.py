"""Packed layers: a trained layer's weights as bits, with the same outputs to the last digit."""

import copy
import math
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit import _native, ops
from onebit._chain import Chain, Layer
from onebit.bits import pack_signs, pack_ternary, unpack_signs, unpack_ternary, words_for
from onebit.kernels import prepack, prepack_ternary, ternary_gemm, xnor_gemm
from onebit.layers import (
    BitLinear,
    Geometry,
    QuantConv2d,
    QuantLinear,
    check_exact,
    check_input,
    image_scale,
    no_autocast,
    output_scale,
    rescale,
    row_scale,
)
from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Quantizer,
    ScaledBinary,
    StochasticBinary,
)

__all__ = [
    "PackedConv2d",
    "PackedLinear",
    "pack_signs",
    "pack_ternary",
    "unpack_signs",
    "unpack_ternary",
]

Weights = Literal["quantized", "sign"]

#: Input quantizers whose codes are ±1, so that the product is XNOR and popcount.
BINARY_INPUTS = (BinarySign, ScaledBinary, BinaryAbsMean)

#: Dtypes that hold every integer product exactly.
EXACT_DTYPES = (torch.float32, torch.float64)


MOST_PLACES = 2**48


def pack_images(x: Tensor) -> Tensor:
    """Pack the signs of images (N, C, H, W) into words (N, H, W, ceil(C / 64)).

    One place's channels stand together, where a float image has them far apart: the kernel packs
    and transposes at once, in a tenth of the time of one after the other.

    Parameters
    ----------
    x : Tensor of float, shape (N, C, H, W)
        On the CPU.

    Raises
    ------
    ValueError
        If it holds a NaN.

    Examples
    --------
    >>> pack_images(torch.tensor([[[[1.0, -1.0]], [[1.0, 2.0]]]])).tolist()
    [[[[3], [2]]]]
    """
    path = _native.current_path()
    if path == _native.NUMPY or x.dtype not in EXACT_DTYPES:
        return pack_signs(x.permute(0, 2, 3, 1))
    n, channels, *size = x.shape
    x = x.detach().contiguous()
    words = torch.empty((n, *size, words_for(channels)), dtype=torch.int64)
    lib, pointer = _native.lib, _native.ffi.cast
    dtype = lib.ONEBIT_F64 if x.dtype == torch.float64 else lib.ONEBIT_F32
    if lib.onebit_pack_images(
        path, dtype, pointer("void *", x.data_ptr()), n, channels, math.prod(size),
        pointer("uint64_t *", words.data_ptr()),
    ):  # fmt: skip
        raise ValueError("x holds NaN, which is neither +1 nor −1; replace it, e.g. by nan_to_num")
    return words


def words_by_place(codes: Tensor, channels: int) -> tuple[Tensor, int]:
    """Return rows of weights as words in the order of packed images, and the bits of a row.

    Every place of a window has words of its own, so that their tail bits count too; a row of one
    place ends with its last sign.

    Parameters
    ----------
    codes : Tensor, shape (n, channels · places)
        ±1, channel by channel.

    Examples
    --------
    >>> words_by_place(torch.ones(5, 70 * 9), 70)[1], words_by_place(torch.ones(5, 70), 70)[1]
    (1152, 70)
    """
    places = codes.shape[1] // channels
    words = pack_signs(codes.unflatten(1, (channels, places)).transpose(1, 2)).flatten(1)
    return words, codes.shape[1] if places == 1 else 64 * words.shape[1]


def windows_in(geometry: Geometry, size: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Return (H_out, W_out) of images of `size` and n channels, refusing what has no windows.

    Raises
    ------
    ValueError
        If the windows are larger than the image, or too many to count.

    Examples
    --------
    >>> windows_in(Geometry((3, 3), (2, 2), (1, 1), (1, 1), 1, 1), (8, 8), 5)
    (4, 4)
    """
    output = geometry.output_size(size)
    if min(output) < 1:
        raise ValueError(f"images of size {tuple(size)} are smaller than {geometry.kernel_size}")
    if math.prod(output) * n > MOST_PLACES:
        raise ValueError(f"images of size {tuple(output)} with {n} channels fit in no memory")
    return output


def describe_windows(
    layer: Layer, geometry: Geometry, size: tuple[int, ...], channels: int
) -> Layer:
    """Complete the description of a convolution: its windows on images of `size`."""
    layer.geometry, layer.channel_words = geometry, words_for(channels)
    layer.in_size = size
    layer.out_size = windows_in(geometry, size, layer.weights.n)
    # Zero stands as +1, and what that adds is taken off again.
    layer.frame = pack_signs(torch.tensor(geometry.pad_value >= 0).expand(channels))
    return layer


def _check_layer(layer: Any, wanted: type[nn.Module], weights: str) -> None:
    if not isinstance(layer, wanted):
        given = layer.__name__ if isinstance(layer, type) else type(layer).__name__
        raise TypeError(f"layer must be a {wanted.__name__}, got {given}; pack layer by layer")
    if weights not in ("quantized", "sign"):
        raise ValueError(f"weights must be 'quantized' or 'sign', got {weights!r}")
    if not isinstance(layer, QuantLinear | QuantConv2d):
        return
    if layer.weight.device.type != "cpu":
        raise ValueError(
            f"layer is on {layer.weight.device}, but the kernels run on the CPU; use layer.cpu()"
        )
    if layer.weight.dtype not in EXACT_DTYPES:
        raise TypeError(
            f"layer has weights of {layer.weight.dtype}, which does not hold every integer "
            "product; use layer.float()"
        )
    if not bool(torch.isfinite(layer.weight).all()):
        raise ValueError("layer.weight holds NaN or infinity, which have no bit")


def _packable_quantizer(layer: QuantLinear | QuantConv2d, weights: Weights) -> Quantizer:
    """Return the quantizer to pack with, refusing layers that compute with real weights."""
    if layer.weight_quant is None:
        raise ValueError("layer has weight_quant=None: its weights are real numbers, not bits")
    if not isinstance(layer.weight_quant, StochasticBinary):
        return layer.weight_quant
    if weights == "sign":
        return BinarySign()
    raise ValueError(
        "layer draws its weights at random and is tested with the real ones, which are not bits; "
        "weights='sign' packs their signs, a different and usually worse network"
    )


def stored_bits(weight_quant: Quantizer, input_quant: Quantizer | None) -> float:
    """Return the bits that one weight takes in a packed layer.

    Examples
    --------
    >>> stored_bits(BinarySign(), BinarySign()), stored_bits(BinaryAbsMean(), Int8AbsMax())
    (1.0, 2.0)
    """
    # The int8 product reads ternary words, so BitNet b1's signs take two bits there.
    return max(weight_quant.bits, 2.0) if isinstance(input_quant, Int8AbsMax) else weight_quant.bits


class _Packed(nn.Module):
    """What packed layers share: words, scale, bias, and the input's quantizer."""

    packs: ClassVar[type[nn.Module]]

    weight_words: Tensor
    weight_lanes: Tensor | None
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any, weights: Weights = "quantized") -> None:
        _check_layer(layer, self.packs, weights)
        super().__init__()
        quantizer = _packable_quantizer(layer, weights)
        with torch.no_grad():
            codes, scale = quantizer.quantize(layer.weight)
            scale = output_scale(scale, layer.weight)
        self.weight_bits = quantizer.bits
        self.ternary = stored_bits(quantizer, layer.input_quant) == 2
        if not bool(((codes.abs() == 1) | ((codes == 0) & self.ternary)).all()):
            raise ValueError(
                f"{type(quantizer).__name__} gives codes that {quantizer.bits:g} bit(s) cannot "
                "hold; packing knows binary codes -1, 1 and ternary codes -1, 0, 1"
            )
        self.k = codes[0].numel()
        check_exact(quantizer, layer.input_quant, self.k)
        self.out_features = codes.shape[0]
        self.groups = layer.groups if isinstance(layer, QuantConv2d) else 1
        self.input_quant = copy.deepcopy(layer.input_quant)
        pack = pack_ternary if self.ternary else pack_signs
        self.register_buffer("weight_words", pack(codes.flatten(1)))
        self.register_buffer("weight_scale", scale.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.register_buffer("weight_lanes", None, persistent=False)
        self._lay_out()
        self.eval()

    @classmethod
    def from_layer(cls, layer: Any, *, weights: Weights = "quantized") -> Self:
        """Pack a trained layer.

        Parameters
        ----------
        layer : QuantLinear for `PackedLinear`, QuantConv2d for `PackedConv2d`
            On the CPU; its weights are read as they are now.
        weights : {"quantized", "sign"}
            "quantized" packs what the layer itself computes with in evaluation. A stochastic
            BinaryConnect layer computes with real weights there, and is refused unless "sign"
            asks for their signs.

        Raises
        ------
        TypeError
            If `layer` is of another kind, or in half precision.
        ValueError
            If its weights are not quantised, not finite, stochastic, or not on the CPU.

        Examples
        --------
        >>> from onebit.layers import BinaryConv2d, BitLinear
        >>> layer, x = BitLinear(100, 10).eval(), torch.randn(4, 100)
        >>> torch.equal(PackedLinear.from_layer(layer)(x), layer(x))
        True
        >>> PackedConv2d.from_layer(BinaryConv2d(2, 4, 3)).weight_words.shape
        torch.Size([4, 1])
        """
        return cls(layer, weights)

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode, whatever mode the model around goes into."""
        return super().train(False)

    def _lay_out(self) -> None:
        """Derive anew what the kernels need of the words, and forget what was derived before."""
        self._chains: tuple[Any, ...] = ((), None, None, [])
        self._border_size: tuple[int, ...] = ()
        self.drop_layout()

    def drop_layout(self) -> None:
        """Free the weights as the kernel has them; if they are needed, they are laid out again."""
        self._prepacked: list[Any] = []
        self.weight_lanes = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._lay_out()

    def codes(self) -> Tensor:
        """Unpack the weights to rows (n, k) of float codes."""
        unpack = unpack_ternary if self.ternary else unpack_signs
        if torch.compiler.is_compiling():
            call = torch.ops.onebit
            unpack = call.unpack_ternary if self.ternary else call.unpack_signs
        return unpack(self.weight_words, self.k).to(self.weight_scale.dtype)

    def nbytes(self) -> int:
        """Return the bytes of all that the layer stores: words, scale, bias, normalisation."""
        return sum(t.numel() * t.element_size() for t in self.state_dict().values())

    @property
    def integer_inputs(self) -> bool:
        """Whether the input's codes are integers that a kernel multiplies."""
        return isinstance(self.input_quant, (*BINARY_INPUTS, Int8AbsMax))

    def _convert(self, x: Tensor) -> Tensor:
        """Return x in the layer's dtype, refusing what the kernels cannot multiply exactly."""
        if x.device.type != "cpu":
            raise ValueError(
                f"{type(self).__name__} wants x on the CPU, where the kernels run, got "
                f"{x.device}; use x.cpu()"
            )
        if self.weight_scale.dtype not in EXACT_DTYPES:
            raise TypeError(
                f"{type(self).__name__} was converted to {self.weight_scale.dtype}, which does "
                "not hold every integer product; use .float()"
            )
        # Not under torch.no_grad(): an exported program that raises within leaves gradients off.
        return x.detach().to(self.weight_scale.dtype)

    def _quantize_input(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.input_quant is None:
            return x, x.new_ones(())
        return self.input_quant.quantize(x)

    def _integer_product(self, rows: Tensor, group: int = 0) -> Tensor:
        """Multiply rows (m, k) of codes by one group's weights, exactly, as floats (m, n)."""
        if torch.compiler.is_compiling():
            return self._product_of_operators(rows, group).to(self.weight_scale.dtype)
        if not self._prepacked:
            lay_out = prepack_ternary if self.ternary else prepack
            words = self.weight_words.chunk(self.groups)
            self._prepacked = [lay_out(w, self.k) for w in words]
        weights = self._prepacked[group]
        if self.ternary:
            product = ternary_gemm(ops.int8_codes(rows), weights)
        else:
            product = xnor_gemm(pack_signs(rows), weights, self.k)
        return product.to(self.weight_scale.dtype)

    def _product_of_operators(self, rows: Tensor, group: int) -> Tensor:
        """Return the same as int32, of what a compiled or exported program is made of."""
        call, lanes = torch.ops.onebit, self.weight_lanes
        words = self.weight_words.chunk(self.groups)[group]
        product: Tensor
        if self.ternary:
            x = call.int8_codes(rows)
            if lanes is None:
                product = call.ternary_gemm(x, words)
            else:
                product = call.ternary_gemm_lanes(x, lanes, self.out_features)
        else:
            a = call.pack_signs(rows)
            if lanes is None:
                product = call.xnor_gemm(a, words, self.k)
            else:
                product = call.xnor_gemm_lanes(a, lanes, self.out_features, self.k)
        return product


class PackedLinear(_Packed):
    """A linear layer whose weights are bits; make one with `PackedLinear.from_layer`.

    With binary inputs the product is XNOR and popcount; with int8 inputs it is the ternary
    kernel. Without an input quantizer (BinaryConnect, BWN) the bits are unpacked and the float
    product is the layer's own: smaller, not faster.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> layer, x = BinaryLinear(70, 10), torch.randn(4, 70)
    >>> packed = PackedLinear.from_layer(layer)
    >>> torch.equal(packed(x), layer(x)), packed.weight_words.shape
    (True, torch.Size([10, 2]))
    """

    packs = QuantLinear

    def __init__(self, layer: QuantLinear, weights: Weights = "quantized") -> None:
        super().__init__(layer, weights)
        norm = layer.norm if isinstance(layer, BitLinear) else nn.Identity()
        self.norm = copy.deepcopy(norm).requires_grad_(False).eval()

    def _lay_out(self) -> None:
        """Derive the lanes at once: a program that is compiled or exported cannot do it later."""
        super()._lay_out()
        if not (self.integer_inputs and self.weight_words.is_cpu):
            return
        weights = (prepack_ternary if self.ternary else prepack)(self.weight_words, self.k)
        self._prepacked, self.weight_lanes = [weights], ops.lanes_of(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, of shape (..., out_features), without a gradient.

        Parameters
        ----------
        x : Tensor
            (..., in_features) on the CPU, any float dtype; converted to that of the scale.

        Raises
        ------
        TypeError
            If `x` is not a float tensor.
        ValueError
            If its shape or device does not fit, or it holds NaN where its codes are bits or int8.
        """
        check_input(self, x, self.k, dim=-1)
        with no_autocast(x):
            a, a_scale = self._quantize_input(self.norm(self._convert(x)))
            if self.integer_inputs:
                product = self._integer_product(a.reshape(-1, self.k))
                product = product.reshape(*a.shape[:-1], self.out_features)
            else:
                product = F.linear(a, self.codes())
            return rescale(product, self.weight_scale, row_scale(a_scale), None, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"in_features={self.k}, out_features={self.out_features}"


class PackedConv2d(_Packed):
    """A convolution whose weights are bits; make one with `PackedConv2d.from_layer`.

    Every window of the image becomes a row of bits, some windows at a time, and the convolution one
    integer product per group. Zero padding has no bit: it is packed as +1, and what that adds is
    taken off again.

    Examples
    --------
    >>> from onebit.layers import XNORConv2d
    >>> layer, x = XNORConv2d(3, 8, 3, padding=1, input_scale=True), torch.randn(2, 3, 9, 9)
    >>> torch.equal(PackedConv2d.from_layer(layer)(x), layer(x))
    True
    """

    packs = QuantConv2d

    _border_share: Tensor

    def __init__(self, layer: QuantConv2d, weights: Weights = "quantized") -> None:
        super().__init__(layer, weights)
        self.geometry = layer.geometry
        self.in_channels = layer.in_channels
        self.input_scale = layer.input_scale

    def _kernels(self) -> Tensor:
        channels = self.in_channels // self.geometry.groups
        return self.codes().reshape(-1, channels, *self.geometry.kernel_size)

    def _border(self, a: Tensor) -> Tensor:
        """Return what zero padding, packed as +1, has added to every output, for a's size."""
        if self._border_size == a.shape[2:] and not torch.compiler.is_compiling():
            return self._border_share
        frame = self.geometry.pad(a.new_zeros(1, *a.shape[1:]), value=1.0)
        inside = self.geometry._replace(padding=(0, 0))
        share = inside.convolve(frame, self._kernels())
        if not torch.compiler.is_compiling():  # a traced tensor is none to keep
            self._border_share, self._border_size = share, a.shape[2:]
        return share

    def _windows(self, a: Tensor) -> Tensor:
        """Return the padded windows as (N, groups, H_out · W_out, k)."""
        stand_in = 1.0 if self._corrects_padding else None
        columns = F.unfold(
            self.geometry.pad(a, stand_in), self.geometry.kernel_size,
            dilation=self.geometry.dilation, stride=self.geometry.stride,
        )  # fmt: skip
        return columns.unflatten(1, (self.geometry.groups, self.k)).transpose(2, 3)

    @property
    def _corrects_padding(self) -> bool:
        return self.geometry.pad_value == 0 and any(self.geometry.padding) and not self.ternary

    def _packed_product(self, a: Tensor) -> Tensor:
        windows = self._windows(a)
        n, groups, positions, k = windows.shape
        rows = windows.transpose(0, 1).reshape(groups, n * positions, k)
        products = [self._integer_product(rows[g], g) for g in range(groups)]
        size = self.geometry.output_size(a.shape[-2:])
        product = torch.cat(products, 1).reshape(n, positions, self.out_features).transpose(1, 2)
        product = product.reshape(n, self.out_features, *size)
        return product - self._border(a) if self._corrects_padding else product

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, of shape (N, out_channels, H_out, W_out), without a gradient.

        Parameters
        ----------
        x : Tensor
            (N, in_channels, H, W) on the CPU, any float dtype; converted to that of the scale.

        Raises
        ------
        TypeError
            If `x` is not a float tensor.
        ValueError
            If its shape or device does not fit, or it holds NaN where its codes are bits or int8.
        """
        check_input(self, x, self.in_channels, dim=1)
        with no_autocast(x):
            x = self._convert(x)
            K = self.geometry.window_scale(x) if self.input_scale else None
            if self._runs_in_c:
                return self._convolve_bits(x, K)
            a, a_scale = self._quantize_input(x)
            bias = None if self.bias is None else self.bias.reshape(-1, 1, 1)
            if self.integer_inputs:
                product = self._packed_product(a)
            else:
                product = self.geometry.convolve(a, self._kernels())
            w_scale = self.weight_scale.reshape(-1, 1, 1)
            return rescale(product, w_scale, image_scale(a_scale), K, bias)

    @property
    def _runs_in_c(self) -> bool:
        return (
            isinstance(self.input_quant, BINARY_INPUTS)
            and not self.ternary
            and not torch.compiler.is_compiling()
            and _native.current_path() != _native.NUMPY
        )

    def _convolve_bits(self, x: Tensor, K: Tensor | None) -> Tensor:
        """Return what `forward` does, product and scale in C, and the bias if it comes next."""
        plain = type(self.input_quant) is BinarySign and self.input_quant.zero == 1
        a, a_scale = (x, None) if plain else self._quantize_input(x)
        chains, size = self._chains_for(tuple(x.shape[2:]), plain and K is None)
        outs = [
            chain.run(
                pack_images(part), x.new_empty(len(x), self.out_features // self.groups, *size)
            )
            for chain, part in zip(chains, a.chunk(self.groups, 1), strict=True)
        ]
        y = outs[0] if self.groups == 1 else torch.cat(outs, 1)
        if a_scale is not None:
            y = y * image_scale(a_scale)
        if K is not None:
            y = y * K
        if self.bias is None or (plain and K is None):
            return y
        return y + self.bias.reshape(-1, 1, 1)

    def _chains_for(
        self, size: tuple[int, ...], with_bias: bool
    ) -> tuple[list[Chain], tuple[int, ...]]:
        """Return a chain of one layer for each group, and the size of the output image."""
        known, scale, bias, chains = self._chains
        if known != size or scale is not self.weight_scale or bias is not self.bias:
            own_bias = self.bias if with_bias else None
            chains = [Chain([layer]) for layer in self._describe(size, own_bias)]
            self._chains = size, self.weight_scale, self.bias, chains
        return chains, self.geometry.output_size(size)

    def _describe(self, size: tuple[int, ...], bias: Tensor | None) -> list[Layer]:
        """Return what describes each group to the kernel."""
        channels = self.in_channels // self.groups
        n = self.out_features // self.groups
        border: list[Any] = [None] * self.groups
        if self._corrects_padding:
            share = self._border(self.weight_scale.new_empty(0, self.in_channels, *size))
            border = [part[0].permute(1, 2, 0) for part in share.chunk(self.groups, 1)]
        scales = self.weight_scale.expand(self.out_features).chunk(self.groups)
        biases = [None] * self.groups if bias is None else bias.chunk(self.groups)
        layers = []
        for g, codes in enumerate(self.codes().split(n)):
            words, k = words_by_place(codes, channels)
            layer = Layer(prepack(words, k), scale=scales[g], bias=biases[g], border=border[g])
            layer.surplus = k - self.k
            layers.append(describe_windows(layer, self.geometry, size, channels))
        return layers

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"in_channels={self.in_channels}, out_channels={self.out_features}"
