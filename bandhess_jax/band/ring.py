"""A closed band cut open: its last w rows are a border of the rest, which is plain.

    H =  a b . . y        the first m = n - w = 4 rows stay a band,    band = a c e g    border = [y . . h]
         b c d . .        the last w = 1 become border and corner             b d f *    corner = [i]
         . d e f .
         . . f g h        Row m + s of H has w - s entries towards the band's end and s + 1 around the ring, at its
         y . . h i        begin: two triangles of cells, `right` and `left`, that do not meet, since m > w.

The order of the unknowns does not change, and with a border of its own the cut is put before that. Where n <= 2 w
(T = 2 k + 1 stages of several scalars: each meets all others) nothing is left of the band, and the corner is all of H.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from . import structures
from .storage import to_dense
from .structures import Bordered, Cyclic, Structure


class Arrow(NamedTuple):
    """A `Bordered` whose band is plain; its unused cells hold anything."""

    band: Array
    border: Array
    corner: Array


def opened(H: Structure) -> Arrow:
    """H with a plain band."""
    if isinstance(H, Cyclic):
        return _cut(H.ab)
    if not isinstance(H.band, Cyclic):
        return Arrow(*H)
    inner = _cut(H.band.ab)
    m = inner.band.shape[1]
    first, last = H.border[:, :m], H.border[:, m:]
    corner = jnp.block([[inner.corner, last.T], [last, H.corner]])
    return Arrow(inner.band, jnp.concatenate([inner.border, first]), corner)


def closed(Z: Arrow, like: Structure) -> Structure:
    """The cells of a Z with a plain band, as `opened` gives it, that `like` has."""
    if isinstance(like, Cyclic):
        return _join(Z, like.ab.shape)
    if not isinstance(like.band, Cyclic):
        return Bordered(*Z)
    w = like.band.ab.shape[1] - Z.band.shape[1]
    inner = Arrow(Z.band, Z.border[:w], Z.corner[:w, :w])
    border = jnp.concatenate([Z.border[w:], Z.corner[w:, :w]], axis=1)
    return Bordered(_join(inner, like.band.ab.shape), border, Z.corner[w:, w:])


def _cut(ab: Array) -> Arrow:
    w, n = ab.shape[0] - 1, ab.shape[1]
    if n <= 2 * w:
        return Arrow(ab[:, :0], jnp.zeros((n, 0), ab.dtype), structures.to_dense(Cyclic(ab)))
    m = n - w
    s, j = jnp.arange(w)[:, None], jnp.arange(w)[None]
    right = jnp.where(j >= s, ab[jnp.minimum(w + s - j, w), m - w + j], 0)
    left = jnp.where(j <= s, ab[jnp.minimum(w - s + j, w), m + s], 0)
    border = jnp.pad(left, ((0, 0), (0, m - w))) + jnp.pad(right, ((0, 0), (m - w, 0)))
    return Arrow(ab[:, :m], border, to_dense(ab[:, m:]))


def _join(Z: Arrow, shape: tuple[int, ...]) -> Cyclic:
    w, m = shape[0] - 1, Z.band.shape[1]
    if shape[1] <= 2 * w:
        return structures.cyclic_cells(Z.corner, w)
    r, c = jnp.arange(w + 1)[:, None], jnp.arange(w)[None]
    # The columns before the cut, whose lower cells were the border's end; then those after it, whose were its begin.
    before = jnp.where(r + c < w, Z.band[:, m - w :], Z.border[jnp.maximum(r + c - w, 0), m - w + c])
    inside = Z.corner[jnp.minimum(r + c, w - 1), c]
    after = jnp.where(r + c < w, inside, Z.border[c, jnp.maximum(r + c - w, 0)])
    return Cyclic(jnp.concatenate([Z.band[:, : m - w], before, after], axis=1))
