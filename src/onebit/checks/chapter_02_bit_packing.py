"""Checks of chapter 2's exercises: packing signs, and products by XNOR and popcount."""

import itertools
from typing import Any

import numpy as np

from onebit import data
from onebit.checks.tasks import Case, Exercise

EXERCISE = Exercise(__name__)

#: Lengths below, at and beyond one, two and three words.
LENGTHS = (1, 2, 63, 64, 65, 70, 127, 128, 129, 192)


def _number(signs: np.ndarray) -> int:
    """Read a row of signs as one large integer, whose bit i is set where sign i is +1."""
    return sum(1 << i for i, sign in enumerate(signs.tolist()) if sign > 0)


def _words(signs: np.ndarray) -> np.ndarray:
    """Pack rows of ±1 by Python's integers."""
    *rows, k = signs.shape
    count = -(-k // 64)
    numbers = [_number(row) for row in signs.reshape(-1, k)]
    flat = [number >> 64 * i & 2**64 - 1 for number in numbers for i in range(count)]
    return np.array(flat, np.uint64).reshape(*rows, count)


def _signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), shape)


def _tail(k: int) -> int:
    return -k % 64


# ---- ch02.1 ----------------------------------------------------------------------------------

count = EXERCISE.task("ch02.1", "From a count to a dot product", "dot_from_count")


@count.check
def agreements_less_differences(dot_from_count: Any) -> None:
    """Each agreement counts +1 and each difference −1."""
    for k in (1, 2, 3, 8, 64, 70, 100):
        for agree in range(k + 1):
            case = Case(agree=agree, k=k)
            case.expect(
                dot_from_count(agree, k), agree - (k - agree),
                cause="The places that agree add +1 each, the other k − agree add −1 each.",
                mistakes={
                    "The differences were counted as agreements: the sign is the wrong way round.":
                        k - 2 * agree,
                    "The k − agree places that differ add −1 each; they were left out.": agree,
                    "k was taken off once, and the differences twice have to be: each of them is "
                    "missing among the agreements, and adds −1 besides.": agree - k,
                    "64 was taken off, the length of a full word, in place of k.": 2 * agree - 64,
                },
            )  # fmt: skip


# ---- ch02.2 ----------------------------------------------------------------------------------

packing = EXERCISE.task("ch02.2", "Pack signs", "pack")


def _uint64(*words: int) -> np.ndarray:
    return np.array(words, np.uint64)


@packing.check
def first_sign_is_the_lowest_bit(pack: Any) -> None:
    """Sign i is bit i of the word, the lowest first, and a 1 stands for +1."""
    x = np.array([1, -1, -1], np.int8)
    case = Case(x=x)
    case.expect(
        pack(x), _uint64(1), cause="Only bit 0 is to be set: 1 << 0 for the first sign.",
        mistakes={
            "The first sign went to the highest bit of the word (big-endian): shift sign i by i, "
            "not by 63 − i.": _uint64(1 << 63),
            "The first sign went to the highest bit of three: shift sign i by i, whatever k is.":
                _uint64(1 << 2),
            "The first sign went to the highest bit of its byte, as np.packbits puts it: say "
            'bitorder="little".': _uint64(1 << 7),
            "The bytes stand in the wrong order: the first eight signs are the lowest byte.":
                _uint64(1 << 56),
            "Everything but 0 counted as 1, and so did −1: pack x >= 0.": _uint64(0b111),
            "The bits are inverted: +1 is a 1, and −1 is a 0.": _uint64(0b110),
            "The tail bits are 1. The row was filled up with zeros before it was compared, and "
            "0 >= 0: take the signs first.": _uint64(2**64 - 7),
        },
    )  # fmt: skip
    for bits in itertools.product((-1, 1), repeat=3):
        x = np.array(bits, np.int8)
        case = Case(x=x)
        case.expect(pack(x), _words(x), cause="Bit i is 1 where sign i is +1.")


@packing.check
def zero_counts_as_plus_one(pack: Any) -> None:
    """Any real dtype is taken, and zero counts as +1."""
    tried = [
        np.array([0, -0.5], np.float32), np.array([-0.0, -1e-300, 7.5]), np.array([0, -3]),
    ]  # fmt: skip
    for x in tried:
        case = Case(x=f"{x.tolist()}, {x.dtype}")
        case.expect(
            pack(x), _words(np.where(x >= 0, 1, -1)), cause="The bit is 1 where x >= 0.",
            mistakes={
                "Zero came out as −1: the bit is 1 where x >= 0, not x > 0.":
                    _words(np.where(x > 0, 1, -1)),
                "The numbers were cut to integers before their signs were taken.":
                    _words(np.where(x.astype(np.int8) >= 0, 1, -1)),
            },
        )  # fmt: skip


@packing.check
def sixty_four_fill_a_word(pack: Any) -> None:
    """64 signs fill one word, down to its highest bit."""
    for places in ([0], [0, 63], range(64), *([i] for i in range(64))):
        x = np.full(64, -1, np.int8)
        x[list(places)] = 1
        plus = "all" if len(places) == 64 else f"{list(places)}"
        case = Case(x=f"64 signs, +1 at {plus}")
        wanted = _words(x)
        case.expect(
            pack(x), wanted, cause="Place i of 64 is bit i.",
            mistakes={
                "There is a word too many: k // 64 + 1 is one more than needed where k is a "
                "multiple of 64. Round up: −(−k // 64), or (k + 63) // 64.":
                    np.append(wanted, np.uint64(0)),
                "A low bit got lost: the powers of two were added up in floating point, which "
                "holds 53 bits. uint64 with int64 makes float64 in NumPy, so let both be uint64.":
                    _uint64(int((x > 0) @ 2.0 ** np.arange(64)) % 2**64),
                "The signs were shifted in 32 bits, which lost the upper half.":
                    wanted & np.uint64(2**32 - 1),
            },
        )  # fmt: skip


@packing.check
def next_word_begins_at_64(pack: Any) -> None:
    """Sign i stands in word i // 64, in bit i % 64, and the tail is 0."""
    for k in LENGTHS:
        for place in sorted({0, k // 2, min(64, k - 1), k - 1}):
            x = np.full(k, -1, np.int8)
            x[place] = 1
            case = Case(x=f"{k} signs, +1 at {place} only")
            wanted = _words(x)
            case.expect(
                pack(x), wanted, cause="Sign i is bit i % 64 of word i // 64.",
                mistakes={
                    "The signs from 64 on got lost: they were shifted by i, out of the word, and "
                    "have to be by i % 64.": np.where(np.arange(len(wanted)) > 0, 0, wanted),
                    "The signs past the last full word were dropped: round the number of words up, "
                    "−(−k // 64).": wanted[: k // 64],
                    "The words stand in reverse: the first 64 signs are word 0.": wanted[::-1],
                },
            )  # fmt: skip


@packing.check
def each_row_by_itself(pack: Any) -> None:
    """The last dimension is packed, and each row begins with a word of its own."""
    for shape in ((2, 3), (3, 64), (2, 70), (2, 3, 5), (1, 1)):
        x = _signs(*shape)
        case = Case(x=x if x.size < 17 else f"signs of shape {shape}")
        case.expect(
            pack(x), _words(x), cause="Pack along the last axis, axis=-1.",
            mistakes={
                "The rows were packed one behind the other: flattening loses where they begin.":
                    _words(x.reshape(-1)),
                "The columns were packed; the last dimension is to be.":
                    _words(np.moveaxis(x, -1, 0).reshape(shape[-1], -1)),
            },
        )  # fmt: skip


# ---- ch02.3 ----------------------------------------------------------------------------------

unpacking = EXERCISE.task("ch02.3", "Unpack signs", "unpack")

TAIL = "The tail came back as signs: its bits are no −1, they stand for nothing. Cut at k."


@unpacking.check
def lowest_bit_comes_first(unpack: Any) -> None:
    """The lowest bit is the first sign; a 1 is +1 and a 0 is −1."""
    words, k = _uint64(0b1), 8
    case = Case(words=words, k=k)
    wanted = np.array([1, *[-1] * 7], np.int8)
    shorter = np.array([*[-1] * 7, 1], np.int8)
    case.expect(
        unpack(words, k), wanted, cause="The first sign is bit 0 of word 0.",
        mistakes={
            "The bits came back as 0 and 1: signs are 2 · bit − 1.": (wanted > 0).astype(np.int8),
            "2 · bit − 1 was computed without a sign: unsigned numbers have no −1, and wrap round. "
            "Turn the bits into int8 first.": np.where(wanted > 0, wanted, 255).astype(np.uint8),
            "2 · bit − 1 was computed in uint64, which has no −1, and wraps round. Turn the bits "
            "into int8 first.": np.where(wanted > 0, 1, 2**64 - 1).astype(np.uint64),
            "The highest bit of the word came first: shift by 0, 1, 2, … and take the lowest bit.":
                np.full(8, -1, np.int8),
            "The highest bit of each byte came first, as np.unpackbits gives it: say "
            'bitorder="little".': shorter,
            "The signs are inverted: a 1 is +1, and a 0 is −1.": -wanted,
            TAIL: np.append(wanted, np.full(56, -1, np.int8)),
        },
    )  # fmt: skip


@unpacking.check
def tail_stays_out(unpack: Any) -> None:
    """Only the first k signs come back, as int8, whatever k is."""
    for k in LENGTHS:
        signs = _signs(k)
        words = _words(signs)
        case = Case(words=words, k=k)
        full = np.append(signs, np.full(_tail(k), -1, np.int8))
        case.expect(
            unpack(words, k), signs, cause="Sign i is bit i % 64 of word i // 64.",
            mistakes={
                TAIL: full,
                "The words stand in reverse.": full.reshape(-1, 64)[::-1].reshape(-1)[:k],
                "The upper half of each word is missing: 64 bits, not 32.":
                    full.reshape(-1, 64)[:, :32].reshape(-1)[:k],
            },
        )  # fmt: skip


@unpacking.check
def rows_stay_rows(unpack: Any) -> None:
    """Words (..., words) give signs (..., k), row by row."""
    for shape in ((2, 3), (3, 64), (2, 70), (2, 3, 5)):
        signs = _signs(*shape)
        case = Case(words=f"packed signs of shape {shape}", k=shape[-1])
        case.expect(
            unpack(_words(signs), shape[-1]), signs,
            cause="Unpack along the last axis: words[..., None] gives each word an axis of bits.",
            mistakes={"The rows were joined: keep words.shape[:-1] in front.": signs.reshape(-1)},
        )  # fmt: skip


# ---- ch02.4 ----------------------------------------------------------------------------------

dot = EXERCISE.task("ch02.4", "XNOR dot product with a tail", "xnor_dot")

UNSIGNED = (
    "Counts are unsigned in NumPy, and k − 2 · count fell below zero and wrapped round: make the "
    "count an int first."
)


def _wrong_products(a: np.ndarray, b: np.ndarray) -> dict[str, int]:
    """Give the causes of known mistakes, each with the answer that it gives for two rows."""
    k, agree, tail = len(a), int((a == b).sum()), _tail(len(a))
    right = 2 * agree - k
    first = int((a[:64] == b[:64]).sum())
    after = agree - int((a[: k - k % 64] == b[: k - k % 64]).sum())
    everywhere = 2 * (agree + tail)
    wrong = {
        UNSIGNED: right % 2**64,
        "This is a count and no dot product yet: 2 · count − k.": agree,
        "XOR marks the places that differ, so their number was taken for that of agreements: "
        "k − 2 · popcount(XOR).": -right,
        "This is the number of places that differ: k − 2 · that.": k - agree,
    }
    if tail:
        wrong |= {
            f"The tail was counted: its {tail} bits are 0 in both rows, so XNOR finds that they "
            "agree. Mask them, or count the places that differ, k − 2 · popcount(XOR).":
                everywhere - k,
            "2 · count − 64 is right for 64 signs and for no other number: k has to be in the "
            "formula, and the tail must not count.": everywhere - 64,
            f"All {k + tail} bits of the words were taken off in place of k, and the tail was "
            f"counted as {tail} agreements.": everywhere - k - tail,
        }  # fmt: skip
    else:
        wrong[
            "The last word was masked away: where k is a multiple of 64 there is no tail, and "
            "(1 << k % 64) − 1 is 0."
        ] = 2 * (agree - int((a[-64:] == b[-64:]).sum())) - k
    if k > 64:
        wrong |= {
            "Only the first word was looked at.": 2 * first - 64,
            "Only the first word was counted.": 2 * first - k,
            "The differences of the first word only were taken off.": k - 2 * (64 - first),
            "2 · count − 64 was taken of all words together.": everywhere - 64,
            "Only the last word was counted.": 2 * after - k,
        }
    return {cause: answer for cause, answer in wrong.items() if answer != right}


@dot.check
def one_full_word(xnor_dot: Any) -> None:
    """For 64 signs, in one full word, the dot product is agreements less differences."""
    for number_a, number_b in ((0xF, 0), (2**64 - 1, 0), (2**64 - 1, 2**64 - 1), (0, 0)):
        a, b = (
            np.array([1 if n >> i & 1 else -1 for i in range(64)]) for n in (number_a, number_b)
        )
        words = _uint64(number_a), _uint64(number_b)
        case = Case(a=words[0], b=words[1], k=64)
        case.expect(
            xnor_dot(*words, 64), int(a @ b), cause="k − 2 · popcount(a XOR b).",
            mistakes=_wrong_products(a, b),
        )  # fmt: skip


@dot.check
def tail_does_not_count(xnor_dot: Any) -> None:
    """For fewer than 64 signs the bits past the last do not count."""
    for k in (1, 2, 3):
        for bits in itertools.product((-1, 1), repeat=2 * k):
            a, b = np.array(bits, np.int8).reshape(2, k)
            case = Case(a=_words(a), b=_words(b), k=k)
            case.expect(
                xnor_dot(_words(a), _words(b), k), int(a @ b),
                cause="k − 2 · popcount(a XOR b): bits that are 0 in both do not differ.",
                mistakes=_wrong_products(a, b),
            )  # fmt: skip


@dot.check
def all_words_count(xnor_dot: Any) -> None:
    """Rows of several words are right at every length."""
    for k in (*LENGTHS[4:], *range(130, 300, 13)):
        for seed in range(3):
            a, b = _signs(2, k, seed=seed).astype(int)
            case = Case(a=_words(a), b=_words(b), k=k)
            case.expect(
                xnor_dot(_words(a), _words(b), k), int(a @ b),
                cause="Count over all words, and take the sum off once.",
                mistakes=_wrong_products(a, b),
            )  # fmt: skip


# ---- ch02.5 ----------------------------------------------------------------------------------

matrix = EXERCISE.task("ch02.5", "A layer of bits", "xnor_matmul")

IN_STEP = (
    "Row i met row i only: a ^ b goes through both in step. With a[:, None] each row of a meets "
    "all of b."
)


@matrix.check
def one_row_with_one_row(xnor_matmul: Any) -> None:
    """One row with one row gives one dot product, a matrix (1, 1) of int32."""
    for bits in (((1, 1, 1), (-1, -1, -1)), ((1, 1, 1), (1, -1, 1))):
        a, b = (np.array([row], np.int8) for row in bits)
        case = Case(a=_words(a), b=_words(b), k=3)
        right = a.astype(np.int32) @ b.T.astype(np.int32)
        case.expect(
            xnor_matmul(_words(a), _words(b), 3), right,
            cause="Each entry is k − 2 · popcount(XOR).",
            mistakes={
                IN_STEP: right[0],
                UNSIGNED.replace("an int", "signed"): right.astype(np.int64).astype(np.uint64),
                "The tail was counted as agreements: use the XOR form, k − 2 · popcount(XOR).":
                    right + np.int32(2 * 61),
                "The counts of a uint8 wrapped round below zero: make them int32 first.":
                    right.astype(np.uint8),
            },
        )  # fmt: skip


@matrix.check
def every_row_meets_every_row(xnor_matmul: Any) -> None:
    """Entry [i, j] belongs to row i of a and row j of b."""
    for m, n, k in itertools.product((1, 2, 3), (1, 2, 3), (3, 64, 70)):
        a, b = _signs(m, k, seed=1), _signs(n, k, seed=2)
        case = Case(a=_words(a), b=_words(b), k=k)
        right = a.astype(np.int32) @ b.T.astype(np.int32)
        words_added = (_words(a)[:, None] ^ _words(b))[..., :1]
        first_word = k - 2 * np.bitwise_count(words_added).sum(-1).astype(np.int32)
        case.expect(
            xnor_matmul(_words(a), _words(b), k), right,
            cause="a[:, None] ^ b makes (m, n, words); then count, and add over the words.",
            mistakes={
                "Rows and columns are swapped: row i of a gives row i of the result.": right.T,
                IN_STEP: np.diagonal(right),
                "Only the first word of each row was counted: add over the last axis.": first_word,
                "The tail was counted as agreements: use the XOR form, k − 2 · popcount(XOR).":
                    right + np.int32(2 * _tail(k)),
            } if m * n > 1 or k > 64 else {},
        )  # fmt: skip


@matrix.check
def equals_the_integer_product(xnor_matmul: Any) -> str:
    """A layer of 784 inputs and 32 outputs gives what a product of integers gives."""
    pixels = data.mnist("test")[0][:200].numpy().reshape(200, -1)
    x = np.where(pixels >= 128, 1, -1).astype(np.int8)
    w_b = _signs(32, 784)
    case = Case(a="200 digits, black or white, as 784 signs each", b="32 rows of signs", k=784)
    a, b = _words(x), _words(w_b)
    case.expect(
        xnor_matmul(a, b, 784), x.astype(np.int32) @ w_b.T.astype(np.int32),
        cause="It was right for few rows: is anything held in too few bits?",
    )  # fmt: skip
    return (
        f"200 × 32 dot products of 784 signs, all equal. The weights take {b.nbytes:,} bytes, and "
        f"{4 * w_b.size:,} in float32."
    )


# ---- ch02.6 ----------------------------------------------------------------------------------

planes = EXERCISE.task("ch02.6", "Pixels in eight planes", "pixel_dot")


def _wrong_planes(pixels: np.ndarray, w: np.ndarray) -> dict[str, int]:
    """Give the causes of known mistakes, each with the answer that it gives."""
    x, signs = pixels.astype(int), w.astype(int)
    bits = [x >> n & 1 for n in range(8)]
    right, w_sum = int(x @ signs), int(signs.sum())
    wrong = {
        "The 0s of a plane were counted as −1. With b = 2 · plane − 1, the plane's own product is "
        "(b · w + sum of w) / 2.": sum(2**n * int((2 * p - 1) @ signs) for n, p in enumerate(bits)),
        "Each plane counts twice: (b · w + sum of w) has to be halved.": 2 * right,
        "The planes got the wrong powers: the lowest bit counts 1, the highest 128.":
            sum(2 ** (7 - n) * int(p @ signs) for n, p in enumerate(bits)),
        "The planes were added without their powers: plane n counts 2**n.":
            sum(int(p @ signs) for p in bits),
        "Every bit was taken for a 1: in uint8, 2 · bit − 1 of 0 is 255, which is not below zero. "
        "And bits 0 and 1 are both >= 0: make signs of them before packing.": 255 * w_sum,
        "Pixels above 127 came out negative: they are unsigned, keep them uint8.":
            int(pixels.view(np.int8).astype(int) @ signs),
        "The highest plane is missing: there are eight.":
            int((x & 127) @ signs),
        "The pixels were cut to 8 bits while they were multiplied.": right % 256,
        UNSIGNED: right % 2**64,
        "The tail of w was counted: its bits are 0 and stand for nothing, not for −1.":
            sum(2**n * (int((2 * p - 1) @ signs + w_sum - _tail(len(w))) // 2)
                for n, p in enumerate(bits)),
        "The sum of w is missing from (b · w + sum of w) / 2.":
            sum(2**n * (int((2 * p - 1) @ signs) // 2) for n, p in enumerate(bits)),
    }  # fmt: skip
    return {cause: answer for cause, answer in wrong.items() if answer != right}


@planes.check
def one_pixel(pixel_dot: Any) -> None:
    """One pixel times one sign is the pixel, or its negative."""
    for pixel, sign in itertools.product((1, 2, 3, 0, 127, 128, 181, 255), (1, -1)):
        pixels, w = np.array([pixel], np.uint8), np.array([sign], np.int8)
        case = Case(pixels=pixels, w=f"the sign {sign:+d}, packed", k=1)
        case.expect(
            pixel_dot(pixels, _words(w), 1), pixel * sign,
            cause="Sum over the planes of 2**n times the plane's product with w.",
            mistakes=_wrong_planes(pixels, w),
        )  # fmt: skip


@planes.check
def several_pixels(pixel_dot: Any) -> None:
    """Rows of pixels are right at every length."""
    for k in (2, 3, *LENGTHS[2:]):
        pixels = np.random.default_rng(k).integers(0, 256, k).astype(np.uint8)
        w = _signs(k, seed=k)
        case = Case(pixels=pixels, w=f"{w.tolist()}, packed" if k < 17 else f"{k} signs", k=k)
        case.expect(
            pixel_dot(pixels, _words(w), k), int(pixels.astype(int) @ w),
            cause="One pixel was right: is the sum of w that of all k signs, and of no tail?",
            mistakes=_wrong_planes(pixels, w),
        )  # fmt: skip


@planes.check
def digits_come_out_exactly(pixel_dot: Any) -> str:
    """Real digits give what a product of integers gives, to the last digit."""
    images = data.mnist("test")[0][:20].numpy().reshape(20, -1)
    w = _signs(784)
    sums = []
    for number, pixels in enumerate(images):
        case = Case(pixels=f"test digit {number}", w="784 signs", k=784)
        sums.append(int(pixels.astype(int) @ w))
        case.expect(
            pixel_dot(pixels, _words(w), 784), sums[-1], cause="It was right for fewer pixels.",
            mistakes=_wrong_planes(pixels, w),
        )  # fmt: skip
    return f"20 digits, sums from {min(sums):,} to {max(sums):,}, all equal."
