"""Describe the C kernels to cffi, which builds them into the module `onebit._xnor_popcount`."""

import re
from pathlib import Path

from cffi import FFI

# Relative to the project's root, where setuptools runs: it refuses absolute paths.
KERNELS = Path("kernels")
SOURCES = [
    "xnor_popcount.c",
    "ternary.c",
    "bit_packing.c",
    "paths.c",
    "thread_pool.c",
    "pixels.c",
    "packed_network.c",
    "image_packing.c",
]
HEADERS = ["xnor_popcount.h", "lanes.h", "paths.h", "thread_pool.h"]


def declarations() -> str:
    """Return the public header without its preprocessor lines, which cffi does not read."""
    header = (KERNELS / "xnor_popcount.h").read_text(encoding="utf-8")
    return re.sub(r"(?m)^#.*$", "", header)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "onebit._xnor_popcount",
    '#include "xnor_popcount.h"',
    sources=[str(KERNELS / name) for name in SOURCES],
    depends=[str(KERNELS / name) for name in HEADERS],
    include_dirs=[str(KERNELS)],
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-pthread"],
    extra_link_args=["-pthread"],
)
