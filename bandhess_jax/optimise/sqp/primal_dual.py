"""The loop of `sqp`: primal-dual steps on a condensed band, globalised by a merit function.

A turn linearises once, factorises the condensed band (`condensed.py`) with the least shift that gives a usable step,
and walks along it until the merit f - mu sum log s + penalty |(c, G - s)|_1 falls as its slope promises; a full step
that is turned down is corrected to second order first. The penalty follows Byrd, Nocedal and Waltz (2008), the
barrier (`barrier.py`) Wächter and Biegler (2006).

Everything is flat, and each expensive thing stands once in the program. Inner loops stand for branches: under vmap they
run as long as some lane needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.status import SQPHistory, Status, StepInfo
from bandhess_common.tolerances import FAR, NEAR

from ...band.storage import matvec
from ...band.structures import shifted
from ...extraction.objective import Objective
from ...extraction.products import Extraction
from ...linalg.solve import Factor
from .barrier import MU_START, Barrier, clip_multipliers, next_mu, to_boundary
from .condensed import Functions, System, extract_bands, factor_shifted, largest, linearise, only_if

RUNNING = -1
ARMIJO = 1e-4
DROP = 0.1  # share of the predicted decrease in violation that the merit must keep
TRIES = 30  # trial points per step
IDLE = 3  # steps without progress at rounding level before giving up; creeping ones count a quarter


class Options(NamedTuple):
    objective: Objective
    extraction: Extraction
    tol: float
    max_steps: int
    check_band: bool
    history: bool
    blank: bool  # where nothing is known: NaN, or numbers under jax_debug_nans


class Iterate(NamedTuple):
    x: Array
    s: Array  # slacks of G
    y: Array  # multipliers of c
    z: Array  # of G


class Report(NamedTuple):
    x: Array
    y: Array
    z: Array
    value: Array
    grad_norm: Array
    violation: Array


class State(NamedTuple):
    now: Iterate
    best: Report  # the last point with finite derivatives
    mu: Array
    penalty: Array
    shift: Array  # of the last step
    step: Array  # its length
    fraction: Array  # which part of the full step it was
    steps: Array
    turns: Array
    checked: Array  # the band, near the end
    estimate: Array  # this turn estimates the multipliers, and moves nothing else
    idle: Array
    error: Array
    grad_unit: Array
    value_unit: Array
    status: Array
    history: SQPHistory | None

    @property
    def open(self) -> Array:
        return self.status == RUNNING


class Trial(NamedTuple):
    length: Array
    x: Array
    s: Array
    value: Array
    c: Array
    r: Array
    tries: Array
    accepted: Array
    bad: Array  # some trial point was not finite


def initial(options: Options, start: Iterate, estimate: bool) -> State:
    """Nothing is known yet. With `estimate` the first turn estimates the multipliers of c."""
    dtype = options.objective.layout.dtype
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    unknown = zero + (jnp.nan if options.blank else jnp.inf)
    rows = jnp.full(options.max_steps + 1, jnp.nan if options.blank else 0, dtype)
    return State(
        now=start,
        best=Report(start.x, start.y, start.z, unknown, unknown, unknown),
        mu=zero + (MU_START if len(start.s) else 0),
        penalty=zero,
        shift=zero,
        step=zero,
        fraction=zero,
        steps=none,
        turns=none,
        checked=jnp.bool_(False),
        estimate=jnp.bool_(estimate),
        idle=zero,
        error=zero + jnp.inf,
        grad_unit=zero,
        value_unit=zero,
        status=none + RUNNING,
        history=SQPHistory(*[rows] * len(SQPHistory._fields)) if options.history else None,
    )


def advance(
    options: Options,
    functions: Functions,
    active: Array,
    held: Array,
    callback: Callable | None,
    state: State,
    bounds: tuple[Any, Any] | None = None,
) -> State:
    """Turn until the end, or until the bounds of turns (of which the last may leave the loop open) and of steps."""
    last, max_steps = bounds or (None, options.max_steps)
    layout = options.objective.layout
    dtype = layout.dtype
    eps = float(jnp.finfo(dtype).eps)
    tol = options.tol
    n_active = jnp.sum(active.astype(dtype))
    has_g = len(state.now.s) > 0

    def barrier_sum(s: Array) -> Array:
        return -jnp.sum(jnp.where(active, jnp.log(s), 0))

    def turn(st: State) -> State:
        x, s, y, z = st.now
        lin = linearise(functions, x, y, z)
        c, r = lin.c, lin.g - s
        grad_norm = largest(lin.grad)
        violation = jnp.maximum(largest(c), jnp.max(-jnp.where(active, lin.g, 0), initial=0))
        finite = lin.finite
        best = Report(x, y, z, lin.value, grad_norm, violation)
        best = jax.tree.map(lambda a, b: jnp.where(finite, a, b), best, st.best)
        grad_unit = jnp.maximum(st.grad_unit, largest(lin.grad_f))
        floor = eps**0.25 * jnp.where(st.value_unit > 0, jnp.minimum(1, st.value_unit), 1)
        value_unit = jnp.where(st.turns == 0, jnp.abs(lin.value), st.value_unit)
        unit = jnp.maximum(jnp.abs(lin.value), floor)
        gap = jnp.abs(y) @ jnp.abs(c) + s @ z

        # The barrier problem's error, in units of the mean multiplier where that is large.
        mean = (jnp.sum(jnp.abs(y)) + jnp.sum(z)) / max(len(y) + len(z), 1)
        weight = jnp.maximum(1, mean / 100)

        def barrier_error(mu: Array) -> Array:
            complementarity = largest(jnp.where(active, s * z - mu, 0))
            return jnp.maximum(jnp.maximum(grad_norm, complementarity) / weight, jnp.maximum(largest(c), largest(r)))

        mu = st.mu
        if has_g:
            least = tol * unit / (10 * jnp.maximum(n_active, 1))
            mu = jnp.where(st.estimate, mu, next_mu(mu, barrier_error, least.astype(dtype)))
        barrier = Barrier(s, z, r, jnp.where(active, mu, 0))

        # Couplings may vanish at x0 (products of zeros): the band is checked again near the end.
        near = (grad_norm <= tol**0.5 * grad_unit) & (violation <= tol**0.5)
        check = jnp.bool_(options.check_band) & ((st.turns == 0) | (near & ~st.checked))
        bands, narrow = extract_bands(
            lin.push, lin.pull, barrier.sigma, held, layout, options.extraction, check, (len(c), lin.grad_f, x)
        )
        # To estimate multipliers, the Hessian is a multiple of the identity: least squares.
        identity = shifted(jnp.zeros_like(bands.h), bands.size_w * (1 - held))
        bands = bands._replace(h=jnp.where(st.estimate, identity, bands.h))
        zero_c, zero_g = jnp.zeros_like(c), jnp.zeros_like(s)
        b1 = -lin.grad - (lin.pull(zero_c, jnp.where(st.estimate, 0, barrier.force)) if has_g else 0)
        b2 = jnp.where(st.estimate, 0, -c)
        theta = jnp.sum(jnp.abs(c)) + jnp.sum(jnp.abs(r))
        barrier_mu = mu if has_g else jnp.zeros((), dtype)

        sizes = largest(x) * bands.size_a**0.5

        def noise(penalty: Array) -> Array:
            """Rounding errors of the merit."""
            return 64 * eps * (unit + barrier_mu * n_active) + 2 * eps * penalty * len(c) * sizes

        def system(factored: Factor, shift: Array) -> System:
            diagonal = held * bands.size_w + (1 - held) * shift
            return System(
                lambda v: matvec(bands.h, v) + diagonal * v,
                lambda v: lin.push(v)[1],
                lambda u: lin.pull(u, zero_g),
                factored,
                bands.gamma,
                bands.size_a,
            )

        def step(factored: Factor, shift: Array) -> tuple[Array, tuple]:
            """A step, good if the merit falls along it with a penalty large enough."""
            kkt = system(factored, shift)
            dx, dy, r1, r2 = kkt.solve(b1, b2, jnp.where(near, NEAR, FAR))
            ds = barrier.slack_step(lin.push(dx)[2]) if has_g else s
            slope = lin.grad_f @ dx - barrier_mu * jnp.sum(jnp.where(active, ds / s, 0))
            drop = theta - jnp.sum(jnp.abs(r2))
            curvature = dx @ (b1 - r1) - dy @ (b2 - r2)  # dx^T H dx
            usable = factored.ok & jnp.isfinite(dx).all() & jnp.isfinite(dy).all()
            good = (drop > eps * theta) | (slope - st.penalty * drop <= noise(st.penalty)) | st.estimate
            return usable & good, (dx, dy, ds, slope, drop, curvature, usable)

        factored, shift, parts = factor_shifted(bands, st.shift, step)
        dx, dy, ds, slope, drop, curvature, usable = parts
        usable &= finite
        dz = barrier.multiplier_step(ds)

        # The merit, its penalty and its slope.
        wanted = (slope + jnp.maximum(curvature, 0) / 2) / ((1 - DROP) * jnp.where(drop > 0, drop, 1))
        raised = (drop > eps * theta) & (wanted > st.penalty)
        penalty = jnp.where(raised, 1.1 * wanted, st.penalty)
        descent = slope - penalty * drop
        merit = lin.value + barrier_mu * barrier_sum(s) + penalty * theta
        slack = noise(penalty)

        keep = jnp.maximum(0.99, 1 - mu)
        full = to_boundary(s, ds, keep)
        full_z = to_boundary(z, dz, keep)

        def attempt(t: Trial) -> Trial:
            def correction() -> Array:
                force = lin.pull(zero_c, barrier.sigma * t.r) if has_g else jnp.zeros_like(x)
                return system(factored, shift).correction(-force, -t.c)

            # The full step was turned down: correct it for the curvature that it met.
            again = (t.tries == 1) & jnp.isfinite(t.c).all() & jnp.isfinite(t.r).all()
            extra = only_if(again, correction, jnp.zeros_like(x))
            length = full * 0.5 ** jnp.maximum(t.tries - 1, 0).astype(dtype)
            step_x, step_s = length * dx + extra, length * ds
            if has_g:
                step_s = jnp.where(again, step_s + lin.push(extra)[2] + t.r, step_s)
                back = to_boundary(s, step_s, keep)
                step_x, step_s = back * step_x, back * step_s
            new_x, new_s = x + step_x, s + step_s
            value, c_new, g_new = functions(new_x)
            r_new = g_new - new_s
            new = value + barrier_mu * barrier_sum(new_s)
            new = new + penalty * (jnp.sum(jnp.abs(c_new)) + jnp.sum(jnp.abs(r_new)))
            accepted = new <= merit + ARMIJO * length * descent + slack
            return Trial(length, new_x, new_s, value, c_new, r_new, t.tries + 1, accepted, t.bad | ~jnp.isfinite(new))

        trial = lax.while_loop(
            lambda t: ~t.accepted & (t.tries < TRIES),
            attempt,
            Trial(full, x, s, lin.value, c, r, jnp.int32(0), st.estimate | ~usable, jnp.bool_(False)),
        )

        if callback is not None:
            info = StepInfo(st.steps, lin.value, grad_norm, st.shift, st.fraction)
            lax.cond(st.estimate, lambda _: None, lambda info: jax.debug.callback(callback, info), info)
        history = st.history
        if history is not None:
            row = SQPHistory(lin.value, grad_norm, violation, st.step, st.fraction, st.shift, st.mu)
            # A turn that estimates is at the point of the next one, whose row takes its place.
            history = jax.tree.map(lambda rows, a: rows.at[st.steps].set(a), history, row)

        # Where does this end?
        soft = eps**0.5 * bands.size_w
        flat = shift <= soft
        decrement = jnp.abs(lin.grad @ dx) / 2
        feasible = violation <= tol / 16
        stationary = grad_norm <= jnp.maximum(tol * grad_unit, 8 * eps * bands.size_w * largest(x))
        small = decrement + gap <= tol * unit / 4
        converged = usable & flat & feasible & ~st.estimate & stationary & small
        error = jnp.maximum(grad_norm / jnp.where(grad_unit > 0, grad_unit, 1), violation) + barrier_mu
        floor_reached = (-descent <= 8 * slack) & (error > st.error / 2)
        creeping = (trial.length < 0.01) & (error > 0.9 * st.error)
        idle = jnp.where(floor_reached, st.idle + 1, jnp.where(creeping, st.idle + 0.25, 0))
        idle = jnp.where(st.estimate, 0, idle).astype(dtype)
        failed = usable & ~trial.accepted
        given_up = failed | (idle >= IDLE) | (finite & ~usable)
        low = -(eps**-1.5) * jnp.maximum(value_unit, 1)
        status = jnp.select(
            [
                ~finite,
                narrow,
                converged,
                (st.steps >= max_steps) & ~st.estimate,
                trial.value <= low,
                given_up & trial.bad,
                given_up & (violation > tol * jnp.maximum(1, sizes)),
                given_up & usable & (-descent <= 8 * slack) & (grad_norm <= tol**0.5 * grad_unit),
                given_up,
            ],
            [
                Status.NONFINITE, Status.BAND_TOO_NARROW, Status.CONVERGED, Status.MAX_STEPS, Status.UNBOUNDED,
                Status.NONFINITE, Status.INFEASIBLE, Status.PRECISION_FLOOR, Status.STALLED,
            ],
            RUNNING,
        ).astype(jnp.int32)  # fmt: skip
        if len(c):
            finished = (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR) | (status == Status.STALLED)
            deficient = only_if(finished, lambda: system(factored, shift).deficient(c), jnp.bool_(False))
            status = jnp.where(deficient, jnp.int32(Status.RANK_DEFICIENT), status)

        moved = (status == RUNNING) & ~st.estimate
        new_s = jnp.where(moved, trial.s, s)
        new_z = jnp.where(moved, z + full_z * dz, z)
        now = Iterate(
            jnp.where(moved, trial.x, x),
            new_s,
            jnp.where(status == RUNNING, y + jnp.where(st.estimate, 1, trial.length) * dy, y),
            clip_multipliers(new_z, new_s, jnp.where(active, mu, 0)),
        )
        return State(
            now=now,
            best=best,
            mu=mu,
            penalty=penalty,
            shift=jnp.where(st.estimate, 0, shift),
            step=jnp.where(st.estimate, 0, jnp.linalg.norm(trial.x - x)),
            fraction=jnp.where(st.estimate, 0, trial.length),
            steps=st.steps + moved.astype(jnp.int32),
            turns=st.turns + 1,
            checked=st.checked | near,
            estimate=jnp.bool_(False),
            idle=idle,
            error=jnp.where(st.estimate, st.error, error),
            grad_unit=grad_unit,
            value_unit=value_unit,
            status=status,
            history=history,
        )

    return lax.while_loop(lambda s: s.open if last is None else s.open & (s.turns < last), turn, state)
