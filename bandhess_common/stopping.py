"""When a trust-region method ends: its limits, and the table of its statuses as a function of facts.

Both frameworks read it: a fact is a bool, or an array of them under JAX.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .status import Status

ACCEPT = 0.25  # least ratio of actual to predicted decrease; accepting less lets early steps land far from the valley
GOOD = 0.75  # from this ratio on the model is trusted further out
CREEP = 32  # so many accepted steps in a row of at most 128 eps |x|, none of them good, end the run: between kinks
# they may never end
UNSURE = 8.0  # in units of eps: how far rounding may move the diagonal of H, relative to each entry
LOST = 64.0  # in units of eps |H|: what is added where curvature is lost to rounding, so that H + shift I has a factor


class SearchFacts(NamedTuple):
    """What the subproblem's search tells at a point."""

    settled: Any  # the step that H, as shifted, asks for is not worth making
    proven: Any  # no shift was needed, and max|g| <= tol G
    spent: Any  # max_steps have been made
    lost: Any  # no step was found


def search_ends(facts: SearchFacts) -> list[tuple[Any, Status]]:
    """The first that holds is the end, before any step is tried."""
    return [
        (facts.settled & facts.proven, Status.CONVERGED),
        (facts.settled, Status.PRECISION_FLOOR),
        (facts.spent, Status.MAX_STEPS),
        (facts.lost, Status.STALLED),
    ]


class StepFacts(NamedTuple):
    """What a visit of a point, or the trial of a step, tells."""

    bad_start: Any  # x0, and f or a derivative is not finite there
    narrow: Any  # the band was checked, and H has entries outside it
    falling: Any  # f is below -eps^(-3/2) of its first size
    floor: Any  # differences of f are noise, and the step did not reduce the gradient by half; or steps crept with a
    # gradient at rounding level
    collapsed: Any  # the step was turned down, and the next would move no entry of x
    bad: Any  # f or a derivative is not finite where the step leads
    crept: Any  # accepted steps were short and poor, CREEP in a row


def step_ends(facts: StepFacts) -> list[tuple[Any, Status]]:
    """The first that holds is the end."""
    return [
        (facts.bad_start, Status.NONFINITE),
        (facts.narrow, Status.BAND_TOO_NARROW),
        (facts.falling, Status.UNBOUNDED),
        (facts.floor, Status.PRECISION_FLOOR),
        (facts.collapsed & facts.bad, Status.NONFINITE),
        (facts.collapsed | facts.crept, Status.STALLED),
    ]
