"""`solve`: against LAPACK and dense solves, refinement, transforms."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from matrices import (
    EPS,
    SIZES,
    lapack_solve,
    lower_factor,
    poisoned,
    positive_band,
    rhs,
    rounding,
    scaled_residual,
    ways_to_solve,
)
from oracles import store, unstore


@pytest.mark.parametrize(("n", "w", "columns"), [*((n, w, None) for n, w in SIZES), (0, 2, 3), (7, 0, 3), (8, 3, 3)])
def test_solve(backend: Backend, n: int, w: int, columns: int | None) -> None:
    ab, b = positive_band(n, w), rhs(n, columns)
    for solve in ways_to_solve(backend):
        x = backend.numpy(solve(backend.array(poisoned(ab)), backend.array(b)))
        assert x.shape == b.shape
        assert x.dtype == b.dtype
        assert scaled_residual(unstore(ab), x, b) <= 2 * rounding(w)
        if n:
            scale = np.linalg.cond(unstore(ab)) * np.abs(x).max() * 2 * rounding(w)
            np.testing.assert_allclose(x, lapack_solve(ab, b), rtol=0, atol=scale)
            np.testing.assert_allclose(x, np.linalg.solve(unstore(ab), b), rtol=0, atol=scale)


def test_blog_system(backend: Backend) -> None:
    ab = np.array([[2.0] * 12, [-1.0] * 11 + [0]])
    x = backend.numpy(backend.package.solve(backend.array(ab), backend.array(np.eye(12)[4])))
    # By hand: x_i = (i + 1) (12 - 4) / 13 up to the load, and falling linearly to 0 beyond it.
    i = np.arange(12)
    expected = np.where(i <= 4, (i + 1) * 8, (12 - i) * 5) / 13
    np.testing.assert_allclose(x, expected, rtol=16 * EPS)
    np.testing.assert_allclose(x[[0, 4, 11]], [0.61538462, 3.07692308, 0.38461538], rtol=0, atol=5e-9)


@given(seed=st.integers(0, 999), exponent=st.integers(0, 12))
def test_solve_is_backward_stable(backend: Backend, seed: int, exponent: int) -> None:
    """Up to condition 1e12, the residual is at rounding level."""
    n, w = 12, 2
    L = lower_factor(n, w, seed)
    L[n // 2, n // 2] *= 10.0 ** (-exponent / 2)
    ab, b = store(L @ L.T, w), rhs(n, None, seed)
    x = backend.numpy(backend.package.solve(backend.array(ab), backend.array(b)))
    assert scaled_residual(unstore(ab), x, b) <= 2 * rounding(w)


def test_zero_columns(backend: Backend) -> None:
    for solve in ways_to_solve(backend):
        x = solve(backend.array(positive_band(5, 1)), backend.array(np.zeros((5, 0))))
        assert tuple(x.shape) == (5, 0)


def test_float32(backend: Backend) -> None:
    ab, b = positive_band(8, 3).astype("float32"), rhs(8, None).astype("float32")
    for solve in ways_to_solve(backend):
        x = backend.numpy(solve(backend.array(ab), backend.array(b)))
        assert x.dtype == np.float32
        assert scaled_residual(unstore(ab), x, b) <= 2 * rounding(3, "float32")
    assert backend.package.factor(backend.array(ab)).logdet().dtype == backend.dtype("float32")


@pytest.mark.parametrize(("n", "w"), SIZES)
def test_backends_agree(n: int, w: int) -> None:
    ab, b = positive_band(n, w), rhs(n, None)
    x, y = (backend.numpy(backend.package.solve(backend.array(ab), backend.array(b))) for backend in BACKENDS.values())
    cond = np.linalg.cond(unstore(ab)) if n else 1
    np.testing.assert_allclose(x, y, rtol=0, atol=cond * 2 * rounding(w) * np.abs(y).max(initial=0))


# --- A factor in float32, refined ------------------------------------------------------------------------------------


def test_refinement(backend: Backend) -> None:
    """Each correction gains the factor float32 promises, until float64's residual is reached; whatever H's scale."""
    n, w = 40, 3
    scale = 10.0 ** np.linspace(-100, 100, n)
    L = scale[:, None] * lower_factor(n, w)
    ab, b = store(L @ L.T, w), scale[:, None] * rhs(n, 2)
    b[:, 1] *= 1e-30  # each column has its own scale
    run = [backend.jit(lambda ab, b, k=k: backend.package.solve(ab, b, refine=k)) for k in (0, 1, 3)]
    x = [backend.numpy(solve(backend.array(poisoned(ab)), backend.array(b))) for solve in run]
    residuals = [scaled_residual(unstore(ab), one, b) for one in x]
    assert residuals[0] <= 2 * rounding(w)
    assert residuals[2] <= 2 * rounding(w)
    assert 8 * EPS < residuals[1] < 1e-9, "what float32 leaves after one correction should be seen"
    assert all(one.dtype == np.float64 and one.shape == b.shape for one in x)


def test_refinement_keeps_float32_and_small_sizes(backend: Backend) -> None:
    for n, columns in ((0, None), (5, 0), (1, None)):
        refined = backend.jit(lambda ab, b: backend.package.solve(ab, b, refine=2))
        x = refined(backend.array(positive_band(n, 2)), backend.array(rhs(n, columns)))
        assert backend.numpy(x).shape == rhs(n, columns).shape
    ab, b = positive_band(8, 3).astype("float32"), rhs(8, None).astype("float32")
    x = backend.numpy(backend.package.solve(backend.array(ab), backend.array(b), refine=1))
    assert x.dtype == np.float32
    assert scaled_residual(unstore(ab), x, b) <= 2 * rounding(3, "float32")


def test_refined_derivatives(backend: Backend) -> None:
    """As accurate as the solution, both modes, under vmap too."""
    ab, b, xbar = positive_band(6, 2), rhs(6, None), rhs(6, None, 2)

    def gradients(ab, b):
        loss = lambda ab, b: backend.xp.sum(backend.array(xbar) * backend.package.solve(ab, b, refine=3))  # noqa: E731
        tangent = backend.jvp(lambda ab: backend.package.solve(ab, b, refine=3), (ab,), (ab,))[1]
        return backend.grad(loss)(ab, b), backend.grad(lambda b: loss(ab, b))(b), tangent

    lanes = backend.array(np.stack([ab, 2 * ab])), backend.array(np.stack([b, b]))
    by_ab, by_b, tangent = map(backend.numpy, backend.jit(backend.vmap(gradients))(*lanes))
    x, v = np.linalg.solve(unstore(ab), b), np.linalg.solve(unstore(ab), xbar)
    expected = -store(np.outer(v, x) + np.outer(x, v) - np.diag(v * x), 2)
    for lane, factor in enumerate((1, 2)):
        np.testing.assert_allclose(by_ab[lane], expected / factor**2, rtol=0, atol=1024 * EPS)
        np.testing.assert_allclose(by_b[lane], v / factor, rtol=0, atol=1024 * EPS)
        np.testing.assert_allclose(tangent[lane], -x / factor, rtol=0, atol=1024 * EPS)


def test_refinement_of_what_float32_cannot_factor(backend: Backend) -> None:
    """Condition 1e10: float64 solves it, float32 has no factor, and says so."""
    ab = np.array([[1.0, 1.0], [1 - 1e-10, 0.0]])
    assert np.isfinite(backend.numpy(backend.package.solve(backend.array(ab), backend.array([1.0, 0.0])))).all()
    if backend.name == "jax":
        x = backend.package.solve(backend.array(ab), backend.array([1.0, 0.0]), refine=2)
        assert np.isnan(backend.numpy(x)).all()
    else:
        with pytest.raises(torch.linalg.LinAlgError, match="leading minor of order 2"):
            backend.package.solve(backend.array(ab), backend.array([1.0, 0.0]), refine=2)


@pytest.mark.parametrize(("refine", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_bad_refine(backend: Backend, refine: Any, error: type) -> None:
    with pytest.raises(error, match="refine must be an int >= 0"):
        backend.package.solve(backend.array(positive_band(3, 1)), backend.array(np.ones(3)), refine=refine)


# --- Transforms ------------------------------------------------------------------------------------------------------


def test_vmap(backend: Backend) -> None:
    ab = np.stack([positive_band(7, 2, seed) for seed in range(3)])
    b = rhs(3 * 7, None).reshape(3, 7)
    for solve in ways_to_solve(backend):
        x = backend.numpy(backend.jit(backend.vmap(solve))(backend.array(ab), backend.array(b)))
        for i in range(3):
            assert scaled_residual(unstore(ab[i]), x[i], b[i]) <= 2 * rounding(2)
        # One matrix, many right-hand sides; many matrices, one right-hand side.
        x = backend.numpy(backend.jit(backend.vmap(solve, (None, 0)))(backend.array(ab[0]), backend.array(b)))
        y = backend.numpy(backend.jit(backend.vmap(solve, (0, None)))(backend.array(ab), backend.array(b[0])))
        for i in range(3):
            assert scaled_residual(unstore(ab[0]), x[i], b[i]) <= 2 * rounding(2)
            assert scaled_residual(unstore(ab[i]), y[i], b[0]) <= 2 * rounding(2)


def test_vmap_of_grad_and_grad_of_vmap(backend: Backend) -> None:
    ab = np.stack([positive_band(5, 1, seed) for seed in range(2)])
    b = backend.array(rhs(5, None))

    def loss(ab):
        return backend.xp.sum(backend.package.solve(ab, b) ** 2)

    def both_orders(ab):
        at_once = backend.grad(lambda ab: backend.xp.sum(backend.vmap(loss)(ab)))(ab)
        return backend.vmap(backend.grad(loss))(ab), at_once

    per_lane, at_once = map(backend.numpy, backend.jit(both_orders)(backend.array(ab)))
    np.testing.assert_allclose(per_lane, at_once, rtol=0, atol=64 * EPS)
    one = backend.jit(backend.grad(loss))
    for i in range(2):
        np.testing.assert_allclose(per_lane[i], backend.numpy(one(backend.array(ab[i]))), rtol=0, atol=64 * EPS)


def test_jit() -> None:
    package, ab, b = BACKENDS["jax"].package, positive_band(8, 3), rhs(8, 2)
    x = np.asarray(jax.jit(package.solve)(ab, b))
    assert scaled_residual(unstore(ab), x, b) <= 2 * rounding(3)
    ab[0, 4] = -1
    assert np.isnan(jax.jit(package.solve)(ab, b)).all()
