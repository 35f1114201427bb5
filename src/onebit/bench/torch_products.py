"""Torch's products, in float32, bfloat16 and int8."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from onebit.bench.contest import Contestant, Maker, timed
from onebit.bench.operands import Operands, bound


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _torch_product(name: str, dtype: torch.dtype, ceiling: str) -> Callable[..., Contestant]:
    def make(o: Operands, threads: int) -> Contestant:
        packing: dict[str, float] = {}
        a, b = o.a_float, o.b_float
        if dtype is not torch.float32:
            a = timed(lambda: o.a_float.to(dtype), packing, "a")
            b = timed(lambda: o.b_float.to(dtype), packing, "b")

        multiply: Any = torch._int_mm if dtype is torch.int8 else torch.mm
        out = torch.empty(o.shape[:2], dtype=torch.int32 if dtype is torch.int8 else dtype)

        def call() -> torch.Tensor:
            return multiply(a, b.T, out=out)

        return Contestant(
            name,
            [call],
            lambda: call().float().numpy(),
            *bound(o, ceiling, b.numel() * b.element_size()),
            packing,
            mode=functools.partial(torch_threads, threads),
        )

    return make


TORCH: dict[str, Maker] = {
    "torch float32": _torch_product("torch float32", torch.float32, "fma"),
    "torch bfloat16": _torch_product("torch bfloat16", torch.bfloat16, "fma"),
    "torch int8": _torch_product("torch int8", torch.int8, "int8"),
}
