"""The C kernels, without Python, under sanitizers that see every stray read, overflow and race."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "kernels"
COMPILER = shutil.which(os.environ.get("CC", "cc").split()[0])
REQUIRED = os.environ.get("ONEBIT_REQUIRE_KERNEL") == "1"

pytestmark = pytest.mark.slow


def build(program, sources, *options, compiler=COMPILER):
    command = [compiler, "-std=c11", "-g", *options, "-pthread", "-o", program, *sources]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def missing(reason):
    """Skip, unless the kernel is required: then what would prove it must be there too."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_self_test_runs_clean_under_sanitizers(sanitizers, tmp_path):
    if COMPILER is None:
        missing("no C compiler")
    options = ["-O1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    probe = tmp_path / "probe"
    if (
        build(probe, [empty], *options).returncode
        or subprocess.run([probe], check=False).returncode
    ):
        # ThreadSanitizer of older compilers cannot run on kernels with a larger address space.
        (pytest.skip if sanitizers == "thread" else missing)(f"no {sanitizers} sanitizer here")
    program = tmp_path / "selftest"
    built = build(program, sorted(KERNELS.glob("*.c")), "-Wall", "-Wextra", "-Werror", *options)
    assert built.returncode == 0, built.stderr
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("scalar: 120 random shapes agree\n")


def test_the_neon_path_agrees_under_an_emulator(tmp_path):
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64")
    program = tmp_path / "selftest"
    sources = sorted(KERNELS.glob("*.c"))
    built = build(
        program, sources, "-O3", "-static", "-Wall", "-Wextra", "-Werror", compiler=compiler
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([emulator, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "neon: 120 random shapes agree"
