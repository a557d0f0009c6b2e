"""A Newton step where curvature is lost to rounding, by conjugate gradients.

The band of H holds what its largest entries leave room for: with cond H > 1/eps the least eigenvalues are noise in it,
and so is a step along their eigenvectors. Products v -> H v by derivatives are more exact: H = J^T W J, say, keeps
v^T H v = |W^(1/2) J v|^2 to rounding however small. Conjugate gradients on those products, preconditioned by the factor
of H + shift I, solve H p = -g in a few turns: in all directions that the band knows, the preconditioner is the inverse.

Steihaug (1983): the way ends at the radius, and follows negative curvature there.

A turn of the trust-region loop is a turn of this: z = -(H + shift I)^-1 residual comes from the search's program, H z
from a visit of the same point, and what follows is here.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from bandhess_common.trust_region import ENOUGH

from .subproblem import Answer, Query

STEP, RESIDUAL, LAST, LAST_IMAGE, NEW, IMAGE, GRAD = range(7)  # rows of the vectors at hand


class Work(NamedTuple):
    """A step on the way, vectors `(n,)` of the loop's variables; packed as `(4, n)`."""

    step: Array
    residual: Array  # g + H step
    direction: Array  # the last
    image: Array  # H direction


def begin(grad: Array) -> Array:
    """Packed, with nothing done yet."""
    zero = jnp.zeros_like(grad)
    return jnp.stack(Work(zero, grad, zero, zero))


def plain(shift: Array) -> Query:
    """Asks for -(H + shift I)^-1 g itself, by one factorisation: a radius of 0 that may grow to the step."""
    return Query(0, shift, shift, shift, shift, shift, enough=-1, grow=1, idle=0)


def _length(
    sizes: tuple[Array, Array, Array], slope: Array, curvature: Array, radius: Array, grow: Array
) -> tuple[Array, Array]:
    """How far to go along the direction d, and whether that is the minimum there; else it is where the region ends,
    |step + length d| = radius. sizes holds d^T d, step^T d and step^T step."""
    minimum = jnp.where(curvature > 0, -slope / curvature, jnp.inf)
    a, b, c = sizes[0], sizes[1], sizes[2] - radius**2
    root = b + jnp.sqrt(jnp.maximum(b * b - a * c, 0))
    border = jnp.where(root > 0, jnp.maximum(-c, 0) / root, 0)
    inside = (minimum < border) | (grow & (curvature > 0))
    return jnp.where(inside, minimum, border), inside


def advance(
    work: Array, grad: Array, z: Array, image: Array, found: Array, grow: Array, answer: Array
) -> tuple[Array, Array, Array]:
    """`(work, answer, more)`, packed: a turn further, answer being what is known of the step so far; z and its image
    H z are new, where found says so. What cannot be used leaves the step as it was, and is the last turn."""
    t = Answer(*answer)
    rows = jnp.concatenate([work, jnp.stack([z, image, grad])])
    gram = jnp.matmul(rows, rows.T, precision="highest")
    # Conjugate to the last, whatever rounding did to the preconditioner: direction = z - beta last.
    overlap = gram[LAST, LAST_IMAGE]
    beta = jnp.where(overlap > 0, gram[NEW, LAST_IMAGE] / overlap, 0)
    along = gram[NEW] - beta * gram[LAST]  # direction times each row
    curvature = along[IMAGE] - beta * along[LAST_IMAGE]
    sizes = along[NEW] - beta * along[LAST], along[STEP], gram[STEP, STEP]
    length, inside = _length(sizes, along[RESIDUAL], curvature, t.radius, grow)
    usable = found & (along[RESIDUAL] < 0) & jnp.isfinite(length)
    length = jnp.where(usable, length, 0)
    earned = jnp.where(usable, -length * along[RESIDUAL] - length**2 * curvature / 2, 0)
    size = jnp.sqrt(jnp.maximum(sizes[2] + length * (2 * sizes[1] + length * sizes[0]), 0))
    t = t._replace(
        radius=jnp.maximum(t.radius, size),
        size=size,
        slope=t.slope + length * along[GRAD],
        predicted=t.predicted + earned,
    )
    ahead = jnp.stack([z, image]) - beta * work[LAST:]  # the direction and its image
    return (
        jnp.concatenate([work[:LAST] + length * ahead, ahead]),
        jnp.stack(t),
        (usable & inside & (earned > ENOUGH * t.predicted)).astype(z.dtype),
    )
