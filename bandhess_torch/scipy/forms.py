"""Upper, lower and real forms of a Hermitian band."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..band.storage import transposed


def conj(x: Tensor) -> Tensor:
    """The conjugate, which torch computes lazily: neither vmap nor NumPy can read that."""
    return torch.complex(x.real, -x.imag) if x.is_complex() else x


def lower_form(ab: Tensor, lower: bool) -> Tensor:
    return ab if lower else conj(transposed(ab, 0))


def upper_form(cb: Tensor) -> Tensor:
    return conj(transposed(cb, cb.shape[0] - 1))


def real_band(ab: Tensor) -> Tensor:
    """A complex lower band `(w + 1, n)`, of a Hermitian matrix or of its factor, as the real `(2 w + 2, 2 n)`.

    The diagonal counts as real. [2 d, 2 j] and [2 d, 2 j + 1] hold the real part of [d, j], [2 d + 1, 2 j] holds its
    imaginary part, and [2 d - 1, 2 j + 1] that with the other sign.
    """
    w, n = ab.shape[0] - 1, ab.shape[1]
    imag = pad(ab.imag[1:], (0, 0, 1, 1))
    even = torch.stack([ab.real, ab.real], -1)
    odd = torch.stack([imag[:-1], -imag[1:]], -1)
    return torch.stack([even, odd], 1).reshape(2 * (w + 1), 2 * n)


def complex_band(cb: Tensor) -> Tensor:
    """The inverse of `_real_band`."""
    return torch.complex(cb[::2, ::2], pad(cb[3::2, ::2], (0, 0, 1, 0)))


def by_real(solver: Callable, ab: Tensor, b: Tensor) -> Tensor:
    """solver(ab, b), for complex operands by the real system of twice the size."""
    if not b.is_complex():
        return solver(ab, b)
    x = solver(real_band(ab), torch.stack([b.real, b.imag], 1).reshape(-1, *b.shape[1:]))
    return torch.complex(x[::2], x[1::2])
