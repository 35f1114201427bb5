"""A whole network as bits: packed layer by layer, run without leaving bits, stored in one file.

Between two binary layers, all that a batch norm and a sign do to an integer product is to compare
it with a threshold. `pack` finds that integer for every output and drops the rest; pooling becomes
an OR of bits. In memory, images are words of shape (N, H, W, ceil(C / 64)): one pixel's channels
stand together, so that a window of a convolution is whole words copied side by side.
"""

import copy
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.bits import pack_signs, unpack_signs, words_for
from onebit.blocks import Sign
from onebit.kernels import prepack, xnor_gemm, xnor_gemm_bits
from onebit.layers import Geometry, QuantConv2d, QuantLinear, check_input, no_autocast, rescale
from onebit.packing import PackedConv2d, PackedLinear
from onebit.quantizers import BinarySign, Quantizer, ScaledBinary

__all__ = ["PackSigns", "PackedBlock", "PackedNetwork", "load", "pack", "save"]

FORMAT = "onebit network"
VERSION = 1

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
PackedLayer = PackedLinear | PackedConv2d


# ---- the packed network ------------------------------------------------------------------------


def _pack(x: Tensor) -> Tensor:
    """Pack signs; in a compiled or exported program by the operator, which torch sees through."""
    words: Tensor = (torch.ops.onebit.pack_signs if torch.compiler.is_compiling() else pack_signs)(
        x
    )
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
        return _pack(x.permute(0, 2, 3, 1) if self.images else x)

    def extra_repr(self) -> str:
        """Show what comes in."""
        return f"features={self.features}, images={self.images}"


class PackedBlock(nn.Module):
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

    thresholds: Tensor | None
    flip: Tensor | None

    def __init__(
        self,
        layer: PackedLayer,
        channels: int,
        thresholds: Tensor | None = None,
        flip: Tensor | None = None,
        pool: Geometry | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.channels, self.pool = layer, channels, pool
        self.register_buffer("thresholds", thresholds)
        self.register_buffer("flip", flip)
        self._lay_out()
        self.register_load_state_dict_post_hook(_lay_out_again)

    def _lay_out(self) -> None:
        """Order the weights as the words come in: by position, then channel, in whole words."""
        codes = self.layer.codes().unflatten(1, (self.channels, -1)).transpose(1, 2)
        whole_row = codes.shape[1] == 1
        words = self.layer.weight_words if whole_row else pack_signs(codes).flatten(1)
        k = self.layer.k if whole_row else 64 * words.shape[1]
        self._words, self._k, self._weights = words, k, prepack(words, k)
        # The tail bits of input and weights are all 0: they agree, and each adds 1.
        self._surplus = k - self.layer.k
        if self.thresholds is not None and self.flip is not None:
            self._limits = self.thresholds + self._surplus
            self._flip_words = pack_signs(self.flip)

    def _rows(self, words: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return the words of every sum as a row, and the shape in which the rows stand."""
        if isinstance(self.layer, PackedLinear):
            return words.flatten(1), (len(words),)
        if words.dim() != 4 or words.shape[-1] != words_for(self.channels):
            raise ValueError(
                f"PackedBlock wants words of shape (N, H, W, {words_for(self.channels)}), got "
                f"{tuple(words.shape)}"
            )
        geometry = self.layer.geometry
        windows = torch.cat(_taps(words, geometry, self.channels), -1)
        return windows.flatten(0, 2), tuple(windows.shape[:3])

    def _product(self, rows: Tensor, shape: tuple[int, ...], words: Tensor) -> Tensor:
        """Return the accumulators, channels last, without surplus and zero padding's share."""
        if torch.compiler.is_compiling():
            product = torch.ops.onebit.xnor_gemm(rows, self._words, self._k)
        else:
            product = xnor_gemm(rows, self._weights, self._k)
        product = product.unflatten(0, shape) - self._surplus
        if isinstance(self.layer, PackedConv2d) and self.layer._corrects_padding:
            size = self.layer.weight_scale.new_empty(0, self.channels, *words.shape[1:3])
            with no_autocast(size):
                share = self.layer._border(size)
            product -= share.permute(0, 2, 3, 1).to(torch.int32)
        return product

    @torch.no_grad()
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
        rows, shape = self._rows(words)
        if self.thresholds is None:
            return self._floats(self._product(rows, shape, words))
        corrects = isinstance(self.layer, PackedConv2d) and self.layer._corrects_padding
        if corrects or torch.compiler.is_compiling():
            bits = _pack(self._product(rows, shape, words) >= self.thresholds)
        else:
            flip = None if self.pool else self.flip
            bits = xnor_gemm_bits(rows, self._weights, self._k, self._limits, flip=flip)
            bits = bits.unflatten(0, shape)
            if not self.pool:
                return bits
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


def _lay_out_again(block: PackedBlock, _: Any) -> None:
    block._lay_out()


def _taps(words: Tensor, geometry: Geometry, channels: int) -> list[Tensor]:
    """Return, for each position in a window, the words (N, H_out, W_out, …) it meets."""
    n, *size, _ = words.shape
    output = geometry.output_size(tuple(size))
    if min(output) < 1:
        raise ValueError(f"images of size {tuple(size)} are smaller than {geometry.kernel_size}")
    rows, columns = geometry.padding
    if rows or columns:
        # Zero padding stands as +1 here; what that adds is taken off the product again.
        sign = torch.tensor(geometry.pad_value >= 0)
        frame = _pack(sign.expand(channels))
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


class PackedNetwork(nn.Sequential):
    """A network in its packed form; `pack` and `load` make one.

    Examples
    --------
    >>> from onebit.models import binarynet_mlp
    >>> model, x = binarynet_mlp(width=100).eval(), torch.rand(2, 784)
    >>> torch.equal(pack(model)(x), model(x))
    True
    """

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode, whatever mode the model around goes into."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs of the network that was packed, without a gradient."""
        return super().forward(input)

    def nbytes(self) -> int:
        """Return the bytes of all that the network stores, which are those of its tensors on disk.

        Of the network that was packed, `onebit.summary` counts the same, except that each batch
        norm folded into thresholds goes (four floats an output; two without its own γ and β) and
        thresholds and flips come (five bytes an output). Parameters in float64 keep their size.
        """
        return sum(t.numel() * t.element_size() for t in self.state_dict().values())


# ---- packing -----------------------------------------------------------------------------------


def pack(model: nn.Module) -> PackedNetwork:
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

    Parameters
    ----------
    model : nn.Module
        Nested `nn.Sequential` of `QuantLinear`, `QuantConv2d` (presets included) with binary
        weights, `nn.Linear`, `nn.Conv2d`, `BatchNorm1d`, `BatchNorm2d`, `Sign`, `MaxPool2d`,
        `Flatten`, `ReLU`, `Dropout`, `Identity`. Taken as it computes in evaluation mode, and not
        changed.

    Returns
    -------
    PackedNetwork
        Its outputs equal those of ``model.eval()`` in every bit, on the kind of processor that
        packed: another one may round batch norm otherwise, and so would have other thresholds.

    Raises
    ------
    TypeError
        If a module is none of these; the message names it and its place.
    ValueError
        If a layer's weights cannot be packed, a batch norm has no running statistics or gives
        NaN or infinity, or pooling returns indices.

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
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    leaves = list(_leaves(model, "model"))
    stages: list[nn.Module] = []
    i, flowing, channels = 0, False, 0
    while i < len(leaves):
        leaf = leaves[i]
        i += 1
        if not _takes_bits(leaf):
            stages.append(leaf)
            continue
        if not flowing:
            channels = _inputs(leaf)
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


def _takes_bits(leaf: nn.Module) -> bool:
    """Return whether a layer can be fed with words."""
    return (
        isinstance(leaf, PackedLayer)
        and isinstance(leaf.input_quant, BinarySign)
        and leaf.input_quant.zero == 1
        and leaf.groups == 1
        and not (isinstance(leaf, PackedConv2d) and leaf.input_scale)
    )


def _inputs(layer: PackedLayer) -> int:
    return layer.in_channels if isinstance(layer, PackedConv2d) else layer.k


def _entrance(layer: PackedLayer, stages: list[nn.Module]) -> PackSigns:
    """Return what packs a layer's input, taking the place of a sign just before."""
    signed = bool(stages) and isinstance(stages[-1], Sign)
    if signed:
        stages.pop()
    dtype = None if signed else layer.weight_scale.dtype
    return PackSigns(_inputs(layer), isinstance(layer, PackedConv2d), dtype)


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
    if following_layer is None or not _takes_bits(following_layer):
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


@torch.no_grad()
def _fold(
    layer: PackedLayer, norm: nn.Module, sign: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return each output's threshold and flip, by asking the modules themselves.

    Scales are not negative, so the answer can change once between −k and k: to +1 where γ is
    positive, to −1 where it is negative. Bisection finds where.
    """
    n, k = layer.out_features, layer.k
    images = isinstance(layer, PackedConv2d)
    shape = (1, n, 1, 1) if images else (1, n)
    # A window on zero padding adds fewer products, and reaches sums of the other parity.
    step = 1 if isinstance(layer, PackedConv2d) and layer._corrects_padding else 2
    scale = layer.weight_scale.reshape(shape if layer.weight_scale.numel() == n else ())
    bias = None if layer.bias is None else layer.bias.reshape(shape)

    def normalised(steps: Tensor) -> Tensor:
        product = (step * steps - k).to(scale.dtype).reshape(shape)
        y: Tensor = norm(rescale(product, scale, scale.new_ones(()), None, bias))
        return y

    def plus(steps: Tensor) -> Tensor:
        return (sign(normalised(steps)) > 0).reshape(n)

    low = torch.zeros(n, dtype=torch.int64)
    high = torch.full((n,), 2 * k // step)
    if not all(bool(torch.isfinite(normalised(end)).all()) for end in (low, high)):
        raise ValueError(
            f"the scale, bias or batch norm behind a layer of {n} outputs gives NaN or infinity"
        )
    first, last = plus(low), plus(high)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        as_first = plus(middle) == first
        low, high = torch.where(as_first, middle, low), torch.where(as_first, high, middle)
    thresholds = torch.where(first == last, -k, step * high - k).to(torch.int32)
    return thresholds, torch.where(first == last, ~first, first)


# ---- files -------------------------------------------------------------------------------------


def save(model: PackedNetwork, path: str | os.PathLike[str]) -> None:
    """Write a packed network to a safetensors file.

    The file holds the tensors of ``model.state_dict()`` under their names: of each packed layer
    `weight_words` (int64, (n, ceil(k / 64)), one row of bits an output, in the order of the layer's
    own weight, as `pack_signs` makes them; never the kernel's layout), `weight_scale` and `bias`;
    of each folded block `thresholds` (int32) and `flip` (bool); of float layers and batch norms
    their own. Thresholds are stored, not found anew. The header's metadata has one entry,
    ``onebit``, a JSON object:

    - ``format`` ("onebit network") and ``version`` (1);
    - ``stages``: a list, in running order, of objects with ``kind``, the class, and the arguments
      that make it; a `PackedBlock` has its layer inside;
    - ``sha256``: of the stages as JSON with sorted keys and of each tensor's name, dtype, shape and
      bytes in the order of names.

    So the file takes ``model.nbytes()`` bytes, the length of the header, and 8 bytes that tell it.

    Parameters
    ----------
    model : PackedNetwork
        As `pack` returns it.
    path : str or path-like

    Raises
    ------
    TypeError
        If `model` is not a `PackedNetwork`.
    ImportError
        If safetensors is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from onebit.models import binarynet_mlp
    >>> packed, x = pack(binarynet_mlp(width=64)), torch.rand(2, 784)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(packed, folder + "/mlp.safetensors")
    ...     torch.equal(load(folder + "/mlp.safetensors")(x), packed(x))
    True
    """
    if not isinstance(model, PackedNetwork):
        raise TypeError(
            f"model must be a PackedNetwork, got {type(model).__name__}; use onebit.pack(model)"
        )
    stages = [_describe(stage) for stage in model]
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "stages": stages,
        "sha256": _digest(stages, tensors),
    }
    metadata = {"onebit": json.dumps(header, sort_keys=True)}
    _safetensors().torch.save_file(tensors, path, metadata=metadata)


def load(path: str | os.PathLike[str]) -> PackedNetwork:
    """Read a packed network that `save` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    PackedNetwork

    Raises
    ------
    ValueError
        If the file is damaged or truncated, of another format or a newer version, or describes a
        network whose tensors do not fit: shapes, dtypes, bits past the last weight, thresholds
        beyond the reachable accumulators.
    OSError
        If it cannot be read.
    ImportError
        If safetensors is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "net.safetensors")
    ...     _ = path.write_bytes(b"something else")
    ...     load(path)
    Traceback (most recent call last):
    ...
    ValueError: net.safetensors is no safetensors file, or damaged: ...
    """
    name = os.path.basename(os.fspath(path))
    safetensors = _safetensors()
    with open(path, "rb"):  # so that a missing file is an OSError that says which
        pass
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{name} is no safetensors file, or damaged: {error}") from error
    stages = _stages(name, metadata, tensors)
    try:
        return PackedNetwork(*_build_all(stages, tensors)).eval()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} describes no network that fits: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "files of packed networks need safetensors: pip install safetensors"
        ) from error
    return safetensors


def _digest(stages: list[dict[str, Any]], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(stages, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stages(
    name: str, metadata: dict[str, str], tensors: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Return the description of the stages, refusing a file that is not whole or not of `save`."""
    try:
        header = json.loads(metadata["onebit"])
        form, version, stages = header["format"], header["version"], header["stages"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} was not written by onebit.save: it has no description") from error
    if form != FORMAT or not isinstance(version, int):
        raise ValueError(f"{name} has the format {form!r} {version!r}, not {FORMAT!r} {VERSION}")
    if version > VERSION:
        raise ValueError(
            f"{name} has version {version} of the format, and this onebit reads up to {VERSION}; "
            "install a newer one"
        )
    try:
        whole = header["sha256"] == _digest(stages, tensors)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    if not whole:
        raise ValueError(f"{name} is damaged: its content does not have the stored SHA-256")
    if not isinstance(stages, list):
        raise ValueError(f"{name} is damaged: stages must be a list")
    return stages


def _arguments(module: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    return {"kind": type(module).__name__, **{name: getattr(module, name) for name in names}}


def _describe(stage: nn.Module) -> dict[str, Any]:
    """Return what makes a stage anew, but for its tensors."""
    if isinstance(stage, PackSigns):
        dtype = None if stage.dtype is None else str(stage.dtype).removeprefix("torch.")
        return {**_arguments(stage, ("features", "images")), "dtype": dtype}
    if isinstance(stage, PackedBlock):
        pool = None if stage.pool is None else stage.pool._asdict()
        return {
            **_arguments(stage, ("channels",)),
            "layer": _describe(stage.layer),
            "pool": pool,
        }
    if isinstance(stage, PackedLayer):
        quantizer = stage.input_quant
        return {
            "kind": type(stage).__name__,
            "in_features" if isinstance(stage, PackedLinear) else "in_channels": _inputs(stage),
            "out_features" if isinstance(stage, PackedLinear) else "out_channels":
                stage.out_features,
            "input_quant": None if quantizer is None
                else _arguments(quantizer, QUANTIZERS[type(quantizer)]),
            **(
                {**stage.geometry._asdict(), "input_scale": stage.input_scale}
                if isinstance(stage, PackedConv2d) else {}
            ),
        }  # fmt: skip
    known = next(known for known in KEPT if isinstance(stage, known))
    return {**_arguments(stage, KEPT[known]), "kind": known.__name__}


def _build_all(stages: list[dict[str, Any]], tensors: dict[str, Tensor]) -> list[nn.Module]:
    built: list[nn.Module] = []
    for i, stage in enumerate(stages):
        own = {name.removeprefix(f"{i}."): tensors[name] for name in tensors
               if name.startswith(f"{i}.")}  # fmt: skip
        built.append(_build(dict(stage), own))
        if built[-1].state_dict().keys() != own.keys():
            raise ValueError(f"stage {i} does not use the tensors {sorted(own)}")
    if sum(len(stage.state_dict()) for stage in built) != len(tensors):
        raise ValueError("there are tensors that belong to no stage")
    for i, (before, after) in enumerate(zip(built, [*built[1:], None], strict=True)):
        takes = after.channels if isinstance(after, PackedBlock) else None
        if _word_channels(before) != takes:
            raise ValueError(f"stage {i} does not give what the next one takes")
    return built


def _word_channels(stage: nn.Module) -> int | None:
    """Return how many signs share the words that a stage gives, None if it gives floats."""
    if isinstance(stage, PackSigns):
        return stage.features
    if isinstance(stage, PackedBlock) and stage.thresholds is not None:
        return stage.layer.out_features
    return None


def _build(stage: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """Make a stage from its description and tensors."""
    kind = stage.pop("kind")
    if kind == "PackSigns":
        dtype = stage.pop("dtype")
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype must be float32, float64 or null, got {dtype!r}")
        return PackSigns(**stage, dtype=dtype and getattr(torch, dtype))
    if kind == "PackedBlock":
        return _build_block(stage, tensors)
    if kind in ("PackedLinear", "PackedConv2d"):
        return _build_layer(kind, stage, tensors)
    known: Any = next((known for known in KEPT if known.__name__ == kind), None)
    if known is None:
        raise ValueError(f"{kind!r} is no stage of a packed network")
    if not all(tensor.dtype in (torch.float32, torch.float64) for tensor in tensors.values()):
        raise ValueError(f"the tensors of {kind} must be float32 or float64")
    with torch.device("meta"):
        bias = {"bias": "bias" in tensors} if known in (nn.Linear, nn.Conv2d) else {}
        module = known(**stage, **bias)
    module.load_state_dict(tensors, assign=True)
    if isinstance(module, Norm):
        module.num_batches_tracked = None
    return module.requires_grad_(False).eval()


def _build_layer(kind: str, stage: dict[str, Any], stored: dict[str, Any]) -> PackedLayer:
    """Make a packed layer by packing a layer whose latent weights are the stored signs."""
    words: Any = stored.get("weight_words")
    scale: Any = stored.get("weight_scale")
    bias = stored.get("bias")
    quantizer = stage.pop("input_quant")
    if quantizer is not None:
        quantizer = dict(quantizer)
        wanted = quantizer.pop("kind")
        known = {known.__name__: known for known in QUANTIZERS}
        quantizer = known[wanted](**quantizer)
    options = {"bias": bias is not None, "weight_quant": BinarySign(), "input_quant": quantizer}
    make = QuantLinear if kind == "PackedLinear" else QuantConv2d
    layer: Any = make(**stage, **options, device="meta")
    if isinstance(layer, QuantConv2d):
        _check_geometry(layer.geometry)
    n, k = layer.weight.shape[0], layer.weight[0].numel()
    _check_tensor("weight_words", words, (torch.int64,), (n, words_for(k)))
    floats = (torch.float32, torch.float64)
    _check_tensor("weight_scale", scale, floats, (n,), (1,))
    codes = unpack_signs(words, k).to(scale.dtype).reshape(layer.weight.shape)
    layer.weight = nn.Parameter(codes, requires_grad=False)
    if bias is not None:
        _check_tensor("bias", bias, (scale.dtype,), (n,))
        layer.bias = nn.Parameter(bias, requires_grad=False)
    packed = (
        PackedLinear.from_layer(layer) if kind == "PackedLinear" else PackedConv2d.from_layer(layer)
    )
    if not torch.equal(packed.weight_words, words):
        raise ValueError("weight_words has bits set past the last weight of a row")
    if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
        raise ValueError("weight_scale must be finite and not negative")
    packed.weight_scale = scale
    return packed


def _build_block(stage: dict[str, Any], tensors: dict[str, Any]) -> PackedBlock:
    inner = {name.removeprefix("layer."): t for name, t in tensors.items() if "layer." in name}
    layer: Any = _build(dict(stage["layer"]), inner)
    channels, pool = stage["channels"], stage["pool"]
    if not _takes_bits(layer) or channels < 1 or layer.k % channels:
        raise ValueError("a PackedBlock holds a layer that takes bits, whole words of channels")
    if isinstance(layer, PackedConv2d) and channels != layer.in_channels:
        raise ValueError(f"channels is {channels}, but the layer takes {layer.in_channels}")
    thresholds: Any = tensors.get("thresholds")
    flip = tensors.get("flip")
    n = (layer.out_features,)
    if thresholds is not None or flip is not None:
        _check_tensor("thresholds", thresholds, (torch.int32,), n)
        _check_tensor("flip", flip, (torch.bool,), n)
        if bool(((thresholds < -layer.k) | (thresholds > layer.k)).any()):
            raise ValueError(f"thresholds must lie between -{layer.k} and {layer.k}")
    if pool is not None:
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in pool.items()}
        pool = Geometry(**fields)
        _check_geometry(pool)
        if thresholds is None or not isinstance(layer, PackedConv2d):
            raise ValueError("pool stands between a convolution and its thresholds")
    return PackedBlock(layer, channels, thresholds, flip, pool)


def _check_geometry(geometry: Geometry) -> None:
    for field, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        rows, columns = getattr(geometry, field)
        check_whole(field, rows, least, 2**31 - 1)
        check_whole(field, columns, least, 2**31 - 1)


def _check_tensor(
    name: str, tensor: Any, dtypes: tuple[torch.dtype, ...], *shapes: tuple[int, ...]
) -> None:
    if tensor is None or tensor.dtype not in dtypes or tuple(tensor.shape) not in shapes:
        given = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        wanted = f"{' or '.join(map(str, dtypes))} {' or '.join(map(str, shapes))}"
        raise ValueError(f"{name} must be {wanted}, got {given}")
