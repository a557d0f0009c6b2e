"""What an optimiser says of its end, and of each step."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class Status(IntEnum):
    """How an optimiser ended."""

    CONVERGED = 0
    """The stopping formula holds, with positive (semi)definite curvature."""
    PRECISION_FLOOR = 1
    """Full Newton steps no longer reduce the gradient: rounding allows no better, though the tolerance asks for it."""
    MAX_STEPS = 2
    STALLED = 3
    """No step longer than some roundings of x decreases the objective as its derivatives promise: is it smooth?"""
    NONFINITE = 4
    """The objective or a derivative is NaN or infinite, at x0 or all around the point reached."""
    BAND_TOO_NARROW = 5
    """The Hessian has entries outside the band: a larger bandwidth is needed (`detect_bandwidth` finds it), or another
    order of the stages (`reorder_bandwidth`)."""
    INFEASIBLE = 6
    """The constraints cannot be met, as far as can be seen from here (`newton` has none)."""
    RANK_DEFICIENT = 7
    """The constraints' gradients are linearly dependent."""
    UNBOUNDED = 8
    """The objective falls without end."""
    TIME_LIMIT = 9
    """`max_seconds` have passed."""


class StepInfo(NamedTuple):
    """What a callback sees: the iterate after `step` accepted steps, and the shift and radius that led to it."""

    step: Any
    value: Any
    grad_norm: Any
    shift: Any
    radius: Any


class History(NamedTuple):
    """The way, one entry per accepted step; entry 0 is the start. Arrays `(rows,)`."""

    value: Any
    """f there."""
    grad_norm: Any
    """max|g| there."""
    step: Any
    """Length of the step that led there, scaled (0 at the start)."""
    shift: Any
    """Shift of the Hessian with which the step was taken."""
    radius: Any
    """Trust region's radius after it."""
    ratio: Any
    """Actual over predicted decrease (NaN at the start)."""


class SQPHistory(NamedTuple):
    """The way of `sqp`, one entry per accepted step; entry 0 is the start. Arrays `(rows,)`."""

    value: Any
    """f there."""
    grad_norm: Any
    """max|grad L| there."""
    constraint_norm: Any
    """The largest violation there."""
    step: Any
    """Length of the step that led there, in x (0 at the start)."""
    fraction: Any
    """Which part of the full step that was: less than 1 where a bound or the line search cut it (0 at the start)."""
    shift: Any
    """Shift of the Lagrangian's Hessian with which the step was taken."""
    barrier: Any
    """Barrier parameter with which the step was taken (0 without bounds and inequalities)."""
