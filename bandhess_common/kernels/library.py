"""The compiled file: whether it serves, and calls of its functions on addresses, without any framework.

ctypes releases the GIL during a call.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from . import interior, newton
from .table import KERNELS

DTYPES = {"float32": 0, "float64": 1, "int32": 2}
"""The codes of dtypes."""

OPERATIONS = ("add", "sub", "mul", "div", "neg", "abs", "copy")
"""What `arithmetic` does, number by number; each by its place in this list."""

ARITHMETIC = " ".join(["arithmetic:", *OPERATIONS])

View = tuple[int, ...]
"""An array that is contiguous, row by row: the address of its data, the code of its dtype, its rank, its sizes."""

_ROOM = 512


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    files = sorted(Path(__file__).parent.glob("_kernels.*so"))
    if not files:
        return None, "not built: no C++ compiler at installation (pip install -v shows why)"
    try:
        library = ctypes.CDLL(str(files[0]))
        library.bandhess_list.restype = ctypes.c_char_p
        built = library.bandhess_list().decode().split("\n")
    except Exception as error:  # a file of another platform or of another version of this package
        return None, f"not usable: {error}"
    if built[:-1] != [
        *(kernel.line(name) for name, kernel in KERNELS.items()),
        ARITHMETIC,
        *interior.lines(),
        *newton.lines(),
    ]:
        return None, "not usable: built from another version of the sources; build anew (make kernels, pip install)"
    return library, ""


def why_not() -> str:
    """'' where the compiled kernels can be called, else why not."""
    return _load()[1]


def load() -> ctypes.CDLL:
    """The library. Raises OSError where there is none: `why_not` says so beforehand."""
    library, failure = _load()
    if library is None:
        raise OSError(f"bandhess: the compiled CPU kernels are {failure}")
    return library


@functools.cache
def _function(name: str) -> Any:
    function = getattr(load(), f"bandhess_{name}")
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, whole, whole, pointer, whole, ctypes.c_char_p, whole]
    function.restype = ctypes.c_int
    return function


def view(a: np.ndarray) -> View:
    """Of a NumPy array that is contiguous, row by row."""
    if not a.flags.c_contiguous:
        raise ValueError(f"kernels take contiguous arrays, got strides {a.strides} for the shape {a.shape}")
    return a.ctypes.data, DTYPES.get(a.dtype.name, -1), a.ndim, *a.shape


def call(name: str, operands: Sequence[View], results: Sequence[View], *, threads: int = 1, **options: float) -> bool:
    """Runs the kernel `name` of the table on operands and into results, in at most `threads` threads.

    Returns False where it says by NaN that some matrix is not positive definite; then `info`, if asked for, says more.
    Raises ValueError where shapes or dtypes do not fit each other, MemoryError; a number that has no factorisation is
    no error but data, as the table says. The caller keeps the arrays alive.
    """
    words = [*chain(*operands, *results)]
    given = [*{**KERNELS[name].options, **options}.values()]
    message = (ctypes.c_char * _ROOM)()
    status = _function(name)(
        struct.pack(f"{len(words)}q", *words),
        len(operands),
        len(results),
        struct.pack(f"{len(given)}d", *given),
        threads,
        message,
        _ROOM,
    )
    if status == 1:
        raise ValueError(message.value.decode())
    if status == 2:
        raise MemoryError(f"bandhess_{name}: {message.value.decode()}")
    return status == 0


@functools.cache
def arithmetic() -> Any:
    """`f(address, count, rows)` runs a list of operations (arithmetic.h), each of 16 integers: its place in OPERATIONS,
    its dtype, the numbers along two axes, and of the result and two operands the address and the steps, in numbers,
    from row to row and along those axes."""
    function = load().bandhess_arithmetic
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    function.restype = None
    return function
