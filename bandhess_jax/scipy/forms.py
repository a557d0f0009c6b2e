"""Upper, lower and real forms of a Hermitian band."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from ..band.storage import transposed


def lower_form(ab: Array, lower: bool) -> Array:
    return ab if lower else transposed(ab, 0).conj()


def upper_form(cb: Array) -> Array:
    return transposed(cb, cb.shape[0] - 1).conj()


def real_band(ab: Array) -> Array:
    """A complex lower band `(w + 1, n)`, of a Hermitian matrix or of its factor, as the real `(2 w + 2, 2 n)`.

    The diagonal counts as real. [2 d, 2 j] and [2 d, 2 j + 1] hold the real part of [d, j], [2 d + 1, 2 j] holds its
    imaginary part, and [2 d - 1, 2 j + 1] that with the other sign.
    """
    w, n = ab.shape[0] - 1, ab.shape[1]
    imag = jnp.pad(ab.imag[1:], ((1, 1), (0, 0)))
    even = jnp.stack([ab.real, ab.real], axis=-1)
    odd = jnp.stack([imag[:-1], -imag[1:]], axis=-1)
    return jnp.stack([even, odd], axis=1).reshape(2 * (w + 1), 2 * n)


def complex_band(cb: Array) -> Array:
    """The inverse of `_real_band`."""
    return lax.complex(cb[::2, ::2], jnp.pad(cb[3::2, ::2], ((1, 0), (0, 0))))


def by_real(solver: Callable, ab: Array, b: Array) -> Array:
    """solver(ab, b), for complex operands by the real system of twice the size."""
    if not jnp.iscomplexobj(b):
        return solver(ab, b)
    x = solver(real_band(ab), jnp.stack([b.real, b.imag], axis=1).reshape(-1, *b.shape[1:]))
    return lax.complex(x[::2], x[1::2])
