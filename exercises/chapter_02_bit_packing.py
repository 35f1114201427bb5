"""Exercises of chapter 2: pack signs into words, and multiply them by XNOR and popcount.

Six tasks, an hour and three quarters; they belong to the sections "Multiplying by comparing" and
"The first layer sees pixels" of chapter 2 of the book. `make exercises` copies this file to
exercises/work: write there, in place of each NotImplementedError.

    pytest exercises -k chapter_02         check all, or -k ch02.2 for one task
    python -m onebit hint ch02.2           one hint, and one more each time
    check("ch02.2", pack)                  the same in a notebook: from onebit.checks import check

A word is 64 bits, a np.uint64. The bit 1 stands for +1 and the bit 0 for −1. Element i of a row is
bit i % 64 of word i // 64, the lowest bit first; the bits past the last element, the tail, are 0.
np.bitwise_count counts the ones in each word.
"""

import numpy as np


def dot_from_count(agree: int, k: int) -> int:
    """ch02.1 From a count to a dot product (warm-up, 5 minutes, about 1 line).

    Two rows of k signs agree in `agree` places and differ in the others. Return their dot product.
    """
    raise NotImplementedError


def pack(x: np.ndarray) -> np.ndarray:
    """ch02.2 Pack signs (easy, 25 minutes, about 5 lines).

    Return the signs of x as words: x (..., k) of any real dtype gives (..., ceil(k / 64)) of
    uint64. Zero counts as +1, and each row begins with a word of its own.
    """
    raise NotImplementedError


def unpack(words: np.ndarray, k: int) -> np.ndarray:
    """ch02.3 Unpack signs (easy, 15 minutes, about 3 lines).

    Return the first k signs of each row: words (..., ceil(k / 64)) of uint64 give (..., k) of int8,
    each +1 or −1.
    """
    raise NotImplementedError


def xnor_dot(a: np.ndarray, b: np.ndarray, k: int) -> int:
    """ch02.4 XNOR dot product with a tail (medium, 20 minutes, about 2 lines).

    Return the dot product of two packed rows of k signs, without unpacking them: a and b are words
    (ceil(k / 64),) of uint64, as `pack` makes them.
    """
    raise NotImplementedError


def xnor_matmul(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """ch02.5 A layer of bits (medium, 15 minutes, about 3 lines).

    Return the dot products of all rows of a with all rows of b, each of k signs: words a (m, words)
    and b (n, words) of uint64 give (m, n) of int32. That is x @ w_b.T for activations a and
    weights b. Let NumPy do the loops.
    """
    raise NotImplementedError


def pixel_dot(pixels: np.ndarray, w: np.ndarray, k: int) -> int:
    """ch02.6 Pixels in eight planes (stretch, 25 minutes, about 6 lines).

    Return the dot product of k pixels, (k,) of uint8 from 0 to 255, and k signs packed in w. Split
    the pixels into their eight bit planes, pack each, and let `xnor_dot` do the multiplication.
    """
    raise NotImplementedError
