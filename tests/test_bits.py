"""Signs and ternary codes survive packing, for every dtype, stride and path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onebit.bits import (
    pack_signs,
    pack_ternary,
    ternary_words_for,
    unpack_signs,
    unpack_ternary,
    words_for,
)
from onebit.kernels import available_kernels

PATHS = available_kernels()
FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64"]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Run a test once on each path of this machine."""
    monkeypatch.setenv("ONEBIT_KERNEL", request.param)
    return request.param


def reference_words(plus):
    """Set bit i % 64 of word i // 64 one by one, in Python integers."""
    *leading, k = plus.shape
    rows = []
    for row in plus.reshape(-1, k):
        words = [0] * words_for(k)
        for i in np.flatnonzero(row).tolist():
            words[i // 64] |= 1 << (i % 64)
        rows.append(words)
    return np.array(rows, np.uint64).reshape(*leading, words_for(k))


# ---- signs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("k", [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300])
def test_bit_i_of_word_w_is_the_sign_of_element_64_w_plus_i(path, dtype, k):
    rng = np.random.default_rng(k)
    x = torch.from_numpy(rng.integers(-3, 4, (5, k))).to(getattr(torch, dtype))
    expected = reference_words(x.to(torch.float64).numpy() >= 0)
    packed = pack_signs(x)
    assert packed.dtype is torch.int64
    np.testing.assert_array_equal(packed.numpy().view(np.uint64), expected)
    if dtype != "bfloat16":
        from_numpy = pack_signs(x.numpy())
        assert from_numpy.dtype == np.uint64
        np.testing.assert_array_equal(from_numpy, expected)


@settings(deadline=None, max_examples=200)
@given(
    x=npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        npst.array_shapes(min_dims=1, max_dims=3, max_side=140),
        elements=st.floats(allow_nan=False, width=16),
    ),
    name=st.sampled_from(PATHS),
)
def test_unpacking_gives_back_the_sign_of_every_float(x, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", name)
        bits = pack_signs(x)
        signs = unpack_signs(bits, x.shape[-1])
    assert bits.shape == (*x.shape[:-1], words_for(x.shape[-1]))
    np.testing.assert_array_equal(signs, np.where(x >= 0, 1, -1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_are_plus_and_extremes_keep_their_sign(path, dtype):
    t = getattr(torch, dtype)
    info = torch.finfo(t)
    values = [0.0, -0.0, info.tiny, -info.tiny, info.max, info.min, torch.inf, -torch.inf]
    subnormal = info.smallest_normal / 2
    x = torch.tensor([*values, subnormal, -subnormal] * 20, dtype=t)
    expected = [1, 1, 1, -1, 1, -1, 1, -1, 1, -1] * 20
    assert unpack_signs(pack_signs(x), len(x)).tolist() == expected


def test_true_is_plus_and_false_is_minus(path):
    x = np.random.default_rng(0).random((3, 150)) < 0.5
    np.testing.assert_array_equal(pack_signs(x), reference_words(x))
    assert torch.equal(unpack_signs(pack_signs(torch.from_numpy(x)), 150) == 1, torch.from_numpy(x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_nan_anywhere_is_refused(path, dtype, sign):
    for k in [1, 63, 64, 65, 130]:
        for where in {0, k // 2, k - 1}:
            x = torch.ones(3, k, dtype=getattr(torch, dtype))
            x[1, where] = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign))
            with pytest.raises(ValueError, match=r"x holds NaN, which is neither \+1 nor −1"):
                pack_signs(x)


def test_signalling_nans_are_refused_too(path):
    for dtype, pattern in [("u2", 0x7C01), ("u4", 0xFF800001), ("u8", 0x7FF0000000000001)]:
        x = np.array([pattern] * 64, dtype).view(dtype.replace("u", "f"))
        with pytest.raises(ValueError, match="x holds NaN"):
            pack_signs(x)


def test_strides_do_not_matter(path):
    whole = np.random.default_rng(1).standard_normal((8, 6, 140)).astype(np.float32)
    for view in [whole.T, whole[::2, ::-1, 3:130:2], np.broadcast_to(whole[:1], whole.shape)]:
        np.testing.assert_array_equal(pack_signs(view), pack_signs(view.copy()))
    tensor = torch.from_numpy(whole).transpose(0, 2)
    assert torch.equal(pack_signs(tensor), pack_signs(tensor.contiguous()))
    words = pack_signs(whole)
    np.testing.assert_array_equal(
        unpack_signs(words[::2, :, :], 140), unpack_signs(words, 140)[::2]
    )


def test_unaligned_memory_does_not_matter(path):
    raw = np.zeros(4 * 200 + 1, np.uint8)
    x = raw[1:].view(np.float32)
    x[:] = np.random.default_rng(2).standard_normal(200)
    np.testing.assert_array_equal(pack_signs(x), pack_signs(x.copy()))
    bits = raw[1:793].view(np.uint64)
    np.testing.assert_array_equal(unpack_signs(bits, 99 * 64), unpack_signs(bits.copy(), 99 * 64))


def test_a_tensor_that_needs_a_gradient_is_packed_without_one(path):
    x = torch.randn(3, 70, requires_grad=True)
    bits = pack_signs(x)
    assert not bits.requires_grad
    assert torch.equal(unpack_signs(bits, 70) == 1, x.detach() >= 0)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 7), (0, 0)])
def test_empty_arrays_stay_empty(path, shape):
    x = np.zeros(shape, np.float32)
    bits = pack_signs(x)
    assert bits.shape == (*shape[:-1], words_for(shape[-1]))
    assert unpack_signs(bits, shape[-1]).shape == shape
    codes = pack_ternary(torch.from_numpy(x))
    assert unpack_ternary(codes, shape[-1]).shape == shape


def test_garbage_past_k_is_ignored_when_unpacking(path):
    bits = np.array([[2**64 - 1, 2**64 - 1]], np.uint64)
    assert unpack_signs(bits, 70).tolist() == [[1] * 70]
    bits[0, 1] = 2**64 - 2**6
    assert unpack_signs(bits, 70).tolist() == [[1] * 64 + [-1] * 6]


# ---- ternary codes ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    x=npst.arrays(
        st.sampled_from([np.int8, np.int32, np.int64, np.float16, np.float32, np.float64]),
        npst.array_shapes(min_dims=1, max_dims=3, max_side=100),
        elements=st.sampled_from([-1, 0, 1]),
    ),
    name=st.sampled_from(PATHS),
)
def test_ternary_codes_survive_packing(x, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", name)
        words = pack_ternary(x)
        codes = unpack_ternary(words, x.shape[-1])
    assert words.shape == (*x.shape[:-1], ternary_words_for(x.shape[-1]))
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(codes, x)


def test_code_i_stands_in_bits_2i_and_2i_plus_1(path):
    x = np.zeros(40, np.int8)
    x[0], x[3], x[31], x[33] = 1, -1, -1, 1
    expected = [1 | 0b11 << 6 | 0b11 << 62, 1 << 2]
    assert pack_ternary(x).tolist() == expected
    tensor = pack_ternary(torch.from_numpy(x).to(torch.bfloat16))
    assert tensor.numpy().view(np.uint64).tolist() == expected


def test_garbage_past_the_last_code_is_ignored(path):
    words = pack_ternary(np.ones(33, np.int8))
    words[1] |= np.uint64(0xAAAAAAAAAAAAAAA8)
    assert unpack_ternary(words, 33).tolist() == [1] * 33


# ---- bad input -------------------------------------------------------------------------------

WORDS = np.zeros((3, 2), np.uint64)

BAD_CALLS = {
    "a list": (
        lambda: pack_signs([1.0]),
        TypeError,
        "x must be a NumPy array or a CPU torch.Tensor, got list",
    ),
    "a layer": (
        lambda: pack_signs(torch.nn.Linear(2, 2)),
        TypeError,
        "got Linear; convert it with",
    ),
    "unsigned integers": (
        lambda: pack_signs(np.ones(5, np.uint8)),
        TypeError,
        "x has dtype uint8.*for bits use bool, for ±1 use int8",
    ),
    "complex numbers": (
        lambda: pack_signs(torch.ones(5, dtype=torch.complex64)),
        TypeError,
        "x has dtype complex64",
    ),
    "strings": (lambda: pack_signs(np.array(["+", "-"])), TypeError, "x has dtype <U1"),
    "the other byte order": (lambda: pack_signs(np.ones(5, ">f4")), TypeError, "x has dtype >f4"),
    "a scalar": (
        lambda: pack_signs(np.array(1.0)),
        ValueError,
        r"x is a scalar.*reshape to \(1,\)",
    ),
    "another device": (
        lambda: pack_signs(torch.ones(5, device="meta")),
        ValueError,
        r"x is on device 'meta'.*pass x.cpu\(\)",
    ),
    "a sparse tensor": (
        lambda: pack_signs(torch.ones(5).to_sparse()),
        TypeError,
        r"x has layout torch.sparse_coo; pass x.to_dense\(\)",
    ),
    "k for more words": (
        lambda: unpack_signs(WORDS, 129),
        ValueError,
        r"bits has shape \(3, 2\); k = 129 needs a last dimension of 3 words",
    ),
    "k for fewer words": (
        lambda: unpack_signs(WORDS, 64),
        ValueError,
        "k = 64 needs a last dimension of 1 words",
    ),
    "negative k": (
        lambda: unpack_signs(WORDS, -1),
        ValueError,
        "k must lie between 0 and 2147483647, got -1",
    ),
    "k as a float": (
        lambda: unpack_signs(WORDS, 100.0),
        TypeError,
        "k must be a whole number, got 100.0",
    ),
    "words as floats": (
        lambda: unpack_signs(np.ones((3, 2)), 100),
        TypeError,
        "bits must hold packed words, dtype uint64, got float64",
    ),
    "words as int32": (
        lambda: unpack_signs(torch.ones(3, 2, dtype=torch.int32), 100),
        TypeError,
        "bits must hold packed words, dtype torch.int64, got torch.int32",
    ),
    "a single word": (
        lambda: unpack_signs(np.array(5, np.uint64), 5),
        ValueError,
        r"bits has shape \(\); k = 5 needs",
    ),
    "a code of 2": (
        lambda: pack_ternary(np.array([1, 2], np.int8)),
        ValueError,
        "x holds 2, wanted −1, 0 and 1 only",
    ),
    "a code of -2": (lambda: pack_ternary(np.array([-2], np.int8)), ValueError, "x holds -2"),
    "a fraction": (lambda: pack_ternary(np.array([1.0, 0.5])), ValueError, "x holds 0.5, wanted"),
    "nearly one": (
        lambda: pack_ternary(torch.tensor([1 + 1e-12], dtype=torch.float64)),
        ValueError,
        "x holds 1.000000000001",
    ),
    "a code that wraps round": (
        lambda: pack_ternary(np.array([257], np.int32)),
        ValueError,
        "x holds 257",
    ),
    "NaN as a code": (
        lambda: pack_ternary(np.array([np.nan], np.float32)),
        ValueError,
        "x holds nan",
    ),
    "infinity as a code": (
        lambda: pack_ternary(torch.tensor([torch.inf])),
        ValueError,
        "x holds inf",
    ),
    "bools as codes": (
        lambda: pack_ternary(np.array([True])),
        TypeError,
        "x has dtype bool; pack_ternary takes",
    ),
    "a scalar code": (lambda: pack_ternary(torch.tensor(1)), ValueError, "x is a scalar"),
    "a damaged code": (
        lambda: unpack_ternary(np.array([0b1001], np.uint64), 2),
        ValueError,
        "words holds the two-bit code 10",
    ),
    "k for other ternary words": (
        lambda: unpack_ternary(WORDS, 65),
        ValueError,
        r"words has shape \(3, 2\); k = 65 needs a last dimension of 3 words",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_refused_by_name(path, name):
    call, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        call()
