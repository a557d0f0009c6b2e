"""Multipliers that lag behind the point: Newton's step goes whole from feasible point to feasible point, and its
multipliers leave as large a gradient as those before. Where a row's gradient vanishes at the solution they never do:

    min x  with  x^2 = 0:   x -> x / 2,  y -> 2 y,  and  1 + 2 x y,  which is 0 for the best y = -1 / (2 x),  stays 1/2.

Those that leave the least gradient are taken in their place. (Ipopt has an option for this, recalc_y.)
"""

from __future__ import annotations

from .measures import primal_error
from .operations import Array
from .requests import ask_derivatives
from .scaling import least_gradient
from .state import LINEARISE, Kit, State


def watched_lag(k: Kit, s: State) -> tuple[State, Array]:
    """After a step: whether multipliers lag; and the state with what the next one needs to know. Compared are what two
    of Newton's steps leave, and how large their multipliers are: these do not shrink where they lag."""
    ops, c, local, mode, u = k.ops, k.c, s.local, s.mode, s.search
    dual, top, enough = local.dual_error * local.s_d, ops.largest(s.point.y), c.mu_error * mode.mu
    first = (s.steps == 0) | mode.elastic
    whole = (s.report.fraction == 1) & (u.tried_alpha_z == 1) & ~first & ~mode.quadratic & ~s.fresh_y
    stays = (dual > c.lag * s.last_dual) & (top > c.lag_growth * s.last_top) & (top > c.lag_multiplier)
    lags = whole & stays & (local.dual_error > enough) & (primal_error(k, local) <= enough)
    last_dual = ops.where(s.fresh_y, s.last_dual, ops.where(first, float("inf"), dual))
    return s._replace(last_dual=last_dual, last_top=ops.where(s.fresh_y, s.last_top, top), fresh_y=lags), lags


def renewed_lagging(k: Kit, s: State) -> State:
    """The point is to be visited once more with those that leave the least gradient."""
    lower, upper, *_ = k.split(s.point.z)
    y = least_gradient(k, s, s.system.rows, s.local.gradient - lower + upper)
    point = s.point._replace(y=y)
    return ask_derivatives(k, s._replace(point=point, fresh=0 * s.fresh), LINEARISE, point, s.mode)
