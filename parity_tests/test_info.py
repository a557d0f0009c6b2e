"""`Factor.info`: which leading minor is the first that is not positive definite, whatever the order of elimination."""

from typing import Any

import numpy as np
import pytest
from backends import Backend
from matrices import first_failure, positive_band
from oracles import unstore

import bandhess_jax.linalg.solve
import bandhess_torch.linalg.solve

N, W, P = 9, 2, 2


@pytest.fixture(params=["columns", "partition"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bandhess_jax.linalg.solve, bandhess_torch.linalg.solve):
        monkeypatch.setattr(module, "PARTITION_EVERYWHERE", request.param == "partition")


def changed(place: int | None, value: float) -> np.ndarray:
    """A band, with another entry on its diagonal."""
    ab = positive_band(N, W)
    if place is not None:
        ab[0, place] = value
    return ab


def structures(backend: Backend, ab: np.ndarray, corner: float) -> dict[str, tuple[Any, np.ndarray]]:
    """Of each kind one, and the dense matrix. What wraps around is in the cells that a plain band leaves unused."""
    border = np.random.default_rng(0).normal(size=(P, N)) / 10
    H = np.zeros((N + P, N + P))
    H[:N, :N], H[N:, :N], H[:N, N:] = unstore(ab), border, border.T
    H[N:, N:] = corners = np.diag([3.0, corner])
    closed, ring = ab.copy(), unstore(ab)
    closed[1, N - 1], ring[0, N - 1], ring[N - 1, 0] = 0.1, 0.1, 0.1
    make, array = backend.package, backend.array
    return {
        "Bordered": (make.Bordered(array(ab), array(border), array(corners)), H),
        "Cyclic": (make.Cyclic(array(closed)), ring),
    }


@pytest.mark.parametrize("kind", ["Bordered", "Cyclic"])
@pytest.mark.parametrize(("place", "corner"), [(None, 2), (4, 2), (None, -1), (N - 1, 2)])
def test_of_a_structure(backend: Backend, kind: str, place: int | None, corner: float) -> None:
    """The border's rows are the last; a closed band's last rows are its border."""
    given, H = structures(backend, changed(place, -1), corner)[kind]
    factored = backend.package.factor(given)
    assert int(factored.info) == first_failure(H)
    assert bool(factored.ok) == (first_failure(H) == 0)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(("place", "value"), [(None, 0), (0, -1), (4, -1), (N - 1, 0), (4, np.nan), (4, np.inf)])
def test_of_a_band(backend: Backend, place: int | None, value: float) -> None:
    ab = changed(place, value)
    info = backend.package.factor(backend.array(ab)).info
    assert int(info) == first_failure(unstore(ab))
    assert "int32" in str(info.dtype)
