"""Arguments of the banded eigenvalue problems, and the numbers of the bisection, one for both frameworks."""

from __future__ import annotations

import operator
from typing import Any

SECTIONS = 8  # shifts tried at once in each bracket: they share a batch of the kernel
PASSES = {"float64": 20, "float32": 10}  # each makes a bracket 8 times shorter: to rounding, and two to spare
PHASE = 0.6180339887498949  # the shifts' places differ from pass to pass, and none is a special number
NEAR = 64.0  # in units of eps |H|: the distance of inverse iteration's shift from the eigenvalue, so that no pivot is 0
ROUNDS = 3  # inverse iterations

_DRIVERS = ("auto", "stemr", "stebz", "sterf", "stev", "stevd")


def check_select(select: Any) -> str:
    """ "a", "i" or "v"."""
    names = {0: "a", 1: "v", 2: "i", "a": "a", "v": "v", "i": "i", "all": "a", "value": "v", "index": "i"}
    kind = names.get(select.lower() if isinstance(select, str) else select)
    if kind is None:
        raise ValueError(f'select must be "a" (all), "i" (by index) or "v" (by value), got {select!r}')
    return kind


def check_range(select_range: Any) -> tuple[Any, Any]:
    try:
        low, high = select_range
    except (TypeError, ValueError):
        raise ValueError(f"select_range must be (first, last) for select 'i' or 'v', got {select_range!r}") from None
    return low, high


def check_indices(select_range: Any, n: int) -> tuple[int, int]:
    """`(first, count)` of an index range, both ends included."""
    low, high = check_range(select_range)
    try:
        first, last = operator.index(low), operator.index(high)
    except TypeError:
        raise ValueError(f"select_range must be two ints for select='i', got {select_range!r}") from None
    if not 0 <= first <= last < n:
        raise ValueError(f"select_range must be 0 <= first <= last < {n} for select='i', got {select_range!r}")
    return first, last - first + 1


def check_driver(driver: Any, *, whole: bool, vectors: bool) -> None:
    """SciPy's rules for `lapack_driver`; here it chooses nothing."""
    if not isinstance(driver, str):
        raise TypeError(f"lapack_driver must be a str, got {type(driver).__name__}")
    if driver not in _DRIVERS:
        raise ValueError(f"lapack_driver must be one of {', '.join(_DRIVERS)}, got {driver!r}")
    if driver in ("sterf", "stev", "stevd") and not whole:
        raise ValueError(f"lapack_driver {driver!r} finds all eigenvalues: select must be 'a'")
    if driver == "sterf" and vectors:
        raise ValueError("lapack_driver 'sterf' finds no vectors: eigvals_only must be True")
