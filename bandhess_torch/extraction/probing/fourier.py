"""Fourier probing: the products are demodulated (the twiddle), and an FFT over the probes separates the diagonals.

With B = 2w + 1 and y_c = H e_c for the waves e_c[j] = exp(2 pi i c j / B),

    y_c[j] exp(-2 pi i c j / B) = sum_delta H[j, j + delta] exp(2 pi i c delta / B)

so the inverse DFT over c gives the diagonals of H in order, with no gather. H is real: waves c and B - c are conjugate,
and B real probes serve: 1, then cosine and sine for c = 1 .. w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


def _angle(c: Tensor | int, n: int, B: int, like: Tensor) -> Tensor:
    """2 pi c j / B for j < n. The phase index is reduced first: c j / B itself would lose all digits in float32."""
    phase = (c * (torch.arange(n, device=like.device) % B)) % B
    return phase.to(like.dtype) * (2 * math.pi / B)


@dataclass(frozen=True)
class Fourier:
    """`2w + 1` products for the scalar half-bandwidth w = (k + 1) d - 1.

    Error: every product has entries of full size, so that rounding, and any noise in the products, spreads evenly over
    the diagonals: about eps times the largest entries of the row, the same at every offset. Use it where the products
    are noisy in every entry alike, or where a gather is dear; otherwise direct probing takes fewer products for d > 1.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Fourier())(torch.tensor([1.0, 2, 4, 8])).round(decimals=3)[0]
    tensor([2., 4., 4., 2.])
    >>> Fourier().count(T=100, d=2, k=1)  # products
    7
    """

    def count(self, T: int, d: int, k: int) -> int:
        n = T * d
        return min(2 * (k + 1) * d - 1, n + (n + 1) % 2)  # odd; the matrix itself has no more diagonals than that

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        angle = _angle((c + 1) // 2, T * d, self.count(T, d, k), like)
        return angle.sin() if c and c % 2 == 0 else angle.cos()

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        return y

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        B, n = kept.shape
        angle = _angle(torch.arange(B // 2 + 1, device=kept.device)[:, None], n, B, kept)
        wave = torch.cat([torch.complex(kept[:1], torch.zeros_like(kept[:1])), torch.complex(kept[1::2], kept[2::2])])
        diagonals = torch.fft.irfft(torch.conj(wave * torch.polar(torch.ones_like(angle), -angle)), n=B, dim=0)
        rows = (k + 1) * d
        return pad(diagonals, (0, 0, 0, max(0, rows - B)))[:rows]
