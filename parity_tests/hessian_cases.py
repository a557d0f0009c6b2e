"""What the tests of `hessian` compare bands with, and how closely."""

import functools

import numpy as np
import pytest
from backends import BACKENDS, Backend
from oracles import Problem

both_ways = pytest.mark.parametrize("chunk_size", [1, None])


# Rounding: each entry is a sum of some tens of terms of at most the size of the largest entry.
CLOSED_FORM = 64


# Two backends evaluate the same expressions in the same order; their exp and sin may differ in the last bit.
BETWEEN_BACKENDS = 16


def assert_close(actual: np.ndarray, expected: np.ndarray, multiple: float) -> None:
    """Within a multiple of eps (of the actual dtype) of the largest entry."""
    eps = np.finfo(actual.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=multiple * eps * np.abs(expected).max(initial=0))


def assert_same_band(problem: Problem, actual: np.ndarray, expected: np.ndarray, multiple: float) -> None:
    assert actual.shape == expected.shape
    if problem.exact:
        np.testing.assert_array_equal(actual, expected)
    else:
        assert_close(actual, expected, multiple)
    unused = np.arange(actual.shape[0])[:, None] + np.arange(actual.shape[1]) >= actual.shape[1]
    np.testing.assert_array_equal(actual[unused], 0)


def inputs(backend: Backend, problem: Problem, dtype: str = "float64") -> tuple:
    x = backend.tree_map(lambda leaf: backend.array(leaf, dtype), problem.x)
    return x, *(backend.array(arg, dtype) for arg in problem.args)


@functools.cache
def band(problem: Problem, name: str) -> np.ndarray:
    backend = BACKENDS[name]
    fun = problem.objective(backend.xp)
    return backend.numpy(backend.package.hessian(fun, problem.bandwidth)(*inputs(backend, problem)))
