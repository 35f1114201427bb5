"""The benchmark compares only what is right, names who is missing, and refuses a loaded machine."""

import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import onebit
from onebit import _native, bench
from onebit.__main__ import main
from onebit.bench import cases, contest, limits, machine, operands
from onebit.bench.avx2 import AVX2
from onebit.bench.binary import BINARY, this_kernel_cold
from onebit.bench.ternary import TERNARY, this_ternary_kernel_cold
from onebit.bench.turns import QUICK

ROOT = Path(__file__).parents[1]
PEER_NAMES = {"faiss": "faiss", "numkong": "numkong", "simsimd": "simsimd",
              "openvino": "openvino", "bnn-lab": "bnn", "onnxruntime": "onnxruntime"}  # fmt: skip

needs_c = pytest.mark.skipif(_native.lib is None, reason="the C kernel is not built")
in_a_clone = pytest.mark.skipif(
    not (ROOT / "kernels" / "ceilings.c").is_file(), reason="onebit is not installed from a clone"
)


def fake(name="peer", wrong=0, ceiling=""):
    """A maker of a contestant that knows the product already."""

    def make(o, threads):
        return contest.Contestant(
            name, [lambda: None], lambda: o.product + wrong, ceiling, o.work if ceiling else 1
        )

    return make


def case(makers, shape=(4, 8, 64), threads=1, path=None):
    return cases.Case("test", shape, threads, makers, path or onebit.kernel_name(), 2048)


def measured(makers, effort=QUICK, **choices):
    chosen = case(makers, **choices)
    o = operands.draw(chosen.shape)
    return cases.measure(chosen, o, o.product, effort)


# ---- who may compete ---------------------------------------------------------------------------


def test_a_contestant_with_a_wrong_result_is_a_gap_and_has_no_time():
    records, gaps = measured({"right": fake("right"), "wrong": fake("wrong", wrong=1)})
    assert [r["name"] for r in records] == ["right"]
    assert [(g["name"], g["reason"]) for g in gaps] == [
        ("wrong", "its result is wrong, so its time says nothing")
    ]
    assert gaps[0]["case"] == "test 4×8×64, threads 1"


def test_a_peer_that_is_not_installed_is_a_gap_that_names_it():
    def absent(o, threads):
        raise ModuleNotFoundError("No module named 'absent'")

    _, gaps = measured({"absent": absent})
    assert gaps[0]["name"] == "absent"
    assert gaps[0]["reason"] == "not installed (No module named 'absent')"


def test_a_peer_that_fails_is_a_gap_that_tells_its_error():
    def failing(o, threads):
        raise RuntimeError("no such shape\nsecond line")

    _, gaps = measured({"failing": failing})
    assert gaps[0]["reason"] == "RuntimeError: no such shape"


BINARY_MAKERS = {**BINARY, "onebit, cold": this_kernel_cold}
TERNARY_MAKERS = {**TERNARY, "onebit, cold": this_ternary_kernel_cold}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 64, 128), (37, 96, 256)], ids=str)
@pytest.mark.parametrize("name", BINARY_MAKERS)
def test_every_binary_contestant_here_computes_the_product(name, shape, threads):
    if name in PEER_NAMES:
        pytest.importorskip(PEER_NAMES[name])
    if "cold" in name and shape[0] > 1:
        pytest.skip("only a single row reads weights from memory")
    o = operands.draw(shape)
    ready, gaps = cases.prepare({name: BINARY_MAKERS[name]}, o, o.product, threads)
    assert gaps == {}
    # Who would run as halves is there on one thread too.
    assert [len(c.parts) for c in ready] in ([1], [threads, 1])


@needs_c
@pytest.mark.skipif("avx2" not in onebit.available_kernels(), reason="no AVX2 here")
@pytest.mark.parametrize("name", AVX2)
def test_a_contestant_held_to_avx2_computes_the_product_and_leaves_no_switch_set(name):
    if name in PEER_NAMES:
        pytest.importorskip(PEER_NAMES[name])
    before = dict(os.environ)
    capabilities = []
    for library in ("numkong", "simsimd"):
        if name == library:
            capabilities.append(pytest.importorskip(library).get_capabilities)
    known = [read() for read in capabilities]
    o = operands.draw((37, 96, 256))
    ready, gaps = cases.prepare({name: AVX2[name]}, o, o.product, 2)
    assert gaps == {}
    with ready[0].mode():
        assert name != "onebit" or onebit.kernel_name() == "avx2"
        for read in capabilities:
            on = {feature for feature, usable in read().items() if usable}
            assert on == {"serial", "haswell"}
    assert dict(os.environ) == before
    assert [read() for read in capabilities] == known


@pytest.mark.parametrize("shape", [(1, 64, 256), (37, 96, 256)], ids=str)
@pytest.mark.parametrize("name", TERNARY_MAKERS)
def test_every_ternary_contestant_here_computes_the_product(name, shape):
    if name in PEER_NAMES:
        pytest.importorskip(PEER_NAMES[name])
    o = operands.draw(shape, ternary=True)
    assert set(np.unique(o.b)) == {-1, 0, 1} and np.abs(o.a.astype(int)).max() == 127
    wanted = o.a.astype(np.int64) @ o.b.T.astype(np.int64)
    assert np.array_equal(o.product, wanted)
    _, gaps = cases.prepare({name: TERNARY_MAKERS[name]}, o, wanted, 2)
    assert gaps == {}


def test_torch_has_its_threads_back_afterwards():
    before = torch.get_num_threads()
    contestant = BINARY["torch float32"](operands.draw((4, 8, 64)), before + 1)
    with contestant.mode():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("m, n", [(1, 7), (2, 7), (11, 3)])
def test_threads_share_the_product_without_gap_or_overlap(m, n, threads):
    o = operands.draw((m, n, 64))
    seen = np.zeros((m, n), int)
    pieces = operands.halves(o, threads)
    for rows, outputs in pieces:
        seen[rows, outputs] += 1
    assert len(pieces) == threads
    assert (seen == 1).all()


# ---- turns -------------------------------------------------------------------------------------


def test_everybody_has_a_turn_in_every_round_and_who_is_slow_in_three():
    effort = bench.Effort(turn=1e-4, rounds=7)
    records, _ = measured({"a": fake("a"), "b": fake("b")}, effort)
    assert [len(r["turns"]) for r in records] == [7, 7]
    slow = bench.Effort(turn=1e-4, rounds=7, slow=0.0)
    records, _ = measured({"a": fake("a")}, slow)
    assert len(records[0]["turns"]) == 3


def test_the_time_of_a_case_is_the_median_of_its_turns():
    records, _ = measured({"a": fake("a")}, bench.Effort(turn=1e-4, rounds=5))
    assert records[0]["seconds"] == sorted(records[0]["turns"])[2]


def test_a_library_with_a_clock_of_its_own_is_timed_by_it():
    def make(o, threads):
        return contest.Contestant(
            "clock", [lambda: None], lambda: o.product, "", 1, seconds=lambda: 0.25
        )

    records, _ = measured({"clock": make})
    assert records[0]["seconds"] == 0.25


def test_only_this_kernel_is_set_against_the_fastest_peer():
    def make(name, seconds):
        def maker(o, threads):
            return contest.Contestant(
                name, [lambda: None], lambda: o.product, "", 1, seconds=lambda: seconds
            )

        return maker

    times = {"onebit": 0.25, "onebit, cold": 0.125, "slow peer": 1.0, "fast peer": 0.5}
    records, _ = measured({name: make(name, t) for name, t in times.items()})
    over = {r["name"]: (r["over_fastest_peer"], r["fastest_peer"]) for r in records}
    assert over.pop("onebit") == (2.0, "fast peer")
    assert set(over.values()) == {(None, None)}


def test_on_several_threads_the_quicker_of_halves_and_one_thread_counts():
    def make(alone, together):
        def maker(o, threads):
            seconds = alone if threads == 1 else together
            parts = [lambda: None] * threads
            return contest.Contestant(
                "peer", parts, lambda: o.product, "", 1, seconds=lambda: seconds
            )

        return maker

    for alone, together in [(1.0, 0.5), (0.5, 1.0)]:
        records, _ = measured({"peer": make(alone, together)}, threads=2)
        assert [r["seconds"] for r in records] == [0.5]
        assert records[0]["quicker_on_one_thread"] is (alone < together)


# ---- threads that call together ----------------------------------------------------------------


def test_a_call_in_several_threads_ends_when_the_last_of_them_has_ended():
    ended = []

    def slow():
        time.sleep(0.01)
        ended.append(1)

    with contest.Team(3) as team:
        for calls in range(1, 4):
            team.together([lambda: None, slow, slow])
            assert len(ended) == 2 * calls


def test_parts_of_a_call_run_at_the_same_time():
    meeting = threading.Barrier(2)
    with contest.Team(2) as team:
        for _ in range(3):
            team.together([lambda: meeting.wait(5), lambda: meeting.wait(5)])


@pytest.mark.parametrize("where", [0, 1])
def test_an_error_in_a_part_is_raised_once_all_have_ended(where):
    ended = []

    def fail():
        raise RuntimeError("no product")

    parts = [lambda: ended.append(1), lambda: ended.append(1)]
    parts[where] = fail
    with contest.Team(2) as team:
        with pytest.raises(RuntimeError, match="no product"):
            team.together(parts)
        assert ended == [1]
        team.together([lambda: None, lambda: None])  # and none is left over


def test_loops_that_measure_the_machine_meet_once_a_turn():
    done = []
    loop = contest.Contestant(
        "loop", [lambda: done.append(0), lambda: done.append(1)], lambda: None, "", 1, meets=False
    )
    with contest.Team(2) as team:
        loop.time(5, team)
    assert sorted(done) == [0] * 5 + [1] * 5


# ---- the machine -------------------------------------------------------------------------------


@needs_c
@in_a_clone
@pytest.mark.parametrize("path", [name for name in onebit.available_kernels() if name != "numpy"])
@pytest.mark.parametrize("kind", limits.CEILINGS)
def test_a_ceiling_does_work_in_proportion_to_its_rounds_or_says_that_it_has_none(kind, path):
    number = limits.CEILINGS.index(kind)
    run = functools.partial(limits.loops().onebit_ceiling, number, _native._PATHS[path])
    once = run(10)
    assert run(30) == 3 * once
    if kind == "xnor":
        assert once > 0
    if once == 0:
        with pytest.raises(contest.GapError, match=path):
            limits.loop(kind, path)


@needs_c
@in_a_clone
def test_the_loops_compile_without_a_warning(tmp_path):
    source = ROOT / "kernels" / "ceilings.c"
    command = ["cc", "-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-c", str(source)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "ceilings.o")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_the_sources_ceilings_are_gaps_and_the_products_are_still_timed(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(limits, "KERNELS", tmp_path)
    limits.loops.cache_clear()
    records, gaps = measured({"peer": fake(ceiling="xnor")})
    limits.loops.cache_clear()
    assert records[0]["share_of_ceiling"] is None
    assert gaps[0]["name"] == "ceiling xnor" and "clone" in gaps[0]["reason"]


def test_without_the_c_kernel_ceilings_are_gaps_too(monkeypatch):
    monkeypatch.setattr(_native, "lib", None)
    monkeypatch.setattr(_native, "_PATHS", {"numpy": _native.NUMPY})
    limits.loops.cache_clear()
    records, gaps = measured({"peer": fake(ceiling="read 4096")}, path="numpy")
    assert records[0]["share_of_ceiling"] is None
    assert gaps[0]["name"] == "ceiling read 4096"
    assert limits.ceilings_alone(QUICK)["1"] == {}


@needs_c
@in_a_clone
def test_a_share_is_the_rate_over_that_of_the_ceiling():
    records, gaps = measured({"peer": fake(ceiling="xnor")})
    (r,) = records
    assert gaps == []
    work = np.prod(r["shape"])
    assert r["share_of_ceiling"] == pytest.approx(work / r["seconds"] / r["ceiling_rate"])


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_a_busy_process_elsewhere_is_seen():
    load = machine.OtherLoad()
    stop = "import time\nend = time.time() + 1\nwhile time.time() < end: pass"
    subprocess.run([sys.executable, "-c", stop], check=True)
    assert load.cores() > machine.OTHERS_LIMIT


def test_a_loaded_machine_is_refused_with_the_cure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine.OtherLoad, "cores", lambda self: 0.7)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    file = tmp_path / "bench.json"
    assert main(["bench", "--quick", "--json", str(file)]) == 1
    told = capsys.readouterr().err
    assert (
        "0.70 cores" in told and f"{machine.OTHERS_LIMIT:g}" in told and "--even-if-loaded" in told
    )
    assert not file.exists()


# ---- the whole ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One quick run, as typed, where no policy for waiting threads is set."""
    folder = tmp_path_factory.mktemp("bench")
    options = ["--quick", "--even-if-loaded", "--json", "bench.json", "--svg", "roofline.svg"]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-m", "onebit", "bench", *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    return done.stdout, written, (folder / "roofline.svg")


@pytest.mark.slow
def test_a_quick_run_measures_or_misses_everybody_it_names(report):
    printed, written, _ = report
    seen = {(r["case"], tuple(r["shape"]), r["threads"]) for r in written["results"]}
    products = list(cases.cases(quick=True))
    assert {(c.title, c.shape, c.threads) for c in products} <= seen
    assert {"packing float32", "MLP 784–3×1024–10, batch"} <= {title for title, _, _ in seen}
    for c in products:
        timed = {
            r["name"]
            for r in written["results"]
            if (r["case"], tuple(r["shape"]), r["threads"]) == (c.title, c.shape, c.threads)
        }
        missed = {g["name"] for g in written["gaps"]
                  if g["case"] == str(c) and not g["name"].startswith("ceiling")}  # fmt: skip
        assert timed | missed == set(c.makers) and not timed & missed
        assert "onebit" in timed
    assert not any(gap["reason"].startswith("its result is wrong") for gap in written["gaps"])
    for gap in written["gaps"]:
        assert f"{gap['name']}: {gap['reason']}" in printed
    for r in written["results"]:
        assert r["seconds"] > 0 and r["name"] in printed


@pytest.mark.slow
def test_a_quick_run_tells_machine_load_and_that_it_was_quick(report):
    printed, written, _ = report
    assert written["quick"] is True
    assert written["load"]["even_if_loaded"] is True
    assert written["load"]["limit"] == machine.OTHERS_LIMIT
    assert written["machine"]["omp_wait_policy"] == "PASSIVE"
    assert written["machine"]["kernel"] == onebit.kernel_name()
    assert written["handing_over_seconds"] > 0
    assert f"others used {written['load']['other_cores_during']:.2f} cores" in printed
    assert str(ROOT) not in json.dumps(written)


@pytest.mark.slow
@needs_c
@in_a_clone
def test_the_roofline_is_an_svg_that_says_what_it_shows(report):
    _, written, file = report
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    assert root.get("role") == "img"
    title = root.find("{http://www.w3.org/2000/svg}title").text
    best = max(r["giga_macs_a_second"] for r in written["results"]
               if (r["case"], r["threads"], r["name"]) == ("binary", 1, "onebit"))  # fmt: skip
    assert f"onebit {best:.0f}" in title


def test_a_roofline_without_ceilings_is_refused():
    with pytest.raises(ValueError, match="no ceilings"):
        bench.roofline({"ceilings": {}, "results": []})


# ---- installing the peers ----------------------------------------------------------------------


@in_a_clone
def test_every_peer_has_an_exact_pin():
    pins = {}
    for file in ("constraints.txt", "constraints-bench.txt"):
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                name, version = re.fullmatch(
                    r"([\w.-]+)==([\w.]+)", line.split(";")[0].strip()
                ).groups()
                assert pins.setdefault(name.lower(), version) == version
    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"]["bench"]
    assert {re.match(r"[\w-]+", w).group() for w in wanted} | {"bnn-lab"} <= set(pins)
