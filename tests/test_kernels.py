"""Every kernel path gives the integers of a plain matrix product, whatever the shapes."""

import concurrent.futures
import copy
import importlib.util
import mmap
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onebit
from onebit import _native, _operands, kernels
from onebit.bits import pack_signs, pack_ternary, unpack_signs, words_for
from onebit.kernels import (
    PackedMatrix,
    PackedTernaryMatrix,
    available_kernels,
    kernel_name,
    kernel_report,
    prepack,
    prepack_ternary,
    ternary_gemm,
    xnor_gemm,
    xnor_gemm_bits,
)

PATHS = available_kernels()


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Run a test once on each path of this machine."""
    monkeypatch.setenv("ONEBIT_KERNEL", request.param)
    return request.param


def random_words(rng, rows, k):
    """Return words whose bits past k are garbage, and the signs they stand for."""
    words = rng.integers(0, 2**64, (rows, words_for(k)), dtype=np.uint64)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, :k]
    return words, 2 * bits.astype(np.float32) - 1


def random_product(rng, m, n, k):
    """Return packed operands and their product, by a float32 matrix product that is exact."""
    (a, a_signs), (b, b_signs) = random_words(rng, m, k), random_words(rng, n, k)
    return a, b, (a_signs @ b_signs.T).astype(np.int32)


def random_ternary(rng, m, n, k):
    x = rng.integers(-128, 128, (m, k), dtype=np.int8)
    w = rng.integers(-1, 2, (n, k), dtype=np.int8)
    return x, w, x.astype(np.int64) @ w.astype(np.int64).T


def pack_bits(bits):
    """Pack booleans by NumPy alone, so that no kernel checks itself."""
    rows, n = bits.shape
    padded = np.zeros((rows, 64 * words_for(n)), bool)
    padded[:, :n] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


# ---- exactness -------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_path_agrees_with_a_plain_product_on_two_thousand_random_shapes(monkeypatch):
    rng = np.random.default_rng(2016)
    for _ in range(2000):
        m, n, k = rng.integers(1, 71), rng.integers(1, 71), rng.integers(1, 701)
        a, b, expected = random_product(rng, m, n, k)
        packed = prepack(b, k)
        for name in PATHS:
            monkeypatch.setenv("ONEBIT_KERNEL", name)
            np.testing.assert_array_equal(xnor_gemm(a, packed, k), expected, f"{name} {m, n, k}")


@pytest.mark.parametrize("k", [*range(1, 131), 191, 192, 193, 255, 256, 257, 511, 512, 513])
def test_every_small_k_is_exact(path, k):
    a, b, expected = random_product(np.random.default_rng(k), 9, 18, k)
    np.testing.assert_array_equal(xnor_gemm(a, b, k), expected)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1000, 4096),
        (1, 270_000, 33),
        (3, 17, 20_011),
        (601, 33, 130),
        (8, 64, 8 * 31 * 32 + 40),
        (2, 16, 70_000),
    ],
)
def test_shapes_that_pass_the_sizes_of_blocks_are_exact(path, m, n, k):
    a, b, expected = random_product(np.random.default_rng(k), m, n, k)
    np.testing.assert_array_equal(xnor_gemm(a, b, k), expected)


@pytest.mark.parametrize("n", [63, 64, 65, 127, 128, 129, 143, 145, 300, 1000])
def test_a_single_row_is_exact_whatever_the_number_of_outputs(path, n):
    rng = np.random.default_rng(n)
    for k in (31, 64, 100, 513):
        a, b, expected = random_product(rng, 1, n, k)
        np.testing.assert_array_equal(xnor_gemm(a, b, k), expected)
        limits = rng.integers(-k, k, n, dtype=np.int32)
        got = xnor_gemm_bits(a, prepack(b, k), k, limits)
        np.testing.assert_array_equal(got, pack_bits(expected >= limits))
        x, w, expected = random_ternary(rng, 1, n, k)
        np.testing.assert_array_equal(ternary_gemm(x, pack_ternary(w)), expected)


def test_outputs_too_large_for_a_cache_are_exact_wherever_they_start(path):
    m, n, k = 530, 528, 65
    a, b, expected = random_product(np.random.default_rng(16), m, n, k)
    np.testing.assert_array_equal(xnor_gemm(a, b, k), expected)
    room = np.zeros(m * n + 5, np.int32)
    out = room[5:].reshape(m, n)
    np.testing.assert_array_equal(xnor_gemm(a, b, k, out=out), expected)
    assert (room[:5] == 0).all()


def test_equal_and_opposite_rows_reach_plus_and_minus_k(path):
    k = 16_385
    plus, minus = pack_signs(np.ones((1, k), np.int8)), pack_signs(-np.ones((1, k), np.int8))
    assert xnor_gemm(plus, plus, k).item() == k
    assert xnor_gemm(plus, minus, k).item() == -k


@settings(deadline=None, max_examples=150)
@given(
    m=st.integers(0, 20),
    n=st.integers(0, 70),
    k=st.integers(1, 400),
    row_step=st.integers(1, 3),
    wide=st.booleans(),
    raw=st.booleans(),
    threads=st.one_of(st.none(), st.integers(1, 4)),
    name=st.sampled_from(PATHS),
    seed=st.integers(0, 2**32 - 1),
)
def test_strided_operands_and_outputs_are_exact(m, n, k, row_step, wide, raw, threads, name, seed):
    rng = np.random.default_rng(seed)
    a, b, expected = random_product(rng, m * row_step, n, k)
    whole = np.full((2 * m, n + 5), 77, np.int32)
    out = whole[::2, 3 : n + 3] if wide else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", name)
        weights = b if raw else prepack(np.asfortranarray(b), k)
        got = xnor_gemm(a[::row_step], weights, k, out=out, threads=threads)
    np.testing.assert_array_equal(got, expected[::row_step])
    if wide:
        assert got is out
        whole[::2, 3 : n + 3] = 77
        assert (whole == 77).all(), "written outside of out"


def test_rows_in_reverse_order_are_exact(path):
    a, b, expected = random_product(np.random.default_rng(3), 11, 20, 100)
    np.testing.assert_array_equal(xnor_gemm(a[::-1], b[::-1], 100), expected[::-1, ::-1])


def test_tensors_go_in_and_come_out(path):
    a, b, expected = random_product(np.random.default_rng(4), 5, 20, 100)
    ta, tb = torch.from_numpy(a.view(np.int64)), torch.from_numpy(b.view(np.int64))
    got = xnor_gemm(ta, tb, 100)
    assert got.dtype is torch.int32
    assert torch.equal(got, torch.from_numpy(expected))
    out = torch.empty(5, 20, dtype=torch.int32)
    assert xnor_gemm(ta, prepack(tb, 100), 100, out=out) is out
    assert torch.equal(out, got)


def test_no_rows_give_no_rows(path):
    assert xnor_gemm(np.empty((0, 2), np.uint64), np.empty((7, 2), np.uint64), 100).shape == (0, 7)
    assert xnor_gemm(np.empty((7, 2), np.uint64), np.empty((0, 2), np.uint64), 100).shape == (7, 0)
    thresholds = np.zeros(0, np.int32)
    b = np.empty((0, 2), np.uint64)
    assert xnor_gemm_bits(np.empty((7, 2), np.uint64), b, 100, thresholds).shape == (7, 0)
    x = np.zeros((0, 5), np.int8)
    assert ternary_gemm(x, pack_ternary(np.zeros((3, 5), np.int8))).shape == (0, 3)


# ---- bits out --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    m=st.integers(1, 20),
    n=st.integers(1, 140),
    k=st.integers(1, 300),
    with_flip=st.booleans(),
    name=st.sampled_from(PATHS),
    seed=st.integers(0, 2**32 - 1),
)
def test_bits_are_the_products_compared_with_their_thresholds(m, n, k, with_flip, name, seed):
    rng = np.random.default_rng(seed)
    a, b, products = random_product(rng, m, n, k)
    thresholds = rng.integers(-k - 2, k + 3, n).astype(np.int32)
    flip = rng.random(n) < 0.5 if with_flip else None
    whole = np.full((m, words_for(n) + 1), 99, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", name)
        xnor_gemm_bits(a, b, k, thresholds, flip=flip, out=whole[:, :-1])
    expected = (products >= thresholds) ^ (flip if with_flip else False)
    np.testing.assert_array_equal(whole[:, :-1], pack_bits(expected))
    assert (whole[:, -1] == 99).all(), "written outside of out"


def test_thresholds_give_both_constants_and_a_falling_step(path):
    k = 10
    a, b, products = random_product(np.random.default_rng(5), 30, 3, k)
    thresholds = np.array([-k, -k, 3], np.int32)
    bits = xnor_gemm_bits(a, b, k, thresholds, flip=np.array([False, True, True]))
    signs = unpack_signs(bits, 3)
    assert (signs[:, 0] == 1).all()
    assert (signs[:, 1] == -1).all()
    np.testing.assert_array_equal(signs[:, 2] == 1, products[:, 2] < 3)


def test_bits_feed_the_next_product(path):
    """Two layers of signs, never leaving bits, against float32."""
    rng = np.random.default_rng(6)
    a, a_signs = random_words(rng, 9, 70)
    b, b_signs = random_words(rng, 50, 70)
    c, c_signs = random_words(rng, 5, 50)
    hidden = xnor_gemm_bits(a, b, 70, np.zeros(50, np.int32))
    expected = np.where(a_signs @ b_signs.T >= 0, 1, -1) @ c_signs.T
    np.testing.assert_array_equal(xnor_gemm(hidden, c, 50), expected)


def test_tensors_go_in_and_come_out_of_xnor_gemm_bits(path):
    a, b, products = random_product(np.random.default_rng(7), 5, 70, 100)
    ta, tb = torch.from_numpy(a.view(np.int64)), torch.from_numpy(b.view(np.int64))
    thresholds = torch.zeros(70, dtype=torch.int32)
    bits = xnor_gemm_bits(ta, tb, 100, thresholds, flip=torch.ones(70, dtype=torch.bool))
    assert bits.dtype is torch.int64
    np.testing.assert_array_equal(bits.numpy().view(np.uint64), pack_bits(products < 0))


# ---- ternary ---------------------------------------------------------------------------------


def test_every_path_agrees_with_a_plain_ternary_product_on_random_shapes(monkeypatch):
    rng = np.random.default_rng(2024)
    for _ in range(300):
        m, n, k = rng.integers(1, 71), rng.integers(1, 71), rng.integers(1, 400)
        x, w, expected = random_ternary(rng, m, n, k)
        words = pack_ternary(w)
        if k % 32:
            words[:, -1] |= rng.integers(0, 2**64, n, dtype=np.uint64) << np.uint64(2 * (k % 32))
        packed = prepack_ternary(words, k)
        for name in PATHS:
            monkeypatch.setenv("ONEBIT_KERNEL", name)
            np.testing.assert_array_equal(ternary_gemm(x, packed), expected, f"{name} {m, n, k}")


@pytest.mark.parametrize("k", [*range(1, 70), 127, 128, 129, 1000])
def test_every_small_k_is_exact_for_ternary_weights(path, k):
    x, w, expected = random_ternary(np.random.default_rng(k), 11, 18, k)
    np.testing.assert_array_equal(ternary_gemm(x, pack_ternary(w)), expected)


@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("weight", [-1, 0, 1])
def test_extreme_activations_do_not_overflow(path, value, weight):
    for m, k in [(3, 40_003), (1, 600_001)]:
        x, w = np.full((m, k), value, np.int8), np.full((2, k), weight, np.int8)
        assert (ternary_gemm(x, pack_ternary(w)) == value * weight * k).all()


def test_strided_activations_and_outputs_are_exact_for_ternary_weights(path):
    x, w, expected = random_ternary(np.random.default_rng(8), 140, 20, 100)
    whole = np.full((70, 25), 77, np.int32)
    out = whole[:, 2:22]
    wide = np.zeros((140, 130), np.int8)
    wide[:, 7:107] = x
    assert ternary_gemm(wide[::2, 7:107], pack_ternary(w), out=out) is out
    np.testing.assert_array_equal(out, expected[::2])
    assert (whole[:, :2] == 77).all() and (whole[:, 22:] == 77).all()
    columns = np.asfortranarray(x)
    np.testing.assert_array_equal(ternary_gemm(columns, pack_ternary(w)), expected)


def test_ternary_tensors_go_in_and_come_out(path):
    x, w, expected = random_ternary(np.random.default_rng(9), 5, 20, 100)
    words = pack_ternary(torch.from_numpy(w))
    got = ternary_gemm(torch.from_numpy(x), words)
    assert got.dtype is torch.int32
    np.testing.assert_array_equal(got.numpy(), expected)
    assert torch.equal(ternary_gemm(torch.from_numpy(x), prepack_ternary(words, 100)), got)


# ---- prepacked matrices ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 31, 32, 33, 64, 100, 129])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_prepacked_matrices_return_their_words_and_survive_pickling(n, k):
    words, signs = random_words(np.random.default_rng(n * k), n, k)
    packed = prepack(words, k)
    clean = pack_bits(signs > 0)
    for matrix in (packed, pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert isinstance(matrix, PackedMatrix)
        assert matrix.shape == (n, k)
        np.testing.assert_array_equal(matrix.to_words(), clean)
    ternary = pack_ternary(np.random.default_rng(k).integers(-1, 2, (n, k), dtype=np.int8))
    packed_ternary = prepack_ternary(ternary, k)
    for matrix in (packed_ternary, pickle.loads(pickle.dumps(packed_ternary))):
        assert isinstance(matrix, PackedTernaryMatrix)
        np.testing.assert_array_equal(matrix.to_words(), ternary)
    assert isinstance(prepack(torch.from_numpy(words.view(np.int64)), k).to_words(), torch.Tensor)


@pytest.mark.skipif(_native.lib is None, reason="the C kernel is not built")
def test_numpy_and_c_make_the_same_lane_layout(monkeypatch):
    rng = np.random.default_rng(10)
    for n, k in [(1, 1), (16, 32), (17, 33), (40, 100), (5, 64)]:
        words, _ = random_words(rng, n, k)
        ternary = pack_ternary(rng.integers(-1, 2, (n, k), dtype=np.int8))
        by_c = prepack(words, k).lanes, prepack_ternary(ternary, k).lanes
        with monkeypatch.context() as patch:
            patch.setattr(_native, "lib", None)
            patch.setenv("ONEBIT_KERNEL", "numpy")
            by_numpy = prepack(words, k).lanes, prepack_ternary(ternary, k).lanes
        np.testing.assert_array_equal(by_c[0], by_numpy[0])
        np.testing.assert_array_equal(by_c[1], by_numpy[1])


def test_the_layout_is_sixteen_outputs_side_by_side():
    words, _ = random_words(np.random.default_rng(11), 20, 64)
    lanes = prepack(words, 64).lanes
    assert lanes.shape == (2, 2, 16)
    assert lanes[1, 0, 3] == words[19, 0] & np.uint64(0xFFFFFFFF)
    assert lanes[0, 1, 15] == words[15, 0] >> np.uint64(32)
    assert (lanes[1, :, 4:] == 0).all()
    assert lanes.ctypes.data % 64 == 0
    assert not lanes.flags.writeable


# ---- threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_integers(path, threads, monkeypatch):
    monkeypatch.setattr(kernels, "WORK_FOR_A_THREAD", 1)
    rng = np.random.default_rng(12)
    for m, n, k in [(1, 200, 70), (70, 3, 129), (300, 100, 65)]:
        a, b, expected = random_product(rng, m, n, k)
        np.testing.assert_array_equal(xnor_gemm(a, b, k, threads=threads), expected)
        bits = xnor_gemm_bits(a, b, k, np.ones(n, np.int32), threads=threads)
        np.testing.assert_array_equal(bits, pack_bits(expected >= 1))
        x, w, expected = random_ternary(rng, m, n, k)
        got = ternary_gemm(x, pack_ternary(w), threads=threads)
        np.testing.assert_array_equal(got, expected)


def test_concurrent_calls_from_python_threads_agree(monkeypatch):
    monkeypatch.setattr(kernels, "WORK_FOR_A_THREAD", 1)
    a, b, expected = random_product(np.random.default_rng(13), 40, 90, 500)
    packed = prepack(b, 500)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: xnor_gemm(a, packed, 500, threads=3), range(300)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_the_thread_pool_survives_a_fork(monkeypatch):
    monkeypatch.setattr(kernels, "WORK_FOR_A_THREAD", 1)
    a, b, expected = random_product(np.random.default_rng(14), 64, 64, 512)
    for _ in range(20):
        assert (xnor_gemm(a, b, 512, threads=3) == expected).all()
        child = os.fork()
        if child == 0:
            os._exit(0 if (xnor_gemm(a, b, 512, threads=3) == expected).all() else 1)
        assert (xnor_gemm(a, b, 512, threads=3) == expected).all()
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_has_large_weights_of_its_own():
    lanes = _operands.empty_weights((4096, 128), np.uint32)
    lanes[:] = 0
    child = os.fork()
    if child == 0:
        lanes[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not lanes.any()


def test_threads_follow_the_work_the_environment_and_torch(monkeypatch):
    monkeypatch.delenv("ONEBIT_NUM_THREADS", raising=False)
    plenty = 100 * kernels.WORK_FOR_A_THREAD
    assert kernels._thread_limit(8, kernels.WORK_FOR_A_THREAD) == 1
    assert kernels._thread_limit(8, 3 * kernels.WORK_FOR_A_THREAD) == 3
    assert kernels._thread_limit(8, plenty) == 8
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert kernels._thread_limit(None, plenty) == 1
    monkeypatch.setenv("ONEBIT_NUM_THREADS", "5")
    assert kernels._thread_limit(None, plenty) == 5
    monkeypatch.setenv("ONEBIT_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="ONEBIT_NUM_THREADS must be a whole number from 1"):
        kernels._thread_limit(None, plenty)


# ---- choosing a path -------------------------------------------------------------------------


def test_the_fastest_path_is_the_default_and_numpy_always_there(monkeypatch):
    monkeypatch.delenv("ONEBIT_KERNEL", raising=False)
    assert kernel_name() == PATHS[0]
    assert PATHS[-1] == "numpy"
    assert set(PATHS) <= {"avx512-vpopcntdq", "avx2", "popcnt", "neon", "scalar", "numpy"}
    assert kernel_report().startswith(kernel_name())


def test_a_forced_path_is_used_and_a_missing_one_raises_with_the_list(path, monkeypatch):
    assert kernel_name() == path
    monkeypatch.setenv("ONEBIT_KERNEL", "abacus")
    with pytest.raises(ValueError, match=f"'abacus' is not available.*{', '.join(PATHS)}"):
        kernel_name()
    with pytest.raises(ValueError, match="'abacus' is not available"):
        xnor_gemm(np.zeros((1, 1), np.uint64), np.zeros((1, 1), np.uint64), 1)


def load_without_the_extension(monkeypatch):
    """Execute _native.py anew where the compiled module cannot be imported."""
    monkeypatch.setitem(sys.modules, "onebit._xnor_popcount", None)
    monkeypatch.delattr(onebit, "_xnor_popcount", raising=False)
    spec = importlib.util.spec_from_file_location("native_without_kernel", _native.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_extension_numpy_serves_and_the_report_tells_the_cure(monkeypatch):
    monkeypatch.delenv("ONEBIT_REQUIRE_KERNEL", raising=False)
    monkeypatch.delenv("ONEBIT_KERNEL", raising=False)
    native = load_without_the_extension(monkeypatch)
    assert native.kernel_name() == "numpy"
    assert native.available_kernels() == ["numpy"]
    assert "the C kernel is not built" in native.kernel_report()
    assert "install a C compiler and Python's headers" in native.kernel_report()
    for name in ["lib", "ffi", "_PATHS"]:
        monkeypatch.setattr(_native, name, getattr(native, name))
    rng = np.random.default_rng(15)
    a, b, expected = random_product(rng, 5, 20, 100)
    np.testing.assert_array_equal(xnor_gemm(a, prepack(b, 100), 100), expected)
    x, w, expected = random_ternary(rng, 5, 20, 100)
    np.testing.assert_array_equal(ternary_gemm(x, pack_ternary(w)), expected)


def test_a_required_kernel_that_is_missing_fails_at_import(monkeypatch):
    monkeypatch.setenv("ONEBIT_REQUIRE_KERNEL", "1")
    with pytest.raises(ImportError, match="ONEBIT_REQUIRE_KERNEL=1, but onebit's C kernel cannot"):
        load_without_the_extension(monkeypatch)


# ---- bad input -------------------------------------------------------------------------------

A = np.zeros((2, 2), np.uint64)
B = np.zeros((3, 2), np.uint64)
T = np.zeros(3, np.int32)
X = np.zeros((2, 40), np.int8)
W = np.zeros((3, 2), np.uint64)


READ_ONLY = np.zeros((2, 3), np.int32)
READ_ONLY.flags.writeable = False

BAD_CALLS = {
    "a as floats": (
        lambda: xnor_gemm(A.astype(np.float32), B, 100),
        TypeError,
        r"a_bits must hold packed words, dtype uint64, got float32; make them with",
    ),
    "a as NumPy int64": (
        lambda: xnor_gemm(A.view(np.int64), B, 100),
        TypeError,
        r"a_bits must hold packed words, dtype uint64, got int64",
    ),
    "a as float tensor": (
        lambda: xnor_gemm(torch.zeros(2, 2), torch.zeros(3, 2), 100),
        TypeError,
        r"a_bits must hold packed words, dtype torch.int64, got torch.float32",
    ),
    "a as a list": (
        lambda: xnor_gemm([[1, 2]], B, 100),
        TypeError,
        r"a_bits must be a NumPy array or a CPU torch.Tensor, got list",
    ),
    "a as a layer": (
        lambda: xnor_gemm(torch.nn.Linear(2, 2), B, 100),
        TypeError,
        r"a_bits must be a NumPy array or a CPU torch.Tensor, got Linear",
    ),
    "a with one dimension": (
        lambda: xnor_gemm(A[0], B, 100),
        ValueError,
        r"a_bits has shape \(2,\); k = 100 needs \(rows, 2\)",
    ),
    "a with three dimensions": (
        lambda: xnor_gemm(A[None], B, 100),
        ValueError,
        r"a_bits has shape \(1, 2, 2\); k = 100 needs \(rows, 2\)",
    ),
    "k that needs more words": (
        lambda: xnor_gemm(A, B, 129),
        ValueError,
        r"a_bits has shape \(2, 2\); k = 129 needs \(rows, 3\)",
    ),
    "k that needs fewer words": (
        lambda: xnor_gemm(A, B, 64),
        ValueError,
        r"a_bits has shape \(2, 2\); k = 64 needs \(rows, 1\)",
    ),
    "b with other words": (
        lambda: xnor_gemm(A, B[:, :1], 100),
        ValueError,
        r"b has shape \(3, 1\); k = 100 needs \(rows, 2\)",
    ),
    "k = 0": (
        lambda: xnor_gemm(A[:, :0], B[:, :0], 0),
        ValueError,
        r"k must lie between 1 and 2147483647, got 0",
    ),
    "negative k": (
        lambda: prepack(B, -1),
        ValueError,
        r"k must lie between 1 and 2147483647, got -1",
    ),
    "k too large": (
        lambda: prepack(B, 2**31),
        ValueError,
        r"k must lie between 1 and 2147483647, got 2147483648",
    ),
    "k as a float": (
        lambda: xnor_gemm(A, B, 100.0),
        TypeError,
        r"k must be a whole number, got 100.0",
    ),
    "k as a bool": (
        lambda: xnor_gemm(A, B, True),
        TypeError,
        r"k must be a whole number, got True",
    ),
    "b of another kind": (
        lambda: xnor_gemm(A, torch.zeros(3, 2, dtype=torch.int64), 100),
        TypeError,
        r"a_bits is a ndarray but b a Tensor; pass both as NumPy arrays or",
    ),
    "b prepacked for another k": (
        lambda: xnor_gemm(A, prepack(B, 99), 100),
        ValueError,
        r"b was prepacked for k = 99, but k = 100 is given; pass k = 99",
    ),
    "a tensor on no CPU": (
        lambda: xnor_gemm(torch.zeros(2, 2, dtype=torch.int64, device="meta"), B, 100),
        ValueError,
        r"a_bits is on device 'meta'; the kernels run on the CPU: pass a_bits.cpu\(\)",
    ),
    "a sparse tensor": (
        lambda: xnor_gemm(torch.zeros(2, 2, dtype=torch.int64).to_sparse(), B, 100),
        TypeError,
        r"a_bits has layout torch.sparse_coo; pass a_bits.to_dense\(\)",
    ),
    "out of another shape": (
        lambda: xnor_gemm(A, B, 100, out=np.zeros((3, 2), np.int32)),
        ValueError,
        r"out has shape \(3, 2\), wanted \(2, 3\)",
    ),
    "out of another dtype": (
        lambda: xnor_gemm(A, B, 100, out=np.zeros((2, 3), np.int64)),
        TypeError,
        r"out must have dtype int32, got int64",
    ),
    "out of another kind": (
        lambda: xnor_gemm(A, B, 100, out=torch.zeros(2, 3, dtype=torch.int32)),
        TypeError,
        r"out is a Tensor but the operands are of kind ndarray",
    ),
    "out read-only": (lambda: xnor_gemm(A, B, 100, out=READ_ONLY), ValueError, r"out is read-only"),
    "out transposed": (
        lambda: xnor_gemm(A, B, 100, out=np.zeros((3, 2), np.int32).T),
        ValueError,
        r"out has strides \(4, 8\) in bytes at address \d+; its rows",
    ),
    "out in reverse": (
        lambda: xnor_gemm(A, B, 100, out=np.zeros((2, 3), np.int32)[::-1]),
        ValueError,
        r"out has strides",
    ),
    "out over an operand": (
        lambda: xnor_gemm(A[:, :1], B[:1, :1], 64, out=A.view(np.int32)[:, :1]),
        ValueError,
        r"out shares memory with an operand",
    ),
    "no threads": (
        lambda: xnor_gemm(A, B, 100, threads=0),
        ValueError,
        r"threads must lie between 1 and",
    ),
    "threads as a float": (
        lambda: xnor_gemm(A, B, 100, threads=1.5),
        TypeError,
        r"threads must be a whole number, got 1.5",
    ),
    "thresholds of another dtype": (
        lambda: xnor_gemm_bits(A, B, 100, T.astype(np.float32)),
        TypeError,
        r"thresholds must have dtype int32, got float32; convert it explicitly",
    ),
    "thresholds of another length": (
        lambda: xnor_gemm_bits(A, B, 100, T[:2]),
        ValueError,
        r"thresholds has shape \(2,\), wanted \(3,\)",
    ),
    "thresholds of another kind": (
        lambda: xnor_gemm_bits(A, B, 100, torch.zeros(3, dtype=torch.int32)),
        TypeError,
        r"a_bits is a ndarray but thresholds a Tensor",
    ),
    "flip as integers": (
        lambda: xnor_gemm_bits(A, B, 100, T, flip=T),
        TypeError,
        r"flip must have dtype bool, got int32",
    ),
    "flip of another length": (
        lambda: xnor_gemm_bits(A, B, 100, T, flip=np.zeros(4, bool)),
        ValueError,
        r"flip has shape \(4,\), wanted \(3,\)",
    ),
    "bits out of another shape": (
        lambda: xnor_gemm_bits(A, B, 100, T, out=np.zeros((2, 2), np.uint64)),
        ValueError,
        r"out has shape \(2, 2\), wanted \(2, 1\)",
    ),
    "activations as floats": (
        lambda: ternary_gemm(X.astype(np.float32), W),
        TypeError,
        r"x_int8 must have dtype int8, got float32",
    ),
    "activations with one dimension": (
        lambda: ternary_gemm(X[0], W),
        ValueError,
        r"x_int8 has shape \(40,\), wanted \(any, any\)",
    ),
    "activations with no columns": (
        lambda: ternary_gemm(X[:, :0], W[:, :0]),
        ValueError,
        r"the second dimension of x_int8 must lie between 1 and 16777215, got 0",
    ),
    "ternary words for another k": (
        lambda: ternary_gemm(X, W[:, :1]),
        ValueError,
        r"w has shape \(3, 1\); k = 40 needs \(n, 2\), 32 codes to a word",
    ),
    "ternary words as floats": (
        lambda: ternary_gemm(X, W.astype(float)),
        TypeError,
        r"w must hold packed words, dtype uint64, got float64",
    ),
    "ternary words of another kind": (
        lambda: ternary_gemm(torch.from_numpy(X), W),
        TypeError,
        r"x_int8 is a Tensor but w a ndarray",
    ),
    "ternary weights prepacked for another k": (
        lambda: ternary_gemm(X, prepack_ternary(W, 41)),
        ValueError,
        r"w was prepacked for k = 41, but x_int8 has 40 columns",
    ),
    "a damaged ternary word": (
        lambda: prepack_ternary(W + np.uint64(2), 40),
        ValueError,
        r"w holds the two-bit code 10",
    ),
    "a one-bit matrix for a ternary one": (
        lambda: ternary_gemm(X, prepack(B, 100)),
        TypeError,
        r"w must be a NumPy array or a CPU torch.Tensor, got PackedMatrix",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_refused_by_name(path, name):
    call, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        call()


def test_absurd_sizes_raise_instead_of_crashing():
    one_row = np.zeros((1, 2**15), np.uint64)
    endless = np.lib.stride_tricks.as_strided(one_row, (2**31, 2**15), (0, 8))
    with pytest.raises((MemoryError, ValueError)):
        xnor_gemm(endless, endless, 2**21)


def sparse_rows(folder, dtype, columns, stride):
    """Return three rows more than 2³¹ elements apart, in a file of which little exists."""
    file = np.memmap(folder / dtype.__name__, dtype, "w+", shape=(2 * stride + columns,))
    itemsize = np.dtype(dtype).itemsize
    return np.lib.stride_tricks.as_strided(file, (3, columns), (stride * itemsize, itemsize))


def test_rows_may_lie_more_than_two_thousand_million_elements_apart(path, tmp_path):
    a, b, expected = random_product(np.random.default_rng(5), 3, 20, 100)
    try:
        far = sparse_rows(tmp_path, np.uint64, 2, 2**31 + 1)
        out = sparse_rows(tmp_path, np.int32, 20, 2**31 + 1)
    except OSError as error:
        pytest.skip(f"no sparse files of this size here: {error}")
    far[:] = a
    np.testing.assert_array_equal(xnor_gemm(far, prepack(b, 100), 100, out=out), expected)
    np.testing.assert_array_equal(out, expected)


def test_a_call_may_ask_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(kernels, "WORK_FOR_A_THREAD", 1)
    a, b, expected = random_product(np.random.default_rng(6), 40, 90, 500)
    product = xnor_gemm(a, prepack(b, 500), 500, threads=kernels.MOST_BITS)
    np.testing.assert_array_equal(product, expected)


@pytest.mark.parametrize("pages", ["large", "none to be had"])
def test_large_weights_are_the_same_in_large_pages_and_in_small(pages, monkeypatch):
    k, n = 2**18, 80  # 2.5 MiB
    if pages == "none to be had":

        def refuse(*_):
            raise OSError("no memory")

        monkeypatch.setattr(_operands.mmap, "mmap", refuse)
    words = np.random.default_rng(7).integers(0, 2**64, (n, k // 64), dtype=np.uint64)
    packed = prepack(words, k)
    if pages == "large" and _native.lib is not None and hasattr(mmap, "MADV_HUGEPAGE"):
        assert packed.lanes.ctypes.data % 2**21 == 0
    assert packed.lanes.ctypes.data % 64 == 0
    np.testing.assert_array_equal(packed.to_words(), words)


def test_without_memory_for_the_layout_prepack_raises_memory_error():
    one_row = np.zeros((1, 64), np.uint64)
    many = np.lib.stride_tricks.as_strided(one_row, (2**50, 64), (0, 8))
    with pytest.raises(MemoryError):
        prepack(many, 4096)


def test_the_package_exports_what_the_design_names():
    for name in ["xnor_gemm", "xnor_gemm_bits", "ternary_gemm", "prepack", "PackedMatrix"]:
        assert getattr(onebit, name) is getattr(kernels, name)
