"""The geometry of regular grids, against the indices themselves."""

from itertools import product

import numpy as np
import pytest

from bandhess_common import grids
from bandhess_common.grids import Axis

AXES = [
    (start, size, step) for start in (0, 1, 5) for size in (1, 2, 3, 4) for step in (1, 2, 3) if size > 1 or step == 1
]


def indices(axis: Axis) -> list[int]:
    start, size, step = axis
    return [start + step * k for k in range(size)]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
def test_cut(step: int) -> None:
    for axis, start, length in product(AXES, (0, 1, 4), (0, 1, 5, 9, 14)):
        cut, entries = grids.cut(axis, start, start + length, step)
        kept = [i for i in indices(axis) if i in range(start, start + length, step)]
        assert indices(axis)[entries] == kept
        assert [start + step * i for i in indices(cut)] == kept


def test_flip_and_place() -> None:
    for axis in AXES:
        assert indices(grids.flip(axis, 20))[::-1] == [19 - i for i in indices(axis)]
        assert indices(grids.place(axis, 3, 4)) == [3 + 4 * i for i in indices(axis)]


@pytest.mark.parametrize("lengths", [(4, 6), (3, 4, 5)])
def test_merge_is_memory_order_and_says_where_there_is_no_step(lengths: tuple[int, ...]) -> None:
    seen = set()
    inside = [[axis for axis in AXES if indices(axis)[-1] < length] for length in lengths]
    for axes in product(*inside):
        flat = [int(np.ravel_multi_index(i, lengths)) for i in product(*map(indices, axes))]
        merged = grids.merge(axes, lengths)
        steps = set(np.diff(flat))
        assert (merged is not None) == (len(steps) < 2)
        if merged is not None:
            assert indices(merged) == flat
            assert grids.canonical([merged]) == (merged,)
        seen.add(merged is None)
    assert seen == {True, False}


@pytest.mark.parametrize("inner", [2, 3, 4])
def test_split_is_merge_undone_where_the_entries_are_a_grid(inner: int) -> None:
    seen = set()
    for axis in [*AXES, (0, 2 * inner, 1), (inner, inner, 1), (1, 3, inner)]:
        two = grids.split(axis, inner)
        if two is not None:
            assert grids.merge(two, (100, inner)) == axis
        rows, columns = ({i // inner for i in indices(axis)}, {i % inner for i in indices(axis)})
        # Entries are a grid where they are all pairs of their rows and columns. (So are a few that wrap: see 1 2 by 2.)
        assert two is None or len(rows) * len(columns) == axis[1]
        seen.add(two is None)
    assert seen == {True, False}


def test_slices_take_a_grid() -> None:
    array = np.arange(8 * 9).reshape(8, 9)
    for grid in product(AXES[:6], AXES[:6]):
        rows, columns = map(indices, grid)
        if rows[-1] < 8 and columns[-1] < 9:
            taken = array[grids.slices(grid)]
            np.testing.assert_array_equal(taken, array[np.ix_(rows, columns)])
            assert taken.shape == grids.sizes(grid)


def test_common_groups_pair_axes_of_equal_products() -> None:
    for old, new, groups in (
        ((6, 2, 5), (3, 4, 5), [(2, [3, 4]), (1, [5])]),
        ((12,), (2, 3, 2), [(1, [2, 3, 2])]),
        ((2, 3, 2), (12,), [(3, [12])]),
        ((4, 3), (4, 3), [(1, [4]), (1, [3])]),
        ((), (), []),
    ):
        assert list(grids.common_groups(old, new)) == groups
