"""All derivative rules at once: gradients and Hessian-vector products of a batch, against dense automatic ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backends import Backend
from matrices import cleared, poisoned, positive_band, rhs
from oracles import unstore_lower

EPS = np.finfo("float64").eps
N, W, LANES = 20, 2, 2  # several of torch's blocks


def losses(backend: Backend) -> dict[str, tuple[Callable, Callable]]:
    """A weighted sum of what each function gives, by the band and by the dense matrix."""
    p, xp = backend.package, backend.xp
    b, band = backend.array(rhs(N, 2)), backend.array(cleared(rhs(N, W + 1, 4).T))
    lower = backend.array(unstore_lower(cleared(rhs(N, W + 1, 4).T)))

    def dense_ldl(h: Any) -> Any:
        L = xp.linalg.cholesky(h)
        pivots = xp.diagonal(L)
        return xp.sum(lower * (L / pivots[None])) + xp.sum(band[0] * (pivots**2 - 1))

    return {
        "solve": (lambda ab: xp.sum(b * p.solve(ab, b**2)), lambda h: xp.sum(b * xp.linalg.solve(h, b**2))),
        "factor.solve": (
            lambda ab: xp.sum(b * p.factor(ab).solve(b**2)),
            lambda h: xp.sum(b * xp.linalg.solve(h, b**2)),
        ),
        "logdet": (lambda ab: p.logdet(p.cholesky(ab)) ** 2, lambda h: xp.linalg.slogdet(h)[1] ** 2),
        "factor.logdet": (lambda ab: p.factor(ab).logdet() ** 2, lambda h: xp.linalg.slogdet(h)[1] ** 2),
        "cholesky": (lambda ab: xp.sum(band * p.cholesky(ab)), lambda h: xp.sum(lower * xp.linalg.cholesky(h))),
        "inverse_band": (
            lambda ab: xp.sum(band * p.inverse_band(p.cholesky(ab))),
            lambda h: xp.sum(lower * xp.linalg.inv(h)),
        ),
        "ldl": (lambda ab: xp.sum(band * p.ldl(ab)), dense_ldl),
    }


@pytest.fixture(scope="module")
def derivatives(backend: Backend) -> dict[str, list[list[np.ndarray]]]:
    """(gradient, product) of a batch, by each loss's banded and its dense form; compiled once."""

    def both(fun: Callable) -> Callable:
        return backend.vmap(lambda ab, v: backend.jvp(backend.grad(fun), (ab,), (v,)))

    def of_dense(fun: Callable) -> Callable:
        return both(lambda ab: fun(backend.package.to_dense(ab)))

    def run(ab: Any, v: Any, clean: Any, clean_v: Any) -> dict:
        return {
            name: [both(banded)(ab, v), of_dense(dense)(clean, clean_v)]
            for name, (banded, dense) in losses(backend).items()
        }

    ab = np.stack([positive_band(N, W, seed) for seed in range(LANES)])
    v = np.stack([cleared(rhs(N, W + 1, seed).T) for seed in range(LANES)])
    dirty = [np.stack([poisoned(lane) for lane in lanes]) for lanes in (ab, v)]
    found = backend.jit(run)(*map(backend.array, (*dirty, ab, v)))
    return {name: [[backend.numpy(x) for x in pair] for pair in pairs] for name, pairs in found.items()}


@pytest.mark.parametrize(
    "name", ["solve", "factor.solve", "logdet", "factor.logdet", "cholesky", "inverse_band", "ldl"]
)
def test_first_and_second_derivatives_of_a_batch(derivatives: dict, name: str) -> None:
    """Forward over reverse under vmap, NaN in unused cells of the band and of the direction."""
    banded, dense = derivatives[name]
    for found, expected in zip(banded, dense, strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=2**14 * EPS * np.abs(expected).max())
