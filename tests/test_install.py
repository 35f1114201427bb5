"""Wheel and sdist, installed somewhere else, import, pack and multiply, with a compiler or without.

The environments see the packages of this one through a .pth file, so nothing is downloaded.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

USE = """
import numpy as np, onebit
assert {root!r} not in onebit.__file__, onebit.__file__
rng = np.random.default_rng(0)
a, b = rng.choice([-1, 1], (5, 70)), rng.choice([-1, 1], (20, 70))
product = onebit.xnor_gemm(onebit.pack_signs(a), onebit.prepack(onebit.pack_signs(b), 70), 70)
assert (product == a @ b.T).all()
w = rng.integers(-1, 2, (20, 70))
x = rng.integers(-128, 128, (5, 70), dtype=np.int8)
assert (onebit.ternary_gemm(x, onebit.pack_ternary(w)) == x @ w.T).all()
print(onebit.kernel_name())
print(onebit.kernels.kernel_report())
"""


def clean_environment(**changes):
    """Return the environment without what would let this tree or its choices leak in."""
    names = ["PYTHONPATH", "ONEBIT_KERNEL", "ONEBIT_REQUIRE_KERNEL", "CC"]
    return {**{k: v for k, v in os.environ.items() if k not in names}, **changes}


NO_COMPILER = {"CC": "no-such-compiler", "ONEBIT_REQUIRE_KERNEL": "0"}


def run(command, cwd, **changes):
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path):
    """Copy what git would check out, so that no build finds what another one left."""
    copy = tmp_path / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = ("src/", "kernels/", "LICENSE", "README", "THIRD_PARTY", "CITATION", "MANIFEST")
    for name in listed.stdout.split("\0"):
        needed = name.startswith(wanted) or name in (
            "setup.py",
            "pyproject.toml",
            "constraints.txt",
        )
        if needed and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture
def elsewhere(tmp_path):
    """Make an empty environment that sees the packages of this one, but not this tree's onebit."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
                    tmp_path).stdout.strip())  # fmt: skip
    # A path line adds a directory without reading the .pth files in it, where an editable
    # installation of this tree would be found.
    site.joinpath("packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def build(tree, kind, **changes):
    """Build a wheel or an sdist and return its path."""
    target = tree.parent / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "-o", target, tree]
    done = run(command, tree, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = target.iterdir()
    return result, done.stdout + done.stderr


def install(python, package, cwd, **changes):
    command = [
        sys.executable, "-m", "pip", "--python", python, "install", "-v", "--no-deps", "--no-index",
        "--no-build-isolation", "--ignore-installed", package,
    ]  # fmt: skip
    return run(command, cwd, **changes)


def use(python, cwd, **changes):
    done = run([python, "-c", USE.format(root=str(ROOT / "src"))], cwd, **changes)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_wheel_works_elsewhere(tree, elsewhere, tmp_path):
    wheel, _ = build(tree, "wheel", ONEBIT_REQUIRE_KERNEL="1")
    installed = install(elsewhere, wheel, tmp_path)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    name, _ = use(elsewhere, tmp_path)
    assert name != "numpy"
    for path in ["scalar", "numpy"]:
        assert use(elsewhere, tmp_path, ONEBIT_KERNEL=path)[0] == path


def test_an_sdist_builds_the_kernel_elsewhere(tree, elsewhere, tmp_path):
    sdist, _ = build(tree, "sdist")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "kernels/xnor_popcount.c",
        "kernels/xnor_popcount.h",
        "kernels/build_kernels.py",
    } <= names
    assert not any(name.endswith((".so", ".o", ".pyc")) for name in names)
    installed = install(elsewhere, sdist, tmp_path, ONEBIT_REQUIRE_KERNEL="1")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert use(elsewhere, tmp_path, ONEBIT_REQUIRE_KERNEL="1")[0] != "numpy"


def test_without_a_compiler_the_package_installs_with_numpy_and_says_so(tree, elsewhere, tmp_path):
    wheel, log = build(tree, "wheel", **NO_COMPILER)
    assert log.count("warning: onebit's C kernel did not build") == 1
    assert install(elsewhere, wheel, tmp_path).returncode == 0
    name, report = use(elsewhere, tmp_path)
    assert name == "numpy"
    assert "the C kernel is not built" in report and "install a C compiler" in report
    required = run([elsewhere, "-c", "import onebit"], tmp_path, ONEBIT_REQUIRE_KERNEL="1")
    assert required.returncode != 0
    assert "ONEBIT_REQUIRE_KERNEL=1, but onebit's C kernel cannot be imported" in required.stderr


def test_without_a_compiler_a_required_kernel_fails_the_installation(tree, elsewhere, tmp_path):
    installed = install(elsewhere, tree, tmp_path, **{**NO_COMPILER, "ONEBIT_REQUIRE_KERNEL": "1"})
    assert installed.returncode != 0
    text = installed.stdout + installed.stderr
    assert "the C kernel did not build, and ONEBIT_REQUIRE_KERNEL=1 asks for it" in text
