"""What an optimiser's end means, and what to do about it, in a sentence or two."""

from __future__ import annotations

from .status import Status

_SQP = {
    Status.CONVERGED: "converged: the conditions of first and second order hold to the tolerance",
    Status.PRECISION_FLOOR: "steps have come down to rounding: x is as good as it can be here",
    Status.MAX_STEPS: "max_steps were taken; go on from here with start=result",
    Status.STALLED: "no step makes the problem better as its derivatives promise: are the functions smooth there?",
    Status.NONFINITE: "a value or derivative is NaN or infinite, at the start or all around the point reached",
    Status.INFEASIBLE: "the constraints cannot be met from here: their violation is locally least, but not 0; if they "
    "can be met at all, then from another start",
    Status.RANK_DEFICIENT: "x is a solution, but rows of the constraints' Jacobian are linearly dependent, so that "
    "multipliers are not unique: is a constraint there twice, or implied by the others?",
    Status.UNBOUNDED: "the objective falls without end",
    Status.TIME_LIMIT: "max_seconds have passed; go on from here with start=result",
}

_NEWTON = {
    Status.CONVERGED: "converged: the gradient is 0 to the tolerance, and the Hessian is positive definite",
    Status.PRECISION_FLOOR: "as good as rounding allows, without a proof: scale the problem, or ask for less with tol=",
    Status.MAX_STEPS: "max_steps were taken; go on from here with x0=result.x",
    Status.STALLED: "no step makes the objective smaller as its derivatives promise: is it smooth there?",
    Status.NONFINITE: "the objective or a derivative is NaN or infinite, at x0 or all around the point reached",
    Status.BAND_TOO_NARROW: "the Hessian has entries outside the band: give a larger bandwidth (detect_bandwidth finds "
    "it), periodic=True where the last stage meets the first, None in stage_axes for what all stages share, or another "
    "order of the stages (reorder_bandwidth)",
    Status.UNBOUNDED: "the objective falls without end",
    Status.TIME_LIMIT: "max_seconds have passed; go on from here with x0=result.x",
}


def _with_derivatives(status: Status, text: str) -> str:
    """The text, and where derivatives of a result are NaN, that this is why."""
    if status in (Status.CONVERGED, Status.PRECISION_FLOOR):
        return text
    stop = "" if text.endswith("?") else "."
    return f"{text}{stop} Derivatives of x and value are NaN: only CONVERGED and PRECISION_FLOOR have them"


def newton_message(status: Status) -> str:
    """For an end of `newton`."""
    return _with_derivatives(status, _NEWTON[status])


def sqp_message(status: Status, outside: str) -> str:
    """For an end of `sqp`; outside names the row of the constraints that BAND_TOO_NARROW comes from, "" for the Hessian
    of the Lagrangian."""
    text = _too_narrow(outside) if status == Status.BAND_TOO_NARROW else _SQP[status]
    return _with_derivatives(status, text)


def _too_narrow(outside: str) -> str:
    if not outside:
        return (
            "the Hessian of the Lagrangian couples stages further apart than the bandwidth: give a larger one "
            "(bandwidth=None finds it), give periodic=True where the last stage meets the first, or reorder the stages"
        )
    return (
        f"{outside} touches stages further apart than the bandwidth: give a larger one (bandwidth=None finds it), "
        "periodic=True where it joins the last stage to the first, or carry what it sums or remembers from "
        "stage to stage in a state of its own (an accumulator)"
    )
