"""Packing: which modules of a trained network become one block of bits, and which stay."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from onebit.blocks import Sign
from onebit.layers import Geometry, QuantConv2d, QuantLinear, rescale
from onebit.network.chain import PackedNetwork
from onebit.network.stages import (
    MOST_PIXELS,
    PackedBlock,
    PackedLayer,
    PackSigns,
    PixelBlock,
)
from onebit.network.thresholds import MOST_PIXEL, find_thresholds, grey_levels
from onebit.packing import PackedConv2d, PackedLinear
from onebit.quantizers import BinarySign, Quantizer, ScaledBinary

#: Modules that stay as they are, with the arguments that make them anew.
KEPT: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
        "padding_mode",
    ),
    nn.BatchNorm1d: ("num_features", "eps", "affine"),
    nn.BatchNorm2d: ("num_features", "eps", "affine"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.ReLU: (),
    Sign: ("clip_value",),
}  # fmt: skip

#: Input quantizers of the layers that `pack` takes, likewise.
QUANTIZERS: dict[type[Quantizer], tuple[str, ...]] = {
    BinarySign: ("clip_value", "zero"),
    ScaledBinary: ("clip_value", "granularity"),
}

DROPPED = (nn.Identity, nn.Dropout)

Norm = nn.BatchNorm1d | nn.BatchNorm2d
Pixels = Callable[[Tensor], Tensor]


def pack(model: nn.Module, *, pixels: Pixels | None = None) -> PackedNetwork:
    """Turn a trained BinaryNet or XNOR-Net into its packed form, with the same outputs.

    A binary layer, max-pooling, batch norm and sign become one `PackedBlock` wherever the next
    layer takes the signs: bits flow from one to the other. The sign may be a `Sign`, or the next
    layer's own `BinarySign`, as in XNOR-Net's blocks. Each threshold is found by bisecting the
    accumulators through the network's own modules, in their own dtype.

    What cannot stay in bits is packed singly, as `PackedLinear` or `PackedConv2d`, with floats in
    and out: a first layer without an input quantizer, layers that scale by K or β, which need the
    float input, convolutions with groups, a `BinarySign` with ``zero=-1``. Float layers, and batch
    norm, pooling, ReLU and Flatten around them, are kept as they are; Dropout and Identity go. The
    packed network prints which stage is which. `torch.compile` and `torch.export` take packed
    networks, through the operators of ``onebit.ops``; they then compare and pack in steps of their
    own, so running them as they are is faster.

    Forward hooks see less than in the network that was packed. Batch norms and signs that went into
    thresholds are no modules any more; blocks between which bits flow run together in one call of
    C, and a batch norm that stays is called as a function, so hooks of these do not fire. Hooks of
    other stages and of the whole network do. To look at every stage, run them one by one:
    ``for stage in packed: x = stage(x)``.

    A network whose first layer takes 8-bit pixels can be bits from end to end: with ``pixels`` the
    packed network takes the uint8 pixels themselves, and that layer too becomes integer sums and
    thresholds.

    Parameters
    ----------
    model : nn.Module
        Nested `nn.Sequential` of `QuantLinear`, `QuantConv2d` (presets included) with binary
        weights, `nn.Linear`, `nn.Conv2d`, `BatchNorm1d`, `BatchNorm2d`, `Sign`, `MaxPool2d`,
        `Flatten`, `ReLU`, `Dropout`, `Identity`. Taken as it computes in evaluation mode, and not
        changed.
    pixels : callable, optional
        How pixels became the floats that the network was trained on: maps uint8 tensors (N, H, W)
        to ``scale · pixel + shift``, as `onebit.data.normalise` does. The network must begin (but
        for a `Flatten`) with a `QuantLinear` without an input quantizer, and its sums must end in
        signs.

    Returns
    -------
    PackedNetwork
        Its outputs equal those of ``model.eval()`` in every bit, on the kind of processor that
        packed: another one may round batch norm otherwise, and so would have other thresholds.
        With ``pixels`` the first layer's sums are exact integers, scaled and shifted once, where
        ``model`` adds up rounded floats. The two differ where a sum is within that rounding of
        the threshold: never if the floats are whole numbers (``pixels=Tensor.float``), hardly
        ever in float64, now and then in float32.

    Raises
    ------
    TypeError
        If a module is none of these; the message names it and its place.
    ValueError
        If a layer's weights cannot be packed, a batch norm has no running statistics or gives
        NaN or infinity, pooling returns indices, or `pixels` is no straight line or the network
        does not begin as it must.

    References
    ----------
    BinaryNet (NIPS 2016), Section 4; XNOR-Net (arXiv:1603.05279), Figure 3.

    Examples
    --------
    >>> from onebit.blocks import binarynet_conv_block
    >>> from onebit.layers import BinaryLinear
    >>> model = nn.Sequential(
    ...     binarynet_conv_block(3, 16, pool=2), nn.Flatten(), BinaryLinear(256, 10)
    ... ).eval()
    >>> packed, x = pack(model), torch.randn(5, 3, 8, 8)
    >>> torch.equal(packed(x), model(x))
    True
    >>> [type(stage).__name__ for stage in packed]
    ['PackSigns', 'PackedBlock', 'PackedBlock']

    >>> from onebit.models import binarynet_mlp
    >>> model = binarynet_mlp(width=64).eval()
    >>> packed = pack(model, pixels=Tensor.float)
    >>> x = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    >>> torch.equal(packed(x), model(x.float().flatten(1)))
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    leaves = list(_leaves(model, "model"))
    stages: list[nn.Module] = []
    i, flowing, channels = 0, False, 0
    if pixels is not None:
        block, i = _pixel_block(leaves, pixels)
        stages, flowing, channels = [block], True, block.layer.out_features
    while i < len(leaves):
        leaf = leaves[i]
        i += 1
        if not takes_bits(leaf):
            stages.append(leaf)
            continue
        if not flowing:
            channels = inputs(leaf)
            stages.append(_entrance(leaf, stages))
        fused = _between(leaf, leaves[i:])
        if fused is None:
            stages.append(PackedBlock(leaf, channels))
            flowing = False
        else:
            length, pool, norm, sign = fused
            stages.append(PackedBlock(leaf, channels, *_fold(leaf, norm, sign), pool))
            i, flowing, channels = i + length, True, leaf.out_features
    return PackedNetwork(*stages).eval()


def _pixel_block(leaves: list[Any], pixels: Pixels) -> tuple[PixelBlock, int]:
    """Return a network's first block for uint8 pixels, and how many modules it stands for."""
    scale, shift = grey_levels(pixels)
    start = 1 if leaves and isinstance(leaves[0], nn.Flatten) else 0
    layer = leaves[start] if leaves[start:] else None
    fused = None
    if isinstance(layer, PackedLinear) and layer.input_quant is None and layer.k <= MOST_PIXELS:
        fused = _between(layer, leaves[start + 1 :])
    if layer is None or fused is None:
        raise ValueError(
            "pixels is given, so model must begin with a QuantLinear of binary weights without an "
            f"input quantizer, of {MOST_PIXELS} inputs at most, whose sums end in signs for a "
            "binary layer; without pixels the packed network takes floats"
        )
    length, _, norm, sign = fused
    codes = layer.codes().double()
    total = codes.sum(1)

    def product(sums: Tensor) -> Tensor:
        return sums.double() * scale + shift * total

    least = (MOST_PIXEL * codes.clamp(max=0).sum(1)).long()
    most = (MOST_PIXEL * codes.clamp(min=0).sum(1)).long()
    folded = find_thresholds(least, most, 1, _normalised(layer, norm, product), sign)
    return PixelBlock(layer, *folded), start + 1 + length


def _leaves(module: Any, path: str) -> Iterator[Any]:
    """Yield the modules in the order in which they run: layers packed, the others copied."""
    # A subclass with a forward of its own computes something else.
    kinds: tuple[Any, ...] = (nn.Sequential, QuantLinear, QuantConv2d, *KEPT, *DROPPED)
    alike = [k for k in kinds if isinstance(module, k) and type(module).forward is k.forward]
    if nn.Sequential in alike:
        for name, child in module._modules.items():  # named_children() passes over repetitions
            yield from _leaves(child, f"{path}.{name}")
    elif QuantLinear in alike or QuantConv2d in alike:
        yield _packed_layer(module, path)
    elif alike and alike[0] in KEPT:
        yield _kept(module, path)
    elif not alike:
        known = ", ".join(t.__name__ for t in (QuantLinear, QuantConv2d, *KEPT, *DROPPED))
        raise TypeError(
            f"{path} is a {type(module).__name__}, which pack does not know; it takes nested "
            f"Sequential of {known}. Pack the layers of other networks one by one, with "
            "PackedLinear.from_layer and PackedConv2d.from_layer"
        )


def _packed_layer(layer: Any, path: str) -> PackedLayer:
    wanted = PackedLinear if isinstance(layer, QuantLinear) else PackedConv2d
    quantizer = layer.input_quant
    if quantizer is not None and type(quantizer) not in QUANTIZERS:
        raise TypeError(
            f"{path} quantises its input with {type(quantizer).__name__}; pack takes BinaryNet's "
            f"and XNOR-Net's inputs: None, {', '.join(q.__name__ for q in QUANTIZERS)}. "
            f"{wanted.__name__}.from_layer packs the layer alone"
        )
    try:
        packed = wanted.from_layer(layer)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
    if packed.ternary:
        raise TypeError(
            f"{path} has ternary weights; pack takes BinaryNet's and XNOR-Net's, which are binary. "
            f"{wanted.__name__}.from_layer packs the layer alone"
        )
    return packed


def _kept(module: nn.Module, path: str) -> nn.Module:
    if isinstance(module, Norm) and module.running_mean is None:
        raise ValueError(
            f"{path} has no running statistics, so its outputs depend on the whole batch; "
            "train it with track_running_stats=True"
        )
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        raise ValueError(f"{path} returns indices, which no layer takes; use return_indices=False")
    kept = copy.deepcopy(module).requires_grad_(False).eval()
    if isinstance(kept, Norm):
        kept.num_batches_tracked = None  # counts training steps; nothing reads it in evaluation
    return kept


def takes_bits(leaf: nn.Module) -> bool:
    """Return whether a layer can be fed with words.

    Examples
    --------
    >>> from onebit.layers import XNORLinear
    >>> [takes_bits(PackedLinear.from_layer(XNORLinear(3, 2, input_scale=s))) for s in (0, 1)]
    [True, False]
    """
    return (
        isinstance(leaf, PackedLayer)
        and isinstance(leaf.input_quant, BinarySign)
        and leaf.input_quant.zero == 1
        and leaf.groups == 1
        and not (isinstance(leaf, PackedConv2d) and leaf.input_scale)
    )


def inputs(layer: PackedLayer) -> int:
    """Return a layer's input features or channels."""
    return layer.in_channels if isinstance(layer, PackedConv2d) else layer.k


def _entrance(layer: PackedLayer, stages: list[nn.Module]) -> PackSigns:
    """Return what packs a layer's input, taking the place of a sign just before."""
    signed = bool(stages) and isinstance(stages[-1], Sign)
    if signed:
        stages.pop()
    dtype = None if signed else layer.weight_scale.dtype
    return PackSigns(inputs(layer), isinstance(layer, PackedConv2d), dtype)


Fused = tuple[int, Geometry | None, nn.Module, Callable[[Tensor], Tensor]]


def _between(layer: PackedLayer, following: list[nn.Module]) -> Fused | None:
    """Return what stands between a layer and one that takes its signs, None if there is no such.

    That is: how many modules, the pooling, the batch norm, and what makes the sign.
    """
    images = isinstance(layer, PackedConv2d)
    rest = list(following)
    pool = norm = sign = None
    if images and rest and isinstance(rest[0], nn.MaxPool2d) and not rest[0].ceil_mode:
        pool = _pool_geometry(rest.pop(0))
    if rest and isinstance(rest[0], nn.BatchNorm2d if images else nn.BatchNorm1d):
        norm = rest.pop(0)
    if rest and isinstance(rest[0], Sign):
        sign = rest.pop(0)
    flat = bool(rest) and isinstance(rest[0], nn.Flatten)
    if flat:
        flatten = rest.pop(0)
        flat = images and (flatten.start_dim, flatten.end_dim) == (1, -1)
        if not flat:
            return None
    following_layer: Any = rest[0] if rest else None
    if following_layer is None or not takes_bits(following_layer):
        return None
    n = layer.out_features
    if flat or not images:
        fits = isinstance(following_layer, PackedLinear) and (
            following_layer.k % n == 0 if flat else following_layer.k == n
        )
    else:
        fits = isinstance(following_layer, PackedConv2d) and following_layer.in_channels == n
    if not fits:
        return None

    def own_sign(y: Tensor) -> Tensor:
        codes: Tensor = following_layer._quantize_input(following_layer._convert(y))[0]
        return codes

    return len(following) - len(rest), pool, norm or nn.Identity(), sign or own_sign


def _pool_geometry(pool: Any) -> Geometry:
    def pair(size: Any) -> tuple[int, ...]:
        return (size, size) if isinstance(size, int) else tuple(size)

    return Geometry(
        pair(pool.kernel_size), pair(pool.stride), pair(pool.padding), pair(pool.dilation),
        groups=1, pad_value=-1,  # padding never wins a maximum, and bit 0 never wins an OR
    )  # fmt: skip


def _fold(
    layer: PackedLayer, norm: nn.Module, sign: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the thresholds and flips of a layer between bits."""
    # A window on zero padding adds fewer products, and reaches sums of the other parity.
    step = 1 if isinstance(layer, PackedConv2d) and layer._corrects_padding else 2
    most = torch.full((layer.out_features,), layer.k)
    return find_thresholds(-most, most, step, _normalised(layer, norm, Tensor.double), sign)


def _normalised(
    layer: PackedLayer, norm: nn.Module, product: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return what maps a layer's accumulators, one an output, to what its sign gets."""
    n = layer.out_features
    shape = (1, n, 1, 1) if isinstance(layer, PackedConv2d) else (1, n)
    scale = layer.weight_scale.reshape(shape if layer.weight_scale.numel() == n else ())
    bias = None if layer.bias is None else layer.bias.reshape(shape)

    def normalised(accumulators: Tensor) -> Tensor:
        products = product(accumulators).to(scale.dtype).reshape(shape)
        y: Tensor = norm(rescale(products, scale, scale.new_ones(()), None, bias))
        return y

    return normalised
