"""Chains of packed layers in C: a layer as the kernel has it described, and the call for all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onebit import _native
from onebit.kernels import WORK_FOR_A_THREAD, PackedMatrix
from onebit.layers import Geometry

PIXEL_WORK = 8
"""One-bit multiply-adds in the time of one of a pixel."""


@dataclass
class Layer:
    """One layer as kernels/xnor_popcount.h describes it; `weights` are in the order of the input.

    With thresholds (their surplus included) words go out; without, ``product · scale + bias``.
    """

    weights: PackedMatrix
    thresholds: Tensor | None = None
    flip_words: Tensor | None = None
    scale: Tensor | None = None
    bias: Tensor | None = None
    surplus: int = 0
    pixels: bool = False
    # Of a convolution:
    channel_words: int = 0
    in_size: tuple[int, ...] = ()
    out_size: tuple[int, ...] = ()
    geometry: Geometry | None = None
    frame: Tensor | None = None
    border: Tensor | None = None
    pool: Geometry | None = None
    pooled_size: tuple[int, ...] = ()

    @property
    def work(self) -> int:
        """One-bit multiply-adds of one sample."""
        macs = self.weights.n * self.weights.k * math.prod(self.out_size)
        return macs * PIXEL_WORK if self.pixels else macs


class Chain:
    """Layers that take what the one before gives, laid down in C once for many calls."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = _native.ffi.new("struct onebit_layer[]", len(layers))
        self._work = sum(layer.work for layer in layers)
        self._alive: list[Any] = []  # what C points to
        for described, layer in zip(self._layers, layers, strict=True):
            self._describe(described, layer)

        self._made_of = layers

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew, since what C holds are addresses."""
        return Chain, (self._made_of,)

    def _describe(self, described: Any, layer: Layer) -> None:
        described.n, described.k = layer.weights.shape
        described.surplus, described.pixels = layer.surplus, layer.pixels
        self._alive.append(layer.weights)
        described.lanes = _native.ffi.cast("uint32_t *", layer.weights.lanes.ctypes.data)
        described.thresholds = self._pointer("int32_t *", layer.thresholds, torch.int32)
        if layer.flip_words is not None and bool(layer.flip_words.any()):
            described.flip = self._pointer("uint64_t *", layer.flip_words, torch.int64)
        if layer.scale is not None:
            double = layer.scale.dtype == torch.float64
            described.dtype = _native.lib.ONEBIT_F64 if double else _native.lib.ONEBIT_F32
            scales = layer.scale.detach().expand(layer.weights.n)
            described.scale = self._pointer("void *", scales, layer.scale.dtype)
            described.bias = self._pointer("void *", layer.bias, layer.scale.dtype)
        if layer.geometry is not None:
            described.channel_words = layer.channel_words
            described.in_height, described.in_width = layer.in_size
            described.out_height, described.out_width = layer.out_size
            _set_window(described.window, layer.geometry)
            described.frame = self._pointer("uint64_t *", layer.frame, torch.int64)
            described.border = self._pointer("int32_t *", layer.border, torch.int32)
        if layer.pool is not None:
            described.pooled_height, described.pooled_width = layer.pooled_size
            _set_window(described.pool, layer.pool)

    def _pointer(self, c_type: str, x: Tensor | None, dtype: torch.dtype) -> Any:
        if x is None:
            return _native.ffi.NULL
        x = x.detach().to(dtype).contiguous()
        self._alive.append(x)
        return _native.ffi.cast(c_type, x.data_ptr())

    def run(self, x: Tensor, out: Tensor) -> Tensor:
        """Fill `out` from `x`, both contiguous and of the sizes that the layers were described for.

        Raises
        ------
        MemoryError
            If there is none for what lies between two layers.
        """
        deserved = self._work * len(x) // WORK_FOR_A_THREAD
        threads = min(deserved, _native.default_threads()) if deserved > 1 else 1
        pointer = _native.ffi.cast
        if _native.lib.onebit_run_layers(
            _native.current_path(), threads, self._layers, len(self._layers),
            pointer("void *", x.data_ptr()), len(x), pointer("void *", out.data_ptr()),
        ):  # fmt: skip
            raise MemoryError(f"no memory for what lies between the layers, for {len(x)} samples")
        return out


def _set_window(window: Any, geometry: Geometry) -> None:
    window.height, window.width = geometry.kernel_size
    window.stride_y, window.stride_x = geometry.stride
    window.pad_y, window.pad_x = geometry.padding
    window.dilation_y, window.dilation_x = geometry.dilation
