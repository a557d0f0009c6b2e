"""Direct probing: every entry is read off as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...band.storage import clear_beyond_stages

SHORT = 2**12  # up to here a copy costs less than the calls that would avoid it


def one_of_every(count: int, colours: range, n: int, like: Tensor) -> Tensor:
    """`(len(colours), n)`: row i is 1 at every entry that is colours[i] modulo count, 0 elsewhere.

    The rows share memory: n numbers and 2 count - 1 more for each row but the first, not to be written to.
    """
    step = 2 * count - 1  # so much further on, the pattern is one colour on
    pattern = torch.zeros(n + (len(colours) - 1) * step, dtype=like.dtype, device=like.device)
    pattern[colours.start :: count] = 1
    return pattern.unfold(0, n, step)


def windows(Y: Tensor, first: int, count: int, rows: int, columns: int) -> Tensor:
    """`[r, m, i]` is the entry r rows below the diagonal in column j = first + i + m count of the band: `Y[i, j + r]`.

    A view of the products Y `(colours, length)` of the colours first, first + 1, ...; contiguous, and long enough.
    """
    return Y[:, first:].as_strided((rows, columns, len(Y)), (1, count, Y.shape[1] + 1))


@dataclass(frozen=True)
class Direct:
    """One colour for every 2k + 1 stages: no two columns of a colour meet inside the band (Curtis, Powell, Reid 1974).

    Column (t, i) has colour (t mod (2k + 1)) d + i. `(2k + 1) d` products (never more than T d); exact: every entry
    is read off as it stands. Where the program allows it, the same entries come without products, by its diagonals
    (`extraction/diagonals`); a subclass forms them, unless it declares `exact_entries`, too.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Direct())(torch.tensor([1.0, 2, 4, 8]))
    tensor([[ 2.,  4.,  4.,  2.],
            [-2., -2., -2.,  0.]])
    >>> Direct().count(T=100, d=2, k=1)  # products at most
    6
    """

    exact_entries: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.exact_entries = cls.__dict__.get("exact_entries", False)  # of the subclass' own methods, not of these

    def count(self, T: int, d: int, k: int) -> int:
        return min(2 * k + 1, T) * d

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return one_of_every(self.count(T, d, k), range(c, c + 1), T * d, like)[0]

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        rows, count = (k + 1) * d, self.count(T, d, k)
        columns = -(-T * d // count)
        return windows(pad(y, (0, columns * count + rows - T * d))[None], c, count, rows, columns)[..., 0]

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        band = kept.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
        return clear_beyond_stages(band.reshape((k + 1) * d, -1)[:, : T * d], d)


class Cells:
    """What `keep` and `decode` do, without their copies: each product's part of the band goes where it belongs."""

    def __init__(self, T: int, d: int, k: int) -> None:
        self.n, self.d, self.rows, self.count = T * d, d, (k + 1) * d, Direct().count(T, d, k)
        # Up to here, in multiples of count, no column reaches the end.
        self.inner = (self.n - self.rows + 1) // self.count if self.n > SHORT else 0
        self.ab: Tensor | None = None
        self.ends: list[Tensor] = []

    def add(self, colours: range, Y: Tensor) -> None:
        """The products Y `(len(colours), n)`."""
        start, Y = self.inner * self.count, Y.contiguous()
        if self.inner:
            # Of the product's own making: inside torch.func's transforms it can take what Y is.
            self.ab = Y.new_empty((self.rows, self.n)) if self.ab is None else self.ab
            place = self.ab[:, :start].view(self.rows, self.inner, self.count)
            place[..., colours.start : colours.stop] = windows(Y, colours.start, self.count, self.rows, self.inner)
        columns = -(-(self.n - start) // self.count)
        end = pad(Y[:, start:], (0, start + columns * self.count + self.rows - self.n))
        self.ends.append(windows(end, colours.start, self.count, self.rows, columns))

    def band(self) -> tuple[Tensor, tuple]:
        end = self.ends[0] if len(self.ends) == 1 else torch.cat(self.ends, 2)
        end = end.reshape(self.rows, -1)[:, : self.n - self.inner * self.count]
        if self.ab is None:
            self.ab = end.contiguous()
        else:
            self.ab[:, self.inner * self.count :] = end
        return clear_beyond_stages(self.ab, self.d), ()
