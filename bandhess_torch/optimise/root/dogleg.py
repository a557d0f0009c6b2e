"""The iteration of `root`: Powell's dogleg (`bandhess_common/dogleg`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.dogleg import ACCEPT, FLOOR, GOOD, GROW, POOR, SHRINK, Facts, ends
from bandhess_common.status import Status

from ...band.general import times, times_transposed
from ...extraction.jacobian import Residuals, general_band, linearize_rows, too_narrow
from ...linalg.lu import eliminate, pivots_of, solve_eliminated


class Point(NamedTuple):
    """An iterate and what its linear model offers."""

    x: Tensor
    newton: Tensor | None  # None where J is singular
    cauchy: Tensor
    scale: Tensor  # D
    square: float  # |F|^2
    size: float  # max|F|
    gain: float  # of |F|^2, that cauchy promises
    noise: float  # of F, from rounding in its terms
    narrow: Callable[[], bool]


class Step(NamedTuple):
    p: Tensor
    length: float  # |D p|
    promised: float
    full: bool  # Newton's, and shorter than sqrt(eps) of the way


class End(NamedTuple):
    x: Tensor
    size: float
    steps: int
    status: Status


def search(residuals: Residuals, fun: Callable, tol: float, max_steps: int, check_band: bool, x0: Tensor) -> End:
    """fun: flat -> (flat residuals, None)."""
    eps = torch.finfo(x0.dtype).eps
    point = _look(x0, residuals, fun, torch.zeros_like(x0))
    if point is None:
        return End(x0, math.inf, 0, Status.NONFINITE)
    radius, largest, steps = math.inf, point.size, 0
    accepted, finite, stuck = True, True, False
    while True:
        far = math.inf if point.newton is None else _norm(point.newton * point.scale)
        reach = _norm(point.scale * point.x)
        way = max(reach, _norm(point.scale * (point.x - x0)))
        step = _dogleg(point, far, radius, far <= eps**0.5 * way)
        proven = point.size <= tol * largest and far <= tol * way
        facts = Facts(
            bad_start=False,
            narrow=check_band and accepted and (steps == 0 or proven) and point.narrow(),
            proven=proven,
            floor=point.size <= point.noise or stuck,
            spent=steps >= max_steps,
            still=not step.promised > eps**0.5 * point.square or not step.length > eps * reach,
            bad=not finite,
        )
        status = next((end for fact, end in ends(facts) if fact), None)
        if status is not None:
            return End(point.x, point.size, steps, status)
        found = _look(point.x + step.p, residuals, fun, point.scale)
        finite = found is not None
        ratio = (point.square - found.square) / step.promised if found else -math.inf
        accepted = ratio >= ACCEPT
        stuck = step.full and found is not None and found.size > point.size / 2
        if ratio < POOR:
            radius = SHRINK * step.length
        elif ratio > GOOD:
            radius = max(radius, GROW * step.length)
        if accepted and found:
            point, steps, largest = found, steps + 1, max(largest, found.size)


def _norm(v: Tensor) -> float:
    return float(v.square().sum().sqrt())


def _look(x: Tensor, residuals: Residuals, fun: Callable, scale: Tensor) -> Point | None:
    """None where F or J is not finite."""
    F, pull, _ = linearize_rows(fun, x)
    F = F.detach()
    square = float(F.square().sum())
    ab = general_band(pull, residuals).detach() if math.isfinite(square) else None
    if ab is None or not ab.isfinite().all():
        return None
    l, u = residuals.reach
    parts = eliminate(ab, l, u)
    newton = None
    if (pivots_of(parts, l, u) != 0).all():
        newton = -solve_eliminated(ab, parts, F, l, u)
        newton = newton if newton.isfinite().all() else None
    scale = torch.maximum(scale, ab.square().sum(0).sqrt())
    gradient = times_transposed(ab, F, u)
    down = gradient / torch.where(scale > 0, scale.square(), 1)
    slope, bent = float((gradient * down).sum()), float(times(ab, down, l).square().sum())
    t = slope / bent if bent > 0 else 0.0
    noise = FLOOR * torch.finfo(x.dtype).eps * float(times(ab.abs(), x.abs(), l).max())
    return Point(
        x, newton, -t * down, scale, square, float(F.abs().max()), t * slope, noise,
        lambda: too_narrow(pull, ab, residuals),
    )  # fmt: skip


def _dogleg(point: Point, far: float, radius: float, near: bool) -> Step:
    """The step: a cauchy + b newton."""
    if point.newton is not None and far <= radius:
        return Step(point.newton, far, point.square, near)
    cauchy, length = point.scale * point.cauchy, _norm(point.scale * point.cauchy)
    if length >= radius:
        a, b = radius / length, 0.0
    elif point.newton is None:
        a, b = 1.0, 0.0
    else:
        # |cauchy + b (newton - cauchy)| = radius, solved for b without cancellation.
        difference = point.scale * (point.newton - point.cauchy)
        square, half = float(difference.square().sum()), float((cauchy * difference).sum())
        room = radius**2 - length**2
        root = math.sqrt(half**2 + square * room)
        b = min(room / (half + root) if half > 0 else (root - half) / square, 1.0)
        a = 1 - b
    p = a * point.cauchy if point.newton is None or b == 0 else a * point.cauchy + b * point.newton
    promised = b * (2 - b) * point.square + (2 * (1 - b) - a) * a * point.gain
    return Step(p, _norm(point.scale * p), promised, False)
