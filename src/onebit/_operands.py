"""Operands: NumPy arrays and CPU tensors, checked and seen as NumPy arrays that share memory."""

import math
import mmap
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = np.ndarray | torch.Tensor

CACHE_LINE, HUGE_PAGE = 64, 2**21

WORD_DTYPES: dict[type, tuple[Any, ...]] = {
    np.ndarray: (np.dtype(np.uint64),),
    torch.Tensor: (torch.int64, torch.uint64),
}
WORDS_AS: dict[type, str] = {np.ndarray: "uint64", torch.Tensor: "torch.int64"}


def kind_of(name: str, x: Any) -> type:
    """Return `np.ndarray` or `torch.Tensor`, whichever `x` is; refuse anything else."""
    if type(x) is np.ndarray:
        return np.ndarray
    if isinstance(x, torch.Tensor):
        if not x.is_cpu:
            raise ValueError(
                f"{name} is on device {str(x.device)!r}; the kernels run on the CPU: pass "
                f"{name}.cpu()"
            )
        if x.layout is not torch.strided:
            raise TypeError(f"{name} has layout {x.layout}; pass {name}.to_dense()")
        return torch.Tensor
    if isinstance(x, np.ndarray):
        return np.ndarray
    raise TypeError(
        f"{name} must be a NumPy array or a CPU torch.Tensor, got {type(x).__name__}; convert it "
        f"with np.asarray or torch.as_tensor"
    )


def as_words(name: str, x: Any, shape: Sequence[int | None] | None = None) -> np.ndarray:
    """Return `x` as uint64 words, sharing memory: NumPy uint64 or torch int64."""
    kind = kind_of(name, x)
    if x.dtype not in WORD_DTYPES[kind]:
        raise TypeError(
            f"{name} must hold packed words, dtype {WORDS_AS[kind]}, got {x.dtype}; make them with "
            "onebit.pack_signs or onebit.pack_ternary"
        )
    words: np.ndarray = x.numpy().view(np.uint64) if kind is torch.Tensor else x
    if shape is not None:
        check_shape(name, words.shape, shape)
    return words


def as_integers(
    name: str, x: Any, dtype: type[np.generic], shape: Sequence[int | None]
) -> np.ndarray:
    """Return `x` as a NumPy array of `dtype`, sharing memory; refuse any other dtype."""
    kind_of(name, x)
    array: np.ndarray = numpy_view(x)
    if array.dtype != dtype:
        raise TypeError(
            f"{name} must have dtype {np.dtype(dtype).name}, got {x.dtype}; convert it explicitly, "
            "so that no value is rounded or cut unseen"
        )
    check_shape(name, array.shape, shape)
    return array


def numpy_view(x: Array) -> np.ndarray:
    """Return a tensor's memory as a NumPy array (bfloat16, which NumPy lacks, as int16)."""
    if isinstance(x, np.ndarray):
        return x
    x = x.detach().resolve_neg().resolve_conj()
    return x.view(torch.int16).numpy() if x.dtype is torch.bfloat16 else x.numpy()


def as_kind(kind: type, array: np.ndarray) -> Any:
    """Return a result as what the caller passed in: words become int64 in torch."""
    if kind is np.ndarray:
        return array
    return torch.from_numpy(array.view(np.int64) if array.dtype == np.uint64 else array)


def check_shape(name: str, given: Sequence[int], wanted: Sequence[int | None]) -> None:
    """Raise ValueError unless the shapes agree; None agrees with any size."""
    if given == wanted:
        return
    if len(given) != len(wanted) or any(
        w is not None and g != w for g, w in zip(given, wanted, strict=True)
    ):
        sizes = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ValueError(
            f"{name} has shape {tuple(given)}, wanted ({sizes}{',' * (len(wanted) == 1)})"
        )


def check_same_kind(first: str, kind: type, second: str, other: Any) -> None:
    """Raise TypeError unless `other` is of `kind`."""
    if kind_of(second, other) is not kind:
        raise TypeError(
            f"{first} is a {kind.__name__} but {second} a {type(other).__name__}; pass both as "
            "NumPy arrays or both as tensors"
        )


def check_whole(name: str, value: Any, least: int, most: int) -> int:
    """Return `value` as an int; refuse what is no whole number from `least` to `most`."""
    if type(value) is int and least <= value <= most:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most}, got {number}")
    return number


def empty_lines(shape: Sequence[int], dtype: type[np.generic]) -> np.ndarray:
    """Return uninitialised memory that starts on a cache line, as whole-register access likes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size].view(dtype).reshape(shape)


def empty_weights(shape: Sequence[int], dtype: type[np.generic]) -> np.ndarray:
    """Return uninitialised memory as from `empty_lines`, in pages of 2 MiB where it fills any.

    A processor remembers where some thousand pages are. Weights that come from memory through
    pages of 4 KiB wait for that as well: 2 MiB read by two cores took 190 µs, and takes 122.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return empty_lines(shape, dtype)
    try:
        pages = mmap.mmap(-1, size + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        room = np.frombuffer(pages, np.uint8)
        start = -room.ctypes.data % HUGE_PAGE
        # Of the last page only as much as is needed: it stays one of many small ones.
        pages.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    except (OSError, ValueError, OverflowError):  # a system without such pages, or without memory
        return empty_lines(shape, dtype)
    return room[start : start + size].view(dtype).reshape(shape)


def prepare_out(
    kind: type,
    out: Any,
    dtype: type[np.generic],
    shape: tuple[int, int],
    inputs: Sequence[np.ndarray],
) -> np.ndarray:
    """Return the array to write: a new one, or `out` once it is known to fit."""
    if out is None:
        # Only large outputs are written past the caches, and for small ones time is short.
        return empty_lines(shape, dtype) if math.prod(shape) > 2**18 else np.empty(shape, dtype)
    if type(out) is not kind and kind_of("out", out) is not kind:
        raise TypeError(
            f"out is a {type(out).__name__} but the operands are of kind {kind.__name__}; "
            "pass all of one kind"
        )
    if dtype is np.uint64:
        array = as_words("out", out, shape)
    else:
        array = as_integers("out", out, dtype, shape)
    flags = array.flags
    if not flags.writeable:
        raise ValueError("out is read-only; pass a writable array")
    if not (flags.c_contiguous and flags.aligned) and not _rows_in_order(array):
        raise ValueError(
            f"out has strides {array.strides} in bytes at address {array.ctypes.data}; its rows "
            "must be contiguous, aligned and in order"
        )
    for x in inputs:
        if np.may_share_memory(array, x):
            raise ValueError(
                "out shares memory with an operand, which would be overwritten; copy one"
            )
    return array


def _rows_in_order(array: np.ndarray) -> bool:
    """Whether C can write row after row: contiguous rows, none over another."""
    row_contiguous = array.shape[1] <= 1 or array.strides[1] == array.itemsize
    in_order = array.shape[0] <= 1 or array.strides[0] >= array.shape[1] * array.itemsize
    return array.size == 0 or bool(row_contiguous and in_order and array.flags.aligned)
