"""The compiled kernel: load it, choose its instruction-set path, count the threads it may use."""

import os
from typing import Any

import torch

_BUILD_CURE = (
    "install a C compiler and Python's headers, then run `pip install -e .` (or `make book`) again"
)

try:
    import onebit._xnor_popcount as _extension

    _load_error = ""
except ImportError as error:
    _extension = None
    _load_error = str(error)
    if os.environ.get("ONEBIT_REQUIRE_KERNEL") == "1":
        raise ImportError(
            f"ONEBIT_REQUIRE_KERNEL=1, but onebit's C kernel cannot be imported ({error}): "
            f"{_BUILD_CURE}"
        ) from error

# cffi makes both at run time, so there are no types to check against.
ffi: Any = None if _extension is None else _extension.ffi
lib: Any = None if _extension is None else _extension.lib

NUMPY = -1
"""The number of the path that is no C at all."""


def _paths() -> dict[str, int]:
    """Map the name of every path this machine can run to its number, the fastest first."""
    count = 0 if lib is None else lib.onebit_path_count()
    usable = [path for path in reversed(range(count)) if lib.onebit_path_supported(path)]
    names = {ffi.string(lib.onebit_path_name(path)).decode(): path for path in usable}
    return {**names, "numpy": NUMPY}


_PATHS = _paths()

# A call reads ONEBIT_KERNEL anew. To find that `os.environ` lacks it takes a microsecond, a fifth
# of a small product's call; the dict behind it tells at once.
_ENVIRONMENT: Any = os.environ._data  # type: ignore[attr-defined]
_CHOICE: Any = os.environ.encodekey("ONEBIT_KERNEL")


def available_kernels() -> list[str]:
    """Return the names of the kernel paths this machine can run, the fastest first.

    Returns
    -------
    list of str
        Of ``'avx512-vpopcntdq'``, ``'avx2'``, ``'popcnt'``, ``'neon'`` and ``'scalar'`` those that
        were compiled and that the processor knows; last and always ``'numpy'``. All compute the
        same integers.

    Examples
    --------
    >>> available_kernels()[-1]
    'numpy'
    """
    return list(_PATHS)


def kernel_name() -> str:
    """Return the name of the kernel path in use.

    It is the fastest of `available_kernels`, unless the environment variable ``ONEBIT_KERNEL``
    names another one. The variable is read at every call, so it may change while Python runs.

    Raises
    ------
    ValueError
        If ``ONEBIT_KERNEL`` names a path that this machine lacks.

    Examples
    --------
    >>> kernel_name() in available_kernels()
    True
    """
    name = os.environ.get("ONEBIT_KERNEL") or next(iter(_PATHS))
    if name not in _PATHS:
        raise ValueError(
            f"ONEBIT_KERNEL={name!r} is not available on this machine; choose one of "
            f"{', '.join(_PATHS)}, or unset the variable to get the fastest"
        )
    return name


def kernel_report() -> str:
    """Return one sentence on the kernel in use, and on the cure if the C kernel is missing.

    Examples
    --------
    >>> kernel_name() in kernel_report()
    True
    """
    if lib is None:
        return f"numpy: the C kernel is not built ({_load_error}); {_BUILD_CURE}"
    return f"{kernel_name()} (this machine can run {', '.join(_PATHS)})"


def current_path() -> int:
    """Return the number of the path in use: `NUMPY` or what the C functions take."""
    return _PATHS[kernel_name()] if _CHOICE in _ENVIRONMENT else next(iter(_PATHS.values()))


def default_threads() -> int:
    """Return ``ONEBIT_NUM_THREADS``, or the lesser of the usable cores and torch's threads."""
    text = os.environ.get("ONEBIT_NUM_THREADS")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"ONEBIT_NUM_THREADS must be a whole number from 1, got {text!r}")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, torch.get_num_threads())
