"""Fourier probing: the products are demodulated (the twiddle), and a DFT over the probes separates the diagonals.

With B = 2w + 1 and y_c = H e_c for the waves e_c[j] = exp(2 pi i c j / B),

    y_c[j] exp(-2 pi i c j / B) = sum_delta H[j, j + delta] exp(2 pi i c delta / B)

so the inverse DFT over c gives the diagonals of H in order, with no gather. H is real: waves c and B - c are conjugate,
and B real probes serve: 1, then cosine and sine for c = 1 .. w. The inverse DFT is a product with a small matrix: as
fast as XLA's FFT, for which devices that share the stages would gather all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...band.structures import dot


def _angle(c: Array, n: int, B: int, dtype: Any) -> Array:
    """2 pi c j / B for j < n. The phase index is reduced first: c j / B itself would lose all digits in float32."""
    j = jnp.arange(n).reshape((1,) * (jnp.ndim(c) - 1) + (n,))
    phase = (c * (j % B)) % B
    return phase.astype(dtype) * (2 * jnp.pi / B)


@dataclass(frozen=True)
class Fourier:
    """`2w + 1` products for the scalar half-bandwidth w = (k + 1) d - 1.

    Error: every product has entries of full size, so that rounding, and any noise in the products, spreads evenly over
    the diagonals: about eps times the largest entries of the row, the same at every offset. Use it where the products
    are noisy in every entry alike, or where a gather is dear; otherwise direct probing takes fewer products for d > 1.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Fourier())(jnp.array([1.0, 2, 4, 8])).round(decimals=3)[0]
    Array([2., 4., 4., 2.], dtype=float32)
    >>> Fourier().count(T=100, d=2, k=1)  # products
    7
    """

    def count(self, T: int, d: int, k: int) -> int:
        n = T * d
        return min(2 * (k + 1) * d - 1, n + (n + 1) % 2)  # odd; the matrix itself has no more diagonals than that

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        angle = _angle((c + 1) // 2, T * d, self.count(T, d, k), dtype)
        return jnp.where(c % 2 == 1, jnp.cos(angle), jnp.where(c == 0, 1, jnp.sin(angle)))

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array:
        return y

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        (B, n), rows = kept.shape, (k + 1) * d
        waves = np.arange(1, B // 2 + 1)
        angle = _angle(jnp.asarray(waves)[:, None], n, B, kept.dtype)
        cosine, sine = kept[1::2], kept[2::2]
        real = cosine * jnp.cos(angle) + sine * jnp.sin(angle)
        imaginary = sine * jnp.cos(angle) - cosine * jnp.sin(angle)
        phase = (np.outer(np.arange(min(rows, B)), waves) % B) * (2 * np.pi / B)
        inverse = np.concatenate([np.ones((len(phase), 1)), 2 * np.cos(phase), 2 * np.sin(phase)], axis=1) / B
        diagonals = dot(jnp.asarray(inverse, kept.dtype), jnp.concatenate([kept[:1], real, imaginary]))
        return jnp.pad(diagonals, ((0, rows - len(phase)), (0, 0)))
