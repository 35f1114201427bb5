"""Solutions of chapter 2: pack signs into words, and multiply them by XNOR and popcount."""

import numpy as np


def dot_from_count(agree: int, k: int) -> int:
    """ch02.1 From a count to a dot product."""
    return 2 * agree - k


def pack(x: np.ndarray) -> np.ndarray:
    """ch02.2 Pack signs."""
    *rows, k = x.shape
    bits = np.zeros((*rows, 64 * -(-k // 64)), np.uint64)
    bits[..., :k] = x >= 0
    bits = bits.reshape(*rows, -1, 64)
    return (bits << np.arange(64, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)


def unpack(words: np.ndarray, k: int) -> np.ndarray:
    """ch02.3 Unpack signs."""
    bits = words[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    signs = 2 * bits.astype(np.int8) - 1
    return signs.reshape(*words.shape[:-1], -1)[..., :k]


def xnor_dot(a: np.ndarray, b: np.ndarray, k: int) -> int:
    """ch02.4 XNOR dot product with a tail."""
    differ = int(np.bitwise_count(a ^ b).sum())
    return k - 2 * differ


def xnor_matmul(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """ch02.5 A layer of bits."""
    differ = np.bitwise_count(a[:, None] ^ b).sum(axis=-1)
    return k - 2 * differ.astype(np.int32)


def pixel_dot(pixels: np.ndarray, w: np.ndarray, k: int) -> int:
    """ch02.6 Pixels in eight planes."""
    sum_w = xnor_dot(pack(np.ones(k)), w, k)
    total = 0
    for n in range(8):
        plane = np.where(pixels >> n & 1, 1, -1)
        total += 2**n * ((xnor_dot(pack(plane), w, k) + sum_w) // 2)
    return total
