"""What a chapter prints does not depend on instruction set, library path, threads or kernel."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import onebit

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))

# The plain run of nbval has the machine's own instruction set, kernel and number of threads.
# This is its opposite in everything.
SWITCHES = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "ONEBIT_KERNEL": "scalar" if "scalar" in onebit.available_kernels() else "numpy",
}


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | SWITCHES,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_switches_take_effect():
    told = run(
        "-c",
        "import torch, onebit; print(torch.backends.cpu.get_cpu_capability(), "
        "torch.get_num_threads(), onebit.kernel_name())",
    ).stdout.split()
    assert told == ["DEFAULT", "1", SWITCHES["ONEBIT_KERNEL"]]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[Path, Future]]:
    """Start all chapters, a core each, since each is held to one thread."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        options = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--nbval")
        yield {path: pool.submit(run, *options, str(path)) for path in CHAPTERS}


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_prints_the_same_on_another_machine(path, runs):
    result = runs[path].result()
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
