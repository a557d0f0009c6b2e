"""One large system with several right-hand sides, which the compiled kernel solves from both ends at once."""

import numpy as np
import pytest
from backends import Backend
from matrices import lapack_solve, rounding


def large_band(n: int, w: int) -> np.ndarray:
    ab = np.random.default_rng(0).normal(size=(w + 1, n))
    ab[0] = 2.5 * np.abs(ab[1:]).sum(0).max()
    return ab


@pytest.mark.parametrize(("n", "w", "k"), [(40001, 8, 5), (30000, 3, 2), (20000, 17, 3)])
def test_against_lapack(backend: Backend, n: int, w: int, k: int) -> None:
    ab, b = large_band(n, w), np.random.default_rng(1).normal(size=(n, k))
    x = backend.numpy(backend.package.solve(backend.array(ab), backend.array(b)))
    expected = lapack_solve(ab, b)
    np.testing.assert_allclose(x, expected, atol=rounding(w) * np.abs(expected).max())


@pytest.mark.parametrize("where", [5, 20000, 39996])
def test_a_bad_pivot_above_between_and_below(backend: Backend, where: int) -> None:
    ab = large_band(40001, 4)
    ab[0, where - 1] = -1
    ab, b = backend.array(ab), backend.array(np.ones((40001, 2)))
    if backend.name == "jax":
        assert np.isnan(backend.numpy(backend.package.solve(ab, b))).all()
    else:
        with pytest.raises(RuntimeError, match=f"leading minor of order {where} is not"):
            backend.package.solve(ab, b)
