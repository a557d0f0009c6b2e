"""The compiled CPU kernels (`bandhess_common/kernels`) on tensors, in the place of LAPACK's and NumPy's routines.

An algorithm calls `kernel(name, plain, *operands)`: the compiled kernel serves float32 and float64; for other dtypes,
and where the library is not built, `plain` serves, which takes the same operands and gives the same results. Tensors on
a GPU make the trip to the CPU and back. Derivative rules stand around these calls, so they are the same in both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.kernels import KERNELS, View, call, why_not

from .transforms import resolved

_CODES = {torch.float32: 0, torch.float64: 1, torch.int32: 2}
_INTEGERS = ("info", "swaps")
LONG = 2**17  # numbers of the first operand, from where on threads pay


def cpu_kernels() -> str:
    """Which programs serve on CPU: "compiled", or "pure: " and the reason why the compiled kernels do not.

    Compiled kernels are built by `pip install` where a C++ compiler is at hand. They take float32 and float64. Where
    they are missing LAPACK serves, through SciPy, with the same results to rounding, one system after the other.
    """
    return "pure: " + why_not() if why_not() else "compiled"


class _Layout(NamedTuple):
    """The shapes in the table, "unit (n, r - 1)": per array a tuple of (letter, what is added to it)."""

    operands: tuple[tuple[tuple[str, int], ...], ...]
    results: tuple[tuple[bool, tuple[tuple[str, int], ...]], ...]  # with: is it of integers?


def _dims(text: str) -> tuple[tuple[str, int], ...]:
    dims = text.split("(", 1)[1].rstrip(")").split(",")
    parts = (dim.split("-") for dim in dims if dim.strip())
    return tuple((first.strip(), -sum(map(int, rest))) for first, *rest in parts)


@functools.cache
def _layout(name: str) -> _Layout:
    operands, results = KERNELS[name].operands, KERNELS[name].results
    return _Layout(
        tuple(map(_dims, operands)), tuple((text.split(" ")[0] in _INTEGERS, _dims(text)) for text in results)
    )


@functools.lru_cache(4096)
def _plan(name: str, shapes: tuple, results: int | None, options: tuple) -> list[tuple[bool, tuple[int, ...]]]:
    """The shapes of the results for operands of these shapes, and whether they hold integers."""
    layout, sizes = _layout(name), dict(options)
    batch = shapes[0][: len(shapes[0]) - len(layout.operands[0])]
    for dims, shape in zip(layout.operands, shapes, strict=True):
        for (letter, added), size in zip(dims, shape[len(batch) :], strict=True):
            sizes[letter] = size - added
    plan = []
    for integers, dims in layout.results[:results]:
        given = (int(letter if letter.isdigit() else sizes[letter]) + added for letter, added in dims)
        plan.append((integers, (*batch, *given)))
    return plan


def served(dtype: torch.dtype) -> bool:
    """Whether the compiled kernels take numbers of this type."""
    return dtype in (torch.float32, torch.float64) and not why_not()


def view(t: Tensor) -> View:
    """Of a contiguous tensor on the CPU."""
    return t.data_ptr(), _CODES[t.dtype], t.ndim, *t.shape


def kernel(name: str, plain: Callable, *operands: Tensor, results: int | None = None, **options: float) -> Any:
    """`plain(*operands, **options)`, by the compiled kernel `name` where that serves: a tensor, or a tuple of them.

    All operands have the same batch in front. results: the first so many are wanted; by default all.
    """
    first = operands[0]
    if not served(first.dtype):
        found = plain(*operands, **options)
        return found if isinstance(found, Tensor) else found[0] if results == 1 else found[:results]
    on_cpu = [resolved(t).cpu().contiguous() for t in operands]
    # Zeros where there is no system: the kernel then writes nothing, and info is 0.
    make = torch.empty if first.numel() else torch.zeros
    plan = _plan(name, tuple(t.shape for t in operands), results, tuple(options.items()))
    made = [make(shape, dtype=torch.int32 if integers else first.dtype, device="cpu") for integers, shape in plan]
    # Threads are started for the call: what is short is done before they run.
    threads = torch.get_num_threads() if first.numel() >= LONG else 1
    call(name, list(map(view, on_cpu)), list(map(view, made)), threads=threads, **options)
    if first.device.type != "cpu":
        made = [t.to(first.device) for t in made]
    return made[0] if len(made) == 1 else tuple(made)
