"""The machine: its cores, who else uses them, and what it and the libraries are called."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import onebit

OTHERS_LIMIT = 0.1
"""Cores that other processes may use while the benchmark runs."""


def cores() -> int:
    """Return how many cores this process may use.

    Examples
    --------
    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OtherLoad:
    """How many cores other processes used since this object was made.

    Where the system does not count processor time in /proc/stat, the load average of the last
    minute stands for it.

    Examples
    --------
    >>> OtherLoad().cores() >= 0
    True
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = self._busy()

    @staticmethod
    def _busy() -> float | None:
        """Return seconds that all cores were busy for others, time stolen by a host included."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = (int(f) for f in fields[:8])
        ours = time.process_time()
        ticks = user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK") - ours

    def cores(self) -> float:
        """Return the mean number of cores in others' use, from 0."""
        now = self._busy()
        if now is None or self._before is None:
            return os.getloadavg()[0]
        return max(0.0, (now - self._before) / (time.perf_counter() - self._start))


def version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":")[1].strip() for line in text.split("\n") if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Return processor, system and versions, as the report keeps them."""
    packages = ["onebit", "torch", "numpy", "faiss-cpu", "numkong", "simsimd", "openvino",
                "bnn-lab", "onnxruntime"]  # fmt: skip
    return {
        "processor": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kernel": onebit.kernel_name(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "versions": {name: version(name) for name in packages},
    }
