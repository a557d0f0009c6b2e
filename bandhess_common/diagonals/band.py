"""The diagonals of a linear map v -> H v, read off the value that H v is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import grids
from ..grids import Axis
from .fallback import UnknownError
from .values import Value, restride


def diagonals(value: Value, rows: int) -> Iterator[tuple[int, Axis, Any]]:
    """Of H, symmetric with fewer than `rows` diagonals below the main one: (r, columns, coefficients).

    Row i of H has c[i] in column j = i + o, on the diagonal r = -o below the main one; the band stores it by columns.
    What lies above the main diagonal is the mirror image of another part, and left out.

    n = 5, stride 1:  0 | 0:4 | a,  -1 | 1:5 | b      gives      (0, 0:4, a),  (1, 0:4, b)

    Raises UnknownError where a part lies further off, or the value has more axes than one.
    """
    if len(value.shape) != 1:
        raise UnknownError("no vector")
    (n,) = value.shape
    for (o, grid), part in restride(value, 0, 1).parts.items():
        start, size, step = grid[0]
        columns, last = (start + o, size, step), start + o + (size - 1) * step
        if last < 0 or columns[0] >= n:
            continue  # zeros, with which a grid was filled up
        if abs(o) >= rows:
            raise UnknownError("an entry outside the band")
        if o > 0:
            continue
        if columns[0] < 0 or last >= n:  # likewise
            columns, inside = grids.cut(columns, 0, n, 1)
            part = part.take({0: inside})
        yield -o, columns, part


def ring(value: Value, rows: int) -> Iterator[tuple[int, Axis, Any]]:
    """Of a closed band, `ab[r, j] = H[(j + r) mod n, j]`, n >= 2 rows - 1: what `diagonals` gives, around the ring.

    An offset of o, n - o away on the other way round, lies r = -o mod n below the diagonal there.

    n = 5, stride 1:  -1 | 1:5 | b,  4 | 0:1 | z      gives      (1, 0:4, b),  (1, 4:5, z)
    """
    if len(value.shape) != 1:
        raise UnknownError("no vector")
    (n,) = value.shape
    for (o, grid), part in restride(value, 0, 1).parts.items():
        start, size, step = grid[0]
        columns, last = (start + o, size, step), start + o + (size - 1) * step
        if last < 0 or columns[0] >= n:
            continue  # zeros, with which a grid was filled up
        r = -o % n
        if min(r, n - r) >= rows:
            raise UnknownError("an entry outside the band")
        if r >= rows:
            continue
        if columns[0] < 0 or last >= n:  # likewise
            columns, inside = grids.cut(columns, 0, n, 1)
            part = part.take({0: inside})
        yield r, columns, part
