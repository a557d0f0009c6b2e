"""Inertia by LDL: against eigenvalues, and -1 where growth spoils the count."""

import numpy as np
import pytest
from backends import Backend
from matrices import SIZES, cleared, indefinite_band, positive_band
from oracles import unstore


def counts(backend: Backend, ab: np.ndarray, dtype: str = "float64") -> list[int]:
    found = backend.jit(lambda ab: backend.package.inertia(backend.package.ldl(ab)))(backend.array(ab, dtype))
    assert all(backend.numpy(count).dtype == np.int32 and count.shape == () for count in found)
    return [int(count) for count in found]


def eigenvalue_counts(h: np.ndarray, tolerance: float = 0.0) -> list[int]:
    values = np.linalg.eigvalsh(h)
    return [int(c) for c in ((values > tolerance).sum(), (values < -tolerance).sum(), (abs(values) <= tolerance).sum())]


@pytest.mark.parametrize(("n", "w"), SIZES)
def test_inertia(backend: Backend, n: int, w: int) -> None:
    ab = indefinite_band(n, w)
    assert counts(backend, ab) == eigenvalue_counts(unstore(ab))
    assert counts(backend, positive_band(n, w)) == [n, 0, 0]


@pytest.mark.parametrize(
    ("ab", "expected"),
    [
        ([[1.0, 0.0, -2.0]], [1, 1, 1]),
        ([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]], [1, 1, 1]),
        ([[0.0, 0.0], [0.0, 0.0]], [0, 0, 2]),
        ([[1.0, 1.0], [1.0, 0.0]], [1, 0, 1]),
        ([[0.1, 0.9], [0.3, 0.0]], [1, 0, 1]),  # singular to rounding
        ([[1e-300, -1e300]], [1, 1, 0]),
        ([[1.0, 2.0, 2.0, 1.0], [-1.0, -1.0, -1.0, 0.0]], [3, 0, 1]),  # a free chain of springs
    ],
)
def test_zero_eigenvalues(backend: Backend, ab: list, expected: list[int]) -> None:
    assert counts(backend, np.array(ab)) == expected


def test_element_growth_is_not_trusted(backend: Backend) -> None:
    """[[1e-20, 1, 1], [1, 1, 1], [1, 1, 5]]: the truth is (2, 1, 0), and M and D have lost it."""
    ab = np.array([[1e-20, 1, 5], [1, 1, 0], [1, 0, 0]])
    assert counts(backend, ab) == [-1, -1, -1]
    assert counts(backend, 1e-100 * ab) == [-1, -1, -1]
    ab[0, 0] = 1e-4  # in float64 that does little harm
    assert counts(backend, ab) == [2, 1, 0]
    assert counts(backend, ab, "float32") == [-1, -1, -1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("cell", [(0, 2), (1, 1)])
def test_nonfinite_is_not_trusted(backend: Backend, bad: float, cell: tuple[int, int]) -> None:
    ab = indefinite_band(6, 1)
    ab[cell] = bad
    assert counts(backend, ab) == [-1, -1, -1]


def test_inertia_is_right_or_refused(backend: Backend) -> None:
    """Random indefinite bands with a leading entry of every size: never a wrong count, and seldom none."""
    rng = np.random.default_rng(5)
    ab = rng.normal(size=(64, 3, 9))
    ab[:, 0, 0] = np.outer([1, -1], 10.0 ** -np.arange(32)).ravel()
    found = backend.jit(backend.vmap(lambda ab: backend.package.inertia(backend.package.ldl(ab))))(backend.array(ab))
    found = np.stack([backend.numpy(count) for count in found], axis=1)
    refused = (found == -1).all(1)
    for i in np.flatnonzero(~refused):
        assert found[i].tolist() == eigenvalue_counts(unstore(cleared(ab[i])))
    assert refused.reshape(2, 32)[:, 12:].all()
    assert not refused.reshape(2, 32)[:, :5].any()
