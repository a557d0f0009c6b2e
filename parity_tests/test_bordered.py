"""Solving with closed bands and borders: against dense algebra, with derivatives, failures and costs."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from arrowheads import CASES, SIZES, definite, inside, stored, structure
from backends import BACKENDS, Backend
from hypothesis import given
from matrices import rounding, scaled_residual, ways_to_solve

cases = pytest.mark.parametrize("case", CASES, ids=str)


def made(backend: Backend, case: tuple, seed: int = 0, dtype: str = "float64") -> tuple[np.ndarray, Any]:
    h = definite(*case, seed=seed).astype(dtype).astype(float)
    return h, structure(backend, stored(h, *case), case[3], dtype)


def of_the_factor(backend: Backend, H: Any, *right: Any) -> dict:
    p, factored = backend.package, backend.package.factor(H)
    return {
        "factor.solve": tuple(map(factored.solve, right)),
        "logdet": factored.logdet(),
        "ok": factored.ok,
        "inverse": p.to_dense(p.inverse_band(factored)),
        "rcond": p.rcond(factored, H),
    }


@functools.cache
def everything(backend: Backend) -> Callable:
    def run(H: Any, *right: Any) -> dict:
        return {"solve": tuple(backend.package.solve(H, b) for b in right), **of_the_factor(backend, H, *right)}

    return backend.jit(run)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@cases
def test_against_dense(backend: Backend, case: tuple, dtype: str) -> None:
    h, H = made(backend, case, dtype=dtype)
    w, eps = case[1], np.finfo(dtype).eps
    right = [np.random.default_rng(1).normal(size=(len(h), *columns)).astype(dtype) for columns in [(), (2,)]]
    found = everything(backend)(H, *map(backend.array, right))
    for name in ("solve", "factor.solve"):
        for x, b in zip(map(backend.numpy, found.pop(name)), right, strict=True):
            assert x.dtype == dtype
            assert x.shape == b.shape
            assert scaled_residual(h, x, b) <= rounding(w + case[2], dtype)
    found = {name: backend.numpy(x) for name, x in found.items()}
    np.testing.assert_allclose(found["logdet"], np.linalg.slogdet(h)[1], rtol=1e3 * eps, atol=1e3 * eps)
    assert found["ok"]
    inverse = np.linalg.inv(h)
    expected = np.where(inside(*case), inverse, 0)
    np.testing.assert_allclose(found["inverse"], expected, rtol=1e3 * eps, atol=1e2 * eps * np.abs(inverse).max())
    truth = 1 / np.linalg.cond(h, 1)
    assert truth * (1 - 1e3 * eps) <= found["rcond"] <= 3 * truth


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
@given(case=SIZES)
def test_sizes(backend: Backend, case: tuple) -> None:
    h, H = made(backend, case, seed=3)
    b = np.arange(1.0, len(h) + 1)
    for solve in ways_to_solve(backend):
        assert scaled_residual(h, backend.numpy(solve(H, backend.array(b))), b) <= rounding(case[1] + case[2])


def test_a_closed_band_by_itself(backend: Backend) -> None:
    """Not in a border of none: its factor, its solutions, its inverse."""
    case = (11, 3, 0, True)
    h = definite(*case)
    package, H = backend.package, structure(backend, stored(h, *case), True, bordered=False)
    b = np.arange(11.0)

    def run(H: Any, b: Any) -> tuple:
        factored = package.factor(H)
        return package.solve(H, b), factored.solve(b), package.inverse_band(factored)

    *solutions, inverse = backend.jit(run)(H, backend.array(b))
    for x in solutions:
        np.testing.assert_allclose(backend.numpy(x), np.linalg.solve(h, b), rtol=1e-12)
    assert type(inverse) is package.Cyclic
    expected = stored(np.linalg.inv(h), *case)[0]
    np.testing.assert_allclose(backend.numpy(inverse.ab), expected, rtol=1e-12, atol=1e-15)


def test_refined(backend: Backend) -> None:
    """A float32 factor of the band, corrected to float64's accuracy."""
    case = (40, 2, 4, True)
    h, H = made(backend, case)
    b = np.random.default_rng(1).normal(size=len(h))
    x = backend.numpy(backend.jit(lambda H, b: backend.package.solve(H, b, refine=3))(H, backend.array(b)))
    assert scaled_residual(h, x, b) <= rounding(6)


# --- Derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [(6, 2, 1, False), (5, 1, 2, True)], ids=str)
def test_derivatives(backend: Backend, case: tuple) -> None:
    """First and second order, both modes, against finite differences, in the band, the border and the corner."""
    package = backend.package
    ab, border, corner = stored(definite(*case), *case)
    b = np.random.default_rng(1).normal(size=(len(corner) + len(ab[0]), 2))
    weights = backend.array(np.cos(np.arange(len(b) ** 2)).reshape(len(b), len(b)))

    def fun(ab: Any, border: Any, corner: Any, b: Any) -> tuple:
        H = structure(backend, (ab, border, (corner + corner.T) / 2), case[3])
        factored = package.factor(H)
        entries = package.to_dense(package.inverse_band(factored))
        return package.solve(H, b), factored.solve(b), factored.logdet(), backend.xp.sum(entries * weights)

    backend.check_derivatives(backend.jit(fun), np.nan_to_num(ab), border, corner, b)


@pytest.mark.parametrize("case", [(9, 2, 4, False), (9, 2, 1, True), (7, 3, 0, True)], ids=str)
def test_gradient_convention(backend: Backend, case: tuple) -> None:
    """With v = H^-1 xbar, a cell that stands for two entries has the gradient -(v_i x_j + v_j x_i)."""
    h, H = made(backend, case)
    n, p = case[0], case[2]
    b, xbar = np.random.default_rng(1).normal(size=(2, n + p))
    x, v = np.linalg.solve(h, b), np.linalg.solve(h, xbar)
    both = -(np.outer(v, x) + np.outer(x, v))
    ab, border, corner = stored(both, *case)
    ab = np.nan_to_num(ab)
    ab[0] /= 2
    for solve in ways_to_solve(backend):
        loss = lambda point, solve=solve: backend.xp.sum(backend.array(xbar) * solve(*point))  # noqa: E731
        found = backend.leaves(backend.jit(backend.grad(loss))((H, backend.array(b))))
        for gradient, expected in zip(found, (ab, border, corner / 2, v), strict=True):
            np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=1e-11, atol=1e-13)


def test_batches(backend: Backend) -> None:
    """vmap over all parts, and the gradient under it."""
    case = (9, 2, 2, True)
    hs = [definite(*case, seed=seed) for seed in range(3)]
    parts = [np.stack(part) for part in zip(*(stored(h, *case) for h in hs), strict=True)]
    b = np.random.default_rng(1).normal(size=(3, 11))
    loss = lambda H, b: backend.xp.sum(backend.package.solve(H, b) ** 3)  # noqa: E731
    H = structure(backend, parts, True)
    x = backend.numpy(backend.jit(backend.vmap(backend.package.solve))(H, backend.array(b)))
    gradients = backend.jit(backend.vmap(backend.grad(loss)))(H, backend.array(b))
    for lane, h in enumerate(hs):
        np.testing.assert_allclose(x[lane], np.linalg.solve(h, b[lane]), rtol=1e-12)
        v = np.linalg.solve(h, 3 * x[lane] ** 2)
        expected = -(np.outer(v, x[lane]) + np.outer(x[lane], v))[9:, :9]
        np.testing.assert_allclose(backend.numpy(gradients.border)[lane], expected, rtol=1e-10, atol=1e-12)


# --- Failures --------------------------------------------------------------------------------------------------------


def broken(case: tuple, where: int) -> np.ndarray:
    """A matrix whose first leading minor that is not positive is that of order `where`."""
    h = definite(*case)
    schur = 1 / np.linalg.inv(h[:where, :where])[-1, -1]
    h[where - 1, where - 1] -= schur + 0.5
    return h


@pytest.mark.parametrize("value", ["indefinite", "nan", "inf"])
@pytest.mark.parametrize(("case", "where"), [((9, 2, 2, False), 4), ((9, 2, 2, False), 11), ((9, 2, 1, True), 9)])
def test_failures(backend: Backend, case: tuple, where: int, value: str) -> None:
    """In the band, in the border, in a closed band's cut: ok is False, and nothing looks like a solution."""
    h = broken(case, where)
    if value != "indefinite":
        h[where - 1, where - 1] = float(value)
    H, b = structure(backend, stored(h, *case), case[3]), backend.array(np.ones(len(h)))
    if backend.name == "torch":
        with pytest.raises(torch.linalg.LinAlgError, match=f"leading minor of order {where} is not positive definite"):
            backend.package.solve(H, b)
        found = of_the_factor(backend, H, b)
    else:
        found = everything(backend)(H, b)
        assert np.isnan(backend.numpy(found["solve"][0])).all()
    assert not found["ok"]
    for name, value in (
        ("factor.solve", found["factor.solve"][0]),
        ("logdet", found["logdet"]),
        ("rcond", found["rcond"]),
    ):
        assert np.isnan(backend.numpy(value)).all(), name


def test_a_failed_lane_spoils_no_other(backend: Backend) -> None:
    case = (9, 2, 2, False)
    hs = [definite(*case), broken(case, 10)]
    parts = [np.stack(part) for part in zip(*(stored(h, *case) for h in hs), strict=True)]
    H, b = structure(backend, parts, False), backend.array(np.ones(11))
    ok, x = backend.jit(backend.vmap(lambda H: (backend.package.factor(H).ok, backend.package.factor(H).solve(b))))(H)
    assert backend.numpy(ok).tolist() == [True, False]
    np.testing.assert_allclose(backend.numpy(x)[0], np.linalg.solve(hs[0], np.ones(11)), rtol=1e-12)
    assert np.isnan(backend.numpy(x)[1]).all()
    if backend.name == "torch":
        with pytest.raises(
            torch.linalg.LinAlgError, match=r"order 10 is not positive definite \(matrix 1 of the batch"
        ):
            backend.vmap(lambda H: backend.package.solve(H, b))(H)


def test_rcond_wants_the_structures_factor(backend: Backend) -> None:
    package = backend.package
    _, H = made(backend, (9, 2, 1, True))
    cb = package.cholesky(backend.array(np.ones((1, 9))))
    for pair in ((cb, H), (package.factor(H), cb)):
        with pytest.raises(TypeError, match=r"for a structure cb must be factor\(ab\), got cb .* and ab"):
            package.rcond(*pair)


# --- Costs -----------------------------------------------------------------------------------------------------------


def test_one_factorisation(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """One solve of the band for [b, border^T], which factorises once; with a factor, one for each pass."""
    _, H = made(backend, (9, 2, 4, False))
    b = backend.array(np.ones(13))
    alone = backend.count_solves(monkeypatch, backend.package.solve, H.band, backend.array(np.ones((9, 5))))
    assert backend.count_solves(monkeypatch, backend.package.solve, H, b) == alone
    factored = backend.package.factor(H)
    assert backend.count_solves(monkeypatch, lambda b: factored.solve(b), b) == (0, 1)
    loss = lambda b: backend.xp.sum(factored.solve(b) ** 2)  # noqa: E731
    assert backend.count_solves(monkeypatch, backend.grad(loss), b) == (0, 2)


def test_nothing_dense_appears(backend: Backend) -> None:
    case = (300, 2, 2, True)
    _, H = made(backend, case)
    b = backend.array(np.ones(302))
    assert backend.largest_array(backend.package.solve, H, b) <= 302**2 / 16
    assert backend.largest_array(lambda H: backend.package.inverse_band(backend.package.factor(H)), H) <= 302**2 / 16
