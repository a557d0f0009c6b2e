"""Bad input stays where it is: unused cells reach no result, no lane spoils another, and the minor has its number."""

from typing import Any

import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from matrices import lapack_factor, positive_band, rhs
from test_cholesky import break_minor

N, W = 7, 2


def everything(backend: Backend) -> Any:
    """Every function of the algebra that reads a band, none of which raises; (ab, cb, ldb, b) -> results by name."""
    p, xp = backend.package, backend.xp

    def run(ab, cb, ldb, b):
        factored, (factor, info) = p.factor(ab), p.cholesky_ex(ab)
        loss = {
            "cholesky_ex": lambda ab: xp.sum(p.cholesky_ex(ab)[0] ** 2),
            "factor.solve": lambda ab: xp.sum(p.factor(ab).solve(b) ** 2),
            "factor.logdet": lambda ab: p.factor(ab).logdet(),
            "inverse_band": lambda ab: xp.sum(p.inverse_band(p.cholesky_ex(ab)[0]) ** 2),
            "ldl": lambda ab: xp.sum(p.ldl(ab) ** 2),
            "matvec": lambda ab: xp.sum(p.matvec(ab, b) ** 2),
        }
        return {
            "matvec": p.matvec(ab, b),
            "to_dense": p.to_dense(ab),
            "cholesky_ex": factor,
            "info": info,
            "factor.solve": factored.solve(b),
            "factor.logdet": factored.logdet(),
            "ldl": p.ldl(ab),
            "cho_solve": p.cho_solve(cb, b),
            "solve_triangular": p.solve_triangular(cb, b),
            "transposed": p.solve_triangular(cb, b, transpose=True),
            "logdet": p.logdet(cb),
            "inverse_band": p.inverse_band(cb),
            "rcond": p.rcond(cb, ab),
            "ldl_solve": p.ldl_solve(ldb, b),
            "inertia": xp.stack(p.inertia(ldb)),
            **{f"gradient of {name}": backend.grad(fun)(ab) for name, fun in loss.items()},
        }

    return run


@pytest.fixture(scope="module")
def run(backend: Backend) -> Any:
    """`everything` over a batch of three, compiled once."""
    lanes = backend.jit(backend.vmap(everything(backend)))

    def numbers(ab, cb, ldb):
        b = rhs(3 * N, None).reshape(3, N)
        return {name: backend.numpy(x) for name, x in lanes(*map(backend.array, (ab, cb, ldb, b))).items()}

    return numbers


@pytest.fixture(scope="module")
def bands(backend: Backend) -> list[np.ndarray]:
    """Three bands, and their factors."""
    p, ab = backend.package, np.stack([positive_band(N, W, seed) for seed in range(3)])
    cb, ldb = (np.stack([backend.numpy(f(backend.array(a))) for a in ab]) for f in (p.cholesky, p.ldl))
    return [ab, cb, ldb]


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1.0])
def test_unused_cells_are_never_read(run: Any, bands: list[np.ndarray], junk: float) -> None:
    """Not one bit of any result, gradients included, and gradients there are 0."""
    unused = np.arange(W + 1)[:, None] + np.arange(N) >= N
    clean, dirty = run(*bands), run(*(np.where(unused, junk, band) for band in bands))
    for name, expected in clean.items():
        assert np.isfinite(expected).all(), name
        np.testing.assert_array_equal(dirty[name], expected, err_msg=name)
        if name.startswith("gradient"):
            assert not expected[:, unused].any(), name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_a_bad_lane_spoils_no_other(run: Any, bands: list[np.ndarray], bad: float) -> None:
    """A matrix that does not factor, in the middle of a batch: the others keep every bit."""
    spoilt = [band.copy() for band in bands]
    for band in spoilt:
        band[1, 0, 3] = bad
    clean, spoilt = run(*bands), run(*spoilt)
    assert spoilt["info"].tolist() == [0, 4, 0]
    for name in ("cholesky_ex", "factor.solve", "factor.logdet", "inverse_band"):
        assert name == "inverse_band" or np.isnan(spoilt[name][1]).all(), name
        assert np.isfinite(clean[name]).all(), name
    for name, expected in clean.items():
        np.testing.assert_array_equal(spoilt[name][[0, 2]], expected[[0, 2]], err_msg=name)


@pytest.mark.parametrize("w", [0, 1, 3])
def test_info_of_a_batch_is_lapacks(backend: Backend, w: int) -> None:
    """First, middle and last minor, each lane for itself; one that fails at several of them names the first."""
    good = positive_band(9, w)
    lanes = [good, *(break_minor(good, order, -0.5) for order in (1, 5, 9))]
    lanes.append(break_minor(break_minor(good, 9, -1.0), 4, -1.0))
    expected = [lapack_factor(lane)[1] for lane in lanes]
    assert expected == [0, 1, 5, 9, 4]
    cb, info = backend.jit(backend.vmap(backend.package.cholesky_ex))(backend.array(np.stack(lanes)))
    assert backend.numpy(info).tolist() == expected
    np.testing.assert_array_equal(np.isnan(backend.numpy(cb)).all((1, 2)), np.array(expected) > 0)


@pytest.mark.parametrize("order", [1, 5, 9])
def test_the_exception_names_the_minor(order: int) -> None:
    """In torch, through `cholesky` and `solve`, under vmap and under grad."""
    backend = BACKENDS["torch"]
    good, b = positive_band(9, 2), torch.ones(9, dtype=torch.float64)
    bad = backend.array(break_minor(good, order, -0.5))
    lanes = torch.stack([backend.array(good), bad])
    p = backend.package
    calls = [
        lambda: p.cholesky(bad),
        lambda: p.solve(bad, b),
        lambda: p.solve(bad, b, refine=2),
        lambda: torch.func.vmap(p.cholesky)(lanes),
        lambda: torch.func.vmap(p.solve, (0, None))(lanes, b),
        lambda: torch.func.grad(lambda ab: p.solve(ab, b).sum())(bad),
        lambda: torch.func.vmap(torch.func.grad(lambda ab: p.logdet(p.cholesky(ab))))(lanes),
    ]
    for call in calls:
        with pytest.raises(torch.linalg.LinAlgError, match=rf"leading minor of order {order} is not positive definite"):
            call()
