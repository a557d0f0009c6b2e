"""Batches by vmap: every matrix as if it were alone, and a bad one's trouble its own."""

import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from matrices import break_minor, cleared, lapack_factor, poisoned, positive_band, rhs, scaled_residual
from oracles import unstore

EPS = np.finfo("float64").eps


def batch(lanes: int, n: int, w: int) -> np.ndarray:
    return np.stack([positive_band(n, w, seed) for seed in range(lanes)])


def test_info_of_every_matrix(backend: Backend) -> None:
    """LAPACK's info, per matrix: first, middle and last minors, neighbours and not."""
    n, w = 9, 2
    ab = batch(8, n, w)
    for lane, minor in [(0, 1), (1, n), (3, 5), (6, n), (7, 1)]:
        ab[lane] = break_minor(ab[lane], minor, -1.0)
    cb, info = map(backend.numpy, backend.vmap(backend.package.cholesky_ex)(backend.array(ab)))
    expected = [lapack_factor(one)[1] for one in ab]
    assert expected == [1, n, 0, 5, 0, 0, n, 1]
    np.testing.assert_array_equal(info, expected)
    for one, factor, code in zip(ab, cb, info, strict=True):
        if code:
            assert np.isnan(factor).all()
        else:
            np.testing.assert_allclose(factor, lapack_factor(one)[0], rtol=0, atol=64 * EPS)


TROUBLES = {
    "indefinite": lambda ab: break_minor(ab, 5, -1.0),
    "zero": np.zeros_like,
    "nan pivot": lambda ab: np.where(np.arange(ab.size).reshape(ab.shape) == ab.shape[1] - 1, np.nan, ab),
    "nan below": lambda ab: np.where(np.arange(ab.size).reshape(ab.shape) == ab.shape[1] + 1, np.nan, ab),
    "infinite": lambda ab: np.where(np.arange(ab.size).reshape(ab.shape) == 3, np.inf, ab),
    "overflow": lambda ab: np.where(np.arange(len(ab))[:, None] == 0, 1e-300, 1e300) + 0 * ab,
}


@pytest.mark.parametrize("trouble", sorted(TROUBLES))
def test_trouble_stays_where_it_is(backend: Backend, trouble: str) -> None:
    """The bits of the other factors and solutions do not change, whatever happens in one of the systems."""
    assert_trouble_stays(backend, trouble, 2)


@pytest.mark.parametrize("trouble", sorted(TROUBLES))
def test_trouble_in_tridiagonal_systems(trouble: str) -> None:
    """For which PyTorch calls other routines."""
    assert_trouble_stays(BACKENDS["torch"], trouble, 1)


def assert_trouble_stays(backend: Backend, trouble: str, w: int) -> None:
    n = 12
    ab, b = batch(5, n, w), rhs(n, 5).T.copy()
    p = backend.package
    mixed = ab.copy()
    mixed[2] = cleared(TROUBLES[trouble](ab[2]))
    others = [0, 1, 3, 4]

    def everything(ab, b):
        cb, info = p.cholesky_ex(ab)
        factored = p.factor(ab)
        return cb, info, factored.solve(b), factored.logdet(), p.cho_solve(cb, b), p.solve_triangular(cb, b)

    everything = backend.jit(backend.vmap(everything))
    good = [backend.numpy(t) for t in everything(backend.array(ab), backend.array(b))]
    found = [backend.numpy(t) for t in everything(backend.array(mixed), backend.array(b))]
    for one, other in zip(good, found, strict=True):
        np.testing.assert_array_equal(other[others], one[others])
    assert found[1][2] != 0
    for result in (found[0], found[2], found[3], found[4]):
        assert np.isnan(result[2]).all()
    one = p.cholesky_ex(backend.array(mixed[2]))[1]
    assert int(found[1][2]) == int(one)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_trouble_in_a_right_hand_side(backend: Backend, value: float) -> None:
    """NaN, infinity, and what overflows on the way."""
    n, w = 12, 2
    cb = np.stack([lapack_factor(ab)[0] for ab in batch(4, n, w)])
    cb[1, 0] *= 1e-3
    b = rhs(n, 4).T.copy()
    solve = backend.jit(backend.vmap(backend.package.cho_solve))
    good = backend.numpy(solve(backend.array(cb), backend.array(b)))
    b[1, [0, n - 1]] = value
    found = backend.numpy(solve(backend.array(cb), backend.array(b)))
    assert not np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2, 3]], good[[0, 2, 3]])


def test_singular_factor(backend: Backend) -> None:
    n, w = 7, 1
    cb = np.stack([lapack_factor(ab)[0] for ab in batch(3, n, w)])
    cb[1, 0, 3] = 0
    b = rhs(n, 3).T.copy()
    x = backend.numpy(backend.vmap(backend.package.solve_triangular)(backend.array(cb), backend.array(b)))
    assert not np.isfinite(x[1]).all()
    for i in (0, 2):
        L = np.tril(unstore(cb[i]))
        np.testing.assert_allclose(L @ x[i], b[i], rtol=0, atol=64 * EPS)


def test_exception_names_matrix_and_minor() -> None:
    p = BACKENDS["torch"].package
    ab = torch.tensor(batch(6, 8, 2))
    ab[4, 0, 6] = -1
    for call in (
        torch.func.vmap(p.cholesky),
        lambda ab: torch.func.vmap(p.solve)(ab, torch.ones(6, 8, dtype=ab.dtype)),
    ):
        with pytest.raises(torch.linalg.LinAlgError, match=r"leading minor of order 7 .*\(matrix 4 of the batch\)"):
            call(ab)
    with pytest.raises(torch.linalg.LinAlgError, match=r"leading minor of order 7 .*\(matrix \(2, 0\) of the batch\)"):
        torch.func.vmap(torch.func.vmap(p.cholesky))(ab.reshape(3, 2, *ab.shape[1:]))


@pytest.mark.parametrize(
    ("lanes", "n", "w"), [(6, 5000, 3), (90, 300, 1), (3, 70, 66), (2, 1, 3), (1, 6, 1), (5, 4, 0)]
)
def test_torch_shares(lanes: int, n: int, w: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split over threads, in LAPACK's blocks (w > 64), in degenerate shapes: the same as one by one."""
    p = BACKENDS["torch"].package
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    rng = np.random.default_rng(0)
    ab = rng.uniform(-1, 1, (lanes, w + 1, n))
    ab[:, 0] += 2 * w + 2
    b = torch.tensor(rng.normal(size=(lanes, n, 2)))
    ab = torch.tensor(np.stack([poisoned(one) for one in ab]))
    cb, x = torch.func.vmap(p.cholesky)(ab), torch.func.vmap(p.solve)(ab, b)
    y = torch.func.vmap(lambda cb, b: p.solve_triangular(cb, b, transpose=True))(cb, b)
    for i in range(lanes):
        one = p.cholesky(ab[i])
        np.testing.assert_allclose(cb[i], one, rtol=16 * EPS, atol=16 * EPS)
        np.testing.assert_allclose(x[i], p.solve(ab[i], b[i]), rtol=0, atol=64 * EPS)
        np.testing.assert_allclose(y[i], p.solve_triangular(one, b[i], transpose=True), rtol=0, atol=64 * EPS)


def test_wide_bands_are_done_one_by_one() -> None:
    """For w > 64 LAPACK works on blocks of columns: a failure in one system leaves the bits of the next alone."""
    cholesky_ex = torch.func.vmap(BACKENDS["torch"].package.cholesky_ex)
    ab = torch.tensor(batch(3, 70, 66))
    good, _ = cholesky_ex(ab)
    ab[1, 0, 50] = -1
    mixed, info = cholesky_ex(ab)
    assert info.tolist() == [0, 51, 0]
    np.testing.assert_array_equal(mixed[[0, 2]], good[[0, 2]])
    np.testing.assert_allclose(mixed[2], lapack_factor(ab[2].numpy())[0], rtol=0, atol=256 * EPS)


def test_one_matrix_many_right_hand_sides(backend: Backend) -> None:
    ab, b = positive_band(9, 2), rhs(9, 6).T.reshape(2, 3, 9)
    p = backend.package
    solve = backend.vmap(backend.vmap(p.solve, (None, 0)), (None, 1), 1)
    x = backend.numpy(solve(backend.array(ab), backend.array(b)))
    for i in range(2):
        for j in range(3):
            assert scaled_residual(unstore(ab), x[i, j], b[i, j]) <= 64 * EPS


def test_gradient_of_a_batch(backend: Backend) -> None:
    """Differentiating a vmapped loss differentiates every matrix by itself; the rule sees the whole batch."""
    ab, b = batch(3, 6, 2), rhs(6, 3).T.copy()
    p = backend.package

    def loss(ab, b):
        cb = p.cholesky(ab)
        return p.logdet(cb) + backend.xp.sum(p.cho_solve(cb, b) ** 2) + backend.xp.sum(p.solve(ab, b) ** 2)

    def at_once(ab):
        return backend.grad(lambda ab: backend.xp.sum(backend.vmap(loss)(ab, backend.array(b))))(ab)

    found = backend.numpy(backend.jit(at_once)(backend.array(ab)))
    one = backend.jit(backend.grad(loss))
    for i in range(3):
        expected = backend.numpy(one(backend.array(ab[i]), backend.array(b[i])))
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=256 * EPS * np.abs(expected).max())
