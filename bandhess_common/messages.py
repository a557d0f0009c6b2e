"""What an optimiser's end means, and what to do about it, in a sentence or two."""

from __future__ import annotations

from .status import Status

OBJECTIVE, CONSTRAINTS = 1, 2  # what a band too narrow is too narrow for

_SQP = {
    Status.CONVERGED: "converged: the conditions of first and second order hold to the tolerance",
    Status.PRECISION_FLOOR: "steps have come down to rounding: x is as good as it can be here",
    Status.MAX_STEPS: "max_steps were taken; go on from here with start=result",
    Status.STALLED: "no step makes the problem better as its derivatives promise: are the functions smooth there?",
    Status.NONFINITE: "a value or derivative is NaN or infinite, at the start or all around the point reached",
    Status.INFEASIBLE: "the constraints cannot be met from here: their violation is locally least, but not 0",
    Status.RANK_DEFICIENT: "rows of the constraints' Jacobian are linearly dependent, so that multipliers are not "
    "unique: is a constraint there twice, or implied by the others?",
    Status.UNBOUNDED: "the objective falls without end",
    Status.TIME_LIMIT: "max_seconds have passed; go on from here with start=result",
}


def sqp_message(status: Status, narrow: int, bandwidth: int) -> str:
    """For an end of `sqp`; narrow is OBJECTIVE or CONSTRAINTS where the status is BAND_TOO_NARROW."""
    if status != Status.BAND_TOO_NARROW:
        return _SQP[status]
    if narrow == CONSTRAINTS:
        what = f"a constraint or inequality couples stages further apart than bandwidth {bandwidth} allows"
    else:
        what = f"the objective (or a multiple of a constraint) couples stages further apart than bandwidth {bandwidth}"
    return (
        f"{what}: give a larger bandwidth (None detects it). A sum over all stages becomes local with an accumulator: "
        "a state s[t + 1] = s[t] + term(x[t]), a constraint per stage, whose last value is the sum"
    )
