"""Bounds of `sqp`: how they are given, and which are refused before anything is computed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from backends import Backend

INF = np.inf
TREE = {"q": np.zeros((3, 2)), "u": np.zeros((2, 1))}  # u ends a stage early


def start(backend: Backend) -> Any:
    return backend.tree_map(backend.array, TREE)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((INF, INF), "lower < inf and upper > -inf"),
        ((-INF, -INF), "lower < inf and upper > -inf"),
        ((INF, None), "lower < inf and upper > -inf"),
        ((None, -INF), "lower < inf and upper > -inf"),
        ((1.0, 0.0), r"lower <= upper, got lower 1.0 and upper 0.0 \(flat entry 0\)"),
        (({"q": 0.0, "u": 2.0}, {"q": 1.0, "u": 1.0}), r"got lower 2.0 and upper 1.0 \(flat entry 2\)"),
        ((np.nan, 1.0), "not NaN"),
        ((0.0, np.nan), "not NaN"),
        ((np.zeros(4), None), "each of the two bounds must be None, a number, or a tree like x0"),
        (({"q": np.zeros(4), "u": None}, None), r"a bound of shape \(4,\) does not fit x0's leaf of shape \(3, 2\)"),
    ],
)
def test_refused(backend: Backend, bounds: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        backend.package.sqp(lambda x: (x["q"] ** 2).sum(), None, start(backend), 0, bounds=bounds)


@pytest.mark.parametrize(
    ("bounds", "lower", "upper"),
    [
        ((0.0, None), 0.0, INF),
        ((None, 1), -INF, 1.0),
        ((np.float32(0.5), np.array(2.0)), 0.5, 2.0),
        (({"q": 0.0, "u": None}, {"q": None, "u": 3}), [0, 0, -INF] * 3, [INF, INF, 3] * 3),
        (({"q": np.array([1.0, 2.0]), "u": -1.0}, None), [1, 2, -1] * 3, INF),
    ],
    ids=["number and None", "None and number", "NumPy's numbers", "a number per leaf", "an array per stage"],
)
def test_given_as_numbers(backend: Backend, bounds: tuple, lower: Any, upper: Any) -> None:
    """Flat, stage by stage; a dummy is not bounded."""
    room = importlib.import_module(f"{backend.package.__name__}.optimise.sqp.constraints")
    stages = importlib.import_module(f"{backend.package.__name__}.band.stages")
    layout = stages.Layout.of(start(backend))
    room.check_bounds(bounds, layout)
    found = room.Bounds.of(bounds, layout)
    for side, expected, none in ((found.lower, lower, -INF), (found.upper, upper, INF)):
        full = np.array(np.broadcast_to(expected, 9), float)
        full[-1] = none
        np.testing.assert_array_equal(backend.numpy(side), full)
    np.testing.assert_array_equal(backend.numpy(found.fixed), np.zeros(9))
