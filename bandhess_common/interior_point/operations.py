"""What the portable engine needs of an array library: the packages and the tests supply it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Array = Any
"""An array of the library in hand; numbers are 0-d arrays of the element type, counts 0-d arrays of int32."""


class Operations(Protocol):
    """Functions of arrays. Besides these the engine uses arithmetic, comparisons, &, |, ~, abs, @, .T and slices."""

    def eps(self, like: Array) -> float:
        """The rounding unit of the element type, 2^-52 or 2^-23."""

    def least(self, like: Array) -> float:
        """The smallest normal number of the element type."""

    def number(self, value: Any, like: Array) -> Array:
        """`value` as a 0-d array of the element type and device of `like`."""

    def count(self, value: int, like: Array) -> Array:
        """`value` as a 0-d array of int32."""

    def real(self, mask: Array, like: Array) -> Array:
        """1 and 0 of the element type for True and False."""

    def full(self, shape: tuple[int, ...], value: float, like: Array) -> Array: ...

    def noise(self, like: Array, seed: int) -> Array:
        """Numbers in [-1, 1), as many as `like` has: `noise.py`."""

    def where(self, mask: Array, a: Any, b: Any) -> Array: ...

    def maximum(self, a: Array, b: Any) -> Array:
        """NaN where one of them is."""

    def minimum(self, a: Array, b: Any) -> Array:
        """NaN where one of them is."""

    def log(self, a: Array) -> Array: ...

    def sqrt(self, a: Array) -> Array: ...

    def power_of_two(self, a: Array) -> Array:
        """2^a, a being rounded to whole numbers."""

    def isfinite(self, a: Array) -> Array: ...

    def sum(self, a: Array, axis: int | None = None) -> Array: ...

    def all(self, a: Array) -> Array: ...

    def largest(self, a: Array, axis: int | None = None) -> Array:
        """max |a|, 0 of nothing, NaN where one is."""

    def join(self, *parts: Array) -> Array:
        """Vectors, one after the other."""

    def put(self, a: Array, i: Any, value: Any) -> Array:
        """A copy of a with a[i] = value; i: an index, a slice, or a pair of them."""

    def argmax(self, a: Array) -> Array: ...

    def median(self, a: Array, of: Array) -> Array:
        """Of the vector a, not empty, where `of` holds: the upper one of two, inf of none."""

    def range(self, n: int, like: Array) -> Array:
        """0 .. n - 1 as int32."""

    def windows(self, v: Array, first: Array, L: int) -> Array:
        """`(r, L)`: row i is v[first[i] : first[i] + L]."""

    def add_windows(self, rows: Array, first: Array, n: int) -> Array:
        """`(n,)`: zeros to which rows[i] is added from first[i] on. The transpose of `windows`."""

    def gram(self, rows: Array, first: Array, weights: Array, band: Array) -> Array:
        """`band` plus that of J^T diag(weights) J, J of these rows; further rows of band are left as they are."""

    def matvec(self, W: Array, v: Array, p: int) -> Array:
        """The symmetric matrix W of a lower band, with a border of p (`products.py`), times v."""

    def factor(self, W: Array, p: int) -> tuple[Any, Array]:
        """A factor of the positive definite matrix, and whether it exists."""

    def solve(self, factor: Any, b: Array) -> Array:
        """The solution; NaN where there is no factor."""

    def when(self, wanted: Array, fun: Callable[[Any], Any], value: Any) -> Any:
        """`fun(value)` where wanted, else `value`, a tree of arrays that `fun` keeps in shape."""

    def while_loop(self, wanted: Callable[[Any], Array], body: Callable[[Any], Any], value: Any) -> Any: ...
