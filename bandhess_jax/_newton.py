"""Newton's method with the exact banded Hessian: a trust region, its subproblem solved on banded factors.

Every step minimises the quadratic model g^T p + p^T H p / 2 within |p| <= radius: p = -(H + shift I)^-1 g, with the
shift that makes H + shift I positive definite and |p| equal to the radius, or 0 where the Newton step fits (Moré and
Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). A factorisation that fails is the inertia test;
factorisations are cheap beside derivatives, so trial points cost the value only.

The loop is one flat state machine. A turn factorises once with the shift at hand, and then ends the solve, or tries
its step (accepting it renews the derivatives, rejecting it shrinks the radius), or betters the shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ._bandwidth import detect_bandwidth, hash_noise, too_narrow
from ._hessian import ChunkSize, Extraction, Objective, extract, linearize_gradient
from ._jit import jit_call
from ._probing import Probing
from ._solve import Factor, factor
from ._status import Status, StepInfo, print_progress
from ._storage import as_index, matvec

RUNNING = -1
ACCEPT = 0.25  # least ratio of actual to predicted decrease; accepting less lets early steps land far from the valley
HARD = 0.02  # tolerance of the model where an eigenvector helps; at 0.2 chance picks among local minima
TRIES = 60  # factorisations spent on one shift before giving up


class NewtonResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad f(x)|, accepted steps, a `Status`, and the history if asked for."""

    x: Any
    value: Any
    grad_norm: Any
    steps: Any
    status: Any
    history: Any = None


class Options(NamedTuple):
    objective: Objective
    extraction: Extraction
    tol: float
    max_steps: int
    check_band: bool


class Point(NamedTuple):
    """An iterate and what is known there."""

    x: Array
    value: Array
    grad: Array
    ab: Array
    low: Array  # Gershgorin's bounds of the spectrum
    high: Array
    rounding: Array  # size of the gradient's rounding errors, eps |H| |x|, at its largest

    @property
    def norm(self) -> Array:
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    @property
    def grad_norm(self) -> Array:
        return jnp.max(jnp.abs(self.grad), initial=0)

    @property
    def finite(self) -> Array:
        return jnp.isfinite(self.value) & jnp.isfinite(self.grad).all() & jnp.isfinite(self.ab).all()


class State(NamedTuple):
    point: Point
    radius: Array
    shift: Array
    shift_low: Array  # the wanted shift lies between these two
    shift_high: Array
    last_shift: Array  # of the step before: the first guess where 0 will not do
    steps: Array
    turns: Array
    tries: Array  # factorisations since the step or the radius changed
    bad_trial: Array  # the last trial point was not finite
    grad_unit: Array  # the largest max|g| met so far
    fall: Array  # the size of f: |f(x0)|, or the first predicted decrease
    status: Array


def _gershgorin(ab: Array) -> tuple[Array, Array]:
    sums = matvec(jnp.abs(ab.at[0].set(0)), jnp.ones(ab.shape[1], ab.dtype))
    return jnp.min(ab[0] - sums), jnp.max(ab[0] + sums)


def _bracket(point: Point, radius: Array) -> tuple[Array, Array]:
    wanted = jnp.linalg.norm(point.grad) / radius
    low = jnp.maximum(0, jnp.maximum(-jnp.min(point.ab[0]), wanted - point.norm))
    return low, jnp.maximum(low, wanted + jnp.maximum(0, -point.low))


def _inside(low: Array, high: Array) -> Array:
    """A shift well inside the bracket, nearer its lower end."""
    return jnp.maximum(jnp.sqrt(low * high), low + 0.01 * (high - low))


def _reach(p: Array, z: Array, radius: Array) -> Array:
    """The tau of smaller size with |p + tau z| = radius, for |p| < radius, |z| = 1."""
    pz, room = p @ z, jnp.maximum(radius**2 - p @ p, 0)
    return room / (pz + jnp.where(pz < 0, -1, 1) * jnp.sqrt(pz**2 + room))


def _newton(options: Options, fun: Callable, x0: Any, args: tuple, callback: Callable | None) -> tuple:
    layout = options.objective.layout
    flat_fun, x = options.objective.bind(fun, (x0, *args), {})
    dtype = layout.dtype
    eps = float(jnp.finfo(dtype).eps)
    dummies = layout.dummies() if layout.ragged else jnp.zeros((), dtype)

    def derivatives(x: Array) -> tuple[Point, Callable[[Array], Array]]:
        grad, product, (value, _) = linearize_gradient(flat_fun, x)
        ab = extract(product, layout, options.extraction)
        bare = ab.at[0].add(-dummies)
        low, high = _gershgorin(bare)
        # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
        ab = bare.at[0].add(dummies * jnp.where(high > 0, high, 1))
        rounding = eps * jnp.max(matvec(jnp.abs(bare), jnp.abs(x)), initial=0)
        return Point(x, value.astype(dtype), grad, ab, low, high, rounding), lambda v: product(v) + dummies * ab[0] * v

    def report(state: State, shift: Array) -> None:
        if callback is not None:
            info = StepInfo(state.steps, state.point.value, state.point.grad_norm, shift, state.radius)
            jax.debug.callback(callback, info)

    start, product = derivatives(x)
    value_floor = eps**0.25 * jnp.minimum(1, jnp.abs(start.value))  # for objectives that end at 0

    def turn(s: State) -> State:
        point = s.point
        g, unit = point.grad, jnp.maximum(jnp.abs(point.value), value_floor)
        soft = eps**0.5 * point.norm + jnp.finfo(dtype).tiny ** 0.5  # less curvature than this counts as none
        factored: Factor = factor(point.ab.at[0].add(s.shift))
        p = -factored.solve(g)
        length = jnp.linalg.norm(p)
        ok = factored.ok & jnp.isfinite(length)
        radius = jnp.where(ok & (s.turns == 0), jnp.maximum(s.radius, length), s.radius)

        small = point.grad_norm <= jnp.maximum(options.tol * s.grad_unit, 8 * point.rounding)
        flat = s.shift <= soft
        converged = ok & flat & small & (-(g @ p) / 2 <= options.tol**1.5 * unit)
        ended = converged | (s.steps >= options.max_steps)

        # A step that ends well inside the radius though the shift is positive: the hard case, or a saddle. An
        # approximate eigenvector of the least eigenvalue takes it to the boundary.
        def eigenvector(_: None) -> tuple[Array, Array]:
            z = hash_noise(g, s.turns) * (1 - dummies)

            def inverse_iteration(_: int, z: Array) -> Array:
                z = factored.solve(z)
                return z / jnp.linalg.norm(z)

            z = lax.fori_loop(0, 2, inverse_iteration, z)
            return z, z @ matvec(point.ab, z) + s.shift

        short = ok & (s.shift > 0) & (length < 0.9 * radius)
        z, curvature = lax.cond(short & ~ended, eigenvector, lambda _: (jnp.zeros_like(g), jnp.zeros((), dtype)), None)
        tau = _reach(p, z, radius)
        hard = short & (tau**2 * curvature <= HARD * (s.shift * radius**2 - g @ p))
        p = jnp.where(hard, p + tau * z, p)

        near = jnp.abs(length - radius) <= 0.1 * radius
        exhausted = s.tries >= TRIES // 2  # the bracket is at rounding level: clip what there is
        p = jnp.where(exhausted & ~hard, p * jnp.minimum(1, radius / length), p)
        ready = ok & ~ended & (near | hard | exhausted | ((s.shift == 0) & (length <= 1.1 * radius)))

        def attempt(_: None) -> State:
            size = jnp.linalg.norm(p)
            slope = g @ p
            predicted = -slope - p @ matvec(point.ab, p) / 2
            value = flat_fun(point.x + p)[0].astype(dtype)
            ratio = (point.value - value) / predicted
            # Near the end differences of f are noise: where they do not speak for the step, the gradient decides.
            noise = eps**0.6 * unit
            accepted = (predicted > 0) & (ratio >= ACCEPT)
            polish = ~accepted & flat & (predicted <= noise) & (value <= point.value + noise)
            new = lax.cond(polish | accepted, lambda _: derivatives(point.x + p)[0], lambda _: point, None)
            bad = ~jnp.isfinite(value) | ~new.finite
            better = new.grad_norm < point.grad_norm
            halved = new.grad_norm <= point.grad_norm / 2
            moved = ~bad & (accepted | (polish & better))
            floor = polish & ~bad & ~halved & (small | (predicted <= 32 * eps * unit))

            grown = jnp.where((ratio > 0.75) & (size >= 0.8 * radius), jnp.maximum(radius, 2 * size), radius)
            curved = value - point.value - slope
            cut = jnp.where(jnp.isfinite(curved) & (curved > 0), jnp.clip(-slope / (2 * curved), 0.1, 0.5), 0.1)
            new_radius = jnp.where(moved, grown, cut * size)
            new = jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, point)
            low, high = _bracket(new, new_radius)
            # After a rejection the shift must grow; at a new point the Newton step itself is tried first.
            low = jnp.where(moved, low, jnp.maximum(low, s.shift))
            high = jnp.maximum(low, high)
            shift = jnp.where(moved, low, jnp.where(s.shift > 0, jnp.minimum(2 * s.shift, high), _inside(low, high)))
            least = jnp.maximum(4 * eps * jnp.linalg.norm(point.x), jnp.finfo(dtype).tiny ** 0.5)
            collapsed = ~moved & ((size <= least) | (new_radius <= jnp.finfo(dtype).tiny ** 0.5))
            fall = jnp.where(s.fall > 0, s.fall, jnp.maximum(jnp.abs(start.value), predicted))
            status = jnp.select(
                [
                    value <= -(eps**-1.5) * fall,  # -inf included
                    floor,
                    collapsed & bad,
                    collapsed,
                ],
                [Status.UNBOUNDED, Status.PRECISION_FLOOR, Status.NONFINITE, Status.STALLED],
                RUNNING,
            ).astype(jnp.int32)
            state = State(
                new, new_radius, shift, low, high, jnp.where(moved, s.shift / 3, s.last_shift), s.steps + moved,
                s.turns + 1, jnp.int32(0), bad, jnp.maximum(s.grad_unit, new.grad_norm), fall, status,
            )  # fmt: skip
            if callback is not None:
                lax.cond(moved, lambda _: report(state, s.shift), lambda _: None, None)
            return state

        def reshift(_: None) -> State:
            high = jnp.where(ok & (length < radius), jnp.minimum(s.shift_high, s.shift), s.shift_high)
            low = jnp.where(ok & (length < radius), s.shift_low, jnp.maximum(s.shift_low, s.shift))
            low = jnp.where(short, jnp.maximum(low, s.shift - curvature), low)
            # Gershgorin's bound may be attained: never close in on it.
            high = jnp.where(~ok & (s.shift >= 0.9999 * high), 1.1 * jnp.maximum(s.shift, soft), high)
            # Newton's method on the secular equation 1/radius - 1/|p(shift)| = 0, where it stays in the bracket.
            secular = s.shift + (length / radius - 1) * length**2 / (p @ factored.solve(p))
            guessed = ~ok & (s.tries == 0) & (s.last_shift > low) & (s.last_shift < high)
            newton = ok & ~hard & (secular > low) & (secular < high)
            shift = jnp.where(newton, secular, jnp.where(guessed, s.last_shift, _inside(low, high)))
            # At a stationary point: is the curvature negative, or merely zero?
            shift = jnp.where(~ok & small & (s.shift < soft), soft, shift)
            high = jnp.maximum(high, shift)
            status = jnp.where(s.tries >= TRIES, Status.STALLED, RUNNING).astype(jnp.int32)
            return s._replace(
                radius=radius, shift=shift, shift_low=low, shift_high=high, turns=s.turns + 1, tries=s.tries + 1,
                status=status,
            )  # fmt: skip

        def end(_: None) -> State:
            return s._replace(status=jnp.where(converged, Status.CONVERGED, Status.MAX_STEPS).astype(jnp.int32))

        return lax.switch(jnp.where(ended, 0, jnp.where(ready, 1, 2)), [end, attempt, reshift], None)

    radius = jnp.maximum(1, jnp.linalg.norm(x))
    low, high = _bracket(start, radius)
    status = jnp.where(start.finite, RUNNING, Status.NONFINITE)
    if options.check_band:
        status = jnp.where((status == RUNNING) & too_narrow(product, start.ab), Status.BAND_TOO_NARROW, status)
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    state = State(
        start,
        radius,
        low,
        low,
        high,
        zero,
        none,
        none,
        none,
        ~start.finite,
        start.grad_norm,
        zero,
        status.astype(jnp.int32),
    )
    report(state, zero)
    state = lax.while_loop(lambda s: s.status == RUNNING, turn, state)
    status = state.status
    if options.check_band:
        # Couplings may vanish at x0 (products of zeros): the end is checked, too.
        def wide(point: Point) -> Array:
            product = linearize_gradient(flat_fun, point.x)[1]
            return too_narrow(lambda v: product(v) + dummies * point.ab[0] * v, point.ab)

        finished = (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR) | (status == Status.STALLED)
        narrow = lax.cond(finished & (state.steps > 0), wide, lambda _: jnp.bool_(False), state.point)
        status = jnp.where(narrow, jnp.int32(Status.BAND_TOO_NARROW), status)
    return layout.unravel(state.point.x), state.point.value, state.point.grad_norm, state.steps, status


def newton(
    fun: Callable,
    x0: Any,
    bandwidth: int | None,
    *,
    args: tuple = (),
    tol: float | None = None,
    max_steps: int = 1000,
    callback: Callable[[StepInfo], None] | None = None,
    verbose: bool = False,
    check_band: bool = True,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> NewtonResult:
    """Minimise `fun(x, *args)` by Newton's method with its exact banded Hessian.

    Args:
      fun: real scalar function, twice differentiable, pure and traceable.
      x0: start: an array or tree of stages (`ravel_stages`).
      bandwidth: of the Hessian, in stages; None detects it (`detect_bandwidth`; outside jit).
      args: further arguments of `fun`. New arrays in them do not retrace.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      callback: called with a `StepInfo` at x0 and after every accepted step (through `jax.debug.callback`).
      verbose: print a line of progress per step.
      check_band: spend a product at x0, and one more at the end, on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.

    Returns: `NewtonResult`. Its status is CONVERGED where, with H = H(x) + s I for some 0 <= s <= sqrt(eps) |H|
      positive definite,

          max|g| <= max(tol G, 8 eps max(|H| |x|))   and
          g^T H^-1 g / 2 <= tol^1.5 max(|f(x)|, eps^0.25 min(1, |f(x0)|)),

      G being the largest max|g| met on the way. PRECISION_FLOOR: what Newton steps promise is at rounding level, and
      they reduce the gradient no more. Other ends: MAX_STEPS,
      STALLED, NONFINITE, BAND_TOO_NARROW, UNBOUNDED. x is always the best point found. Status and steps are Python
      integers outside jit, integer arrays inside, and nothing is raised there.

    Cost: a step takes one `value_grad_hessian`, about 1 to 5 banded Cholesky factorisations, and one value per trial.
    One `lax.while_loop`: works under jit and vmap (lanes that end stay as they are).
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write args=(value,) for one argument")
    objective = Objective.of(fun, 0, False, (x0, *args), "x0")
    if tol is None:
        tol = float(jnp.finfo(objective.layout.dtype).eps) ** 0.5
    if not (isinstance(tol, float | int) and tol > 0):
        raise ValueError(f"tol must be positive, a number, got {tol!r}")
    if bandwidth is None:
        bandwidth = detect_bandwidth(fun)(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(objective.layout.n, (x0, args))
    options = Options(objective, extraction, float(tol), as_index(max_steps, "max_steps"), bool(check_band))
    if callback is not None and verbose:
        user = callback

        def callback(info: StepInfo) -> None:
            print_progress(info)
            user(info)

    elif verbose:
        callback = print_progress
    if objective.layout.n == 0:
        value = jnp.asarray(fun(x0, *args))
        return NewtonResult(x0, value, jnp.zeros_like(value), 0, Status.CONVERGED)
    x, value, grad_norm, steps, status = jit_call(_newton, options, fun, x0, args, callback)
    if not isinstance(status, jax.core.Tracer):
        if callback is not None:
            jax.effects_barrier()
        steps, status = int(steps), Status(int(status))
    return NewtonResult(x, value, grad_norm, steps, status)
