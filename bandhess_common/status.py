"""What an optimiser says of its end, and of each step."""

from __future__ import annotations

from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")  # each framework's arrays


class Status(IntEnum):
    """How an optimiser ended. Derivatives of x and value are NaN where that is neither CONVERGED nor PRECISION_FLOOR.

    >>> Status(2), str(Status.MAX_STEPS), Status.CONVERGED == 0
    (<Status.MAX_STEPS: 2>, 'MAX_STEPS', True)
    """

    CONVERGED = 0
    """The stopping formula holds, and curvature is positive in every direction, whatever rounding did."""
    PRECISION_FLOOR = 1
    """As good as rounding allows, without that proof: curvature is lost to rounding in some direction, or the gradient
    is at rounding level and steps reduce it no more, though the tolerance asks for it. Most often x is the solution to
    the digits that it can have; nothing says how many these are."""
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
    """What would be CONVERGED or PRECISION_FLOOR, but the equalities' gradients are linearly dependent there, so that
    multipliers are not unique."""
    UNBOUNDED = 8
    """The objective falls without end."""
    TIME_LIMIT = 9
    """`max_seconds` have passed."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        """By the name; by the number where the format is a number's, as in `f"{status:d}"`."""
        try:
            return format(self.name, spec)
        except ValueError:
            return format(int(self), spec)


class StepInfo(NamedTuple, Generic[A]):
    """What a callback sees: the iterate after `step` accepted steps, and the shift and radius that led to it.

    >>> report = lambda info: print(f"step {info.step}: f = {info.value}")  # newton(fun, x0, 1, callback=report)
    >>> report(StepInfo(step=0, value=3.5, grad_norm=1.0, shift=0.0, radius=1.0))
    step 0: f = 3.5
    """

    step: int | A
    value: A
    grad_norm: A
    shift: A
    radius: A


class History(NamedTuple, Generic[A]):
    """The way, one entry per accepted step; entry 0 is the start. Arrays `(rows,)`.

    >>> way = History(value=[9.0, 1.0], grad_norm=[6.0, 2.0], step=[0.0, 2.0], shift=[0.0, 0.0], radius=[2.0, 4.0],
    ...               ratio=[float("nan"), 1.0])  # as newton(fun, x0, 1, history=True).history is after a step
    >>> [f"f = {value}, max|g| = {size}" for value, size in zip(way.value, way.grad_norm)]
    ['f = 9.0, max|g| = 6.0', 'f = 1.0, max|g| = 2.0']
    """

    value: A
    """f there."""
    grad_norm: A
    """max|g| there."""
    step: A
    """Length of the step that led there, scaled (0 at the start)."""
    shift: A
    """Shift of the Hessian with which the step was taken."""
    radius: A
    """Trust region's radius after it."""
    ratio: A
    """Actual over predicted decrease (NaN at the start)."""


class SQPHistory(NamedTuple, Generic[A]):
    """The way of `sqp`, one entry per accepted step; entry 0 is the start. Arrays `(rows,)`.

    >>> way = SQPHistory(value=[9.0, 1.0], grad_norm=[6.0, 0.0], constraint_norm=[1.0, 0.0], step=[0.0, 2.0],
    ...                  fraction=[0.0, 1.0], shift=[0.0, 0.0], barrier=[0.0, 0.0])  # sqp(..., history=True).history
    >>> list(zip(way.value, way.constraint_norm))
    [(9.0, 1.0), (1.0, 0.0)]
    """

    value: A
    """f there."""
    grad_norm: A
    """max|grad L| there."""
    constraint_norm: A
    """The largest violation there."""
    step: A
    """Length of the step that led there, in x (0 at the start)."""
    fraction: A
    """Which part of the full step that was: less than 1 where a bound or the line search cut it (0 at the start)."""
    shift: A
    """Shift of the Lagrangian's Hessian with which the step was taken."""
    barrier: A
    """Barrier parameter with which the step was taken (0 without bounds and inequalities)."""
