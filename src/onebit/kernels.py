"""Exact matrix products of packed operands: one bit against one bit, two bits against int8.

With ±1 stored as bits, a dot product of length k is ``k − 2·popcount(a xor b)``. The products here
run in C on the fastest instruction set the machine has, or in NumPy where no compiler was there;
every path gives the same integers. ``ONEBIT_KERNEL`` chooses a path by name,
``ONEBIT_NUM_THREADS`` bounds the threads, and ``ONEBIT_REQUIRE_KERNEL=1`` refuses to go on without
the C kernel.
"""

from typing import Any, TypeVar

import numpy as np
import torch

from onebit import _native
from onebit._native import available_kernels, kernel_name, kernel_report
from onebit._operands import (
    as_integers,
    as_kind,
    as_words,
    check_same_kind,
    check_whole,
    empty_weights,
    kind_of,
    prepare_out,
)
from onebit.bits import (
    BROKEN_CODES,
    pack_signs,
    pack_ternary,
    ternary_words_for,
    unpack_ternary,
    words_for,
)

__all__ = [
    "PackedMatrix",
    "PackedTernaryMatrix",
    "available_kernels",
    "kernel_name",
    "kernel_report",
    "prepack",
    "prepack_ternary",
    "ternary_gemm",
    "xnor_gemm",
    "xnor_gemm_bits",
]

ArrayT = TypeVar("ArrayT", np.ndarray, torch.Tensor)

LANES = 16
MOST_BITS = 2**31 - 1
MOST_TERNARY = MOST_BITS // 128
WORK_FOR_A_THREAD = 2**24
"""One-bit multiply-adds that take a core some 15 microseconds, half as long as waking another."""

ROWS_WHILE_READING, TERNARY_ROWS_WHILE_READING = 6, 3
"""Rows that a core multiplies in the time in which the weights arrive: fewer are no less work."""


class _LaneMatrix:
    """Weights in the kernel's lane layout; made by `prepack` and `prepack_ternary`, never changed.

    Attributes
    ----------
    n, k : int
        Outputs and inputs.
    lanes : ndarray of uint32, shape (ceil(n / 16), words, 16)
        The layout that kernels/xnor_popcount.c and kernels/ternary.c draw. It is the same for
        every kernel path but no file format: to store the matrix, store `to_words()`.
    """

    __slots__ = ("_kind", "_pointer", "k", "lanes", "n")

    def __init__(self, lanes: np.ndarray, n: int, k: int, kind: type) -> None:
        lanes.flags.writeable = False  # so that no product can be told to write here
        self.lanes, self.n, self.k, self._kind = lanes, n, k, kind
        self._pointer = None if _native.lib is None else _pointer("uint32_t[]", lanes)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that was packed: (n, k)."""
        return self.n, self.k

    @property
    def nbytes(self) -> int:
        """Bytes of the layout, its padding to 16 outputs and whole words included."""
        return self.lanes.nbytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, k={self.k}, nbytes={self.nbytes})"


class PackedMatrix(_LaneMatrix):
    """A matrix of ±1 laid out once for `xnor_gemm`; see `prepack`."""

    __slots__ = ()

    def to_words(self) -> Any:
        """Return the words that `prepack` took, their tail bits 0; the kind that went in."""
        blocks, k_words, _ = self.lanes.shape
        halves = self.lanes.transpose(0, 2, 1).reshape(blocks * LANES, k_words)[: self.n]
        even = np.zeros((self.n, 2 * words_for(self.k)), np.uint64)
        even[:, : halves.shape[1]] = halves
        return as_kind(self._kind, even[:, ::2] | even[:, 1::2] << np.uint64(32))

    def __reduce__(self) -> tuple[Any, ...]:
        return prepack, (self.to_words(), self.k)


class PackedTernaryMatrix(_LaneMatrix):
    """A matrix of −1, 0 and 1 laid out once for `ternary_gemm`; see `prepack_ternary`."""

    __slots__ = ()

    def to_words(self) -> Any:
        """Return the words that `prepack_ternary` took, tail bits 0; the kind that went in."""
        return as_kind(self._kind, pack_ternary(_ternary_from_lanes(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return prepack_ternary, (self.to_words(), self.k)


# ---- one bit ---------------------------------------------------------------------------------


def prepack(b_bits: np.ndarray | torch.Tensor, k: int) -> PackedMatrix:
    """Lay out a packed ±1 matrix once, for many products.

    Parameters
    ----------
    b_bits : ndarray of uint64 or Tensor of int64, shape (n, ceil(k / 64))
        As `onebit.pack_signs` makes them; bits past k are ignored.
    k : int
        Inputs: signs in a row, from 1 to 2³¹ − 1.

    Returns
    -------
    PackedMatrix
        What `xnor_gemm` and `xnor_gemm_bits` take as `b`.

    Raises
    ------
    TypeError
        If `b_bits` does not hold words, or `k` is no whole number.
    ValueError
        If `b_bits` is not on the CPU, not 2-D, or its words are not those of `k` signs.

    Examples
    --------
    >>> from onebit.bits import pack_signs
    >>> prepack(pack_signs(np.ones((20, 100))), 100)
    PackedMatrix(n=20, k=100, nbytes=512)
    """
    k = check_whole("k", k, 1, MOST_BITS)
    words = _packed_rows("b_bits", b_bits, k)
    n = len(words)
    lanes = empty_weights((-(-n // LANES), -(-k // 32), LANES), np.uint32)
    if _native.lib is not None:
        words = _contiguous_rows(words)
        _native.lib.onebit_lanes_from_words(
            _pointer("uint64_t[]", words), _stride(words), n, k, _pointer("uint32_t[]", lanes)
        )
    else:
        _lanes_by_numpy(words, k, lanes)
    return PackedMatrix(lanes, n, k, kind_of("b_bits", b_bits))


def _lanes_by_numpy(words: np.ndarray, k: int, lanes: np.ndarray) -> None:
    blocks, k_words, _ = lanes.shape
    rows = np.zeros((blocks * LANES, k_words), np.uint32)
    rows[: len(words)] = _half_words(words, k)
    lanes[:] = rows.reshape(blocks, LANES, k_words).transpose(0, 2, 1)


def _half_words(words: np.ndarray, k: int) -> np.ndarray:
    """Return rows of 32-bit words, those past k dropped and the bits past k cleared."""
    halves = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=2)
    halves = halves.reshape(len(words), 2 * words.shape[1])[:, : -(-k // 32)].astype(np.uint32)
    if k % 32:
        halves[:, -1] &= np.uint32((1 << k % 32) - 1)
    return halves


def xnor_gemm(
    a_bits: ArrayT,
    b: ArrayT | PackedMatrix,
    k: int,
    *,
    out: ArrayT | None = None,
    threads: int | None = None,
) -> ArrayT:
    """Multiply two packed ±1 matrices exactly: ``a @ b.T``.

    Parameters
    ----------
    a_bits : ndarray of uint64 or Tensor of int64, shape (m, ceil(k / 64))
        Packed rows, bits past k ignored; rows may be strided.
    b : PackedMatrix, or words of the same kind as `a_bits`, shape (n, ceil(k / 64))
        Words are laid out anew at every call; `prepack` what is used more than once.
    k : int
        The length of the dot products, from 1 to 2³¹ − 1.
    out : ndarray or Tensor of int32, shape (m, n), optional
        Where to write; its rows must be contiguous.
    threads : int, optional
        At most so many threads; by default ``ONEBIT_NUM_THREADS``, or the lesser of the usable
        cores and ``torch.get_num_threads()``. Small products always take one.

    Returns
    -------
    ndarray or Tensor of int32, shape (m, n)
        `out`, or a new one of the kind of `a_bits`.

    Raises
    ------
    TypeError
        If an operand is of another kind or dtype.
    ValueError
        If shapes, `k` and the words do not agree, or an operand is not on the CPU.

    References
    ----------
    Courbariaux et al. 2016, BinaryNet (arXiv:1602.02830), section 4; Rastegari et al. 2016,
    XNOR-Net (arXiv:1603.05279), section 3.2.

    Examples
    --------
    >>> from onebit.bits import pack_signs
    >>> a = np.array([[1, -1, 1, 1]], np.int8)
    >>> b = np.array([[1, 1, 1, 1], [-1, 1, -1, -1]], np.int8)
    >>> xnor_gemm(pack_signs(a), pack_signs(b), k=4)
    array([[ 2, -4]], dtype=int32)
    """
    kind, a, packed, k = _binary_operands(a_bits, b, k)
    shape = m, n = len(a), packed.n
    product = prepare_out(kind, out, np.int32, shape, (a,))
    limit = _thread_limit(threads, max(m, ROWS_WHILE_READING) * n * k)
    path = _native.current_path()
    if path == _native.NUMPY:
        _xnor_by_numpy(a, packed, product)
    else:
        _native.lib.onebit_xnor_gemm(
            path, limit, _pointer("uint64_t[]", a), _stride(a), packed._pointer, m, n, k,
            _pointer("int32_t[]", product), _stride(product),
        )  # fmt: skip
    return as_kind(kind, product) if out is None else out


def _xnor_by_numpy(a: np.ndarray, b: PackedMatrix, product: np.ndarray) -> None:
    """Count differing bits one row of `a` at a time: (blocks, words, 16) against (words, 1)."""
    if product.size == 0:
        return
    for row, words in zip(product, _half_words(a, b.k), strict=True):
        differing = np.bitwise_count(b.lanes ^ words[:, None]).sum(axis=1, dtype=np.int64)
        row[:] = (b.k - 2 * differing).reshape(-1)[: b.n]


def xnor_gemm_bits(
    a_bits: ArrayT,
    b: ArrayT | PackedMatrix,
    k: int,
    thresholds: ArrayT,
    *,
    flip: ArrayT | None = None,
    out: ArrayT | None = None,
    threads: int | None = None,
) -> ArrayT:
    """Multiply as `xnor_gemm`, compare each output with its threshold, and pack the answers.

    Bit j of row i is ``(acc[i, j] >= thresholds[j]) xor flip[j]`` with ``acc = a @ b.T``. So a
    layer followed by batch norm and sign passes bits to the next layer without a float between
    them. With ``y = gamma * (acc - mu) / sigma + beta`` and the sign of 0 being +1:

    - gamma > 0: y >= 0 from some accumulator on, which is the threshold;
    - gamma < 0: y >= 0 up to some accumulator; the threshold is the next one, ``flip`` is True;
    - gamma = 0, or y of one sign at every reachable accumulator (−k to k): a threshold of −k gives
      always +1, and with ``flip`` always −1.

    Parameters
    ----------
    a_bits, b, k, threads
        As in `xnor_gemm`.
    thresholds : ndarray or Tensor of int32, shape (n,)
        The least accumulator that gives +1 (where `flip` is False).
    flip : ndarray or Tensor of bool, shape (n,), optional
        Outputs to invert; by default none.
    out : ndarray of uint64 or Tensor of int64, shape (m, ceil(n / 64)), optional
        Where to write; its rows must be contiguous.

    Returns
    -------
    ndarray of uint64 or Tensor of int64, shape (m, ceil(n / 64))
        The packed signs of the outputs, bits past n being 0: the next layer's `a_bits`, its k
        being n.

    Raises
    ------
    TypeError, ValueError
        As in `xnor_gemm`; also if `thresholds` or `flip` are not of length n.

    Examples
    --------
    >>> from onebit.bits import pack_signs
    >>> a, b = pack_signs(np.ones((1, 4))), pack_signs(np.ones((3, 4)))
    >>> thresholds = np.array([4, 5, 5], np.int32)
    >>> xnor_gemm_bits(a, b, 4, thresholds, flip=np.array([False, False, True]))
    array([[5]], dtype=uint64)
    """
    kind, a, packed, k = _binary_operands(a_bits, b, k)
    m, n = len(a), packed.n
    check_same_kind("a_bits", kind, "thresholds", thresholds)
    limits = np.ascontiguousarray(as_integers("thresholds", thresholds, np.int32, [n]))
    flips = None
    if flip is not None:
        check_same_kind("a_bits", kind, "flip", flip)
        flips = np.ascontiguousarray(as_integers("flip", flip, np.bool_, [n]))
    bits = prepare_out(kind, out, np.uint64, (m, words_for(n)), (a, limits))
    most_threads = _thread_limit(threads, max(m, ROWS_WHILE_READING) * n * k)
    path = _native.current_path()
    if path == _native.NUMPY:
        products = np.empty((m, n), np.int32)
        _xnor_by_numpy(a, packed, products)
        signs = (products >= limits) ^ (flips if flips is not None else False)
        bits[:] = pack_signs(signs)
    else:
        _native.lib.onebit_xnor_gemm_bits(
            path, most_threads, _pointer("uint64_t[]", a), _stride(a), packed._pointer, m, n, k,
            _pointer("int32_t[]", limits),
            _native.ffi.NULL if flips is None else _pointer("uint8_t[]", flips),
            _pointer("uint64_t[]", bits), _stride(bits),
        )  # fmt: skip
    return as_kind(kind, bits) if out is None else out


def _binary_operands(a_bits: Any, b: Any, k: Any) -> tuple[type, np.ndarray, PackedMatrix, int]:
    """Return the kind, the rows of `a_bits`, `b` in lanes, and `k`, all known to agree."""
    k = check_whole("k", k, 1, MOST_BITS)
    a = _contiguous_rows(_packed_rows("a_bits", a_bits, k))
    kind = torch.Tensor if isinstance(a_bits, torch.Tensor) else np.ndarray
    if not isinstance(b, PackedMatrix):
        check_same_kind("a_bits", kind, "b", b)
        _packed_rows("b", b, k)
        b = prepack(b, k)
    if b.k != k:
        raise ValueError(f"b was prepacked for k = {b.k}, but k = {k} is given; pass k = {b.k}")
    return kind, a, b, k


def _packed_rows(name: str, words: Any, k: int) -> np.ndarray:
    """Return the words as a matrix whose rows hold `k` signs each."""
    array = as_words(name, words)
    if array.ndim != 2 or array.shape[1] != words_for(k):
        raise ValueError(
            f"{name} has shape {array.shape}; k = {k} needs (rows, {words_for(k)}), 64 signs to a "
            "word"
        )
    return array


# ---- two bits --------------------------------------------------------------------------------


def prepack_ternary(w: np.ndarray | torch.Tensor, k: int) -> PackedTernaryMatrix:
    """Lay out a packed ternary matrix once, for many products.

    Parameters
    ----------
    w : ndarray of uint64 or Tensor of int64, shape (n, ceil(k / 32))
        As `onebit.pack_ternary` makes them; bits past code k are ignored.
    k : int
        Inputs: codes in a row, from 1 to 16 777 215, so that no int32 sum can overflow.

    Returns
    -------
    PackedTernaryMatrix
        What `ternary_gemm` takes as `w`.

    Raises
    ------
    TypeError
        If `w` does not hold words, or `k` is no whole number.
    ValueError
        If `w` is not on the CPU, not 2-D, its words are not those of `k` codes, or hold a 10.

    Examples
    --------
    >>> from onebit.bits import pack_ternary
    >>> prepack_ternary(pack_ternary(np.zeros((20, 100), np.int8)), 100)
    PackedTernaryMatrix(n=20, k=100, nbytes=896)
    """
    k = check_whole("k", k, 1, MOST_TERNARY)
    words = _ternary_rows(w, k)
    n = len(words)
    lanes = empty_weights((-(-n // LANES), -(-k // 16), LANES), np.uint32)
    if _native.lib is not None:
        words = _contiguous_rows(words)
        if _native.lib.onebit_ternary_lanes_from_words(
            _pointer("uint64_t[]", words), _stride(words), n, k, _pointer("uint32_t[]", lanes)
        ):
            raise ValueError(BROKEN_CODES.format(name="w"))
    else:
        _ternary_lanes_by_numpy(unpack_ternary(words, k), lanes)
    return PackedTernaryMatrix(lanes, n, k, kind_of("w", w))


LANE_SHIFTS = np.array([8 * (i % 4) + 2 * (i // 4) for i in range(16)], np.uint32)
"""Where each of the sixteen weights of a lane's word stands; kernels/ternary.c draws it."""


def _ternary_lanes_by_numpy(codes: np.ndarray, lanes: np.ndarray) -> None:
    n, k = codes.shape
    blocks, k_words, _ = lanes.shape
    u = np.zeros((blocks * LANES, k_words * 16), np.uint32)
    u[:n, :k] = codes + 1
    words = np.bitwise_or.reduce(u.reshape(blocks, LANES, k_words, 16) << LANE_SHIFTS, axis=3)
    lanes[:] = words.transpose(0, 2, 1)


def _ternary_from_lanes(w: PackedTernaryMatrix) -> np.ndarray:
    words = w.lanes.transpose(0, 2, 1)[..., None]
    u = (words >> LANE_SHIFTS & 3).reshape(w.lanes.shape[0] * LANES, w.lanes.shape[1] * LANES)
    return u[: w.n, : w.k].astype(np.int8) - np.int8(1)


def ternary_gemm(
    x_int8: ArrayT,
    w: ArrayT | PackedTernaryMatrix,
    *,
    out: ArrayT | None = None,
    threads: int | None = None,
) -> ArrayT:
    """Multiply int8 activations by packed ternary weights exactly: ``x @ w.T``.

    Parameters
    ----------
    x_int8 : ndarray or Tensor of int8, shape (m, k)
        Any int8, −128 included; k from 1 to 16 777 215.
    w : PackedTernaryMatrix, or words of the same kind as `x_int8`, shape (n, ceil(k / 32))
        Words as `onebit.pack_ternary` makes them are laid out anew at every call; use
        `prepack_ternary` for what is used more than once.
    out : ndarray or Tensor of int32, shape (m, n), optional
        Where to write; its rows must be contiguous.
    threads : int, optional
        As in `xnor_gemm`.

    Returns
    -------
    ndarray or Tensor of int32, shape (m, n)
        `out`, or a new one of the kind of `x_int8`.

    Raises
    ------
    TypeError
        If an operand is of another kind or dtype.
    ValueError
        If shapes do not agree, the words hold the code 10, or an operand is not on the CPU.

    References
    ----------
    Ma et al. 2024, The Era of 1-bit LLMs (arXiv:2402.17764), section 2.

    Examples
    --------
    >>> from onebit.bits import pack_ternary
    >>> x = np.array([[100, 20, -3]], np.int8)
    >>> ternary_gemm(x, pack_ternary(np.array([[1, 0, -1], [0, 1, 1]], np.int8)))
    array([[103,  17]], dtype=int32)
    """
    kind = kind_of("x_int8", x_int8)
    x = _contiguous_rows(as_integers("x_int8", x_int8, np.int8, [None, None]))
    k = check_whole("the second dimension of x_int8", x.shape[1], 1, MOST_TERNARY)
    if not isinstance(w, PackedTernaryMatrix):
        check_same_kind("x_int8", kind, "w", w)
        w = prepack_ternary(w, k)
    if w.k != k:
        raise ValueError(f"w was prepacked for k = {w.k}, but x_int8 has {k} columns")
    shape = m, n = len(x), w.n
    product = prepare_out(kind, out, np.int32, shape, (x,))
    # A byte of x takes as long as four of its bits would.
    limit = _thread_limit(threads, 4 * max(m, TERNARY_ROWS_WHILE_READING) * n * k)
    path = _native.current_path()
    if path == _native.NUMPY:
        # float64 is exact here, since no partial sum reaches 2^53, and has a fast product.
        product[:] = x.astype(np.float64) @ _ternary_from_lanes(w).astype(np.float64).T
    else:
        _native.lib.onebit_ternary_gemm(
            path, limit, _pointer("int8_t[]", x), _stride(x), w._pointer, m, n, k,
            _pointer("int32_t[]", product), _stride(product),
        )  # fmt: skip
    return as_kind(kind, product) if out is None else out


def _ternary_rows(w: Any, k: int) -> np.ndarray:
    """Return the words as a matrix whose rows hold `k` codes each."""
    array = as_words("w", w)
    if array.ndim != 2 or array.shape[1] != ternary_words_for(k):
        raise ValueError(
            f"w has shape {array.shape}; k = {k} needs (n, {ternary_words_for(k)}), 32 codes to a "
            "word"
        )
    return array


# ---- what both need --------------------------------------------------------------------------


def _contiguous_rows(x: np.ndarray) -> np.ndarray:
    """Return `x` itself if C can step through its rows, otherwise a copy that it can."""
    contiguous = x.shape[1] <= 1 or x.strides[1] == x.itemsize
    return x if contiguous and x.flags.aligned else x.copy("C")


def _pointer(c_type: str, x: np.ndarray) -> Any:
    """Return what C takes as a pointer to the first element; `c_type` ends in ``[]``."""
    try:
        return _native.ffi.from_buffer(c_type, x)
    except ValueError:  # not contiguous; an address does for all, but takes five times as long
        return _native.ffi.cast(c_type.replace("[]", "*"), x.ctypes.data)


def _stride(x: np.ndarray) -> int:
    return x.strides[0] // x.itemsize


def _thread_limit(threads: int | None, work: int) -> int:
    """Return how many threads `work` multiply-adds deserve, `threads` or the default at most."""
    if threads is not None:
        threads = check_whole("threads", threads, 1, MOST_BITS)
    deserved = work // WORK_FOR_A_THREAD
    if deserved <= 1:
        return 1
    return min(deserved, _native.default_threads() if threads is None else threads)
