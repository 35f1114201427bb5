"""`python -m onebit doctor` finds what is wrong, tells the cure and exits to match."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onebit
from onebit import doctor
from onebit.__main__ import main
from onebit.doctor import Finding, Status

PACKAGE = Path(onebit.__file__).parent


def run_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onebit", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_without_a_command_the_usage_is_shown(capsys):
    assert main([]) == 0
    assert "usage: python -m onebit" in (printed := capsys.readouterr().out)
    assert "doctor" in printed


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["docter"])
    assert stopped.value.code == 2
    assert "docter" in capsys.readouterr().err


@pytest.mark.parametrize("check", [doctor.check_python, doctor.check_torch, doctor.check_parity])
def test_what_every_installation_needs_works_here(check):
    assert check().status is Status.OK


def test_the_kernel_line_names_the_kernel_in_use():
    found = doctor.check_kernel()
    assert onebit.kernel_name() in found.message
    built = onebit.available_kernels() != ["numpy"]
    assert found.status is (Status.OK if built else Status.ABSENT)
    assert built or "compiler" in found.message


def test_an_unknown_kernel_is_a_failure_that_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", "abacus")
    found = doctor.check_kernel()
    assert found.status is Status.FAIL
    assert "abacus" in found.message and "numpy" in found.message


def test_parity_tries_every_kernel_path(monkeypatch):
    used = []
    real = onebit.xnor_gemm

    def spy(*arguments):
        used.append(onebit.kernel_name())
        return real(*arguments)

    monkeypatch.setattr(onebit, "xnor_gemm", spy)
    assert doctor.check_parity(products=3).status is Status.OK
    assert used == [name for name in onebit.available_kernels() for _ in range(3)]


def test_a_kernel_that_counts_the_tail_is_caught(monkeypatch):
    real = onebit.xnor_gemm

    def counts_the_tail(a_bits, b_bits, k):
        return real(a_bits, b_bits, k) + np.int32(-k % 64)

    monkeypatch.setattr(onebit, "xnor_gemm", counts_the_tail)
    monkeypatch.delenv("ONEBIT_KERNEL", raising=False)
    found = doctor.check_parity()
    assert found.status is Status.FAIL
    assert onebit.kernel_name() in found.message and "k=" in found.message
    assert "ONEBIT_KERNEL" not in os.environ


def test_the_data_of_a_clone_are_read_and_counted(monkeypatch):
    monkeypatch.delenv("ONEBIT_DATA", raising=False)
    if not (PACKAGE.parents[1] / "constraints.txt").is_file():
        pytest.skip("onebit is not installed from a clone here")
    found = doctor.check_data()
    assert found.status is Status.OK
    assert "60000 + 10000" in found.message


def test_a_damaged_data_file_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for split in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(b"not gzip")
    monkeypatch.setenv("ONEBIT_DATA", str(tmp_path))
    found = doctor.check_data()
    assert found.status is Status.FAIL
    assert "train-images-idx3-ubyte.gz" in found.message


def test_an_empty_data_folder_that_was_named_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setenv("ONEBIT_DATA", str(tmp_path))
    found = doctor.check_data()
    assert found.status is Status.FAIL
    assert str(tmp_path) in found.message


def test_without_the_course_extra_jupyter_is_absent_not_broken(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else real(name)
    )
    found = doctor.check_jupyter()
    assert found.status is Status.ABSENT
    assert "pip install 'onebit[course]'" in found.message


@pytest.mark.slow
def test_jupyter_starts_a_kernel_that_sees_this_onebit():
    pytest.importorskip("jupyterlab")
    found = doctor.check_jupyter()
    assert found.status is Status.OK, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    ["raise SystemExit('broken on purpose')", None],
    ids=["a kernel that dies", "a kernel with another onebit"],
)
def test_a_wrong_jupyter_kernel_is_a_failure_with_a_cure(monkeypatch, tmp_path, program):
    pytest.importorskip("jupyterlab")
    run = ["-c", program] if program else ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": [sys.executable, *run], "display_name": "odd", "language": "python"}
    if program is None:
        other = tmp_path / "other" / "onebit"
        other.mkdir(parents=True)
        (other / "__init__.py").write_text("")
        spec["env"] = {"PYTHONPATH": str(other.parent)}
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    found = doctor.check_jupyter(timeout=30)
    assert found.status is Status.FAIL
    assert "ipykernel install" in found.message
    assert ("does not run" if program else "another onebit") in found.message


@pytest.mark.parametrize(
    ("statuses", "exit_status"),
    [
        ([Status.OK, Status.ABSENT], 0),
        ([Status.OK, Status.FAIL, Status.OK], 1),
    ],
)
def test_the_exit_status_is_zero_only_if_nothing_failed(monkeypatch, capsys, statuses, exit_status):
    checks = [lambda s=status: Finding(s, "subject", "message") for status in statuses]
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert main(["doctor"]) == exit_status
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{status.value:<5} subject: message" for status in statuses]


@pytest.mark.slow
def test_the_command_passes_on_a_sound_clone_and_prints_a_line_a_check():
    done = run_module("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(doctor.CHECKS)
    assert not done.stderr


@pytest.mark.slow
def test_a_copy_outside_of_any_clone_passes_without_data(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "lib" / "onebit")
    done = run_module("doctor", PYTHONPATH=str(tmp_path / "lib"), ONEBIT_DATA="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "—     data: not installed" in done.stdout


@pytest.mark.slow
def test_the_command_fails_where_a_check_fails(tmp_path):
    done = run_module("doctor", ONEBIT_DATA=str(tmp_path))
    assert done.returncode == 1
    assert "FAIL  data" in done.stdout
