"""Direct probing: every entry is read off as it stands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


def one_of_every(count: int, colours: range, n: int, like: Tensor) -> Tensor:
    """`(len(colours), n)`: row i is 1 at every entry that is colours[i] modulo count, 0 elsewhere."""
    eye = torch.eye(count, dtype=like.dtype, device=like.device)[colours.start : colours.stop]
    return eye.repeat(1, -(-n // count))[:, :n]


@dataclass(frozen=True)
class Direct:
    """One colour for every 2k + 1 stages: no two columns of a colour meet inside the band (Curtis, Powell, Reid 1974).

    Column (t, i) has colour (t mod (2k + 1)) d + i. `(2k + 1) d` products (never more than T d); exact: every entry
    is read off as it stands.
    """

    def count(self, T: int, d: int, k: int) -> int:
        return min(2 * k + 1, T) * d

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return self._probes(range(c, c + 1), T, d, k, like)[0]

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        return self._keeps(range(c, c + 1), y[None], T, d, k)[0]

    def _probes(self, colours: range, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return one_of_every(self.count(T, d, k), colours, T * d, like)

    def _keeps(self, colours: range, Y: Tensor, T: int, d: int, k: int) -> Tensor:
        # Column j = c + m * count shows itself in rows j .. j + (k + 1) d - 1 of product c: windows `(c, m, row)`. They
        # start one row after those of the product before: in memory, the length of a product and one further on.
        count = self.count(T, d, k)
        columns = -(-T * d // count)
        length = (columns + 1) * count
        flat = pad(Y, (0, length - T * d)).reshape(-1)[colours.start :]
        return flat.unfold(0, columns * count, length + 1).unflatten(1, (columns, count))[..., : (k + 1) * d]

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        band = kept.permute(2, 1, 0).reshape((k + 1) * d, -1)[:, : T * d]
        row = torch.arange(band.shape[0], device=band.device)[:, None]
        column = torch.arange(band.shape[1], device=band.device)
        # Scalar i of a stage reaches (k + 1) d - i rows before the next column of its colour shows.
        return torch.where(row + column % d < (k + 1) * d, band, 0) if d > 1 else band
