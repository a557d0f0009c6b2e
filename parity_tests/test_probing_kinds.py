"""The four probings: products, bands, the errors that their docstrings state."""

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from oracles import store, unstore
from probing_cases import PROBINGS, ROUNDING, banded, recover, spread_band
from problems import steering_stages


def promised(probing: str, T: int, d: int, k: int) -> int:
    """Products, for k < T."""
    w = (k + 1) * d - 1
    return {
        "direct": min(2 * k + 1, T) * d,
        "substitution": (k + 1) * d,
        "fourier": min(2 * w + 1, T * d + (T * d + 1) % 2),
        "random": 2 * (2 * k + 1) * d,
    }[probing]


@pytest.mark.parametrize(("T", "d", "k"), [(11, 1, 2), (7, 3, 1), (4, 1, 9), (1, 3, 2), (6, 2, 0)])
@pytest.mark.parametrize("probing", PROBINGS[1:])
def test_products_and_band(backend: Backend, probing: str, T: int, d: int, k: int) -> None:
    """One product at a time by a function that can be neither vmapped nor differentiated: counted, and the band."""
    h, count = banded(T, d, k), 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return (h @ v.ravel()).reshape(v.shape)

    like = backend.array(np.zeros((T, d)))
    ab = backend.numpy(backend.package.from_matvec(backend.on_host(product), like, k, probing=probing, chunk_size=1))
    expected = store(h, (k + 1) * d - 1)
    # Sums of integers are exact; a wave or a Gaussian is not.
    atol = 0 if probing == "substitution" else ROUNDING * np.finfo(float).eps * expected.max()
    np.testing.assert_allclose(ab, expected, rtol=0, atol=atol, strict=True)
    w = len(expected) - 1
    np.testing.assert_array_equal(ab[np.add.outer(np.arange(w + 1), np.arange(T * d)) >= T * d], 0)
    assert count == promised(probing, T, d, min(k, T - 1))


@pytest.mark.parametrize("probing", PROBINGS)
def test_ragged_tree_by_every_probing(backend: Backend, probing: str) -> None:
    problem = steering_stages(7, ragged=True)
    x, *args = (backend.tree_map(backend.array, part) for part in (problem.x, *problem.args))
    ab = backend.package.hessian(problem.objective(backend.xp), 1, probing=probing, chunk_size=3)(x, *args)
    np.testing.assert_allclose(
        backend.numpy(ab), problem.band, rtol=0, atol=ROUNDING * np.finfo(float).eps * abs(problem.band).max()
    )


T, D, K = 1200, 2, 2


# In eps of the largest entry; measured: 0, 4.5, 2.5, 1.1.
STATED = {"direct": 0, "substitution": (T / K) ** 0.5, "fourier": 8, "random": 10}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("probing", PROBINGS)
def test_stated_error(backend: Backend, probing: str, dtype: str) -> None:
    ab = spread_band(T, D, K).astype(dtype).astype(float)
    error = np.abs(recover(backend, ab, D, K, probing, dtype) - ab).max() / np.abs(ab).max()
    assert error <= STATED[probing] * np.finfo(dtype).eps


def one_ended(h: np.ndarray, w: int) -> np.ndarray:
    """Substitution by definition: row by row from the first, each new entry is what its product shows, less what is
    known of the other column of that colour by symmetry."""
    n = len(h)
    colour = np.arange(n) % (w + 1)
    products = h @ (colour[:, None] == np.arange(w + 1))
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(i, min(i + w + 1, n)):
            other = j - (w + 1)
            known = found[other, i] if other >= 0 and j > i else 0.0
            found[i, j] = products[i, colour[j]] - known
    return store(found.T, w)


def test_substitution_by_definition(backend: Backend) -> None:
    ab = spread_band(40, 1, 3)
    np.testing.assert_allclose(recover(backend, ab, 1, 3, "substitution"), one_ended(unstore(ab), 3), atol=1e-14)


@pytest.mark.parametrize("end", ["first", "last", "middle"])
def test_badly_scaled_band(backend: Backend, end: str) -> None:
    """A tenth of the entries scaled by 1e8 costs the others nothing, wherever an end of the chain is free of them;
    summed from one end it leaves eight digits less."""
    n, w = 600, 2
    ab = spread_band(n, 1, w)
    start = {"first": 0, "middle": n // 2, "last": n - n // 10}[end]
    ab[:, start : start + n // 10] *= 1e8
    scale = np.array([1e8 if start - w <= j < start + n // 10 + w else 1 for j in range(n)])
    error = np.abs(recover(backend, ab, 1, w, "substitution") - ab) / scale
    assert error.max() <= 1e-13
    if end == "first":
        naive = np.abs(one_ended(unstore(ab), w) - ab) / scale
        assert naive.max() >= 1e-10, "this test could not fail"


def test_substitution_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators sum by another formula than CPUs: the program for them, run here."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **platforms: default(*args))
    ab = spread_band(40, 1, 3)
    ab[:, :4] *= 1e8
    found = recover(BACKENDS["jax"], ab, 1, 3, "substitution")
    np.testing.assert_allclose(found[:, 8:], ab[:, 8:], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found, ab, rtol=0, atol=1e-6)
