"""Files of packed networks: raw bits in safetensors, in a format that refuses damage."""

import hashlib
import json
import os
from typing import Any

import torch
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.bits import unpack_signs, words_for
from onebit.layers import Geometry, QuantConv2d, QuantLinear
from onebit.network.chain import PackedNetwork
from onebit.network.fusion import KEPT, QUANTIZERS, Norm, inputs, takes_bits
from onebit.network.stages import (
    MOST_PIXELS,
    PackedBlock,
    PackedLayer,
    PackSigns,
    PixelBlock,
)
from onebit.network.thresholds import MOST_PIXEL
from onebit.packing import PackedConv2d, PackedLinear
from onebit.quantizers import BinarySign

FORMAT = "onebit network"
VERSION = 1


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
      that make it; a `PackedBlock` and a `PixelBlock` have their layer inside;
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
    >>> from onebit.network import pack
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
    if isinstance(stage, PixelBlock):
        return {**_arguments(stage, ()), "layer": _describe(stage.layer)}
    if isinstance(stage, PackedLayer):
        quantizer = stage.input_quant
        return {
            "kind": type(stage).__name__,
            "in_features" if isinstance(stage, PackedLinear) else "in_channels": inputs(stage),
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
    if isinstance(stage, PackedBlock | PixelBlock) and stage.thresholds is not None:
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
    if kind == "PixelBlock":
        return _build_pixel_block(stage, tensors)
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


def _build_pixel_block(stage: dict[str, Any], tensors: dict[str, Any]) -> PixelBlock:
    layer = _build_inner(stage.pop("layer"), tensors)
    if not isinstance(layer, PackedLinear) or layer.input_quant is not None or stage:
        raise ValueError("a PixelBlock holds a PackedLinear without an input quantizer, no more")
    if layer.k > MOST_PIXELS:
        raise ValueError(f"a PixelBlock takes {MOST_PIXELS} pixels at most, got {layer.k}")
    return PixelBlock(layer, *_built_thresholds(layer, tensors, MOST_PIXEL * layer.k))


def _build_inner(stage: Any, tensors: dict[str, Any]) -> Any:
    inner = {name.removeprefix("layer."): t for name, t in tensors.items() if "layer." in name}
    return _build(dict(stage), inner)


def _built_thresholds(layer: Any, tensors: dict[str, Any], most: int) -> tuple[Tensor, Tensor]:
    """Return thresholds and flip, once known to lie within the reachable accumulators."""
    thresholds: Any = tensors.get("thresholds")
    flip: Any = tensors.get("flip")
    n = (layer.out_features,)
    _check_tensor("thresholds", thresholds, (torch.int32,), n)
    _check_tensor("flip", flip, (torch.bool,), n)
    if bool(((thresholds < -most) | (thresholds > most)).any()):
        raise ValueError(f"thresholds must lie between -{most} and {most}")
    return thresholds, flip


def _build_block(stage: dict[str, Any], tensors: dict[str, Any]) -> PackedBlock:
    layer = _build_inner(stage["layer"], tensors)
    channels, pool = stage["channels"], stage["pool"]
    if not takes_bits(layer) or channels < 1 or layer.k % channels:
        raise ValueError("a PackedBlock holds a layer that takes bits, whole words of channels")
    if isinstance(layer, PackedConv2d) and channels != layer.in_channels:
        raise ValueError(f"channels is {channels}, but the layer takes {layer.in_channels}")
    thresholds = flip = None
    if not tensors.keys().isdisjoint({"thresholds", "flip"}):
        thresholds, flip = _built_thresholds(layer, tensors, layer.k)
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
