"""Checks of chapter 4's exercises: a kernel of XNOR and popcount that the learner writes in C."""

import itertools
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from onebit.checks.isolated import compiled, guarded
from onebit.checks.tasks import Case, Exercise

EXERCISE = Exercise(__name__)

#: Seconds for one check, after which C counts as an endless loop.
SECONDS = 3
GARBAGE = 0xA5A5A5A5A5A5A5A5

POPCOUNT = "int popcount(uint64_t word)"
PACK = "void pack_signs(const int8_t *signs, int k, uint64_t *words)"
DOT = "int xnor_dot(const uint64_t *a, const uint64_t *b, int k)"
GEMM = "void {}(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)"
BITS = (
    "void xnor_gemm_bits(const uint64_t *a, const uint64_t *b, int m, int n, int k, "
    "const int32_t *thresholds, const uint8_t *flips, uint64_t *out)"
)


def _packed(signs: np.ndarray, tail: int = 0) -> np.ndarray:
    """Pack along the last axis, the first sign in the lowest bit; `tail` fills the tail bits."""
    spare = -signs.shape[-1] % 64
    wide = np.concatenate([signs > 0, np.full((*signs.shape[:-1], spare), tail)], axis=-1)
    octets = np.packbits(wide.astype(np.uint8), axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view("<u8").astype(np.uint64)


def _signs(*shape: int, seed: int = 0) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.int8)
    return (2 * bits - 1).astype(np.int8)


def _all_signs(k: int) -> np.ndarray:
    return np.array(list(itertools.product((1, -1), repeat=k)), np.int8)


def _hex(words: np.ndarray) -> str:
    return "[" + ", ".join(f"{word:#x}" for word in words.reshape(-1).tolist()) + "]"


def _wrapped(values: Any, dtype: type) -> Any:
    """Give what an accumulator too narrow would have left of each value."""
    return np.asarray(values).astype(dtype).astype(np.int32)


# ---- ch04.1 ----------------------------------------------------------------------------------

counting = EXERCISE.task("ch04.1", "Count the ones", "kernel", seconds=SECONDS, isolated=True)


@counting.check
def small_words(kernel: Any) -> None:
    """The ones of small words are counted."""
    popcount = compiled(kernel, POPCOUNT)
    for word in (0, 1, 2, 3, 6, 7, 0x55, 0x70):
        case = Case(word=f"{word:#b}")
        case.expect(
            popcount(word), word.bit_count(), cause="Look at each bit once, and add it.",
            mistakes={
                "The zeros were counted.": 64 - word.bit_count(),
                "The number of binary digits came, not of those that are 1.": word.bit_length(),
                "The count stopped at the first bit that is 0: go on while there is anything left "
                "of the word.": (~word & (word + 1)).bit_length() - 1,
            },
        )  # fmt: skip


@counting.check
def each_byte_counts_alike(kernel: Any) -> None:
    """A byte counts the same wherever its ones stand, its highest bit included."""
    popcount = compiled(kernel, POPCOUNT)
    for word in (0x80, 0xFF, 0xC3):
        case = Case(word=f"{word:#b}")
        case.expect(
            popcount(word), word.bit_count(), cause="Is any bit left out, or counted twice?",
            mistakes={
                "The byte was counted as a signed number: where char is signed, 0x80 becomes −128, "
                "an int with 25 ones. Take uint8_t, or mask with 0xff.": word.bit_count() + 24,
                "The highest bit of the byte was left out.": word.bit_count() - 1,
            },
        )  # fmt: skip


@counting.check
def all_64_bits(kernel: Any) -> None:
    """Each of the 64 bits counts, the upper half as well."""
    popcount = compiled(kernel, POPCOUNT)
    for word in (*(1 << i for i in range(64)), 0xFFFFFFFF00000000, 0x8000000080000001, 2**64 - 1):
        case = Case(word=f"{word:#x}")
        case.expect(
            popcount(word), word.bit_count(), cause="Is any bit left out, or counted twice?",
            mistakes={
                "Only the lower 32 bits were counted: an int, or __builtin_popcount without ll, is "
                "half a word.": (word & 0xFFFFFFFF).bit_count(),
                "The highest bit, bit 63, was left out.": (word & 2**63 - 1).bit_count(),
            },
        )  # fmt: skip


# ---- ch04.2 ----------------------------------------------------------------------------------

packing = EXERCISE.task("ch04.2", "Pack signs", "kernel", seconds=SECONDS, isolated=True)


@packing.check
def first_bit_is_the_lowest(kernel: Any) -> None:
    """The first sign is the lowest bit of the word, and +1 is 1."""
    pack = compiled(kernel, PACK)
    for k in (1, 2, 3):
        for signs in _all_signs(k):
            case = Case(signs=signs, k=k)
            words = np.zeros(1, np.uint64)
            pack(signs, k, words)
            bits = [int(s > 0) for s in signs]
            case.expect(
                _hex(words), _hex(_packed(signs)),
                cause="Element i belongs to bit i % 64 of word i / 64.",
                mistakes={
                    "A sign of −1 set its bit too: in C every number but 0 counts as true. "
                    "Compare with 0.": f"[{(1 << k) - 1:#x}]",
                    "The bits are inverted: +1 is 1 and −1 is 0.": _hex(_packed(-signs)),
                    "The first sign went to the highest bit of the word: element 0 is the lowest.":
                        f"[{sum(b << 63 - i for i, b in enumerate(bits)):#x}]",
                    "The first sign went to the highest bit of a byte: element 0 is the lowest.":
                        f"[{sum(b << 7 - i for i, b in enumerate(bits)):#x}]",
                    "The first sign became the highest of the k bits; element 0 is the lowest "
                    "whatever k is.": f"[{sum(b << k - 1 - i for i, b in enumerate(bits)):#x}]",
                },
            )  # fmt: skip


@packing.check
def every_bit_of_the_word(kernel: Any) -> None:
    """All 64 bits of a word are used."""
    pack = compiled(kernel, PACK)
    for i in range(64):
        signs = np.full(64, -1, np.int8)
        signs[i] = 1
        case = Case(signs=f"64 signs, −1 but for element {i}")
        words = np.zeros(1, np.uint64)
        pack(signs, 64, words)
        cause = "Element i belongs to bit i."
        if i > 30:
            cause = (
                "1 is an int in C, with 32 bits, and to shift it out of them is undefined: shift "
                "(uint64_t)1, or 1ULL."
            )
        case.expect(_hex(words), f"[{1 << i:#x}]", cause=cause)


@packing.check
def as_many_words_as_it_takes(kernel: Any) -> None:
    """Element 64 opens a second word, and so on."""
    pack = compiled(kernel, PACK)
    for k in (64, 65, 128, 130):
        signs = _signs(k)
        signs[-1] = 1
        case = Case(signs=f"{k} signs, of which the last is +1", k=k)
        right = _packed(signs)
        words = np.zeros(len(right), np.uint64)
        pack(signs, k, words)
        floor = right.copy()
        floor[k // 64 :] = 0
        folded = np.zeros_like(right)
        folded[0] = np.bitwise_or.reduce(right)
        case.expect(
            _hex(words), _hex(right), cause="The word of element i is i / 64, its bit i % 64.",
            mistakes={
                "The last word was left out: k / 64 rounds down, (k + 63) / 64 rounds up.":
                    _hex(floor),
                "All signs went to the first word: that of element i is i / 64.": _hex(folded),
            },
        )  # fmt: skip


@packing.check
def nothing_is_left_of_what_was_there(kernel: Any) -> None:
    """Garbage that was in the words before is gone, from the tail bits too."""
    pack = compiled(kernel, PACK)
    for k in (3, 64, 70):
        signs = np.full(k, -1, np.int8)
        case = Case(signs=f"{k} signs of −1", k=k, words_before=f"{GARBAGE:#x} each")
        words = np.full((k + 63) // 64, GARBAGE, np.uint64)
        before = words.copy()
        pack(signs, k, words)
        tail = words.copy()
        tail[-1] &= np.uint64(GARBAGE) & ~_packed(np.ones(k, np.int8))[-1]
        case.expect(
            _hex(words), _hex(np.zeros_like(words)),
            cause="Set each word to 0 before you set its bits.",
            mistakes={
                "Bits were only ever set, so what was there before shines through: set each word "
                "to 0 first.": _hex(before),
                "The bits of the k signs are right, and the tail bits are still those from "
                "before: set each word to 0 first.": _hex(tail),
            },
        )  # fmt: skip


@packing.check
def packing_stays_within_its_arrays(kernel: Any) -> None:
    """It reads k signs and writes (k + 63) / 64 words, and touches nothing behind them."""
    pack = compiled(kernel, PACK)
    for k in (1, 64, 70, 128):
        signs, words = guarded(_signs(k)), guarded(np.zeros((k + 63) // 64, np.uint64))
        case = Case(signs=f"{k} signs", k=k, words=f"room for {len(words)}")
        pack(signs, k, words)
        case.expect(_hex(words), _hex(_packed(signs)), cause="The words differ from before.")


# ---- ch04.3 ----------------------------------------------------------------------------------

product = EXERCISE.task(
    "ch04.3", "A dot product of signs", "kernel", seconds=SECONDS, isolated=True
)


@product.check
def short_rows(kernel: Any) -> None:
    """For rows within a word, the sum of the products comes."""
    dot = compiled(kernel, DOT)
    for k in (1, 2, 3):
        for a, b in itertools.product(_all_signs(k), repeat=2):
            case = Case(a=a, b=b, k=k)
            differ = int((a != b).sum())
            case.expect(
                dot(_packed(a), _packed(b), k), k - 2 * differ,
                cause="Of k products, `differ` are −1 and the others +1.",
                mistakes={
                    "64 − 2 · differ, or 2 · count − 64: there are k products, and not as many as "
                    "bits in a word.": 64 - 2 * differ,
                    "The tail bits were counted: both are 0 there, so XNOR says that they agree. "
                    "Count where a and b differ, with XOR, or mask.": 2 * (64 - differ) - k,
                    "The number of places that differ came; the sum is k − 2 · differ.": differ,
                    "A place that differs was taken off once. Its product is −1 in place of +1, "
                    "which takes 2 off the sum: k − 2 · differ.": k - differ,
                    "The sum has the wrong sign: XOR finds the products that are −1.":
                        2 * differ - k,
                },
            )  # fmt: skip


@product.check
def rows_of_several_words(kernel: Any) -> None:
    """Longer rows are added up over all their words, full ones too."""
    dot = compiled(kernel, DOT)
    for k in (63, 64, 65, 127, 128, 130):
        a, b = np.ones(k, np.int8), -np.ones(k, np.int8)
        b[: k // 3] = 1
        case = Case(a=f"{k} signs of +1", b=f"{k // 3} of +1, then {k - k // 3} of −1", k=k)
        differ = a != b
        case.expect(
            dot(_packed(a), _packed(b), k), k - 2 * int(differ.sum()),
            cause="k − 2 · (the ones of a[w] ^ b[w], added up over all words).",
            mistakes={
                "The last word was lost. Where k is a multiple of 64 it is full: 1 << 64 is "
                "undefined, and (1 << k % 64) − 1 masks everything away.":
                    k - 2 * int(differ[: (k - 1) // 64 * 64].sum()),
                "The last word was left out: k / 64 rounds down, (k + 63) / 64 rounds up.":
                    k - 2 * int(differ[: k // 64 * 64].sum()),
                "Only the first word was counted.": k - 2 * int(differ[:64].sum()),
                "The mask went onto every word; only the last has a tail.":
                    k - 2 * sum(int(differ[i]) for i in range(k) if i % 64 < (k % 64 or 64)),
            },
        )  # fmt: skip


@product.check
def tail_bits_do_not_count(kernel: Any) -> None:
    """Whatever the tail bits hold, they do not count."""
    dot = compiled(kernel, DOT)
    for k, tail_a, tail_b in ((3, 1, 1), (3, 1, 0), (3, 0, 1), (70, 1, 0), (128, 1, 0)):
        a, b = _signs(k), _signs(k, seed=1)
        case = Case(
            a=f"{k} signs, tail bits {tail_a}", b=f"{k} signs, tail bits {tail_b}", k=k
        )  # fmt: skip
        right = int(a.astype(int) @ b)
        case.expect(
            dot(_packed(a, tail_a), _packed(b, tail_b), k), right,
            cause="Mask what differs in the last word before you count.",
            mistakes={
                "The tail bits were counted. Mask the last word: of k % 64 bits, or of all 64 "
                "where that is 0.": right - 2 * (-k % 64) * (tail_a != tail_b),
            },
        )  # fmt: skip


@product.check
def long_rows_overflow_nothing(kernel: Any) -> None:
    """The sum of a long row is exact."""
    dot = compiled(kernel, DOT)
    for k in (200, 600, 40_000, 100_000):
        a = _packed(np.ones(k, np.int8))
        case = Case(a=f"{k} signs of +1", b=f"{k} signs of −1", k=k)
        ran_over = "The count ran over: {} bits hold no more than {}. Add up in an int."
        case.expect(
            dot(a, _packed(-np.ones(k, np.int8)), k), -k,
            cause="Is every variable that is added to an int?",
            mistakes={
                ran_over.format(f"{kind.bits}{' unsigned' * (kind.kind == 'u')}", kind.max):
                    k - 2 * int(_wrapped(k, kind.dtype.type))
                for kind in [np.iinfo(t) for t in ("int8", "uint8", "int16", "uint16")]
            },
        )  # fmt: skip


@product.check
def dot_stays_within_its_rows(kernel: Any) -> None:
    """It reads (k + 63) / 64 words of each row, and none behind them."""
    dot = compiled(kernel, DOT)
    for k in (1, 64, 70, 128):
        a, b = _signs(k), _signs(k, seed=1)
        case = Case(a=f"{k} signs in {(k + 63) // 64} words", b="as many", k=k)
        got = dot(guarded(_packed(a)), guarded(_packed(b)), k)
        case.expect(got, int(a.astype(int) @ b), cause="The sum differs from before.")


# ---- ch04.4 ----------------------------------------------------------------------------------

matrix = EXERCISE.task("ch04.4", "The matrix product", "kernel", seconds=SECONDS, isolated=True)


def _multiplies(kernel: Any, name: str) -> None:
    gemm = compiled(kernel, GEMM.format(name))
    for k, m, n in itertools.product((3, 64, 70), (1, 2, 3), (1, 2, 3, 5)):
        a, b = _signs(m, k), _signs(n, k, seed=1)
        a_bits, b_bits = _packed(a), _packed(b)
        case = Case(m=m, n=n, k=k, a=f"{m} random rows", b=f"{n} random rows")
        out = np.zeros((m, n), np.int32)
        gemm(a_bits, b_bits, m, n, k, out)
        right = a.astype(np.int32) @ b.T.astype(np.int32)
        case.expect(
            out, right, cause="Row i of a starts at a + i * length, row j of b at b + j * length, "
            "where length is (k + 63) / 64.",
            mistakes={
                "out is transposed: the product of rows i and j belongs to out[i * n + j].":
                    right.T.reshape(m, n),
                "Every result is that of the first rows: step on by (k + 63) / 64 words a row.":
                    np.full_like(right, right[0, 0]),
                "out stayed as it was: nothing was written.": np.zeros_like(right),
            },
        )  # fmt: skip


def _exact(kernel: Any, name: str) -> None:
    gemm = compiled(kernel, GEMM.format(name))
    for k in (200, 600, 40_000):
        a = np.ones((2, k), np.int8)
        b = a.copy()
        b[1, 0] = -1
        case = Case(m=2, n=2, k=k, a="all +1", b="all +1, but for the first sign of row 1")
        out = np.zeros((2, 2), np.int32)
        gemm(_packed(a), _packed(b), 2, 2, k, out)
        right = np.array([[k, k - 2], [k, k - 2]], np.int32)
        narrow = (
            "The sum ran over {} bits and wrapped around, as NumPy's int8 does: integer sums need "
            "a wider accumulator than their operands. Take int32_t."
        )
        case.expect(
            out, right, cause="Is every variable that holds a sum an int32_t?",
            mistakes={narrow.format(8): _wrapped(right, np.int8),
                      narrow.format("8 unsigned"): _wrapped(right, np.uint8),
                      narrow.format(16): _wrapped(right, np.int16)},
        )  # fmt: skip


def _within(kernel: Any, name: str) -> None:
    gemm = compiled(kernel, GEMM.format(name))
    for m, n, k in ((1, 1, 64), (3, 2, 70), (2, 5, 128)):
        a, b = _signs(m, k), _signs(n, k, seed=1)
        case = Case(m=m, n=n, k=k, a=f"{m} rows", b=f"{n} rows", out=f"room for {m} x {n}")
        out = guarded(np.zeros((m, n), np.int32))
        gemm(guarded(_packed(a)), guarded(_packed(b)), m, n, k, out)
        right = a.astype(np.int32) @ b.T.astype(np.int32)
        case.expect(out, right, cause="The sums differ from before.")


@matrix.check
def every_row_meets_every_row(kernel: Any) -> None:
    """Place i * n + j holds the product of row i of a and row j of b."""
    _multiplies(kernel, "xnor_gemm")


@matrix.check
def sums_take_32_bits(kernel: Any) -> None:
    """Sums of long rows are exact."""
    _exact(kernel, "xnor_gemm")


@matrix.check
def product_stays_within_its_arrays(kernel: Any) -> None:
    """It reads m and n rows and writes m · n sums, and touches nothing behind them."""
    _within(kernel, "xnor_gemm")


# ---- ch04.5 ----------------------------------------------------------------------------------

thresholding = EXERCISE.task(
    "ch04.5", "From sums to bits", "kernel", seconds=SECONDS, isolated=True
)


@thresholding.check
def a_sum_becomes_a_bit(kernel: Any) -> None:
    """The bit is (sum >= threshold) xor flip."""
    bits = compiled(kernel, BITS)
    for flip, k in itertools.product((0, 1), (1, 2)):
        for b, t in itertools.product(_all_signs(k), range(-k - 1, k + 2)):
            a = np.ones(k, np.int8)
            s = int(b.sum())
            case = Case(sum=s, threshold=t, flip=flip, m=1, n=1, k=k)
            out = np.zeros(1, np.uint64)
            bits(_packed(a), _packed(b), 1, 1, k, np.array([t], np.int32),
                 np.array([flip], np.uint8), out)  # fmt: skip
            case.expect(
                int(out[0]), int(s >= t) ^ flip, cause="(sum >= threshold) ^ flip.",
                mistakes={
                    "The flip turned the comparison round to <=; inverted, >= is <.":
                        int(s <= t) if flip else int(s >= t),
                    "The flip was left out: xor it to the comparison.": int(s >= t),
                    "The flip negated the threshold; it inverts the bit.":
                        int(s >= (-t if flip else t)),
                    "The sum that equals the threshold reaches it: >=, not >.": int(s > t) ^ flip,
                },
            )  # fmt: skip


@thresholding.check
def rows_of_bits(kernel: Any) -> None:
    """Each output has its own threshold and flip, and each row of bits its own words."""
    bits = compiled(kernel, BITS)
    for m, n, k in ((1, 3, 5), (2, 3, 5), (2, 64, 70), (3, 70, 130)):
        a, b = _signs(m, k), _signs(n, k, seed=1)
        thresholds = np.random.default_rng(2).integers(-5, 6, n, dtype=np.int32)
        flips = (_signs(n, seed=3) > 0).astype(np.uint8)
        case = Case(m=m, n=n, k=k, thresholds=f"{n} from −5 to 5", flips=f"{n} of 0 or 1")
        width = (n + 63) // 64
        out = np.zeros((m, width), np.uint64)
        bits(_packed(a), _packed(b), m, n, k, thresholds, flips, out)
        plus = (a.astype(int) @ b.T >= thresholds) ^ (flips > 0)
        lost = plus.copy()
        lost[:, 32:] = False
        case.expect(
            _hex(out), _hex(_packed(np.where(plus, 1, -1))),
            cause="Bit j % 64 of word i * ((n + 63) / 64) + j / 64 belongs to row i, output j.",
            mistakes={
                "All outputs got the threshold and flip of the first.": _hex(_packed(np.where(
                    (a.astype(int) @ b.T >= thresholds[0]) ^ (flips[0] > 0), 1, -1))),
                "The bits of outputs from 32 on were lost: shift a uint64_t, not an int.":
                    _hex(_packed(np.where(lost, 1, -1))),
            },
        )  # fmt: skip


@thresholding.check
def no_garbage_in_the_bits(kernel: Any) -> None:
    """Garbage that was in out before is gone, from the tail bits too."""
    bits = compiled(kernel, BITS)
    for n in (3, 64, 70):
        k = 5
        case = Case(m=2, n=n, k=k, out_before=f"{GARBAGE:#x} each", all_bits_to_be=0)
        out = np.full((2, (n + 63) // 64), GARBAGE, np.uint64)
        a, b = _signs(2, k), _signs(n, k, seed=1)
        bits(_packed(a), _packed(b), 2, n, k, np.full(n, k + 1, np.int32),
             np.zeros(n, np.uint8), out)  # fmt: skip
        case.expect(
            _hex(out), _hex(np.zeros_like(out)),
            cause="What was in out before shines through: set each word to 0 first, or the tail "
            "bits of one layer become the dirty tail of the next.",
        )  # fmt: skip


@thresholding.check
def bits_stay_within_their_arrays(kernel: Any) -> None:
    """It reads n thresholds and flips, writes m rows of bits, and touches nothing behind them."""
    bits = compiled(kernel, BITS)
    for m, n, k in ((1, 64, 64), (3, 2, 70), (2, 70, 128)):
        a, b = _signs(m, k), _signs(n, k, seed=1)
        width = (n + 63) // 64
        case = Case(m=m, n=n, k=k, thresholds="all 0", flips="all 0", out=f"{m} x {width} words")
        out = guarded(np.zeros((m, width), np.uint64))
        bits(guarded(_packed(a)), guarded(_packed(b)), m, n, k, guarded(np.zeros(n, np.int32)),
             guarded(np.zeros(n, np.uint8)), out)  # fmt: skip
        plus = a.astype(int) @ b.T >= 0
        case.expect(_hex(out), _hex(_packed(np.where(plus, 1, -1))), cause="The bits differ.")


# ---- ch04.6 ----------------------------------------------------------------------------------

fast = EXERCISE.task(
    "ch04.6", "Ten times as fast as floats", "kernel", seconds=10, isolated=True
)  # fmt: skip

FLOATS = (
    "void floats(const float *a, const float *b, int m, int n, int k, float *out)",
    """{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int l = 0; l < k; l++)
                sum += a[i * k + l] * b[j * k + l];
            out[i * n + j] = sum;
        }
}""",
)
TIMES = 10


@fast.check
def same_sums(kernel: Any) -> None:
    """The sums are those of xnor_gemm."""
    _multiplies(kernel, "xnor_gemm_fast")


@fast.check
def same_long_sums(kernel: Any) -> None:
    """Sums of long rows are exact."""
    _exact(kernel, "xnor_gemm_fast")


@fast.check
def fast_tails_do_not_count(kernel: Any) -> None:
    """Whatever the tail bits hold, they do not count."""
    gemm = compiled(kernel, GEMM.format("xnor_gemm_fast"))
    for k in (3, 70, 128):
        a, b = _signs(2, k), _signs(5, k, seed=1)
        case = Case(m=2, n=5, k=k, tail_bits_of_a=1, tail_bits_of_b=0)
        out = np.zeros((2, 5), np.int32)
        gemm(_packed(a, 1), _packed(b, 0), 2, 5, k, out)
        right = a.astype(np.int32) @ b.T.astype(np.int32)
        case.expect(
            out, right, cause="Mask what differs in the last word before you count.",
            mistakes={"The tail bits were counted: mask the last word.": right - 2 * (-k % 64)},
        )  # fmt: skip


@fast.check
def fast_stays_within_its_arrays(kernel: Any) -> None:
    """It reads m and n rows and writes m · n sums, and touches nothing behind them."""
    _within(kernel, "xnor_gemm_fast")


@fast.check
def ten_times_as_fast(kernel: Any) -> str:
    """It does ten times the multiply-adds a second of three plain loops over floats."""
    from onebit.ladder import fastest  # brings matplotlib, for which no other check should wait

    flags = ("-mpopcnt",) if platform.machine().lower() in ("x86_64", "amd64") else ()
    m, n, k = 32, 256, 1024
    a, b = _signs(m, k), _signs(n, k, seed=1)
    case = Case(m=m, n=n, k=k)
    rates: dict[str, float] = {}

    def time(name: str, f: Callable[..., Any], x: np.ndarray, y: np.ndarray, dtype: type) -> None:
        out: np.ndarray = np.empty((m, n), dtype)
        seconds = min(fastest(lambda: f(x, y, m, n, k, out), turns=3) for _ in range(3))
        rates[name] = m * n * k / seconds / 1e9

    time("three loops over floats", compiled("".join(FLOATS), FLOATS[0], *flags),
         a.astype(np.float32), b.astype(np.float32), np.float32)  # fmt: skip
    yours = compiled(kernel, GEMM.format("xnor_gemm_fast"), *flags)
    time("yours", yours, _packed(a), _packed(b), np.int32)
    floats, bits = rates.values()
    if bits < TIMES * floats:
        case.fail(
            f"{TIMES} times the {floats:.2f} G multiply-adds a second of the floats, or more",
            f"{bits:.2f} G, which is {bits / floats:.1f} times as many",
            "A loop over the bits of a word takes dozens of steps for each. Count a whole word at "
            "once, with __builtin_popcountll, or by adding neighbouring bits, then pairs, then "
            "groups of four, as by_arithmetic does in the chapter.",
        )  # fmt: skip
    return (
        f"{bits:.1f} G multiply-adds a second, {bits / floats:.0f} times as many as "
        f"three loops over floats ({floats:.2f} G)."
    )
