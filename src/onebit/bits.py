"""Bit packing: 64 signs, or 32 ternary codes, in each 64-bit word.

Element ``i`` of a row stands in word ``i // 64``, bit ``i % 64``, the least significant bit first;
a 1 is +1, a 0 is −1. The bits past the last element are 0. Ternary codes take two bits: element
``i`` stands in word ``i // 32``, bits ``2 (i % 32)`` and the next, in two's complement, so
``00`` is 0, ``01`` is +1, ``11`` is −1, and ``10`` is never written.

NumPy arrays give uint64 words, tensors int64 words with the same bits, since torch has few
operations on uint64.
"""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from onebit import _native
from onebit._operands import as_kind, as_words, check_whole, kind_of, numpy_view

ArrayT = TypeVar("ArrayT", np.ndarray, torch.Tensor)

MOST_ELEMENTS = 2**31 - 1


class _Format(NamedTuple):
    """How C names an element type, and the bits of its infinity where it has one."""

    c_name: str
    infinity: int | None = None


_FORMATS = {
    "float16": _Format("ONEBIT_F16", 0x7C00),
    "bfloat16": _Format("ONEBIT_BF16", 0x7F80),
    "float32": _Format("ONEBIT_F32", 0x7F800000),
    "float64": _Format("ONEBIT_F64", 0x7FF0000000000000),
    "int8": _Format("ONEBIT_I8"),
    "int16": _Format("ONEBIT_I16"),
    "int32": _Format("ONEBIT_I32"),
    "int64": _Format("ONEBIT_I64"),
    "bool": _Format("ONEBIT_BOOL"),
}


def words_for(k: int) -> int:
    """Return how many 64-bit words hold `k` signs.

    Examples
    --------
    >>> words_for(64), words_for(65)
    (1, 2)
    """
    return -(-k // 64)


def ternary_words_for(k: int) -> int:
    """Return how many 64-bit words hold `k` ternary codes.

    Examples
    --------
    >>> ternary_words_for(32), ternary_words_for(33)
    (1, 2)
    """
    return -(-k // 32)


def pack_signs(x: ArrayT) -> ArrayT:
    """Pack the signs of `x` along its last dimension, 64 to a word.

    Parameters
    ----------
    x : ndarray or Tensor, shape (..., k)
        On the CPU, with any strides: float16, bfloat16, float32, float64, int8, int16, int32,
        int64 or bool. Bit 1 stands for ``x >= 0``, so 0 and −0 are +1; True is +1, False −1.

    Returns
    -------
    ndarray of uint64 or Tensor of int64, shape (..., ceil(k / 64))
        The kind that went in. Bits past k are 0.

    Raises
    ------
    TypeError
        If `x` is no array or tensor, or of another dtype: an unsigned integer has no sign.
    ValueError
        If `x` has no dimension, is on another device, or holds a NaN, which has no sign either.

    References
    ----------
    Courbariaux et al. 2016, BinaryNet (arXiv:1602.02830), section 4, "SIMD within a register".

    Examples
    --------
    >>> pack_signs(np.array([1.0, -2.0, 0.0, -0.0, -5.0]))
    array([13], dtype=uint64)
    >>> pack_signs(torch.tensor([[True, False, True]]))
    tensor([[5]])
    """
    kind = kind_of("x", x)
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype not in _FORMATS:
        raise TypeError(
            f"x has dtype {dtype}; pack_signs takes {', '.join(_FORMATS)}. Unsigned integers hold "
            "no minus sign: for bits use bool, for ±1 use int8"
        )
    _check_rows(x)
    array = np.ascontiguousarray(numpy_view(x))
    *leading, k = array.shape
    words = np.empty((*leading, words_for(k)), np.uint64)
    if _pack_rows(array.reshape(-1, k) if k else array, _FORMATS[dtype], words):
        raise ValueError("x holds NaN, which is neither +1 nor −1; replace it, e.g. by nan_to_num")
    return as_kind(kind, words)


def _check_rows(x: np.ndarray | torch.Tensor) -> None:
    if x.ndim == 0:
        raise ValueError("x is a scalar; packing runs along the last dimension: reshape to (1,)")
    check_whole("the last dimension of x", x.shape[-1], 0, MOST_ELEMENTS)


def _pack_rows(x: np.ndarray, form: _Format, words: np.ndarray) -> bool:
    """Fill `words` from `x` of shape (rows, k) and return whether there was a NaN."""
    if words.size == 0:
        return False
    path = _native.current_path()
    rows, k = x.shape
    if path != _native.NUMPY:
        ffi, lib = _native.ffi, _native.lib
        data = ffi.from_buffer("char[]", x.view(np.uint8))
        out = ffi.from_buffer("uint64_t[]", words, require_writable=True)
        dtype = getattr(lib, form.c_name)
        return bool(lib.onebit_pack_signs(path, dtype, data, rows, k, out))
    nan = False
    if form.infinity is None:
        plus = x if x.dtype == np.bool_ else x >= 0
    else:
        pattern = x.view(f"u{x.itemsize}")
        sign = 1 << (8 * x.itemsize - 1)
        magnitude = pattern & pattern.dtype.type(sign - 1)
        nan = bool((magnitude > form.infinity).any())
        plus = (pattern < sign) | (magnitude == 0)
    padded = np.zeros((rows, words.shape[-1] * 8), np.uint8)
    padded[:, : -(-k // 8)] = np.packbits(plus, axis=1, bitorder="little")
    words.reshape(rows, -1)[:] = padded.view("<u8")
    return nan


def unpack_signs(bits: ArrayT, k: int) -> ArrayT:
    """Unpack words into ±1; the inverse of `pack_signs` on ±1.

    Parameters
    ----------
    bits : ndarray of uint64 or Tensor of int64, shape (..., ceil(k / 64))
        Bits past k may be anything.
    k : int
        How many signs a row holds.

    Returns
    -------
    ndarray or Tensor of int8, shape (..., k)
        Every element −1 or +1; the kind that went in.

    Raises
    ------
    TypeError
        If `bits` does not hold words, or `k` is no whole number.
    ValueError
        If the number of words is not that of `k` signs.

    Examples
    --------
    >>> unpack_signs(np.array([13], np.uint64), 5)
    array([ 1, -1,  1,  1, -1], dtype=int8)
    """
    k = check_whole("k", k, 0, MOST_ELEMENTS)
    words: np.ndarray = _checked_words("bits", bits, k, per_word=64)
    x = np.empty((*words.shape[:-1], k), np.int8)
    path = _native.current_path()
    if path != _native.NUMPY and x.size:
        ffi, lib = _native.ffi, _native.lib
        data = ffi.from_buffer("uint64_t[]", words)
        out = ffi.from_buffer("int8_t[]", x, require_writable=True)
        lib.onebit_unpack_signs(path, data, x.size // k, k, out)
    elif x.size:
        raw = words.astype("<u8", copy=False).view(np.uint8)
        plus = np.unpackbits(raw, axis=-1, count=k, bitorder="little")
        np.subtract(2 * plus.view(np.int8), 1, out=x)
    return as_kind(kind_of("bits", bits), x)


def pack_ternary(x: ArrayT) -> ArrayT:
    """Pack codes in {−1, 0, 1} along the last dimension, 32 to a word.

    Parameters
    ----------
    x : ndarray or Tensor, shape (..., k)
        On the CPU, with any strides and of any signed integer or float dtype, every element
        −1, 0 or 1.

    Returns
    -------
    ndarray of uint64 or Tensor of int64, shape (..., ceil(k / 32))
        Two bits a code: 00 is 0, 01 is +1, 11 is −1. Bits past the last code are 0.

    Raises
    ------
    TypeError
        If `x` is no array or tensor, or of another dtype.
    ValueError
        If an element is none of −1, 0 and 1, if `x` has no dimension or is on another device.

    References
    ----------
    Ma et al. 2024, The Era of 1-bit LLMs (arXiv:2402.17764): weights of log2(3) = 1.58 bits, here
    in 2 bits, which unpack with one shift and one AND.

    Examples
    --------
    >>> pack_ternary(np.array([0, 1, -1], np.int8))
    array([52], dtype=uint64)
    """
    kind = kind_of("x", x)
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype not in _FORMATS or dtype == "bool":
        taken = ", ".join(name for name in _FORMATS if name != "bool")
        raise TypeError(f"x has dtype {dtype}; pack_ternary takes {taken}")
    _check_rows(x)
    if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16:
        x = x.float()
    values = numpy_view(x)
    codes = np.ascontiguousarray(values)
    if codes.dtype != np.int8:
        with np.errstate(invalid="ignore"):
            codes = codes.astype(np.int8)
        if not np.array_equal(codes, values):
            raise ValueError(_not_ternary(values))
    *leading, k = codes.shape
    words = np.empty((*leading, ternary_words_for(k)), np.uint64)
    if words.size and _pack_ternary_rows(codes.reshape(-1, k), words):
        raise ValueError(_not_ternary(codes))
    return as_kind(kind, words)


def _not_ternary(x: np.ndarray) -> str:
    wrong = x[~np.isin(x, (-1, 0, 1))].flat[0]
    return (
        f"x holds {wrong}, wanted −1, 0 and 1 only; quantise first, e.g. with "
        "onebit.quantizers.TernaryAbsMean, and pass its codes"
    )


def _pack_ternary_rows(codes: np.ndarray, words: np.ndarray) -> bool:
    """Fill `words` from int8 codes of shape (rows, k); return whether one is not ternary."""
    rows, k = codes.shape
    if _native.current_path() != _native.NUMPY:
        ffi, lib = _native.ffi, _native.lib
        data = ffi.from_buffer("int8_t[]", codes)
        out = ffi.from_buffer("uint64_t[]", words, require_writable=True)
        return bool(lib.onebit_pack_ternary(data, rows, k, out))
    quads = np.zeros((rows, words.shape[-1] * 8, 4), np.uint8)
    quads.reshape(rows, -1)[:, :k] = codes.view(np.uint8) & 3
    quads <<= np.array([0, 2, 4, 6], np.uint8)
    packed = np.bitwise_or.reduce(quads, axis=2)
    words.reshape(rows, -1)[:] = packed.view("<u8")
    return bool((np.abs(codes.astype(np.int16)) > 1).any())


def unpack_ternary(words: ArrayT, k: int) -> ArrayT:
    """Unpack two-bit words into −1, 0 and 1; the inverse of `pack_ternary`.

    Parameters
    ----------
    words : ndarray of uint64 or Tensor of int64, shape (..., ceil(k / 32))
        As `pack_ternary` makes them; bits past code k may be anything.
    k : int
        How many codes a row holds.

    Returns
    -------
    ndarray or Tensor of int8, shape (..., k)
        The kind that went in.

    Raises
    ------
    TypeError
        If `words` does not hold words, or `k` is no whole number.
    ValueError
        If the number of words is not that of `k` codes, or a code is 10, which stands for nothing.

    Examples
    --------
    >>> unpack_ternary(np.array([52], np.uint64), 3)
    array([ 0,  1, -1], dtype=int8)
    """
    k = check_whole("k", k, 0, MOST_ELEMENTS)
    packed: np.ndarray = _checked_words("words", words, k, per_word=32)
    x = np.empty((*packed.shape[:-1], k), np.int8)
    if x.size and _unpack_ternary_rows(packed, x):
        raise ValueError(BROKEN_CODES.format(name="words"))
    return as_kind(kind_of("words", words), x)


BROKEN_CODES = (
    "{name} holds the two-bit code 10, which stands for none of −1, 0, 1: the words are damaged, "
    "or were not made by pack_ternary"
)


def _unpack_ternary_rows(words: np.ndarray, x: np.ndarray) -> bool:
    """Fill int8 `x` and return whether a code was 10."""
    k = x.shape[-1]
    if _native.current_path() != _native.NUMPY:
        ffi, lib = _native.ffi, _native.lib
        data = ffi.from_buffer("uint64_t[]", words)
        out = ffi.from_buffer("int8_t[]", x, require_writable=True)
        return bool(lib.onebit_unpack_ternary(data, x.size // k, k, out))
    raw = words.astype("<u8", copy=False).view(np.uint8)
    codes = (raw[..., None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    codes = codes.reshape(*words.shape[:-1], -1)[..., :k]
    x[:] = (codes ^ 2).view(np.int8) - 2
    return bool((codes == 2).any())


def _checked_words(name: str, words: Any, k: int, *, per_word: int) -> np.ndarray:
    array = as_words(name, words)
    wanted = -(-k // per_word)
    if array.ndim == 0 or array.shape[-1] != wanted:
        raise ValueError(
            f"{name} has shape {array.shape}; k = {k} needs a last dimension of {wanted} words "
            f"({per_word} elements in each)"
        )
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])
