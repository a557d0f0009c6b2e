"""A Newton step where curvature is lost to rounding, by conjugate gradients.

The band of H holds what its largest entries leave room for: with cond H > 1/eps the least eigenvalues are noise in it,
and so is a step along their eigenvectors. Products v -> H v by derivatives are more exact: H = J^T W J, say, keeps
v^T H v = |W^(1/2) J v|^2 to rounding however small. Conjugate gradients on those products, preconditioned by the factor
of H + shift I, solve H p = -g in a few turns: in all directions that the band knows, the preconditioner is the inverse.

Steihaug (1983): the way ends at the radius, and follows negative curvature there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from bandhess_common.trust_region import ENOUGH, REFINEMENTS

from .point import Point
from .subproblem import Query, minimise_model


class Refined(NamedTuple):
    step: Tensor
    residual: Tensor  # g + H step
    predicted: float  # the model's decrease
    turns: int


def refine(point: Point, start: Tensor, shift: float, radius: float, grow: bool) -> Refined:
    """The step within radius, or as long as positive curvature takes it where the region grows; shift is what makes
    H + shift I positive definite."""
    step, residual, predicted = 0 * point.grad, point.grad, 0.0
    direction = image = step
    for turn in range(REFINEMENTS):
        # A radius of 0 that may grow to the step: the step itself, by one factorisation.
        query = Query(0.0, shift, shift, shift, shift, shift, -1.0, True)
        z, answer = minimise_model(residual, point.ab, start, query)
        overlap = float(direction @ image)
        if overlap > 0:  # conjugate to the last, whatever rounding did to the preconditioner
            z = z - float(z @ image) / overlap * direction
        direction, image = z, point.product(z)
        slope, curvature = float(residual @ direction), float(direction @ image)
        length, inside = _length(step, direction, slope, curvature, radius, grow)
        if not (answer.found and slope < 0 and math.isfinite(length)):
            return Refined(step, residual, predicted, turn)
        earned = -length * slope - length**2 * curvature / 2
        step, residual, predicted = step + length * direction, residual + length * image, predicted + earned
        if not inside or earned <= ENOUGH * predicted:
            break
    return Refined(step, residual, predicted, turn + 1)


def _length(
    step: Tensor, direction: Tensor, slope: float, curvature: float, radius: float, grow: bool
) -> tuple[float, bool]:
    """How far to go along direction, and whether that is the minimum there; else it is where the region ends,
    |step + length direction| = radius."""
    minimum = -slope / curvature if curvature > 0 else math.inf
    a, b, c = float(direction @ direction), float(step @ direction), float(step @ step) - radius**2
    root = b + math.sqrt(max(b * b - a * c, 0.0))
    border = max(-c, 0.0) / root if root > 0 else 0.0
    inside = minimum < border or (grow and curvature > 0)
    return (minimum if inside else border), inside
