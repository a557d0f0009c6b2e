"""Multipliers that lag behind the point: Newton's step goes whole from feasible point to feasible point, and its
multipliers leave as large a gradient as those before. Where a row's gradient vanishes at the solution they never do:

    min x  with  x^2 = 0:   x -> x / 2,  y -> 2 y,  and  1 + 2 x y,  which is 0 for the best y = -1 / (2 x),  stays 1/2.

Those that leave the least gradient are taken in their place. (Ipopt has an option for this, recalc_y.)
"""

from __future__ import annotations

from .measures import primal_error
from .operations import Array
from .requests import ask_derivatives, running
from .scaling import least_gradient
from .state import LINEARISE, Kit, State


def watched_lag(k: Kit, s: State) -> tuple[State, Array]:
    """After a step: whether multipliers lag; and the state with what the next one needs to know."""
    ops, c, local, mode, u = k.ops, k.c, s.local, s.mode, s.search
    dual, enough = local.dual_error * local.s_d, c.mu_error * mode.mu
    whole = (s.report.fraction == 1) & (u.tried_alpha_z == 1)
    stays = (dual > c.lag * s.last_dual) & (local.dual_error > enough) & (primal_error(k, local) <= enough)
    lags = whole & stays & (ops.largest(s.point.y) > c.lag_multiplier)
    lags = lags & ~s.fresh_y & ~mode.elastic & ~mode.quadratic & running(s)
    return s._replace(last_dual=dual, fresh_y=lags), lags


def renewed_lagging(k: Kit, s: State) -> State:
    """The point is to be visited once more with those that leave the least gradient."""
    lower, upper, *_ = k.split(s.point.z)
    y = least_gradient(k, s, s.system.rows, s.local.gradient - lower + upper)
    point = s.point._replace(y=y)
    return ask_derivatives(k, s._replace(point=point, fresh=0 * s.fresh), LINEARISE, point, s.mode)
