"""Packing: who turns a float32 matrix into bits."""

import importlib
from collections.abc import Callable

import numpy as np

import onebit
from onebit.bench.contest import Contestant, Maker
from onebit.bench.operands import Operands, bits_of


def packing_makers(x: np.ndarray) -> dict[str, Maker]:
    """Return who packs the signs of float32 `x`: all of them give the bytes of `pack_signs`."""

    def packer(name: str, pack: Callable[[np.ndarray], np.ndarray]) -> Maker:
        def make(_: Operands, threads: int) -> Contestant:
            def result() -> np.ndarray:
                return np.ascontiguousarray(pack(x)).view(np.uint8)

            # Bound by reading the very same memory.
            return Contestant(name, [lambda: pack(x)], result, f"read {x.nbytes}", x.nbytes)

        return make

    def by_bnn_lab(_: Operands, threads: int) -> Contestant:
        packed = importlib.import_module("bnn.kernels.packed")
        made = packer("bnn-lab", lambda x: packed.pack_binary_pm1(x)[0])(_, threads)
        bits = made.result
        made.result = lambda: ~bits()  # its 1 stands for −1
        return made

    return {
        "onebit": packer("onebit", onebit.pack_signs),
        "numpy packbits": packer("numpy packbits", bits_of),
        "bnn-lab": by_bnn_lab,
    }
