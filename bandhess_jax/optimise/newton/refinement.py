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

from .subproblem import Answer, Query

TURNS = 100  # products spent on one step
ENOUGH = 1e-3  # a turn that adds less than this part of the decrease is the last


class Work(NamedTuple):
    """A step on the way, vectors `(n,)` of the loop's variables."""

    step: Array
    residual: Array  # g + H step
    direction: Array  # the last
    image: Array  # H direction


def begin(grad: Array) -> Work:
    zero = jnp.zeros_like(grad)
    return Work(zero, grad, zero, zero)


def plain(shift: Array) -> Query:
    """Asks for -(H + shift I)^-1 g itself, by one factorisation: a radius of 0 that may grow to the step."""
    return Query(0, shift, shift, shift, shift, shift, enough=-1, grow=1, idle=0)


def _length(sizes: Array, slope: Array, curvature: Array, radius: Array, grow: Array) -> tuple[Array, Array]:
    """How far to go along the direction d, and whether that is the minimum there; else it is where the region ends,
    |step + length d| = radius. sizes holds d^T d, step^T d and step^T step."""
    minimum = jnp.where(curvature > 0, -slope / curvature, jnp.inf)
    a, b, c = sizes[0], sizes[1], sizes[2] - radius**2
    root = b + jnp.sqrt(jnp.maximum(b * b - a * c, 0))
    border = jnp.where(root > 0, jnp.maximum(-c, 0) / root, 0)
    inside = (minimum < border) | (grow & (curvature > 0))
    return jnp.where(inside, minimum, border), inside


def advance(work: Work, grad: Array, z: Array, image: Array, found: Array, grow: Array, t: Answer) -> tuple:
    """`(work, answer, more)`: a turn further, t being what is known of the step so far; z and its image H z are new,
    where found says so. What cannot be used leaves all as it was, and is the last turn."""
    # All products at once; H is symmetric, so those with the next direction follow from them.
    left = [z, z, work.direction, z, z, work.step, work.step, work.step, work.residual, work.residual, grad, grad]
    right = [work.image, image, work.image, z, work.direction, work.direction, z, work.step, z, work.direction, z,
             work.direction]  # fmt: skip
    zw, zz, dw, a, b, sd, sz, ss, rz, rd, gz, gd = jnp.sum(jnp.stack(left) * jnp.stack(right), axis=1)
    dd = jnp.sum(work.direction**2)
    # Conjugate to the last, whatever rounding did to the preconditioner.
    beta = jnp.where(dw > 0, zw / dw, 0)
    slope, curvature = rz - beta * rd, zz - 2 * beta * zw + beta**2 * dw
    sizes = jnp.stack([a - 2 * beta * b + beta**2 * dd, sz - beta * sd, ss])
    length, inside = _length(sizes, slope, curvature, t.radius, grow)
    usable = found & (slope < 0) & jnp.isfinite(length)
    length = jnp.where(usable, length, 0)
    earned = -length * slope - length**2 * curvature / 2
    predicted = t.predicted + jnp.where(usable, earned, 0)
    direction, seen = z - beta * work.direction, image - beta * work.image
    new = Work(work.step + length * direction, work.residual + length * seen, direction, seen)
    size = jnp.sqrt(jnp.maximum(ss + length * (2 * sizes[1] + length * sizes[0]), 0))
    answer = t._replace(
        radius=jnp.maximum(t.radius, size), size=size, slope=t.slope + length * (gz - beta * gd), predicted=predicted
    )
    return new, answer, usable & inside & (earned > ENOUGH * predicted)
