"""The binary product without AVX-512: those who can be held to AVX2."""

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from onebit.bench.binary import by_bnn_lab, by_numkong, by_simsimd, this_kernel
from onebit.bench.contest import Contestant, Maker
from onebit.bench.operands import Operands


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _without_avx512(module: str) -> Iterator[None]:
    """Forbid numkong or simsimd everything above AVX2."""
    library = importlib.import_module(module)
    allowed = {"serial", "haswell"}
    above = [name for name, on in library.get_capabilities().items() if on and name not in allowed]
    for name in above:
        library.disable_capability(name)
    try:
        yield
    finally:
        for name in above:
            library.enable_capability(name)


@contextlib.contextmanager
def _bnn_lab_avx2() -> Iterator[None]:
    packed = importlib.import_module("bnn.kernels.packed")
    packed.set_kernel("avx2")
    try:
        yield
    finally:
        packed.set_kernel(None)


def _limited(
    make: Callable[..., Contestant], mode: Callable[[], AbstractContextManager[Any]]
) -> Callable[..., Contestant]:
    """Return a contestant that is made and runs under a switch."""

    def _limited(o: Operands, threads: int) -> Contestant:
        with mode():
            made = make(o, threads)
        own = made.mode

        @contextlib.contextmanager
        def both() -> Iterator[None]:
            with mode(), own():
                yield

        made.mode = both
        return made

    return _limited


AVX2: dict[str, Maker] = {
    "onebit": _limited(this_kernel, functools.partial(_environment, "ONEBIT_KERNEL", "avx2")),
    "numkong": _limited(by_numkong, functools.partial(_without_avx512, "numkong")),
    "simsimd": _limited(by_simsimd, functools.partial(_without_avx512, "simsimd")),
    "bnn-lab": _limited(by_bnn_lab, _bnn_lab_avx2),
}
