"""Build the C kernel if this machine can; without it the package serves from NumPy."""

import os
import sys

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

REQUIRED = os.environ.get("ONEBIT_REQUIRE_KERNEL") == "1"


class BuildKernel(build_ext):
    """Build the extension; a failure is a warning, or an error if ONEBIT_REQUIRE_KERNEL=1."""

    def build_extension(self, ext):  # noqa: D102
        ext.optional = not REQUIRED
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError, OSError) as error:
            cure = "install a C compiler and Python's headers, then install onebit again"
            if REQUIRED:
                raise PlatformError(
                    f"the C kernel did not build, and ONEBIT_REQUIRE_KERNEL=1 asks for it: {cure} "
                    f"({error})"
                ) from error
            print(
                f"warning: onebit's C kernel did not build ({error}). Everything works, slowly, "
                f"with NumPy. For speed {cure}.",
                file=sys.stderr,
            )


setup(cffi_modules=["kernels/build_kernels.py:ffibuilder"], cmdclass={"build_ext": BuildKernel})
