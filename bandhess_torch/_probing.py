"""Probing: which vectors to multiply by, and how to read the band off the products.

A probing is a small frozen object. For T stages of d scalars and bandwidth k (k < T, in stages):

    count(T, d, k)                  number of products
    probe(c, T, d, k, like)         probe vector c, `(T * d,)`, of the dtype and device of the tensor `like`
    keep(c, y, T, d, k)             what to store of product y = H probe(c): any tensor, the same shape for every c
    decode(kept, T, d, k)           the band `((k + 1) * d, T * d)` from the stacked `keep`s, leading axis `count`

`keep` runs beside its product, so that a bounded `chunk_size` bounds the memory of the decoding, too.
Unused cells need no care: they are cleared after `decode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad


@runtime_checkable
class Probing(Protocol):
    def count(self, T: int, d: int, k: int) -> int: ...
    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor: ...
    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor: ...
    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor: ...


@dataclass(frozen=True)
class Direct:
    """One colour for every 2k + 1 stages: no two columns of a colour meet inside the band (Curtis, Powell, Reid 1974).

    Column (t, i) has colour (t mod (2k + 1)) d + i. `(2k + 1) d` products (never more than T d); exact: every entry
    is read off as it stands.
    """

    def count(self, T: int, d: int, k: int) -> int:
        return min(2 * k + 1, T) * d

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        v = torch.zeros(T * d, dtype=like.dtype, device=like.device)
        v[c :: self.count(T, d, k)] = 1
        return v

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        # Column j = c + m * colours shows itself in rows j .. j + (k + 1) d - 1: strided windows, `(m, row)`.
        colours = self.count(T, d, k)
        columns = -(-T * d // colours)
        padded = pad(y, (0, (columns + 1) * colours - T * d))
        return padded[c : c + columns * colours].reshape(columns, colours)[:, : (k + 1) * d]

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        band = kept.permute(2, 1, 0).reshape((k + 1) * d, -1)[:, : T * d]
        row = torch.arange(band.shape[0], device=band.device)[:, None]
        column = torch.arange(band.shape[1], device=band.device)
        # Scalar i of a stage reaches (k + 1) d - i rows before the next column of its colour shows.
        return torch.where(row + column % d < (k + 1) * d, band, 0) if d > 1 else band


PROBINGS = {"direct": Direct()}


def as_probing(probing: str | Probing) -> Probing:
    if isinstance(probing, str) and probing in PROBINGS:
        return PROBINGS[probing]
    if not isinstance(probing, str) and not isinstance(probing, type) and isinstance(probing, Probing):
        return probing
    raise ValueError(
        f"probing must be one of {sorted(PROBINGS)} or an object with count, probe, keep and decode, got {probing!r}"
    )
