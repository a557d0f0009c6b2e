"""Direct probing: every entry is read off as it stands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


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
