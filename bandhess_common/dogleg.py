"""Powell's dogleg (1970) for F(x) = 0, as MINPACK's hybrj has it (Moré, Garbow, Hillstrom 1980): numbers and statuses.

With J the Jacobian, D the largest norms of its columns met so far, and r the radius,

    newton = -J^-1 F            the step that solves the linear model
    cauchy = -t D^-2 J^T F      the model's least |F + J p| along steepest descent of |F|^2, in the variables D x

a step with |D p| <= r is newton where that is short enough; else it lies on the path 0 -> cauchy -> newton. Where J is
singular it is cauchy, cut to length. Its model promises |F|^2 - |F + J p|^2.

Both frameworks read the table of statuses: a fact is a bool, or an array of them under JAX.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .status import Status

ACCEPT = 1e-4  # least ratio of the actual to the promised decrease of |F|^2
POOR, GOOD = 0.25, 0.75  # ratios from which on the radius shrinks, and grows
SHRINK, GROW = 0.25, 2.0
FLOOR = 8.0  # in units of eps max(|J| |x|): residuals that are rounding errors of their own terms
SINGULAR = 8.0  # in units of eps: pivots below so much of A's largest entry in their column are rounding


class Facts(NamedTuple):
    """What a turn tells: F and J evaluated where the last step led, accepted or not."""

    bad_start: Any  # x0, and F or J is not finite there
    narrow: Any  # J has entries outside the band
    proven: Any  # max|F| <= tol G, J is regular, and Newton's next step is within tol of the way made
    floor: Any  # residuals are rounding errors, or a Newton step that is within sqrt(eps) did not halve them
    spent: Any  # max_steps have been made
    still: Any  # the next step promises less than sqrt(eps) of |F|^2, or is not longer than a rounding of x
    bad: Any  # F or J is not finite where the last step led


def ends(facts: Facts) -> list[tuple[Any, Status]]:
    """The first that holds is the end."""
    return [
        (facts.bad_start, Status.NONFINITE),
        (facts.narrow, Status.BAND_TOO_NARROW),
        (facts.proven, Status.CONVERGED),
        (facts.floor, Status.PRECISION_FLOOR),
        (facts.spent, Status.MAX_STEPS),
        (facts.still & facts.bad, Status.NONFINITE),
        (facts.still, Status.STALLED),
    ]
