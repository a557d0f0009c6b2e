"""What an optimiser says of its end, and of each step."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any, NamedTuple


class Status(IntEnum):
    """How an optimiser ended. INFEASIBLE, RANK_DEFICIENT and TIME_LIMIT are reserved."""

    CONVERGED = 0
    """The stopping formula holds, with positive (semi)definite curvature."""
    PRECISION_FLOOR = 1
    """Full Newton steps no longer reduce the gradient: rounding allows no better, though the tolerance asks for it."""
    MAX_STEPS = 2
    STALLED = 3
    """No step, however short, decreases the objective as its derivatives promise: is it smooth?"""
    NONFINITE = 4
    """The objective or a derivative is NaN or infinite, at x0 or all around the point reached."""
    BAND_TOO_NARROW = 5
    """The Hessian has entries outside the band: a larger bandwidth is needed (`detect_bandwidth` finds it), or another
    order of the stages (`reorder_bandwidth`)."""
    INFEASIBLE = 6
    RANK_DEFICIENT = 7
    UNBOUNDED = 8
    """The objective falls without end."""
    TIME_LIMIT = 9


class StepInfo(NamedTuple):
    """What a callback sees: the iterate after `step` accepted steps, and the shift and radius that led to it."""

    step: Any
    value: Any
    grad_norm: Any
    shift: Any
    radius: Any


class ProgressTable:
    """Prints a line per step; time counts from the line of step 0."""

    start = 0.0

    def __call__(self, info: StepInfo) -> None:
        if int(info.step) == 0:
            self.start = time.perf_counter()
            print(f"{'step':>5} {'f':>20} {'|grad|':>10} {'shift':>10} {'radius':>10} {'seconds':>9}")
        print(
            f"{int(info.step):5d} {float(info.value):20.12g} {float(info.grad_norm):10.2e} "
            f"{float(info.shift):10.2e} {float(info.radius):10.2e} {time.perf_counter() - self.start:9.3f}",
            flush=True,
        )


print_progress = ProgressTable()
