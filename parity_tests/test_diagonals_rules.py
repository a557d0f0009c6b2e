"""The rules that both packages share, with NumPy's arrays as coefficients, against NumPy's own operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from bandhess_common.diagonals import arithmetic, band, geometry
from bandhess_common.diagonals.fallback import UnknownError
from bandhess_common.diagonals.values import LIMIT, SHORT, Value, collect, restride, vector
from bandhess_common.grids import Grid, canonical, full, sizes, slices

N = 40
RNG = np.random.default_rng(0)


class Numbers:
    """A `Coefficient`: an array on a grid, or one number."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array, float)

    def view(self, change: Callable) -> Numbers:
        return Numbers(change(self.array)) if self.array.ndim else self

    def on(self, grid: Grid, a: Any) -> Any:
        return a[slices(grid)] if np.ndim(a) else a

    def plus(self, other: Numbers) -> Numbers:
        return Numbers(self.array + other.array)

    def negative(self) -> Numbers:
        return Numbers(-self.array)

    def times(self, factor: Any, grid: Grid) -> Numbers:
        return Numbers(self.array * self.on(grid, factor))

    def over(self, divisor: Any, grid: Grid) -> Numbers:
        return Numbers(self.array / self.on(grid, divisor))

    def where(self, mask: Any, grid: Grid, dtype: Any) -> Numbers:
        return Numbers(np.where(self.on(grid, mask), self.array, 0))

    def sum(self, axes: Sequence[int], grid: Grid) -> Numbers:
        return Numbers(np.broadcast_to(self.array, sizes(grid)).sum(tuple(axes)))

    def contract(self, grid: Grid, rows: Grid, factor: Any, times: Callable, axes: Sequence[int], out: Grid) -> Numbers:
        return Numbers(times(np.broadcast_to(self.array, sizes(grid)), factor[slices(rows)]))

    def take(self, entries: Mapping[int, slice]) -> Numbers:
        return self.view(lambda a: a[tuple(entries.get(axis, slice(None)) for axis in range(a.ndim))])

    def flip(self, axes: Sequence[int]) -> Numbers:
        return self.view(lambda a: np.flip(a, axes))

    def permute(self, axes: Sequence[int]) -> Numbers:
        return self.view(lambda a: np.transpose(a, axes))

    def expand(self, sizes: Sequence[int], axes: Sequence[int]) -> Numbers:
        new = [axis for axis in range(len(sizes)) if axis not in axes]
        return self.view(lambda a: np.broadcast_to(np.expand_dims(a, new), sizes))

    def reshape(self, sizes: Sequence[int]) -> Numbers:
        return self.view(lambda a: a.reshape(sizes))

    def fill(self, grid: Grid, axis: int, length: int, dtype: Any) -> Numbers:
        there = list(full(sizes(grid)))
        there[axis] = grid[axis]
        out = np.zeros([length if k == axis else size for k, size in enumerate(sizes(grid))])
        out[slices(there)] = self.array
        return Numbers(out)


def evaluate(value: Value, v: np.ndarray) -> np.ndarray:
    """By the definition; what must hold of every value is checked on the way."""
    out = np.zeros(value.shape)
    for (o, grid), part in value.parts.items():
        assert grid == canonical(grid)
        assert 0 not in sizes(grid)
        assert part.array.shape in ((), sizes(grid))
        numbers = np.broadcast_to(part.array, sizes(grid))
        for k in np.ndindex(*sizes(grid)):
            i = tuple(start + step * at for (start, _, step), at in zip(grid, k, strict=True))
            assert all(0 <= at < length for at, length in zip(i, value.shape, strict=True))
            if numbers[k]:  # what is filled up with zeros may lie outside v
                out[i] += numbers[k] * v[o + sum(s * at for s, at in zip(value.strides, i, strict=True))]
    return out


def numbers(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape) * RNG.choice([-1, 1], shape)


def value(strides: tuple[int, ...], *parts: tuple[int, Grid]) -> Value:
    """Of 4 x 6 entries; the second part has one number for all."""
    made = [(o, grid, Numbers(numbers(*sizes(grid)) if k != 1 else 3)) for k, (o, grid) in enumerate(parts)]
    return Value((4, 6), strides, float, collect(made))


# Whole, on grids with gaps that overlap, and one that moves otherwise in v.
VALUES = [
    value((6, 1), (2, full((4, 6)))),
    value((6, 1), (0, ((0, 2, 2), (1, 3, 2))), (3, ((1, 3, 1), (0, 6, 1))), (1, ((3, 1, 1), (2, 4, 1)))),
    value((-1, 4), (6, ((1, 2, 2), (0, 3, 1))), (3, ((0, 1, 1), (5, 1, 1)))),
]
M = numbers(4, 6)


def place(x: np.ndarray) -> np.ndarray:
    out = np.zeros((4, 14))
    out[:, 2:14:2] = x
    return out


def one(rule: Callable, dense: Callable) -> tuple[Callable, Callable]:
    return lambda a, b: rule(a), lambda x, y: dense(x)


RULES: dict[str, tuple[Callable, Callable]] = {
    "add": (arithmetic.add, np.add),
    "negate": one(arithmetic.negate, np.negative),
    "scale": one(lambda a: arithmetic.scale(a, M), lambda x: x * M),
    "divide": one(lambda a: arithmetic.divide(a, M), lambda x: x / M),
    "where": (lambda a, b: arithmetic.where([(M > 0, a), (M < 1, b)]), lambda x, y: (M > 0) * x + (M < 1) * y),
    "sum of one": one(lambda a: arithmetic.sum_over(a, [1]), lambda x: x.sum(1)),
    "sum of all": one(lambda a: arithmetic.sum_over(a, [0, 1]), np.sum),
    "contract": one(
        lambda a: arithmetic.contract(a, M.T, ([1], [0]), ([], []), True, np.matmul), lambda x: x @ M.T
    ),
    "contract from the left": one(
        lambda a: arithmetic.contract(a, M.T, ([0], [1]), ([], []), False, lambda c, f: f @ c), lambda x: M.T @ x
    ),
    "contract of a batch": one(
        lambda a: arithmetic.contract(a, M, ([0], [0]), ([1], [1]), True, lambda c, f: (c * f).sum(0)),
        lambda x: (x * M).sum(0),
    ),
    "slice": one(lambda a: geometry.slice_(a, {0: (1, 4, 2), 1: (2, 6, 3)}), lambda x: x[1:4:2, 2:6:3]),
    "slice of nothing": one(lambda a: geometry.slice_(a, {1: (2, 2, 1)}), lambda x: x[:, 2:2]),
    "place": one(lambda a: geometry.place(a, 1, 2, 2, 14), place),
    "flip": one(lambda a: geometry.flip(a, [0, 1]), lambda x: x[::-1, ::-1]),
    "flip of one": one(lambda a: geometry.flip(a, [1]), lambda x: x[:, ::-1]),
    "permute": one(lambda a: geometry.permute(a, [1, 0]), np.transpose),
    "expand": one(lambda a: geometry.expand(a, (4, 2, 6), [0, 2]), lambda x: np.stack([x, x], 1)),
    "expand of length 1": one(
        lambda a: geometry.expand(geometry.slice_(a, {0: (1, 2, 1)}), (3, 6), [0, 1]), lambda x: np.tile(x[1:2], (3, 1))
    ),
    "squeeze": one(lambda a: geometry.squeeze(geometry.slice_(a, {0: (3, 4, 1)}), [0]), lambda x: x[3]),
    "reshape": one(lambda a: geometry.reshape(a, (2, 1, 12)), lambda x: x.reshape(2, 1, 12)),
    "reshape across rows": one(lambda a: geometry.reshape(a, (3, 8)), lambda x: x.reshape(3, 8)),
    "concatenate": (
        lambda a, b: geometry.concatenate([a, M[:, :2], b], 1), lambda x, y: np.hstack([x, np.zeros((4, 2)), y])
    ),
    "stack": (lambda a, b: geometry.stack([a, M, b], 1, np.expand_dims), lambda x, y: np.stack([x, 0 * x, y], 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    rule, dense = RULES[name]
    v = numbers(N)
    for a, b in product(VALUES, VALUES):
        x, y = evaluate(a, v), evaluate(b, v)
        np.testing.assert_allclose(evaluate(rule(a, b), v), dense(x, y), rtol=1e-13, atol=1e-13)


def test_restride_changes_no_entry() -> None:
    v = numbers(N)
    for a, axis, stride in product(VALUES, (0, 1), (-2, 0, 5)):
        other = restride(a, axis, stride)
        assert other.strides[axis] == stride
        np.testing.assert_allclose(evaluate(other, v), evaluate(a, v), rtol=1e-13)


def line(length: int, stride: int, *parts: tuple[int, int, int]) -> Value:
    """Of one axis: (offset, start, stop)."""
    made = {(o, ((start, stop - start, 1),)): Numbers(numbers(stop - start)) for o, start, stop in parts}
    return Value((length,), (stride,), float, made)


def table(length: int, strides: tuple[int, int], columns: int) -> Value:
    return Value((length, columns), strides, float, {(0, full((length, columns))): Numbers(numbers(length, columns))})


def grid(*axes: tuple[int, ...]) -> Grid:
    """Of start, stop, and a step."""
    return canonical((start, len(range(start, *rest)), rest[1] if rest[1:] else 1) for start, *rest in axes)


# The rules' docstrings: a value, and the strides and the parts that it is said to have.
EXAMPLES: list[tuple[Value, tuple[int, ...], list[tuple[int, Grid]]]] = [
    (
        arithmetic.add(line(4, 1, (0, 0, 4)), line(4, 1, (0, 0, 4), (1, 0, 4))),
        (1,), [(0, grid((0, 4))), (1, grid((0, 4)))],
    ),
    (arithmetic.sum_over(table(4, (2, 1), 2), [1]), (2,), [(0, grid((0, 4))), (1, grid((0, 4)))]),
    (
        arithmetic.contract(table(4, (2, 1), 2), numbers(2, 3), ([1], [0]), ([], []), True, np.matmul),
        (2, 0), [(0, grid((0, 4), (0, 3))), (1, grid((0, 4), (0, 3)))],
    ),
    (restride(line(2, 1, (0, 0, 2)), 0, 0), (0,), [(0, grid((0, 1))), (1, grid((1, 2)))]),
    (geometry.slice_(line(6, 1, (0, 0, 6)), {0: (1, 6, 2)}), (2,), [(1, grid((0, 3)))]),
    (geometry.place(line(3, 2, (1, 0, 3)), 0, 1, 2, 6), (1,), [(0, grid((1, 6, 2)))]),
    (geometry.flip(line(5, 1, (1, 0, 4)), [0]), (-1,), [(5, grid((1, 5)))]),
    (geometry.permute(table(4, (2, 1), 2), [1, 0]), (1, 2), [(0, grid((0, 2), (0, 4)))]),
    (geometry.expand(line(4, 1, (0, 0, 4)), (4, 3), [0]), (1, 0), [(0, grid((0, 4), (0, 3)))]),
    (geometry.reshape(table(4, (2, 1), 2), (8,)), (1,), [(0, grid((0, 8)))]),
    (geometry.reshape(table(2, (6, 1), 3), (6,)), (1,), [(0, grid((0, 3))), (3, grid((3, 6)))]),
    (geometry.reshape(line(6, 1, (2, 0, 3)), (2, 3)), (3, 1), [(2, grid((0, 1), (0, 3)))]),
    (geometry.reshape(line(6, 1, (2, 0, 4)), (2, 3)), (3, 1), [(2, grid((0, 2), (0, 3)))]),
    (
        geometry.concatenate([line(2, 1, (0, 0, 2)), numbers(3), line(2, 1, (2, 0, 2))], 0),
        (1,), [(0, grid((0, 2))), (-3, grid((5, 7)))],
    ),
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(EXAMPLES)))
def test_the_example_of_a_docstring(k: int) -> None:
    got, strides, parts = EXAMPLES[k]
    assert got.strides == strides
    assert sorted(got.parts) == sorted(parts)


def test_the_band_is_read_by_columns() -> None:
    c = line(5, 1, (0, 0, 4), (-1, 1, 5), (1, 0, 4))
    assert [(r, columns) for r, columns, _ in band.diagonals(c, 2)] == [(0, (0, 4, 1)), (1, (0, 4, 1))]
    filled = Value((5,), (1,), float, {(-2, ((0, 5, 1),)): Numbers(np.arange(5)), (7, ((0, 5, 1),)): Numbers(0)})
    ((r, columns, part),) = band.diagonals(filled, 3)  # zeros that a row was filled up with lie outside v
    assert (r, columns, list(part.array)) == (2, (0, 3, 1), [2, 3, 4])
    with pytest.raises(UnknownError, match="outside the band"):
        list(band.diagonals(c, 1))
    with pytest.raises(UnknownError, match="no vector"):
        list(band.diagonals(VALUES[0], 9))


def test_what_is_too_long_is_refused() -> None:
    v = vector(2 * LIMIT, float, Numbers(1))
    with pytest.raises(UnknownError, match="too long"):
        arithmetic.sum_over(geometry.slice_(v, {0: (0, SHORT + 1, 1)}), [0])
    arithmetic.sum_over(geometry.slice_(v, {0: (0, SHORT, 1)}), [0])
    many = line(9, 1)._replace(parts={(o, ((0, 9, 1),)): Numbers(1) for o in range(LIMIT + 2)})
    for refused in (lambda: geometry.slice_(many, {0: (1, 9, 1)}), lambda: arithmetic.add(many, many)):
        with pytest.raises(UnknownError, match="too many"):
            refused()
