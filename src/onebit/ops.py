"""The kernels as operators of torch, so that `torch.compile` and `torch.export` see through them.

Importing `onebit` registers the functions below under ``torch.ops.onebit``: tensors and whole
numbers in, a new tensor out, words as int64, on the CPU, without a gradient. `xnor_gemm` and
`ternary_gemm` take weights as words and lay them out for the kernel at every call; what is used
more than once goes through `prepack` or `prepack_ternary` once, and as lanes, an int32 tensor, to
`xnor_gemm_lanes` or `ternary_gemm_lanes`. A call costs tens of microseconds in torch's dispatcher,
so in plain Python the functions of `onebit` itself are faster.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebit import bits, kernels
from onebit._operands import check_whole
from onebit.kernels import LANES, PackedMatrix, PackedTernaryMatrix

__all__ = [
    "int8_codes",
    "pack_signs",
    "prepack",
    "prepack_ternary",
    "ternary_gemm",
    "ternary_gemm_lanes",
    "unpack_signs",
    "unpack_ternary",
    "xnor_gemm",
    "xnor_gemm_lanes",
]


def pack_signs(x: Tensor) -> Tensor:
    """Pack the signs of x along its last dimension, as `onebit.pack_signs` does.

    Parameters
    ----------
    x : Tensor, shape (..., k)
        As in `onebit.pack_signs`.

    Returns
    -------
    Tensor of int64, shape (..., ceil(k / 64))

    Raises
    ------
    TypeError, ValueError
        As in `onebit.pack_signs`.

    Examples
    --------
    >>> torch.ops.onebit.pack_signs(torch.tensor([1.0, -2.0, 0.0]))
    tensor([5])
    """
    return bits.pack_signs(x)


def unpack_signs(words: Tensor, k: int) -> Tensor:
    """Unpack words into ±1, as `onebit.unpack_signs` does.

    Parameters
    ----------
    words : Tensor of int64, shape (..., ceil(k / 64))
    k : int
        Signs in a row.

    Returns
    -------
    Tensor of int8, shape (..., k)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.unpack_signs`.

    Examples
    --------
    >>> torch.ops.onebit.unpack_signs(torch.tensor([5]), 3).tolist()
    [1, -1, 1]
    """
    return bits.unpack_signs(words, k)


def xnor_gemm(a_words: Tensor, b_words: Tensor, k: int) -> Tensor:
    """Multiply two packed ±1 matrices exactly, as `onebit.xnor_gemm` does.

    Parameters
    ----------
    a_words, b_words : Tensor of int64, shapes (m, ceil(k / 64)) and (n, ceil(k / 64))
        As `pack_signs` makes them.
    k : int
        Signs in a row.

    Returns
    -------
    Tensor of int32, shape (m, n)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.xnor_gemm`.

    Examples
    --------
    >>> words = torch.ops.onebit.pack_signs(torch.ones(2, 100))
    >>> torch.ops.onebit.xnor_gemm(words, words, 100).tolist()
    [[100, 100], [100, 100]]
    """
    return kernels.xnor_gemm(a_words, b_words, k)


def ternary_gemm(x_int8: Tensor, w_words: Tensor) -> Tensor:
    """Multiply int8 activations by packed ternary weights exactly, as `onebit.ternary_gemm` does.

    Parameters
    ----------
    x_int8 : Tensor of int8, shape (m, k)
    w_words : Tensor of int64, shape (n, ceil(k / 32))
        As `onebit.pack_ternary` makes them.

    Returns
    -------
    Tensor of int32, shape (m, n)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.ternary_gemm`.

    Examples
    --------
    >>> w = bits.pack_ternary(torch.tensor([[1, 0, -1]]))
    >>> torch.ops.onebit.ternary_gemm(torch.tensor([[100, 20, -3]], dtype=torch.int8), w)
    tensor([[103]], dtype=torch.int32)
    """
    return kernels.ternary_gemm(x_int8, w_words)


def unpack_ternary(words: Tensor, k: int) -> Tensor:
    """Unpack words into −1, 0 and 1, as `onebit.unpack_ternary` does.

    Parameters
    ----------
    words : Tensor of int64, shape (..., ceil(k / 32))
    k : int
        Codes in a row.

    Returns
    -------
    Tensor of int8, shape (..., k)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.unpack_ternary`.

    Examples
    --------
    >>> torch.ops.onebit.unpack_ternary(torch.tensor([0b1101]), 2).tolist()
    [1, -1]
    """
    return bits.unpack_ternary(words, k)


# ---- weights laid out once ---------------------------------------------------------------------


def prepack(words: Tensor, k: int) -> Tensor:
    """Lay out packed ±1 rows for `xnor_gemm_lanes`, as `onebit.prepack` does.

    Parameters
    ----------
    words : Tensor of int64, shape (n, ceil(k / 64))
    k : int
        Signs in a row.

    Returns
    -------
    Tensor of int32, shape (ceil(n / 16), ceil(k / 32), 16)
        A layout for this package's kernels and no file format: keep the words.

    Raises
    ------
    TypeError, ValueError
        As in `onebit.prepack`.

    Examples
    --------
    >>> torch.ops.onebit.prepack(torch.tensor([[5], [3]]), 3)[0, 0, :3].tolist()
    [5, 3, 0]
    """
    return lanes_of(kernels.prepack(words, k))


def prepack_ternary(words: Tensor, k: int) -> Tensor:
    """Lay out packed ternary rows for `ternary_gemm_lanes`, as `kernels.prepack_ternary` does.

    Parameters
    ----------
    words : Tensor of int64, shape (n, ceil(k / 32))
    k : int
        Codes in a row.

    Returns
    -------
    Tensor of int32, shape (ceil(n / 16), ceil(k / 16), 16)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.kernels.prepack_ternary`.

    Examples
    --------
    >>> torch.ops.onebit.prepack_ternary(torch.tensor([[5], [3]]), 3).shape
    torch.Size([1, 1, 16])
    """
    return lanes_of(kernels.prepack_ternary(words, k))


def lanes_of(weights: PackedMatrix | PackedTernaryMatrix) -> Tensor:
    """Return the lanes of prepacked weights as a tensor on the same memory, not to be written.

    Examples
    --------
    >>> lanes_of(kernels.prepack(bits.pack_signs(torch.ones(20, 100)), 100)).shape
    torch.Size([2, 4, 16])
    """
    weights.lanes.flags.writeable = True  # torch knows no memory that is only read
    shared = weights.lanes.view(np.int32)
    weights.lanes.flags.writeable = False
    return torch.from_numpy(shared)


def _checked(lanes: Tensor, n: int, k: int, in_word: int) -> np.ndarray:
    """Return lanes as the kernels read them, refusing what is none for n rows of k."""
    n, k = check_whole("n", n, 0, kernels.MOST_BITS), check_whole("k", k, 1, kernels.MOST_BITS)
    shape = (-(-n // LANES), -(-k // in_word), LANES)
    if lanes.dtype != torch.int32 or lanes.device.type != "cpu" or lanes.shape != shape:
        raise ValueError(
            f"lanes must be an int32 tensor of shape {shape} on the CPU for n = {n} and k = {k}, "
            f"got {lanes.dtype} of shape {tuple(lanes.shape)} on {lanes.device}; make them with "
            "torch.ops.onebit.prepack or prepack_ternary"
        )
    return lanes.detach().contiguous().numpy().view(np.uint32)


def xnor_gemm_lanes(a_words: Tensor, lanes: Tensor, n: int, k: int) -> Tensor:
    """Multiply packed ±1 rows by weights that `prepack` laid out.

    Parameters
    ----------
    a_words : Tensor of int64, shape (m, ceil(k / 64))
    lanes : Tensor of int32
        As `prepack` makes them.
    n, k : int
        Rows of the weights, and signs in a row.

    Returns
    -------
    Tensor of int32, shape (m, n)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.xnor_gemm`; also if `lanes` are not those of n rows of k signs.

    Examples
    --------
    >>> words = torch.ops.onebit.pack_signs(torch.ones(2, 100))
    >>> lanes = torch.ops.onebit.prepack(words, 100)
    >>> torch.ops.onebit.xnor_gemm_lanes(words, lanes, 2, 100).tolist()
    [[100, 100], [100, 100]]
    """
    weights = PackedMatrix(_checked(lanes, n, k, 32), n, k, torch.Tensor)
    return kernels.xnor_gemm(a_words, weights, k)


def ternary_gemm_lanes(x_int8: Tensor, lanes: Tensor, n: int) -> Tensor:
    """Multiply int8 activations by weights that `prepack_ternary` laid out.

    Parameters
    ----------
    x_int8 : Tensor of int8, shape (m, k)
    lanes : Tensor of int32
        As `prepack_ternary` makes them.
    n : int
        Rows of the weights.

    Returns
    -------
    Tensor of int32, shape (m, n)

    Raises
    ------
    TypeError, ValueError
        As in `onebit.ternary_gemm`; also if `lanes` are not those of n rows of k codes.

    Examples
    --------
    >>> w = bits.pack_ternary(torch.tensor([[1, 0, -1]]))
    >>> lanes = torch.ops.onebit.prepack_ternary(w, 3)
    >>> x = torch.tensor([[100, 20, -3]], dtype=torch.int8)
    >>> torch.ops.onebit.ternary_gemm_lanes(x, lanes, 1)
    tensor([[103]], dtype=torch.int32)
    """
    k = x_int8.shape[-1]
    weights = PackedTernaryMatrix(_checked(lanes, n, k, 16), n, k, torch.Tensor)
    return kernels.ternary_gemm(x_int8, weights)


def int8_codes(codes: Tensor) -> Tensor:
    """Convert float codes of `onebit.Int8AbsMax` to int8, refusing NaN.

    Parameters
    ----------
    codes : Tensor of float
        Whole numbers from −128 to 127, or NaN, which NaN and infinity among the activations leave.

    Returns
    -------
    Tensor of int8

    Raises
    ------
    ValueError
        If they hold a NaN.

    Examples
    --------
    >>> torch.ops.onebit.int8_codes(torch.tensor([3.0, -127.0]))
    tensor([   3, -127], dtype=torch.int8)
    """
    if bool(codes.isnan().any()):
        raise ValueError("x holds NaN or infinity, which have no int8 code")
    return codes.to(torch.int8)


# ---- registration: what the operators are called, and what shapes they give --------------------


def _register(function: Any) -> Any:
    name = f"onebit::{function.__name__}"
    return torch.library.custom_op(name, function, mutates_args=(), device_types="cpu")


@_register(pack_signs).register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], (x.shape[-1] + 63) // 64), dtype=torch.int64)


@_register(unpack_signs).register_fake
def _(words: Tensor, k: int) -> Tensor:
    return words.new_empty((*words.shape[:-1], k), dtype=torch.int8)


@_register(unpack_ternary).register_fake
def _(words: Tensor, k: int) -> Tensor:
    return words.new_empty((*words.shape[:-1], k), dtype=torch.int8)


@_register(xnor_gemm).register_fake
def _(a_words: Tensor, b_words: Tensor, k: int) -> Tensor:
    return a_words.new_empty((a_words.shape[0], b_words.shape[0]), dtype=torch.int32)


@_register(ternary_gemm).register_fake
def _(x_int8: Tensor, w_words: Tensor) -> Tensor:
    return x_int8.new_empty((x_int8.shape[0], w_words.shape[0]), dtype=torch.int32)


@_register(prepack).register_fake
def _(words: Tensor, k: int) -> Tensor:
    shape = ((words.shape[0] + LANES - 1) // LANES, (k + 31) // 32, LANES)
    return words.new_empty(shape, dtype=torch.int32)


@_register(prepack_ternary).register_fake
def _(words: Tensor, k: int) -> Tensor:
    shape = ((words.shape[0] + LANES - 1) // LANES, (k + 15) // 16, LANES)
    return words.new_empty(shape, dtype=torch.int32)


@_register(xnor_gemm_lanes).register_fake
def _(a_words: Tensor, lanes: Tensor, n: int, k: int) -> Tensor:
    return a_words.new_empty((a_words.shape[0], n), dtype=torch.int32)


@_register(ternary_gemm_lanes).register_fake
def _(x_int8: Tensor, lanes: Tensor, n: int) -> Tensor:
    return x_int8.new_empty((x_int8.shape[0], n), dtype=torch.int32)


@_register(int8_codes).register_fake
def _(codes: Tensor) -> Tensor:
    return torch.empty_like(codes, dtype=torch.int8, memory_format=torch.contiguous_format)
