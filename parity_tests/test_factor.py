"""`factor`: one factorisation for many solves."""

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from matrices import EPS, poisoned, positive_band, rhs, rounding, scaled_residual
from oracles import unstore


@pytest.mark.parametrize(("n", "w"), [(0, 1), (1, 0), (9, 2), (3, 6)])
def test_factor(backend: Backend, n: int, w: int) -> None:
    ab = positive_band(n, w)
    factored = backend.package.factor(backend.array(poisoned(ab)))
    assert isinstance(factored, backend.package.Factor)
    assert bool(factored.ok)
    np.testing.assert_allclose(float(factored.logdet()), np.linalg.slogdet(unstore(ab))[1], rtol=0, atol=64 * EPS)
    for seed in range(2):  # the same factor, again and again
        b = rhs(n, None, seed)
        assert scaled_residual(unstore(ab), backend.numpy(factored.solve(backend.array(b))), b) <= 2 * rounding(w)


@pytest.mark.parametrize("w", [0, 2])
def test_factor_of_an_indefinite_band(backend: Backend, w: int) -> None:
    """Failure is data here, in both backends: ok is False, and everything derived is NaN."""
    ab = positive_band(6, w)
    ab[0, 3] = -1
    factored = backend.package.factor(backend.array(ab))
    assert not bool(factored.ok)
    assert np.isnan(backend.numpy(factored.solve(backend.array(np.ones(6))))).all()
    assert np.isnan(float(factored.logdet()))


def test_factor_is_a_pytree(backend: Backend) -> None:
    ab, b = positive_band(6, 2), rhs(6, None)
    factored = backend.package.factor(backend.array(ab))
    leaves = backend.leaves(factored)
    assert len(leaves) > 0
    assert all(backend.is_array(leaf) for leaf in leaves)
    copied = backend.tree_map(lambda leaf: backend.array(backend.numpy(leaf)), factored)
    assert type(copied) is type(factored)
    np.testing.assert_array_equal(
        backend.numpy(copied.solve(backend.array(b))), backend.numpy(factored.solve(backend.array(b)))
    )


def test_factor_through_jit_and_scan() -> None:
    package, ab = BACKENDS["jax"].package, positive_band(6, 2)
    factored = jax.jit(package.factor)(ab)
    _, x = jax.lax.scan(lambda factor, b: (factor, factor.solve(b)), factored, rhs(3 * 6, None).reshape(3, 6))
    for row, b in zip(np.asarray(x), rhs(3 * 6, None).reshape(3, 6), strict=True):
        assert scaled_residual(unstore(ab), row, b) <= 2 * rounding(2)
