"""Newton's method with the exact banded Hessian: a trust region, its subproblem solved on banded factors.

Every step minimises the quadratic model g^T p + p^T H p / 2 within |p| <= radius: p = -(H + shift I)^-1 g, with the
shift that makes H + shift I positive definite and |p| equal to the radius, or 0 where the Newton step fits (Moré and
Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). A factorisation that fails is the inertia test;
factorisations are cheap beside derivatives, so trial points cost the value only.

The loop is one flat state machine. A turn factorises once with the shift at hand, and then ends the solve, or tries
its step (accepting it renews the derivatives, rejecting it shrinks the radius), or betters the shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ._bandwidth import detect_bandwidth, hash_noise, too_narrow
from ._hessian import ChunkSize, Extraction, Objective, extract, linearize_gradient
from ._probing import Probing
from ._solve import Factor, factor
from ._status import Status, StepInfo, print_progress
from ._storage import as_index, matvec

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

    x: Tensor
    value: float
    grad: Tensor
    ab: Tensor
    low: float  # Gershgorin's bounds of the spectrum
    high: float
    rounding: float  # size of the gradient's rounding errors, eps |H| |x|, at its largest
    product: Callable[[Tensor], Tensor]

    @property
    def norm(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def grad_norm(self) -> float:
        return float(self.grad.abs().max())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and bool(self.grad.isfinite().all() & self.ab.isfinite().all())


def _gershgorin(ab: Tensor) -> tuple[float, float]:
    diagonal = ab[0]
    sums = matvec(ab.abs(), torch.ones_like(diagonal)) - diagonal.abs()
    return float((diagonal - sums).min()), float((diagonal + sums).max())


def _bracket(point: Point, radius: float) -> tuple[float, float]:
    wanted = float(torch.linalg.vector_norm(point.grad)) / radius
    low = max(0.0, -float(point.ab[0].min()), wanted - point.norm)
    return low, max(low, wanted + max(0.0, -point.low))


def _inside(low: float, high: float) -> float:
    """A shift well inside the bracket, nearer its lower end."""
    return max(math.sqrt(low * high), low + 0.01 * (high - low))


def _reach(p: Tensor, z: Tensor, radius: float) -> float:
    """The tau of smaller size with |p + tau z| = radius, for |p| < radius, |z| = 1."""
    pz, room = float(p @ z), max(radius**2 - float(p @ p), 0.0)
    root = pz + (-1 if pz < 0 else 1) * math.sqrt(pz**2 + room)
    return room / root if root else 0.0


def _newton(options: Options, fun: Callable, x0: Any, args: tuple, callback: Callable | None) -> tuple:
    layout = options.objective.layout
    flat_fun, x = options.objective.bind(fun, (x0, *args), {})
    eps, tiny = torch.finfo(layout.dtype).eps, torch.finfo(layout.dtype).tiny
    dummies = layout.dummies()

    def derivatives(x: Tensor) -> Point:
        grad, product, (value, _) = linearize_gradient(flat_fun, x)
        ab = extract(product, layout, options.extraction)
        ab[0] -= dummies
        low, high = _gershgorin(ab)
        rounding = eps * float(matvec(ab.abs(), x.abs()).max())
        # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
        size = dummies * (high if high > 0 else 1)
        ab[0] += size
        return Point(x, float(value), grad, ab, low, high, rounding, lambda v: product(v) + size * v)

    point = start = derivatives(x)
    value_floor = eps**0.25 * min(1.0, abs(start.value))  # for objectives that end at 0
    grad_unit = start.grad_norm  # the largest max|g| met so far
    fall = 0.0  # the size of f: |f(x0)|, or the first predicted decrease

    radius = max(1.0, float(torch.linalg.vector_norm(x)))
    low, high = _bracket(start, radius)
    shift, last_shift = low, 0.0
    steps = turns = tries = 0
    bad = not start.finite
    status = Status.NONFINITE if bad else None
    if status is None and options.check_band and too_narrow(start.product, start.ab):
        status = Status.BAND_TOO_NARROW

    def report(shift: float) -> None:
        if callback is not None:
            callback(StepInfo(steps, point.value, point.grad_norm, shift, radius))

    report(0.0)
    while status is None:
        g, unit = point.grad, max(abs(point.value), value_floor)
        soft = eps**0.5 * point.norm + tiny**0.5  # less curvature than this counts as none
        shifted = torch.cat([point.ab[:1] + shift, point.ab[1:]])
        factored: Factor = factor(shifted)
        ok = bool(factored.ok)
        p = -factored.solve(g)
        length = float(torch.linalg.vector_norm(p))
        ok = ok and math.isfinite(length)
        if ok and turns == 0:
            radius = max(radius, length)
        turns += 1

        small = point.grad_norm <= max(options.tol * grad_unit, 8 * point.rounding)
        flat = shift <= soft
        if ok and flat and small and -float(g @ p) / 2 <= options.tol**1.5 * unit:
            status = Status.CONVERGED
            break
        if steps >= options.max_steps:
            status = Status.MAX_STEPS
            break

        # A step that ends well inside the radius though the shift is positive: the hard case, or a saddle. An
        # approximate eigenvector of the least eigenvalue takes it to the boundary.
        short = ok and shift > 0 and length < 0.9 * radius
        hard, curvature = False, 0.0
        if short:
            z = hash_noise(g, turns - 1) * (1 - dummies)
            for _ in range(2):
                z = factored.solve(z)
                z = z / torch.linalg.vector_norm(z)
            curvature = float(z @ matvec(point.ab, z)) + shift
            tau = _reach(p, z, radius)
            hard = tau**2 * curvature <= HARD * (shift * radius**2 - float(g @ p))
            if hard:
                p = p + tau * z
        near = abs(length - radius) <= 0.1 * radius
        exhausted = tries >= TRIES // 2  # the bracket is at rounding level: clip what there is
        if exhausted and ok and not hard:
            p = p * min(1.0, radius / length) if length else p

        if ok and (near or hard or exhausted or (shift == 0 and length <= 1.1 * radius)):  # try the step
            size, slope = float(torch.linalg.vector_norm(p)), float(g @ p)
            predicted = -slope - float(p @ matvec(point.ab, p)) / 2
            value = float(flat_fun(point.x + p)[0])
            ratio = (point.value - value) / predicted if predicted else math.nan
            # Near the end differences of f are noise: where they do not speak for the step, the gradient decides.
            noise = eps**0.6 * unit
            accepted = predicted > 0 and ratio >= ACCEPT
            polish = not accepted and flat and predicted <= noise and value <= point.value + noise
            new = derivatives(point.x + p) if polish or accepted else point
            bad = not (math.isfinite(value) and new.finite)
            floor = polish and not bad and not new.grad_norm <= point.grad_norm / 2
            floor = floor and (small or predicted <= 32 * eps * unit)
            moved = not bad and (accepted or (polish and new.grad_norm < point.grad_norm))
            if moved:
                if ratio > 0.75 and size >= 0.8 * radius:
                    radius = max(radius, 2 * size)
                point, last_shift, steps = new, shift / 3, steps + 1
                grad_unit = max(grad_unit, point.grad_norm)
                report(shift)
                low, high = _bracket(point, radius)
                shift = low  # 0, mostly: the Newton step itself is tried first
            else:
                curved = value - point.value - slope
                cut = -slope / (2 * curved) if math.isfinite(curved) and curved > 0 else 0.1
                radius = min(max(cut, 0.1), 0.5) * size
                if radius > 0:
                    low, high = _bracket(point, radius)
                    low = max(low, shift)  # after a rejection the shift must grow
                    high = max(low, high)
                    shift = min(2 * shift, high) if shift > 0 else _inside(low, high)
            tries = 0
            collapsed = not moved and (
                size <= 4 * eps * float(torch.linalg.vector_norm(point.x)) or radius <= tiny**0.5
            )
            fall = fall or max(abs(start.value), predicted)
            if value <= -(eps**-1.5) * fall:  # -inf included
                status = Status.UNBOUNDED
            elif floor:
                status = Status.PRECISION_FLOOR
            elif collapsed:
                status = Status.NONFINITE if bad else Status.STALLED
        else:  # better the shift
            tries += 1
            if tries > TRIES:
                status = Status.STALLED
                break
            if ok and length < radius:
                high = min(high, shift)
            else:
                low = max(low, shift)
            if short:
                low = max(low, shift - curvature)
            if not ok and shift >= 0.9999 * high:  # Gershgorin's bound may be attained: never close in on it
                high = 1.1 * max(shift, soft)
            # Newton's method on the secular equation 1/radius - 1/|p(shift)| = 0, where it stays in the bracket.
            curve = float(p @ factored.solve(p)) if ok else 0.0
            secular = shift + (length / radius - 1) * length**2 / curve if curve > 0 else 0.0
            if not ok and small and shift < soft:  # a stationary point: is the curvature negative, or merely zero?
                shift = soft
                high = max(high, soft)
            elif ok and low < secular < high:
                shift = secular
            elif not ok and tries == 1 and low < last_shift < high:
                shift = last_shift
            else:
                shift = _inside(low, high)

    finished = status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED)
    # Couplings may vanish at x0 (products of zeros): the end is checked, too.
    if options.check_band and finished and steps and too_narrow(point.product, point.ab):
        status = Status.BAND_TOO_NARROW
    return layout.unravel(point.x), point.value, point.grad_norm, steps, status


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
      fun: real scalar function, twice differentiable; anything that `torch.func.grad` takes.
      x0: start: a tensor or tree of stages (`ravel_stages`).
      bandwidth: of the Hessian, in stages; None detects it (`detect_bandwidth`).
      args: further arguments of `fun`.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      callback: called with a `StepInfo` at x0 and after every accepted step.
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
      STALLED, NONFINITE, BAND_TOO_NARROW, UNBOUNDED. x is always the best point found; it has no autograd graph.

    Cost: a step takes one `value_grad_hessian`, about 1 to 5 banded Cholesky factorisations, and one value per trial.
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write args=(value,) for one argument")
    objective = Objective.of(fun, 0, False, (x0, *args), "x0")
    if tol is None:
        tol = torch.finfo(objective.layout.dtype).eps ** 0.5
    if not (isinstance(tol, float | int) and tol > 0):
        raise ValueError(f"tol must be positive, a number, got {tol!r}")
    if bandwidth is None:
        bandwidth = detect_bandwidth(fun)(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size)
    options = Options(objective, extraction, float(tol), as_index(max_steps, "max_steps"), bool(check_band))
    reporters = [reporter for reporter in (print_progress if verbose else None, callback) if reporter]

    def report(info: StepInfo) -> None:
        for reporter in reporters:
            reporter(info)

    with torch.no_grad():
        x0 = tree_map(Tensor.detach, x0)
        if objective.layout.n == 0:
            value = fun(x0, *args)
            return NewtonResult(x0, value, torch.zeros_like(value), 0, Status.CONVERGED)
        x, value, grad_norm, steps, status = _newton(options, fun, x0, args, report if reporters else None)
    scalars = torch.tensor([value, grad_norm], dtype=objective.layout.dtype, device=objective.layout.device)
    return NewtonResult(x, scalars[0], scalars[1], steps, status)
