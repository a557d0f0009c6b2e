"""The problem and the state between two requests, as named tuples of arrays.

n variables, r rows h = (c, g): c = 0, then g >= 0. Every bound and inequality has a slack of its own, and in a
restoration (`restoration.py`) every row two elastic variables. All these are positive; they stand in one vector d, and
their multipliers in one vector z, in five parts:

    d = (x - lower, upper - x, slack of g, p, n)     n, n, r, r, r entries

Entries that do not exist have d = 1, z = 0 and never move.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .constants import FILTER, Constants, constants
from .operations import Array, Operations

DONE, DERIVATIVES, VALUES = 0, 1, 2
"""Requests."""

SCALE, PLACE, ESTIMATE, LINEARISE, SEARCH, CORRECT, TINY = range(7)
"""Stages: what derivatives (up to LINEARISE) or values are wanted for."""

RUNNING = -1
ESTIMATED, GIVEN, WARM = 0, 1, 2
"""Starts: multipliers estimated, y given, or everything as a previous run left it."""


class Derivatives(NamedTuple):
    """What answers a request for derivatives, at its x, sigma and y."""

    f: Array
    h: Array  # (r,)
    grad: Array  # of sigma f + y . h
    rows: Array  # (r, L + p), and
    band: Array  # (w + 1 + p, n), the Hessian of sigma f + y . h: `products.py`
    narrow: Array  # 0, or what lies outside: 1 of the Hessian, 2 of the Jacobian
    first: Array | None = None  # (r,) the columns in which these rows begin; None: in those of the rows before


class Values(NamedTuple):
    """f and h; what answers a request for values."""

    f: Array
    h: Array


class Problem(NamedTuple):
    """What does not change during a run; `problem.py` makes it."""

    edges: Array  # (2n,) lower and -upper, 0 where there is none: (x, -x) - edges is the distance from the bounds
    bounded: Array  # (2n,) whether there is one
    unit: Array  # (2n,) max(1, |bound|)
    width: Array  # (2n,) upper - lower
    units: Array  # (n,) in which all this is, and x
    held: Array  # (n,) values of fixed variables
    free: Array  # (n,) 0 for them, else 1
    shared: Array  # (p,) the values of the shared variables that are fixed
    cells: Array  # (w + 1 + p, n) whether a cell of W belongs to free variables
    inequality: Array  # (r,)
    first: Array  # (r,) int32, the columns in which the rows in hand begin: the state's, but at the start
    always: Array  # (2n + 3r,) the entries of d that exist always,
    elastic: Array  # and those that exist in restoration
    damped: Array  # (2n + 3r,) 1 of what is bounded on one side alone
    noise: Array  # (n,)
    tol: Array
    max_steps: Array


class Kit(NamedTuple):
    """What every function reads."""

    ops: Operations
    c: Constants
    p: Problem
    eps: float
    least: float  # guards divisions

    @property
    def shared(self) -> int:
        """p, how many of the variables, the last, all rows may touch."""
        return self.p.shared.shape[0]

    @property
    def banded(self) -> int:
        """n - p."""
        return self.p.held.shape[0] - self.shared

    def split(self, v: Array) -> tuple[Array, ...]:
        """The five parts of d, z or a step of theirs."""
        n, r = self.p.held.shape[0], self.p.first.shape[0]
        return v[:n], v[n : 2 * n], v[2 * n : 2 * n + r], v[2 * n + r : 2 * n + 2 * r], v[2 * n + 2 * r :]


class Point(NamedTuple):
    x: Array
    y: Array
    d: Array
    z: Array


class Filter(NamedTuple):
    """Theta and phi that no later point may both reach; unused entries are infinite."""

    theta: Array  # (FILTER,)
    phi: Array
    theta_most: Array
    theta_least: Array  # below it phi decides


class Mode(NamedTuple):
    """The problem in hand: the user's, or restoration from x_r."""

    elastic: Array  # bool
    mu: Array
    zeta: Array  # weight of the proximal term, 0 in the user's
    x_r: Array
    weight: Array  # D^2 of the proximal term
    filter: Filter
    main_mu: Array  # what is taken up again after restoration
    main_filter: Filter
    main_theta: Array  # theta where restoration began
    entries: Array  # how many have begun
    renewals: Array  # of the last one
    theta_mark: Array  # theta where it fell to a part of its last mark; 0: none
    since_mark: Array  # steps since then
    quadratic: Array  # bool: mu by the predictor
    best_error: Array  # E(0) where it had halved last
    since_best: Array  # steps since then
    barred_steps: Array  # that the filter cut short, the last ones
    forgotten: Array  # how often it forgot its entries
    short_row: Array  # short steps, the last ones
    renewed: Array  # bool: multipliers were estimated anew since the last restoration
    last_renewals: Array  # of multipliers, where no step served


class Residuals(NamedTuple):
    bounds: Array  # (2n,)
    rows: Array  # (r,)


class Local(NamedTuple):
    """What a linearisation gives besides the system."""

    gradient: Array  # of the objective in hand
    dual: Array  # (n,) gradient of the Lagrangian in x
    residuals: Residuals
    dual_error: Array  # gradient of the Lagrangian in x and d, over s_d
    s_d: Array  # scales of the two (WB 6)
    s_c: Array


class System(NamedTuple):
    """The Newton system, `system.py`."""

    band: Array  # W
    diagonal: Array  # what H adds to W, without shift
    rows: Array
    e: Array
    gamma: Array
    condensed: Array  # the band of M without shift
    size: Array  # |W|
    column_size: Array  # (n,) of the Jacobian at the start, squared
    row_size: Array  # largest 2-norm of a row
    shift: Array  # delta
    factor: Any


class Step(NamedTuple):
    x: Array
    y: Array
    d: Array
    z: Array


class After(NamedTuple):
    """What an accepted step leads to."""

    point: Point
    mode: Mode


class Search(NamedTuple):
    """The line search along `step`; `tried` is that, or a correction of second order."""

    step: Step
    alpha: Array
    alpha_most: Array
    alpha_z: Array
    tried: Step
    tried_alpha: Array
    tried_alpha_z: Array
    alpha_least: Array
    phi: Array
    theta: Array
    slope: Array
    curved: Array  # along a direction of negative curvature, which is
    curvature: Array
    first: Array  # the first trial of this step
    raised: Array  # a larger shift has been tried
    finite: Array  # some trial was finite
    barred: Array  # by the filter, the last one that was turned down
    corrections: Array
    residuals: Residuals  # that the last correction aimed at
    theta_last: Array


class Report(NamedTuple):
    """Of the last iterate, unscaled, for histories and callbacks."""

    value: Array
    grad_norm: Array
    violation: Array
    step: Array  # 2-norm of the step that led there
    fraction: Array  # of the full step
    shift: Array
    mu: Array  # with which it was taken, 0 where there is no barrier
    gap: Array  # sum of slack times multiplier


class Solution(NamedTuple):
    """The last iterate with finite derivatives, unscaled: L = f + y . h - z_lower (x - lower) - z_upper (upper - x)."""

    x: Array
    y: Array
    z_lower: Array
    z_upper: Array
    mu: Array


class State(NamedTuple):
    # What is asked for, and what callers read
    request: Array
    x_request: Array
    y_request: Array
    sigma: Array
    status: Array  # RUNNING, or the number of a `Status`
    steps: Array
    fresh: Array  # 1 after a linearisation of a new iterate
    narrow: Array
    report: Report
    solution: Solution
    # The engine's own
    stage: Array
    start: Array
    x_start: Array  # where to start, in the user's units
    units: Array  # (n,) of x
    measured: Array  # bool: these are chosen
    first: Array  # (r,) int32, the columns in which the rows of `system` begin
    point: Point  # before PLACE: y, z and mu as they came, unscaled
    f_scale: Array  # before PLACE these two and value_unit hold the sizes at the second point
    h_scale: Array
    f: Array  # scaled, at `point`
    h: Array
    mode: Mode
    local: Local
    system: System
    search: Search
    pending: Array  # an accepted step waits for its derivatives
    after: After
    value_unit: Array
    size_least: Array  # of |W|
    last_shift: Array
    shifted: Array  # successive shifted steps near the constraints
    tiny_steps: Array
    held: Array  # points that passed all tests but that of the step's gain
    last_dual: Array  # the dual residual and the largest multiplier that Newton's last step left
    last_top: Array
    fresh_y: Array  # bool: others have been taken since


def kit(ops: Operations, p: Problem) -> Kit:
    eps = ops.eps(p.held)
    return Kit(ops, constants(eps), p, eps, ops.least(p.held))


def exists(k: Kit, elastic: Array) -> Array:
    """The entries of d that exist."""
    return k.p.always | (k.p.elastic & elastic)


def empty_filter(ops: Operations, like: Array) -> Filter:
    infinite, zero = ops.full((FILTER,), float("inf"), like), ops.number(0.0, like)
    return Filter(infinite, infinite, zero + float("inf"), zero)


def choose(k: Kit, mask: Array, a: Any, b: Any) -> Any:
    """a where the mask is true, else b: trees of arrays."""
    if isinstance(a, tuple):
        return type(a)(*(choose(k, mask, x, y) for x, y in zip(a, b, strict=True)))
    return k.ops.where(mask, a, b)
