"""The kernels as operators of torch, so that `torch.compile` and `torch.export` see through them.

Importing `onebit` registers ``torch.ops.onebit.pack_signs``, ``unpack_signs``, ``xnor_gemm`` and
``ternary_gemm``: tensors and whole numbers in, a new tensor out, words as int64,
on the CPU, without a gradient. The functions below are what they run. Weights come as raw words
and are laid out for the kernel at every call, and a call costs tens of microseconds in torch's
dispatcher, so in plain Python `onebit.prepack` and the functions of `onebit` itself are faster.
"""

import torch
from torch import Tensor

from onebit import bits, kernels

__all__ = ["pack_signs", "ternary_gemm", "unpack_signs", "xnor_gemm"]


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


_pack_signs = torch.library.custom_op(
    "onebit::pack_signs", pack_signs, mutates_args=(), device_types="cpu"
)
_unpack_signs = torch.library.custom_op(
    "onebit::unpack_signs", unpack_signs, mutates_args=(), device_types="cpu"
)
_xnor_gemm = torch.library.custom_op(
    "onebit::xnor_gemm", xnor_gemm, mutates_args=(), device_types="cpu"
)
_ternary_gemm = torch.library.custom_op(
    "onebit::ternary_gemm", ternary_gemm, mutates_args=(), device_types="cpu"
)


@_pack_signs.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], (x.shape[-1] + 63) // 64), dtype=torch.int64)


@_unpack_signs.register_fake
def _(words: Tensor, k: int) -> Tensor:
    return words.new_empty((*words.shape[:-1], k), dtype=torch.int8)


@_xnor_gemm.register_fake
def _(a_words: Tensor, b_words: Tensor, k: int) -> Tensor:
    return a_words.new_empty((a_words.shape[0], b_words.shape[0]), dtype=torch.int32)


@_ternary_gemm.register_fake
def _(x_int8: Tensor, w_words: Tensor) -> Tensor:
    return x_int8.new_empty((x_int8.shape[0], w_words.shape[0]), dtype=torch.int32)
