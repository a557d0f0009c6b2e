"""The compiled CPU kernels of bandhess_jax, where a C++ compiler and XLA's headers are at hand (all else: pyproject).

Without them the installation goes on, says so, and the pure-JAX programs serve (`bandhess_jax.cpu_kernels()`).
"""

import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def headers() -> Path | None:
    """XLA's FFI headers from jaxlib, which is asked for nothing else: it is not imported."""
    jaxlib = importlib.util.find_spec("jaxlib")
    folder = Path(jaxlib.origin).parent / "include" if jaxlib and jaxlib.origin else None
    return folder if folder and (folder / "xla/ffi/api/ffi.h").exists() else None


class OptionalBuild(build_ext):
    def run(self) -> None:
        try:
            if headers() is None:
                raise FileNotFoundError("jaxlib's headers are not at hand")
            super().run()
        except Exception as error:
            print(f"bandhess: no compiled CPU kernels, pure JAX serves in their place: {error}", file=sys.stderr)


include = headers()
kernels = Extension(
    "bandhess_common.kernels._kernels",
    ["bandhess_common/kernels/xla.cc"],
    include_dirs=[str(include)] if include else [],
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-Wno-psabi"],
    extra_link_args=["-Wl,-s"] if sys.platform == "linux" else [],
    py_limited_api=True,  # it uses nothing of Python: one file serves all versions
    optional=True,
    depends=["setup.py"],
)
setup(
    ext_modules=[kernels], cmdclass={"build_ext": OptionalBuild}, options={"bdist_wheel": {"py_limited_api": "cp311"}}
)
