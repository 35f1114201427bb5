"""The ladder's rungs are equal bit for bit, and what it times is what it says."""

import os
import platform

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onebit
from onebit import ladder
from onebit.ladder import NoCompilerError, Step

WORDS = "void words(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)"
WORDS_IN_C = f"""#include <stdint.h>
static inline int by_arithmetic(uint64_t x) {{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return x * 0x0101010101010101 >> 56;
}}
{WORDS} {{
    int length = (k + 63) / 64;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {{
            int d = 0;
            for (int w = 0; w < length; w++)
                d += COUNT(a[i * length + w] ^ b[j * length + w]);
            out[i * n + j] = k - 2 * d;
        }}
}}"""


def compiled(*flags):
    try:
        return ladder.compile_c(WORDS_IN_C, WORDS, *flags)
    except NoCompilerError as error:
        if os.environ.get("ONEBIT_REQUIRE_KERNEL") == "1":
            raise
        pytest.skip(str(error))


def signs(rows, k, seed=0):
    return 2 * np.random.default_rng(seed).integers(0, 2, (rows, k), dtype=np.int8) - 1


def other_path():
    """Return a path that is not in use."""
    return next(p for p in [*onebit.available_kernels(), "numpy"] if p != onebit.kernel_name())


# ---- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", onebit.available_kernels())
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 300), st.integers(0, 99))
def test_every_path_gives_the_integers_of_the_product(path, m, n, k, seed):
    a, b = signs(m, k, seed), signs(n, k, seed + 1)
    a_bits, weights = onebit.pack_signs(a), onebit.prepack(onebit.pack_signs(b), k)
    rung = ladder.on_path(path, lambda rows: onebit.xnor_gemm(a_bits[:rows], weights, k))
    assert np.array_equal(rung(m), a.astype(int) @ b.T.astype(int))


@pytest.mark.parametrize("before", [None, "numpy"])
def test_a_path_is_used_within_the_block_and_what_was_chosen_comes_back(before, monkeypatch):
    if before is None:
        monkeypatch.delenv("ONEBIT_KERNEL", raising=False)
    else:
        monkeypatch.setenv("ONEBIT_KERNEL", before)
    outside = onebit.kernel_name()
    for path in onebit.available_kernels():
        with pytest.raises(KeyError), ladder.use_kernel(path):
            assert onebit.kernel_name() == path
            raise KeyError
    assert onebit.kernel_name() == outside
    assert os.environ.get("ONEBIT_KERNEL") == before


def test_a_path_that_the_machine_lacks_is_refused_with_the_list():
    with (
        pytest.raises(ValueError, match=r"'mmx' is no kernel path.*numpy"),
        ladder.use_kernel("mmx"),
    ):
        pass


def test_one_core_holds_torch_to_one_thread_and_gives_them_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), ladder.one_core():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


# ---- C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", ["by_arithmetic", "__builtin_popcountll"])
@pytest.mark.parametrize("with_instruction", [False, True])
def test_compiled_words_give_the_integers_of_the_kernel(counter, with_instruction):
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    words = compiled(f"-DCOUNT={counter}", *["-mpopcnt"] * (with_instruction and x86))
    for m, n, k in ((1, 1, 1), (3, 5, 64), (4, 7, 200)):
        a, b = onebit.pack_signs(signs(m, k)), onebit.pack_signs(signs(n, k, 1))
        out = np.empty((m, n), np.int32)
        words(a, b, m, n, k, out)
        assert np.array_equal(out, onebit.xnor_gemm(a, b, k))


def test_source_that_is_no_c_is_refused_with_the_compilers_words_and_without_its_folder():
    compiled("-DCOUNT=by_arithmetic")  # so that there is a compiler
    with pytest.raises(NoCompilerError, match="did not compile") as caught:
        ladder.compile_c("int f(int x) { return y; }", "int f(int x)")
    assert "y" in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_a_missing_compiler_is_said_in_words(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NoCompilerError, match="no C compiler was found"):
        ladder.compile_c("int f(int x) { return x; }", "int f(int x)")


# ---- the climb -------------------------------------------------------------------------------


def test_the_climb_measures_every_rung_on_rows_that_fit_and_counts_their_multiply_adds():
    a, b = signs(8, 96), signs(5, 96, 1)
    product = a.astype(int) @ b.T.astype(int)
    seen = []

    def rung(rows):
        seen.append(rows)
        return product[:rows]

    steps = ladder.climb({"one": rung, "float": lambda rows: product[:rows] / 1.0}, product, 96,
                         turn=0.001, turns=2)  # fmt: skip
    assert [step.name for step in steps] == ["one", "float"]
    assert set(seen) <= {1, 4, 8}
    for step in steps:
        assert step.rows in {1, 4, 8}
        assert step.macs_a_second == pytest.approx(step.rows * 5 * 96 / step.seconds)


def test_a_slow_rung_gets_one_row():
    product = np.zeros((64, 2), int)

    def slow(rows):
        end = ladder.time.perf_counter() + 0.002 * rows
        while ladder.time.perf_counter() < end:
            pass
        return product[:rows]

    (step,) = ladder.climb({"slow": slow}, product, 1, turn=0.001, turns=1)
    assert step.rows == 1
    assert 0.002 <= step.seconds < 0.2


@pytest.mark.parametrize("fault", [1, np.nan])
def test_a_rung_that_is_wrong_in_one_place_is_not_timed(fault):
    product = np.zeros((4, 3))

    def wrong(rows):
        result = product[:rows].copy()
        result[-1, -1] = fault
        return result

    with pytest.raises(ValueError, match="'wrong' gives another product"):
        ladder.climb({"wrong": wrong}, product, 1, turns=1)


@pytest.mark.parametrize("timer", [ladder.fastest, ladder.fastest_cold])
def test_a_timer_tells_the_fastest_turn(timer):
    waits = iter([0.0, 0.0, 0.1, 0.004, 0.1])

    def call():
        end = ladder.time.perf_counter() + next(waits)
        while ladder.time.perf_counter() < end:
            pass

    if timer is ladder.fastest_cold:
        next(waits), next(waits)  # which a call beforehand takes otherwise
        assert 0.004 <= timer(call, turns=3) < 0.1
    else:
        next(waits)
        assert 0.004 <= timer(call, turn=1e-9, turns=3) < 0.1


# ---- what is shown -----------------------------------------------------------------------------

STEPS = [Step("loop", 1, 1.0, 2e7), Step("words <2>", 9, 1.0, 3e10)]


def test_the_table_compares_with_the_rung_that_is_named():
    assert ladder.table(STEPS, "loop").rows == (
        ("loop", "0.02", "1"),
        ("words <2>", "30", "1 500"),
    )
    assert ladder.table(STEPS, "words <2>").rows[1][2] == "1"
    with pytest.raises(ValueError, match="'stairs' is no rung; choose one of loop, words"):
        ladder.table(STEPS, "stairs")


def test_the_bars_tell_rates_and_ceilings_in_words():
    shown = ladder.draw(STEPS, {"words <2>": 4e10})
    assert "loop 0.02, words <2> 30 of at most 40." in shown.alt
    assert "words &lt;2&gt; 30 of" in shown._repr_html_()


def test_the_roofline_tells_every_rate_and_has_one_name():
    ceilings = {"xnor": 1200.0, "int8": 340.0, "fma": 85.0, "read memory": 12.0}
    rates = {("onebit", 1, 4096, 4096): 90.0, ("torch float32", 256, 4096, 4096): 70.0}
    shown = ladder.roofline(rates, ceilings)
    assert "onebit on 1 row 90, torch float32 on 256 rows 70." in shown.alt
    assert "<title>" not in shown.svg
    with pytest.raises(ValueError, match="no ceilings"):
        ladder.roofline(rates, {})
