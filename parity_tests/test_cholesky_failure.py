"""Where a band has no Cholesky factor, and where an argument is wrong."""

import numpy as np
import pytest
import torch
from backends import Backend
from matrices import break_minor, lapack_factor, positive_band

# --- Failure ---------------------------------------------------------------------------------------------------------


def expect_failure(backend: Backend, ab: np.ndarray, order: int) -> None:
    """Both faces of failure: `info` and NaN from cholesky_ex, and NaN (JAX) or an error (torch) from cholesky."""
    cb, info = backend.package.cholesky_ex(backend.array(ab))
    assert int(info) == order
    assert np.isnan(backend.numpy(cb)).all()
    if backend.name == "jax":
        assert np.isnan(backend.numpy(backend.package.cholesky(backend.array(ab)))).all()
    else:
        with pytest.raises(torch.linalg.LinAlgError, match=rf"leading minor of order {order} is not positive definite"):
            backend.package.cholesky(backend.array(ab))


@pytest.mark.parametrize("w", [0, 1, 3])
@pytest.mark.parametrize("order", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("pivot", [-2.0, -1e-3])
def test_failing_minor_is_lapacks(backend: Backend, w: int, order: int, pivot: float) -> None:
    ab = break_minor(positive_band(9, w), order, pivot)
    assert lapack_factor(ab)[1] == order, "the test's own matrix"
    expect_failure(backend, ab, order)


@pytest.mark.parametrize("w", [0, 2])
def test_zero_pivot_fails(backend: Backend, w: int) -> None:
    ab = np.zeros((w + 1, 4))
    ab[0] = [1, 2, 0, 1]
    assert lapack_factor(ab)[1] == 3
    expect_failure(backend, ab, 3)


def test_first_of_several_failures(backend: Backend) -> None:
    ab = np.array([[1.0, 1, -1, 1, -1, 1], [0.5, 0, 0, 0, 0, 0]])
    assert lapack_factor(ab)[1] == 3
    expect_failure(backend, ab, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "order"), [(0, 4), (1, 5)])
def test_nonfinite_entries_fail(backend: Backend, bad: float, row: int, order: int) -> None:
    """A NaN or infinity in column 4 spoils pivot 4 (on the diagonal) or 5 (below it). LAPACK lets NaN pass."""
    ab = positive_band(7, 1)
    ab[row, 3] = bad
    expect_failure(backend, ab, order)


def test_singular_semidefinite(backend: Backend) -> None:
    """[[1, 1], [1, 1]] has an exactly zero last pivot."""
    expect_failure(backend, np.array([[1.0, 1.0], [1.0, 0.0]]), 2)


def test_error_reaches_through_solve(backend: Backend) -> None:
    ab = break_minor(positive_band(9, 2), 4, -1.0)
    if backend.name == "jax":
        assert np.isnan(backend.numpy(backend.package.solve(backend.array(ab), backend.array(np.ones(9))))).all()
    else:
        with pytest.raises(torch.linalg.LinAlgError, match="leading minor of order 4"):
            backend.package.solve(backend.array(ab), backend.array(np.ones(9)))


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(backend: Backend) -> None:
    p = backend.package
    ab, b = backend.array(positive_band(4, 1)), backend.array(np.ones(4))
    flat, single = backend.array(np.ones(4)), backend.array(np.ones(4), "float32")
    for name in ("cholesky", "cholesky_ex", "factor"):
        fun = getattr(p, name)
        with pytest.raises(ValueError, match=r"ab must be 2-D, shape \(w \+ 1, n\).*vmap"):
            fun(flat)
        with pytest.raises(ValueError, match="ab must be 2-D"):
            fun(backend.array(np.ones((2, 3, 4))))
        with pytest.raises(ValueError, match="ab must be 2-D"):
            fun(backend.array(np.ones((0, 4))))
        with pytest.raises(TypeError, match=r"ab must have a real floating dtype, got .*int64"):
            fun(backend.array(np.ones((2, 4), "int64")))
        with pytest.raises(TypeError, match=r"ab must have a real floating dtype, got .*complex"):
            fun(backend.array(np.ones((2, 4), "complex128")))
    for name, first in [("solve", "ab"), ("cho_solve", "cb"), ("solve_triangular", "cb")]:
        fun = getattr(p, name)
        with pytest.raises(ValueError, match=f"{first} must be 2-D"):
            fun(flat, b)
        with pytest.raises(TypeError, match=f"{first} must have a real floating dtype"):
            fun(backend.array(np.ones((2, 4), "int64")), b)
        with pytest.raises(ValueError, match=r"b must have shape \(4,\) or \(4, k\).*\(3,\)"):
            fun(ab, backend.array(np.ones(3)))
        with pytest.raises(ValueError, match=r"b must have shape \(4,\).*\(2, 4\)"):
            fun(ab, backend.array(np.ones((2, 4))))
        with pytest.raises(ValueError, match=r"b must have shape \(4,\).*\(4, 1, 1\)"):
            fun(ab, backend.array(np.ones((4, 1, 1))))
        with pytest.raises(TypeError, match=r"b and ab must have one dtype.*float32.*float64"):
            fun(ab, single)
    with pytest.raises(ValueError, match="cb must be 2-D"):
        p.logdet(flat)
    with pytest.raises(TypeError, match="cb must have a real floating dtype"):
        p.logdet(backend.array(np.ones((2, 4), "int64")))
    with pytest.raises(ValueError, match=r"b must have shape \(4,\)"):
        p.factor(ab).solve(backend.array(np.ones(5)))
