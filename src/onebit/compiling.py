"""C compiled on the spot for this machine, and called from Python with NumPy arrays."""

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI


class NoCompilerError(RuntimeError):
    """There is no C compiler here, or it does not take the source; the message says which."""


def compile_c(source: str, declaration: str, *flags: str) -> Callable[..., Any]:
    """Compile a C function for this machine, load it through cffi, and return it.

    Parameters
    ----------
    source : str
        C11 that defines the function.
    declaration : str
        The function as a header would declare it.
    *flags : str
        For the compiler, behind ``-O2``.

    Returns
    -------
    callable
        Takes numbers, and for each pointer a C-contiguous array whose elements the function
        expects: nothing checks that they are.

    Raises
    ------
    NoCompilerError
        If no compiler is found, or it refuses the source or a flag; with what it said.

    Examples
    --------
    >>> try:
    ...     twice = compile_c("int twice(int x) { return 2 * x; }", "int twice(int x)")
    ...     print(twice(21))
    ... except NoCompilerError:
    ...     print(42)  # by other means
    42
    """
    ffi = FFI()
    ffi.cdef(f"{declaration};")
    name = re.findall(r"(\w+)\s*\(", declaration)[0]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder) / "rung.c", Path(folder) / "rung.so"
        text.write_text(source, encoding="utf-8")
        command = [*compiler, "-std=c11", "-O2", "-fPIC", "-shared", *flags, str(text)]
        try:
            subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
        except OSError as error:
            raise NoCompilerError(f"no C compiler was found: {error}") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").replace(folder, "").strip()
            raise NoCompilerError(f"{compiler[0]} did not compile the source: {said}") from error
        loaded = ffi.dlopen(str(library))  # stays open when the file is gone
    function = getattr(loaded, name)

    def pointer(x: Any) -> Any:
        return ffi.cast("void *", x.ctypes.data) if isinstance(x, np.ndarray) else x

    def call(*arguments: Any, _keep: Any = loaded) -> Any:
        return function(*map(pointer, arguments))

    return call
