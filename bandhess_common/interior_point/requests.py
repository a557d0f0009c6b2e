"""What is asked for next, and the end."""

from __future__ import annotations

from ..status import Status
from .operations import Array
from .state import DERIVATIVES, DONE, LINEARISE, RUNNING, VALUES, Kit, Mode, Point, State
from .system import dependent


def ask_derivatives(k: Kit, s: State, stage: Array | int, q: Point, mode: Mode) -> State:
    """At a point: of f alone before LINEARISE, then of the Lagrangian in hand."""
    ops = k.ops
    full = (s.stage * 0 + stage) == LINEARISE
    sigma = ops.where(full, ops.where(mode.elastic, 0.0, s.f_scale), 1 + 0 * s.f)
    y = ops.where(full, s.h_scale * q.y, 0.0)
    return s._replace(
        request=0 * s.request + DERIVATIVES,
        stage=0 * s.stage + stage,
        x_request=k.p.units * q.x,
        y_request=y,
        sigma=sigma,
    )


def ask_values(k: Kit, s: State, stage: Array | int) -> State:
    """At the trial point."""
    x = s.point.x + s.search.tried_alpha * s.search.tried.x
    return s._replace(request=0 * s.request + VALUES, stage=0 * s.stage + stage, x_request=k.p.units * x)


def running(s: State) -> Array:
    return s.status == RUNNING


def ended(k: Kit, s: State, ends: list[tuple[Array, Status]]) -> State:
    """The first that holds is the end."""
    status = s.status
    for holds, name in reversed(ends):
        status = k.ops.where(holds, int(name), status)
    status = k.ops.where(running(s), status, s.status)
    return s._replace(status=status, request=k.ops.where(status == RUNNING, s.request, DONE))


def concluded(k: Kit, s: State, before: Array) -> State:
    """RANK_DEFICIENT in the place of a solution at which rows are dependent."""
    if not s.h.shape[0]:
        return s
    doubtful = (s.status == Status.CONVERGED) | (s.status == Status.PRECISION_FLOOR)

    def rank(status: Array) -> Array:
        return k.ops.where(dependent(k, s.system), int(Status.RANK_DEFICIENT), status)

    return s._replace(status=k.ops.when(doubtful & before, rank, s.status))
