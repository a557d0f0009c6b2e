"""The iteration of `root`: Powell's dogleg (`bandhess_common/dogleg`) as one `lax.while_loop`.

A turn evaluates F, J and the two steps where the last step led, whether or not that will be accepted: the user's
function stands in the program once, and steps that are turned down are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.dogleg import ACCEPT, FLOOR, GOOD, GROW, POOR, SHRINK, Facts, ends

from ...band.general import times, times_transposed
from ...extraction.jacobian import Residuals, general_band, linearize_rows, too_narrow
from ...linalg.lu import eliminate, substitute

OPEN = -1


class Point(NamedTuple):
    """An iterate and what its linear model offers."""

    x: Array
    newton: Array  # NaN where J is singular
    cauchy: Array
    scale: Array  # D
    square: Array  # |F|^2
    size: Array  # max|F|
    gain: Array  # of |F|^2, that cauchy promises
    noise: Array  # of F, from rounding in its terms


class State(NamedTuple):
    """point is the best so far; step leads from there to where the next turn looks."""

    point: Point
    step: Array
    length: Array  # |D step|
    promised: Array
    full: Array  # the step is Newton's, and shorter than sqrt(eps) of the way
    radius: Array
    largest: Array  # max|F| of all accepted points
    steps: Array
    turns: Array
    status: Array


class Limits(NamedTuple):
    tol: Any
    max_steps: Any


def initial(x0: Array) -> State:
    zero, inf = jnp.zeros((), x0.dtype), jnp.full((), jnp.inf, x0.dtype)
    none, blank = jnp.int32(0), jnp.zeros_like(x0)
    point = Point(x0, blank, blank, blank, inf, inf, zero, zero)
    return State(point, blank, zero, inf, jnp.array(False), inf, zero, jnp.int32(-1), none, jnp.int32(OPEN))


def search(residuals: Residuals, fun: Callable, limits: Limits, check_band: bool, x0: Array) -> State:
    """The state in which the search ended. fun: flat -> (flat residuals, None)."""
    return lax.while_loop(
        lambda s: s.status == OPEN, lambda s: _turn(residuals, fun, limits, check_band, x0, s), initial(x0)
    )


def _turn(residuals: Residuals, fun: Callable, limits: Limits, check_band: bool, x0: Array, s: State) -> State:
    first, x = s.turns == 0, s.point.x + s.step
    F, push, _ = linearize_rows(fun, x)
    ab = general_band(push, residuals)
    found = _point(x, F, ab, residuals, s.point.scale)
    finite = jnp.isfinite(found.square) & jnp.isfinite(ab).all()
    ratio = (s.point.square - found.square) / s.promised
    accepted = finite & (first | (ratio >= ACCEPT))
    point = Point(*(jnp.where(accepted, new, old) for new, old in zip(found, s.point, strict=True)))
    shrunk = jnp.where(first, jnp.inf, SHRINK * s.length)
    grown = jnp.where(ratio > GOOD, jnp.maximum(s.radius, GROW * s.length), s.radius)
    radius = jnp.where(finite & (ratio >= POOR), grown, shrunk)
    largest = jnp.where(accepted, jnp.maximum(s.largest, point.size), s.largest)
    steps = s.steps + accepted.astype(jnp.int32)

    eps = float(jnp.finfo(x.dtype).eps)
    regular = jnp.isfinite(point.newton).all()
    far = _norm(jnp.where(regular, point.newton, 0) * point.scale)
    reach = _norm(point.scale * point.x)
    way = jnp.maximum(reach, _norm(point.scale * (point.x - x0)))
    step, length, promised = _dogleg(point, regular, far, radius)
    near = regular & (far <= eps**0.5 * way)
    proven = (point.size <= limits.tol * largest) & regular & (far <= limits.tol * way)
    narrow = jnp.array(False)
    if check_band:
        looked = accepted & (first | proven)
        narrow = lax.cond(looked, lambda: too_narrow(push, ab, residuals), lambda: jnp.array(False))
    facts = Facts(
        bad_start=first & ~finite,
        narrow=narrow,
        proven=proven,
        floor=(point.size <= point.noise) | (s.full & finite & (found.size > s.point.size / 2)),
        spent=steps >= limits.max_steps,
        still=~(promised > eps**0.5 * point.square) | ~(length > eps * reach),
        bad=~finite,
    )
    status = jnp.int32(OPEN)
    for fact, end in reversed(ends(facts)):
        status = jnp.where(fact, jnp.int32(end), status)
    full = near & (far <= radius)
    return State(point, step, length, promised, full, radius, largest, steps, s.turns + 1, status)


def _norm(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v))


def _point(x: Array, F: Array, ab: Array, residuals: Residuals, scale: Array) -> Point:
    l, u = residuals.reach
    lu = eliminate(ab, l, u)
    newton = jnp.where(lu.singular, jnp.nan, -substitute(lu, F, False))
    scale = jnp.maximum(scale, jnp.sqrt(jnp.sum(ab * ab, axis=0)))
    gradient = times_transposed(ab, F, u)
    down = gradient / jnp.where(scale > 0, scale * scale, 1)
    slope, bent = jnp.sum(gradient * down), jnp.sum(times(ab, down, l) ** 2)
    t = jnp.where(bent > 0, slope / jnp.where(bent > 0, bent, 1), 0)
    noise = FLOOR * float(jnp.finfo(x.dtype).eps) * jnp.max(times(jnp.abs(ab), jnp.abs(x), l))
    return Point(x, newton, -t * down, scale, jnp.sum(F * F), jnp.max(jnp.abs(F)), t * slope, noise)


def _dogleg(point: Point, regular: Array, far: Array, radius: Array) -> tuple[Array, Array, Array]:
    """`(step, |D step|, promised)`: step = a cauchy + b newton."""
    newton = jnp.where(regular, point.newton, 0)
    cauchy, difference = point.scale * point.cauchy, point.scale * (newton - point.cauchy)
    near = _norm(cauchy)
    # |cauchy + b (newton - cauchy)| = radius, solved for b without cancellation.
    square, half = jnp.sum(difference**2), jnp.sum(cauchy * difference)
    room = jnp.maximum(radius**2 - near**2, 0)
    root = jnp.sqrt(jnp.maximum(half**2 + square * room, 0))
    b = jnp.where(half > 0, room / (half + root), (root - half) / square)
    inside = near >= radius
    b = jnp.where(inside | ~regular | ~(b >= 0), 0, jnp.minimum(b, 1))
    a = jnp.where(inside, radius / near, 1 - b)
    whole = regular & (far <= radius)
    a, b = jnp.where(whole, 0, a), jnp.where(whole, 1, b)
    promised = b * (2 - b) * point.square + (2 * (1 - b) - a) * a * point.gain
    step = a * point.cauchy + b * newton
    return step, _norm(point.scale * step), promised
