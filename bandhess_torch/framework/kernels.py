"""The compiled CPU kernels (`bandhess_common/kernels`) on tensors, in the place of LAPACK's and NumPy's routines.

An algorithm calls `kernel(name, plain, *operands)`: the compiled kernel serves float32 and float64; for other dtypes,
and where the library is not built, `plain` serves, which takes the same operands and gives the same results. Tensors on
a GPU make the trip to the CPU and back. Derivative rules stand around these calls, so they are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bandhess_common.kernels import View, call, result_shapes, why_not

from .transforms import resolved

_CODES = {torch.float32: 0, torch.float64: 1, torch.int32: 2}
LONG = 2**16  # numbers of the first operand, from where on threads pay


def cpu_kernels() -> str:
    """Which programs serve on CPU: "compiled", or "pure: " and the reason why the compiled kernels do not.

    Compiled kernels are built by `pip install` where a C++ compiler is at hand. They take float32 and float64. Where
    they are missing LAPACK serves, through SciPy, with the same results to rounding, one system after the other.

    >>> cpu_kernels().split(":")[0] in ("compiled", "pure")
    True
    """
    return "pure: " + why_not() if why_not() else "compiled"


def served(dtype: torch.dtype) -> bool:
    """Whether the compiled kernels take numbers of this type."""
    return dtype in (torch.float32, torch.float64) and not why_not()


def view(t: Tensor) -> View:
    """Of a contiguous tensor on the CPU."""
    return t.data_ptr(), _CODES[t.dtype], t.ndim, *t.shape


@cache
def settle_heap() -> None:
    """Has glibc's malloc keep what is freed, up to 62 MiB, for the next temporary. It raises its limits to the largest
    block it was ever given back (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most), and this one costs nothing, as nothing
    is written to it. Below them, every temporary is returned to the system and comes back page by page, zeroed, which
    takes longer than the arithmetic: twice for batches of 1e5 numbers, as measured."""
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def _ready(t: Tensor) -> Tensor:
    """t contiguous, on the CPU: itself most often, which these questions show in a third of the time of the calls."""
    if t.is_cpu and t.is_contiguous() and not t.is_neg():
        return t
    return resolved(t).cpu().contiguous()


def kernel(name: str, plain: Callable, *operands: Tensor, results: int | None = None, **options: float) -> Any:
    """`plain(*operands, **options)`, by the compiled kernel `name` where that serves: a tensor, or a tuple of them.

    All operands have the same batch in front. results: the first so many are wanted; by default all.
    """
    if not served(operands[0].dtype):
        found = plain(*operands, **options)
        return found if isinstance(found, Tensor) else found[0] if results == 1 else found[:results]
    made = compiled(name, operands, results, options)[0]
    return made[0] if len(made) == 1 else tuple(made)


def compiled(
    name: str, operands: Sequence[Tensor], results: int | None, options: dict[str, float]
) -> tuple[list[Tensor], bool]:
    """The results of a kernel that serves, and whether all matrices were positive definite that had to be."""
    first = operands[0]
    settle_heap()
    on_cpu = [_ready(t) for t in operands]
    # Zeros where there is no system: the kernel then writes nothing, and info is 0.
    make = torch.empty if first.numel() else torch.zeros
    shapes = result_shapes(name, tuple(t.shape for t in operands), results, tuple(options.items()))
    made = [make(shape, dtype=torch.int32 if integers else first.dtype, device="cpu") for integers, shape in shapes]
    # What is short is done before threads that sleep are awake.
    threads = torch.get_num_threads() if first.numel() >= LONG else 1
    definite = call(name, [view(t) for t in on_cpu], [view(t) for t in made], threads=threads, **options)
    if not first.is_cpu:
        made = [t.to(first.device) for t in made]
    return made, definite
