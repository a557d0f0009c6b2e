"""The stage axis: ravelling by definition, round trips, ragged ends, bad input."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from backends import Backend
from hypothesis import given
from hypothesis import strategies as st
from oracles import ravel

Pair = namedtuple("Pair", ["first", "second"])


def filled(*shape: int, start: int = 1) -> np.ndarray:
    """Distinct integers, so that a misplaced entry shows."""
    return np.arange(start, start + np.prod(shape), dtype=float).reshape(shape)


TREES: dict[str, Any] = {
    "vector": filled(5),
    "single": filled(1),
    "empty": filled(0),
    "trajectory": filled(4, 3),
    "matrices": filled(3, 2, 2),
    "dict": {"q": filled(4, 3), "u": filled(4, 2, start=100)},
    "ragged dict": {"q": filled(4, 3), "u": filled(3, 2, start=100)},
    "ragged first": {"a": filled(3, 2), "b": filled(4, start=100)},
    "ragged to nothing": {"q": filled(1, 3), "u": filled(0, 2)},
    "tuple": (filled(2, 1), filled(2, start=50)),
    "nested": {"a": [filled(3), filled(2, 2, start=20)], "b": (filled(3, 1, start=40),)},
    "no scalars": {"q": filled(3), "z": filled(3, 0)},
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float64") for name in TREES), ("ragged dict", "float32")])
def test_ravel_is_stage_by_stage(backend: Backend, name: str, dtype: str) -> None:
    tree = backend.tree_map(lambda x: backend.array(x, dtype), TREES[name])
    flat, unravel = backend.package.ravel_stages(tree)
    np.testing.assert_array_equal(backend.numpy(flat), ravel(TREES[name])[0].astype(dtype), strict=True)
    back = unravel(flat)
    assert type(back) is type(tree)
    leaves, expected = backend.leaves(back), backend.leaves(tree)
    assert len(leaves) == len(expected)
    for leaf, want in zip(leaves, expected, strict=True):
        np.testing.assert_array_equal(backend.numpy(leaf), backend.numpy(want), strict=True)


def test_worked_example(backend: Backend) -> None:
    tree = {"q": backend.array([[1.0, 2], [3, 4], [5, 6]]), "u": backend.array([[7.0], [8]])}
    flat, unravel = backend.package.ravel_stages(tree)
    np.testing.assert_array_equal(flat, [1, 2, 7, 3, 4, 8, 5, 6, 0])
    np.testing.assert_array_equal(unravel(flat * 10)["u"], [[70], [80]])


def test_dict_order_is_by_key(backend: Backend) -> None:
    """JAX sorts keys and torch's own pytrees do not: the band must not depend on the order of writing."""
    q, u = backend.array(filled(3, 2)), backend.array(filled(3, start=50))
    flat, unravel = backend.package.ravel_stages({"u": u, "q": q})
    np.testing.assert_array_equal(flat, backend.package.ravel_stages({"q": q, "u": u})[0])
    np.testing.assert_array_equal(unravel(flat)["u"], u)


def test_namedtuple(backend: Backend) -> None:
    tree = Pair(backend.array(filled(3, 2)), backend.array(filled(2, start=50)))
    flat, unravel = backend.package.ravel_stages(tree)
    np.testing.assert_array_equal(flat, [1, 2, 50, 3, 4, 51, 5, 6, 0])
    assert isinstance(unravel(flat), Pair)
    np.testing.assert_array_equal(unravel(flat).second, tree.second)


@given(T=st.sampled_from([1, 2, 5]), widths=st.lists(st.sampled_from([(), (1,), (3,), (2, 2)]), min_size=1, max_size=3),
       ragged=st.lists(st.booleans(), min_size=3, max_size=3))  # fmt: skip
def test_round_trip(backend: Backend, T: int, widths: list, ragged: list[bool]) -> None:
    lengths = [T - (short and i > 0) for i, short in enumerate(ragged[: len(widths)])]
    tree = [
        filled(length, *width, start=100 * i) for i, (length, width) in enumerate(zip(lengths, widths, strict=True))
    ]
    flat, unravel = backend.package.ravel_stages([backend.array(leaf) for leaf in tree])
    np.testing.assert_array_equal(flat, ravel(tree)[0])
    for leaf, want in zip(unravel(flat), tree, strict=True):
        np.testing.assert_array_equal(backend.numpy(leaf), want, strict=True)


def test_bad_input(backend: Backend) -> None:
    def arrays(*shapes: tuple[int, ...], dtype: str = "float64") -> list:
        return [backend.array(np.ones(shape), dtype) for shape in shapes]

    bad = [
        (ValueError, "tree must hold at least one", {}),
        (ValueError, "tree must hold at least one", []),
        (TypeError, "tree must be an array|tree must be a tensor", [*arrays((3,)), 1.0]),
        (TypeError, "tree must be an array|tree must be a tensor", "text"),
        (ValueError, r"every leaf of tree needs a leading stage axis.*\(1,\)", arrays(())),
        (ValueError, "every leaf of tree needs a leading stage axis", arrays((3,), ())),
        (ValueError, r"leaves of tree must share a leading stage axis.*\(5, 2\), \(3,\)", arrays((5, 2), (3,))),
        (TypeError, "tree must have a real floating dtype, got .*int32", arrays((3,), dtype="int32")),
        (TypeError, "tree must have a real floating dtype, got .*complex128", arrays((3,), dtype="complex128")),
        (TypeError, "leaves of tree must share one dtype", arrays((3,)) + arrays((3,), dtype="float32")),
    ]
    for error, message, tree in bad:
        with pytest.raises(error, match=message):
            backend.package.ravel_stages(tree)
