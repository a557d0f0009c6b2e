"""Random probing: noise, seeds, many rows."""

import numpy as np
import pytest
from backends import Backend
from oracles import unstore
from probing_cases import ROUNDING, banded, recover, spread_band


class Noisy:
    """An operator with a Gaussian error of size sigma in every entry of every product."""

    def __init__(self, ab: np.ndarray, sigma: float) -> None:
        self.h, self.sigma, self.rng = unstore(ab), sigma, np.random.default_rng(5)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        return self.h @ v + self.sigma * self.rng.normal(size=v.shape)


@pytest.mark.parametrize("oversampling", [None, 45])
def test_noisy_products(backend: Backend, oversampling: int | None) -> None:
    """The noise is estimated, and the errors of the entries are as the docstring says."""
    n, k, sigma = 900, 1, 1e-3
    ab = spread_band(n, 1, k)
    like = backend.array(np.zeros(n))
    probing = backend.package.Random(oversampling=oversampling, return_noise=True)
    found, noise = backend.package.from_matvec(
        backend.on_host(Noisy(ab, sigma)), like, k, probing=probing, chunk_size=1
    )
    assert float(noise) == pytest.approx(sigma, rel=0.05)
    spread = np.std(backend.numpy(found) - ab, axis=1, where=ab != 0)
    more = (2 * k + 1 if oversampling is None else oversampling) - 1
    np.testing.assert_allclose(spread, sigma / np.sqrt([more, 2 * more]), rtol=0.15)


def test_noise_of_exact_products_is_rounding(backend: Backend) -> None:
    A = banded(20, 1, 1)
    matrix, like = backend.array(A), backend.array(np.zeros(20))
    probing = backend.package.Random(return_noise=True)
    ab, noise = backend.package.from_matvec(lambda v: matrix @ v, like, 1, probing=probing)
    assert ab.dtype == noise.dtype == like.dtype
    assert 0 <= float(noise) <= ROUNDING * np.finfo(float).eps * A.max()
    plain = backend.package.from_matvec(lambda v: matrix @ v, like, 1, probing="random")
    np.testing.assert_array_equal(backend.numpy(ab), backend.numpy(plain))


def test_seed(backend: Backend) -> None:
    """The same seed gives the same probes, another one others; so do the colours among themselves."""
    like = backend.array(np.zeros(50))

    def probes(seed: int) -> list[np.ndarray]:
        seen: list = []

        def product(v: np.ndarray) -> np.ndarray:
            seen.append(np.array(v))
            return v

        backend.package.from_matvec(
            backend.on_host(product), like, 0, probing=backend.package.Random(oversampling=1, seed=seed), chunk_size=1
        )
        return seen

    first, again, other = probes(0), probes(0), probes(1)
    np.testing.assert_array_equal(first, again)
    assert len({tuple(v) for v in [*first, *other]}) == 4
    assert 0.7 < np.std(first) < 1.3


def test_random_in_parts(backend: Backend) -> None:
    """Rows solved five at a time give what all at once give."""
    ab = spread_band(24, 2, 1)
    parts = recover(backend, ab, 2, 1, backend.package.Random(stages_at_once=5))
    np.testing.assert_allclose(parts, ab, rtol=0, atol=ROUNDING * np.finfo(float).eps * np.abs(ab).max())


def test_undetermined_rows_raise_nothing(backend: Backend) -> None:
    """As many products as unknowns: float32 cannot solve all of 2000 random square systems, but the others."""
    ab = spread_band(2000, 1, 8)
    found = recover(backend, ab, 1, 8, backend.package.Random(oversampling=0), "float32")
    assert np.median(np.nan_to_num(abs(found - ab), nan=np.inf)) <= 1e-3


def test_random_arguments(backend: Backend) -> None:
    bad = [
        (ValueError, "oversampling must be an int >= 0, got -1", {"oversampling": -1}),
        (TypeError, "oversampling must be an int >= 0, got 1.5", {"oversampling": 1.5}),
        (ValueError, "seed must be an int >= 0, got -1", {"seed": -1}),
        (TypeError, "seed must be an int >= 0, got None", {"seed": None}),
        (ValueError, "stages_at_once must be an int >= 1, got 0", {"stages_at_once": 0}),
    ]
    for error, message, options in bad:
        with pytest.raises(error, match=message):
            backend.package.Random(**options)
