"""What the rules ask of coefficients: each package has a class of its own, on its own arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..grids import Grid


class Coefficient(Protocol):
    """The numbers c of one part: an array of its grid's sizes, or one number for all of them.

    A number stays a number as long as it can, since there are programs of differences and sums alone. Operations on the
    axes are those of NumPy's functions. `grid` tells which entries of another array, of the value's shape, belong here.
    """

    def plus(self, other: Any) -> Any:
        """c + other, on the same grid."""

    def negative(self) -> Any:
        """-c."""

    def times(self, factor: Any, grid: Grid) -> Any:
        """c factor; the factor is a number or has the value's shape."""

    def over(self, divisor: Any, grid: Grid) -> Any:
        """c / divisor, likewise."""

    def where(self, mask: Any, grid: Grid, dtype: Any) -> Any:
        """c where the mask holds, and zero elsewhere."""

    def sum(self, axes: Sequence[int], grid: Grid) -> Any:
        """Over whole axes of its own, which are dropped."""

    def contract(self, grid: Grid, rows: Grid, factor: Any, product: Callable, axes: Sequence[int], out: Grid) -> Any:
        """`product(c, factor on the grid rows)`, which lies on the grid out; `axes` of the factor are summed over."""

    def take(self, entries: Mapping[int, slice]) -> Any:
        """The entries along some axes."""

    def flip(self, axes: Sequence[int]) -> Any: ...

    def permute(self, axes: Sequence[int]) -> Any: ...

    def expand(self, sizes: Sequence[int], axes: Sequence[int]) -> Any:
        """Its axes go to those given; it is repeated along the others, and where it has length 1."""

    def reshape(self, sizes: Sequence[int]) -> Any: ...

    def fill(self, grid: Grid, axis: int, length: int, dtype: Any) -> Any:
        """With zeros between and around, so that the axis is whole. May raise UnknownError."""
