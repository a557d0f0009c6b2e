"""The loop of `sqp`: primal-dual steps on a condensed band, globalised by a merit function.

A turn linearises once, factorises the condensed band (`condensed.py`) with the least shift that gives a usable step,
and walks along it until the merit f - mu sum log s + penalty |(c, G - s)|_1 falls as its slope promises; a full step
that is turned down is corrected to second order first. The penalty follows Byrd, Nocedal and Waltz (2008), the
barrier (`barrier.py`) Wächter and Biegler (2006). Everything is flat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.status import SQPHistory, Status, StepInfo
from bandhess_common.tolerances import FAR, NEAR

from ...band.storage import matvec
from ...band.structures import shifted
from ...extraction.objective import Objective
from ...extraction.products import Extraction
from ...linalg.solve import Factor
from .barrier import MU_START, Barrier, clip_multipliers, next_mu, to_boundary
from .condensed import Functions, System, extract_bands, factor_shifted, largest, linearise

ARMIJO = 1e-4
DROP = 0.1  # share of the predicted decrease in violation that the merit must keep
TRIES = 30  # trial points per step
IDLE = 3  # steps without progress at rounding level before giving up; creeping ones count a quarter


class Options(NamedTuple):
    objective: Objective
    extraction: Extraction
    tol: float
    max_steps: int
    max_seconds: float
    check_band: bool
    history: bool


class Iterate(NamedTuple):
    x: Tensor
    s: Tensor  # slacks of G
    y: Tensor  # multipliers of c
    z: Tensor  # of G


class Report(NamedTuple):
    x: Tensor
    y: Tensor
    z: Tensor
    value: float
    grad_norm: float
    violation: float


class State(NamedTuple):
    now: Iterate
    best: Report  # the last point with finite derivatives
    mu: float
    penalty: float
    shift: float  # of the last step
    step: float  # its length
    fraction: float  # which part of the full step it was
    steps: int
    turns: int
    checked: bool  # the band, near the end
    estimate: bool  # this turn estimates the multipliers, and moves nothing else
    idle: float
    error: float
    grad_unit: float
    value_unit: float
    status: Status | None
    history: list[SQPHistory] | None


def initial(options: Options, start: Iterate, estimate: bool) -> State:
    """Nothing is known yet. With `estimate` the first turn estimates the multipliers of c."""
    return State(
        now=start,
        best=Report(start.x, start.y, start.z, math.nan, math.nan, math.nan),
        mu=MU_START if len(start.s) else 0.0,
        penalty=0.0,
        shift=0.0,
        step=0.0,
        fraction=0.0,
        steps=0,
        turns=0,
        checked=False,
        estimate=estimate,
        idle=0.0,
        error=math.inf,
        grad_unit=0.0,
        value_unit=0.0,
        status=None,
        history=[] if options.history else None,
    )


def advance(
    options: Options,
    functions: Functions,
    start: Iterate,
    active: Tensor,
    held: Tensor,
    estimate: bool,
    callback: Callable | None,
) -> State:
    """The loop, on flat vectors."""
    layout = options.objective.layout
    eps = torch.finfo(layout.dtype).eps
    tol = options.tol
    n_active = int(active.sum())
    has_g = len(start.s) > 0
    began = time.perf_counter()

    def barrier_sum(s: Tensor) -> float:
        return -float(torch.where(active, s.log(), 0).sum())

    def turn(st: State) -> State:
        x, s, y, z = st.now
        estimate = st.estimate
        lin = linearise(functions, x, y, z)
        c, r = lin.c, lin.g - s
        value, grad_norm = float(lin.value), largest(lin.grad)
        violation = max(largest(c), largest(torch.where(active, -lin.g, 0).clamp(min=0)))
        if not estimate and callback is not None:
            callback(StepInfo(st.steps, value, grad_norm, st.shift, st.fraction))
        if st.history is not None:  # a turn that estimates is at the point of the next one, whose row takes its place
            del st.history[st.steps :]
            st.history.append(SQPHistory(value, grad_norm, violation, st.step, st.fraction, st.shift, st.mu))
        if not lin.finite:
            return st._replace(status=Status.NONFINITE)
        best = Report(x, y, z, value, grad_norm, violation)
        grad_unit = max(st.grad_unit, largest(lin.grad_f))
        floor = eps**0.25 * (min(1.0, st.value_unit) if st.value_unit > 0 else 1.0)
        value_unit = st.value_unit if st.turns else abs(value)
        unit = max(abs(value), floor)
        gap = float(y.abs() @ c.abs() + s @ z)

        # The barrier problem's error, in units of the mean multiplier where that is large.
        mean = float(y.abs().sum() + z.sum()) / max(len(y) + len(z), 1)
        weight = max(1.0, mean / 100)

        def barrier_error(mu: float) -> float:
            complementarity = largest(torch.where(active, s * z - mu, 0))
            return max(max(grad_norm, complementarity) / weight, largest(c), largest(r))

        mu = st.mu
        if has_g and not estimate:
            mu = next_mu(mu, barrier_error, tol * unit / (10 * max(n_active, 1)))
        barrier = Barrier(s, z, r, torch.where(active, torch.full_like(s, mu), 0))

        # Couplings may vanish at x0 (products of zeros): the band is checked again near the end.
        near = grad_norm <= tol**0.5 * grad_unit and violation <= tol**0.5
        check = options.check_band and (not st.turns or (near and not st.checked))
        bands, narrow = extract_bands(lin, barrier.sigma, held, layout, options.extraction, check, x)
        if estimate:  # the Hessian is a multiple of the identity: least squares
            bands = bands._replace(h=shifted(torch.zeros_like(bands.h), bands.size_w * (1 - held)))
        if narrow:
            return st._replace(best=best, status=Status.BAND_TOO_NARROW)
        zero_c, zero_g = torch.zeros_like(c), torch.zeros_like(s)
        b1, b2 = -lin.grad, zero_c if estimate else -c
        if has_g and not estimate:
            b1 = b1 - lin.pull(zero_c, barrier.force)
        theta = float(c.abs().sum() + r.abs().sum())
        barrier_mu = mu if has_g else 0.0
        sizes = largest(x) * bands.size_a**0.5

        def noise(penalty: float) -> float:
            """Rounding errors of the merit."""
            return 64 * eps * (unit + barrier_mu * n_active) + 2 * eps * penalty * len(c) * sizes

        def system(factored: Factor, shift: float) -> System:
            diagonal = held * bands.size_w + (1 - held) * shift
            return System(
                lambda v: matvec(bands.h, v) + diagonal * v,
                lambda v: lin.push(v)[0],
                lambda u: lin.pull(u, zero_g),
                factored,
                bands.gamma,
                bands.size_a,
            )

        def step(factored: Factor, shift: float) -> tuple[bool, tuple]:
            """A step, good if the merit falls along it with a penalty large enough."""
            kkt = system(factored, shift)
            dx, dy, r1, r2 = kkt.solve(b1, b2, NEAR if near else FAR)
            ds = barrier.slack_step(lin.push(dx)[1]) if has_g else s
            slope = float(lin.grad_f @ dx) - barrier_mu * float(torch.where(active, ds / s, 0).sum())
            drop = theta - float(r2.abs().sum())
            curvature = float(dx @ (b1 - r1) - dy @ (b2 - r2))  # dx^T H dx
            usable = bool(factored.ok) and bool(dx.isfinite().all() & dy.isfinite().all())
            good = drop > eps * theta or slope - st.penalty * drop <= noise(st.penalty) or estimate
            return usable and good, (dx, dy, ds, slope, drop, curvature, usable)

        factored, shift, parts = factor_shifted(bands, st.shift, step)
        dx, dy, ds, slope, drop, curvature, usable = parts
        st = st._replace(best=best, mu=mu, turns=st.turns + 1, checked=st.checked or near, grad_unit=grad_unit)
        st = st._replace(value_unit=value_unit)
        if estimate:
            now = Iterate(x, s, y + dy, clip_multipliers(z, s, barrier.mu))
            return st._replace(now=now, shift=0.0, estimate=False)
        dz = barrier.multiplier_step(ds)

        # The merit, its penalty and its slope.
        penalty = st.penalty
        if drop > eps * theta:
            wanted = (slope + max(curvature, 0.0) / 2) / ((1 - DROP) * drop)
            if wanted > penalty:
                penalty = 1.1 * wanted
        descent = slope - penalty * drop
        merit = value + barrier_mu * barrier_sum(s) + penalty * theta
        slack = noise(penalty)

        keep = max(0.99, 1 - mu)
        full, full_z = to_boundary(s, ds, keep), to_boundary(z, dz, keep)
        accepted, bad, length, new_value = not usable, False, full, value
        new_x, new_s, new_c, new_r = x, s, c, r
        for tries in range(TRIES if usable else 0):
            length = full * 0.5 ** max(tries - 1, 0)
            step_x, step_s = length * dx, length * ds
            if tries == 1 and bool(new_c.isfinite().all() & new_r.isfinite().all()):
                # The full step was turned down: correct it for the curvature that it met.
                force = lin.pull(zero_c, barrier.sigma * new_r) if has_g else 0.0
                extra = system(factored, shift).correction(-force + torch.zeros_like(x), -new_c)
                step_x = step_x + extra
                if has_g:
                    step_s = step_s + lin.push(extra)[1] + new_r
            if has_g:
                back = to_boundary(s, step_s, keep)
                step_x, step_s = back * step_x, back * step_s
            new_x, new_s = x + step_x, s + step_s
            f, new_c, g = functions(new_x)
            new_value, new_r = float(f), g - new_s
            new = new_value + barrier_mu * barrier_sum(new_s)
            new = new + penalty * float(new_c.abs().sum() + new_r.abs().sum())
            accepted = new <= merit + ARMIJO * length * descent + slack
            bad = bad or not math.isfinite(new)
            if accepted:
                break

        # Where does this end?
        stationary = grad_norm <= max(tol * grad_unit, 8 * eps * bands.size_w * largest(x))
        small = abs(float(lin.grad @ dx)) / 2 + gap <= tol * unit / 4
        flat = shift <= eps**0.5 * bands.size_w
        converged = usable and flat and violation <= tol / 16 and stationary and small
        error = max(grad_norm / (grad_unit if grad_unit > 0 else 1.0), violation) + barrier_mu
        rounding = -descent <= 8 * slack
        if rounding and error > st.error / 2:
            idle = st.idle + 1
        elif length < 0.01 and error > 0.9 * st.error:
            idle = st.idle + 0.25
        else:
            idle = 0.0
        failed = usable and not accepted
        given_up = failed or idle >= IDLE or not usable
        status: Status | None = None
        if converged:
            status = Status.CONVERGED
        elif st.steps >= options.max_steps:
            status = Status.MAX_STEPS
        elif time.perf_counter() - began >= options.max_seconds:
            status = Status.TIME_LIMIT
        elif new_value <= -(eps**-1.5) * max(value_unit, 1.0):  # -inf included
            status = Status.UNBOUNDED
        elif given_up and bad:
            status = Status.NONFINITE
        elif given_up and violation > tol * max(1.0, sizes):
            status = Status.INFEASIBLE
        elif given_up and usable and rounding and grad_norm <= tol**0.5 * grad_unit:
            status = Status.PRECISION_FLOOR
        elif given_up:
            status = Status.STALLED
        finished = status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED)
        if len(c) and finished and system(factored, shift).deficient(c):
            status = Status.RANK_DEFICIENT
        st = st._replace(penalty=penalty, shift=shift, fraction=length, idle=idle, error=error, status=status)
        if status is not None:
            return st
        now = Iterate(new_x, new_s, y + length * dy, clip_multipliers(z + full_z * dz, new_s, barrier.mu))
        return st._replace(now=now, steps=st.steps + 1, step=float(torch.linalg.vector_norm(new_x - x)))

    state = initial(options, start, estimate)
    while state.status is None:
        state = turn(state)
    return state
