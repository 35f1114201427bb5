"""What works on this machine and what does not, one line each, with the cure."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from queue import Empty
from typing import NamedTuple

import numpy as np
import torch

import onebit
from onebit import data
from onebit.kernels import kernel_report

_COURSE_CURE = "not installed: pip install 'onebit[course]'"
_PARITY_PRODUCTS = 200


class Status(Enum):
    """What a check found: the word that stands in front of its line."""

    OK = "OK"
    FAIL = "FAIL"
    ABSENT = "—"


class Finding(NamedTuple):
    """One line of the report: a status, the subject, and what was found or the cure."""

    status: Status
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.status.value:<5} {self.subject}: {self.message}"


def check_python() -> Finding:
    """Report the interpreter; Python 3.11 to 3.13 are supported."""
    here = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(Status.OK, "Python", here)
    cure = "install onebit with Python 3.11, 3.12 or 3.13"
    return Finding(Status.FAIL, "Python", f"{here} is not supported; {cure}")


def check_torch() -> Finding:
    """Report torch's version and threads, and whether it and NumPy share memory."""
    try:
        shared = torch.from_numpy(np.arange(3)).numpy().tolist()
    except RuntimeError as error:
        return Finding(Status.FAIL, "torch", f"{error}; pip install --upgrade torch numpy")
    if shared != [0, 1, 2]:
        return Finding(Status.FAIL, "torch", "NumPy arrays change on the way through torch")
    threads = f"threads {torch.get_num_threads()}"
    return Finding(Status.OK, "torch", f"{torch.__version__}, NumPy {np.__version__}, {threads}")


def check_kernel() -> Finding:
    """Report the instruction set that the kernel uses, and the others that it could."""
    try:
        report = kernel_report()
    except ValueError as error:
        return Finding(Status.FAIL, "kernel", str(error))
    # Without the C kernel everything works, from NumPy: something absent, not something broken.
    built = onebit.available_kernels() != ["numpy"]
    return Finding(Status.OK if built else Status.ABSENT, "kernel", report)


def check_parity(products: int = _PARITY_PRODUCTS) -> Finding:
    """Compare random products of every kernel path with NumPy's matrix product, exactly.

    Parameters
    ----------
    products
        Random shapes to try on each path: up to 40 rows and columns, odd ``k`` up to 401.
    """
    paths = onebit.available_kernels()
    for path in paths:
        rng = np.random.default_rng(0)
        for _ in range(products):
            m, n = rng.integers(1, 41, size=2)
            k = int(2 * rng.integers(0, 201) + 1)
            a, b = (rng.choice(np.array([-1, 1], dtype=np.int8), (rows, k)) for rows in (m, n))
            wanted = a.astype(np.int32) @ b.T.astype(np.int32)
            with _kernel(path):
                got = onebit.xnor_gemm(onebit.pack_signs(a), onebit.pack_signs(b), k)
            if not np.array_equal(got, wanted):
                wrong = f"{path} disagrees with NumPy at m={m}, n={n}, k={k}"
                cure = "set ONEBIT_KERNEL=numpy to go on, and report this line as a bug"
                return Finding(Status.FAIL, "kernel parity", f"{wrong}; {cure}")
    message = f"{products} random products with odd k equal NumPy's on each of: {', '.join(paths)}"
    return Finding(Status.OK, "kernel parity", message)


def check_data() -> Finding:
    """Read the whole of MNIST and check its content against the checksums."""
    try:
        train, test = (len(data.mnist(split)[0]) for split in ("train", "test"))
    except FileNotFoundError as error:
        # A wheel carries no data; a clone, or a folder that was named, must have them.
        if os.environ.get("ONEBIT_DATA") or _in_clone():
            return Finding(Status.FAIL, "data", str(error))
        cure = "not installed: comes with a clone of the course; or set ONEBIT_DATA to its data"
        return Finding(Status.ABSENT, "data", cure)
    except (ValueError, OSError) as error:
        return Finding(Status.FAIL, "data", str(error))
    return Finding(Status.OK, "data", f"MNIST, {train} + {test} digits, checksums right")


def check_jupyter(timeout: float = 60.0) -> Finding:
    """Start the kernel that JupyterLab would start and import onebit in it.

    Parameters
    ----------
    timeout
        Seconds to wait for the kernel to start, and again for it to answer.
    """
    subject = "JupyterLab kernel"
    needed = ("jupyterlab", "ipykernel", "anywidget")
    if any(importlib.util.find_spec(name) is None for name in needed):
        return Finding(Status.ABSENT, subject, _COURSE_CURE)
    cure = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        answer = _ask_jupyter_kernel("import onebit; print(onebit.__file__)", timeout)
    except Exception as error:  # whatever a foreign kernel or a closed port may raise
        reason = f"does not run ({type(error).__name__}: {error})".replace("\n", " ")
        return Finding(Status.FAIL, subject, f"python3 {reason}; {cure}")
    if answer != onebit.__file__:
        reason = f"sees another onebit ({answer or 'none'}) than {onebit.__file__}"
        return Finding(Status.FAIL, subject, f"python3 {reason}; {cure}")
    version = importlib.metadata.version("jupyterlab")
    return Finding(Status.OK, subject, f"python3 imports onebit (JupyterLab {version})")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_torch,
    check_kernel,
    check_parity,
    check_data,
    check_jupyter,
)


def run() -> int:
    """Print a line for each check and return the exit status: 0 if nothing failed, else 1."""
    failed = False
    for check in CHECKS:
        finding = check()
        print(finding, flush=True)
        failed |= finding.status is Status.FAIL
    return int(failed)


@contextmanager
def _kernel(path: str) -> Iterator[None]:
    """Force a kernel path, which is read from the environment at every call."""
    before = os.environ.get("ONEBIT_KERNEL")
    os.environ["ONEBIT_KERNEL"] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ["ONEBIT_KERNEL"]
        else:
            os.environ["ONEBIT_KERNEL"] = before


def _in_clone() -> bool:
    """Tell whether this package runs from a clone of the course."""
    return (Path(__file__).parents[2] / "constraints.txt").is_file()


def _ask_jupyter_kernel(code: str, timeout: float) -> str:
    """Run code in a fresh ``python3`` kernel and return what it printed."""
    from jupyter_client.manager import start_new_kernel

    printed = []

    def keep(message: dict) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    # What a kernel logs on starting is not part of the report.
    manager, client = start_new_kernel(startup_timeout=timeout, stderr=subprocess.DEVNULL)
    try:
        reply = client.execute_interactive(code, timeout=timeout, output_hook=keep)
    except (TimeoutError, Empty) as error:
        raise TimeoutError(f"no answer within {timeout:g} s") from error
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise ImportError(f"{reply['content']['ename']}: {reply['content']['evalue']}")
    return "".join(printed).strip()
