"""The compiled sums of substitution probing against the definition and the pure program: chains, batches, threads."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import unstore

import bandhess_jax as bj
from bandhess_jax.extraction.probing.substitution import decode_products

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def symmetric(T: int, d: int, k: int, seed: int = 0) -> np.ndarray:
    """The band `((k + 1) d, T d)` of a symmetric matrix whose stages couple to k others."""
    rows, n = (k + 1) * d, T * d
    row, column = np.indices((rows, n))
    inside = (column + row < n) & (column % d + row < rows)
    return np.where(inside, np.random.default_rng(seed).normal(size=(rows, n)), 0)


def half_the_products(ab: np.ndarray) -> np.ndarray:
    """With one probe for every column of a period, each the sum of the columns of its colour."""
    H, C = unstore(ab), len(ab)
    return np.stack([H[:, c::C].sum(axis=1) for c in range(C)])


# Chains of one period, of some, of more than two blocks of 64; a last period that is whole, or lacks some stages.
CHAINS = [(4, 1, 3), (7, 1, 2), (9, 1, 2), (1, 3, 0), (5, 1, 0), (6, 3, 1), (5, 2, 4), (300, 1, 1), (801, 2, 2)]


@pytest.mark.parametrize(("T", "d", "k"), CHAINS)
def test_decoding_by_symmetry(T: int, d: int, k: int) -> None:
    ab = symmetric(T, d, k)
    Z = half_the_products(ab)
    for dtype in ("float64", "float32"):
        found = decode_products(d, jax.device_put(Z.astype(dtype)))
        assert found.dtype == dtype
        tolerance = 16 * np.sqrt(T / (k + 1)) * np.finfo(dtype).eps
        np.testing.assert_allclose(found, ab, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(np.asarray(found)[ab == 0], 0)
    with bj.portable():
        pure = jax.jit(decode_products, static_argnums=0)(d, jax.device_put(Z))
    np.testing.assert_allclose(pure, ab, rtol=0, atol=1e-12)


@pytest.mark.parametrize("large", [5, 400, 640, 896])
def test_chains_are_joined_at_large_entries(large: int) -> None:
    """One entry of 1e8, wherever in a block: the others keep their digits, as in the pure program."""
    ab = symmetric(900, 1, 2)
    ab[1, large] = 1e8
    Z = jnp.asarray(half_the_products(ab))
    near = np.abs(np.arange(900) - large) <= 2 * 3
    np.testing.assert_allclose(decode_products(1, Z)[:, ~near], ab[:, ~near], rtol=0, atol=1e-13)
    np.testing.assert_allclose(decode_products(1, Z), ab, rtol=0, atol=1e-7)


def test_decoding_in_batches_and_threads() -> None:
    """Alone, side by side and with threads: the same bits. A NaN spoils its own system alone."""
    Z = np.stack([half_the_products(symmetric(801, 2, 2, seed)) for seed in range(14)])
    decode = jax.jit(partial(decode_products, 2))
    alone = np.stack([decode(z) for z in Z])
    many = jax.jit(jax.vmap(decode))
    np.testing.assert_array_equal(many(Z), alone)
    spoilt = Z.copy()
    spoilt[3, 2, 700] = np.nan
    spoilt = np.asarray(many(spoilt))
    np.testing.assert_array_equal(np.delete(spoilt, 3, axis=0), np.delete(alone, 3, axis=0))
    assert np.isnan(spoilt[3]).any()
    wide = np.tile(Z[0], (1, 14))  # symmetric no more, but as good for comparing
    with bj.portable():
        pure = decode(wide)
    np.testing.assert_allclose(decode(wide), pure, rtol=0, atol=1e-11)


def test_decoding_is_differentiable() -> None:
    Z, step = (half_the_products(symmetric(20, 1, 2, seed)) for seed in (0, 1))
    decode = partial(decode_products, 1)
    weights = np.sin(np.arange(60.0)).reshape(3, 20)

    @jax.jit
    def derivatives(Z: jax.Array, step: jax.Array) -> tuple:
        return *jax.jvp(decode, (Z,), (step,)), jax.vjp(decode, Z)[1](jnp.asarray(weights))[0]

    value, tangent, cotangent = map(np.asarray, derivatives(Z, step))
    np.testing.assert_array_equal(value, jax.jit(decode)(Z))
    np.testing.assert_allclose(tangent, jax.jit(decode)(Z + step) - value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.vdot(cotangent, step), np.vdot(weights, tangent), rtol=1e-12)
