"""The compiled CPU kernels, where a C++ compiler is at hand; those of JAX need XLA's headers too (all else: pyproject).

Without them the installation goes on, says so, and other programs serve (`bandhess_jax.cpu_kernels()`).
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
            super().run()
        except Exception as error:
            print(f"bandhess: no compiled CPU kernels, slower programs serve in their place: {error}", file=sys.stderr)


FOLDER = Path("bandhess_common/kernels")
include = headers()
if include is None:
    print("bandhess: XLA's headers are not at hand, JAX will not use the compiled CPU kernels", file=sys.stderr)
fronts = ["c_api.cc", "xla.cc"] if include else ["c_api.cc"]
kernels = Extension(
    "bandhess_common.kernels._kernels",
    [str(FOLDER / name) for name in ["kernels.cc", *fronts]],
    include_dirs=[str(include)] if include else [],
    # Python's own -fwrapv has indices wrap around, and keeps loops from being turned into vectors.
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-fno-wrapv", "-fvisibility=hidden", "-Wno-psabi"],
    extra_link_args=["-Wl,-s", "-pthread"] if sys.platform == "linux" else [],
    py_limited_api=True,  # it uses nothing of Python: one file serves all versions
    optional=True,
    depends=["setup.py", *map(str, FOLDER.rglob("*.h"))],  # which also brings the headers into the source distribution
)
setup(
    ext_modules=[kernels], cmdclass={"build_ext": OptionalBuild}, options={"bdist_wheel": {"py_limited_api": "cp311"}}
)
