"""What JAX's extraction makes of diagonals, and what it leaves to probing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carrying import carried, coefficients, dense, gram
from jax import Array, lax
from oracles import store

import bandhess_jax as bh
from bandhess_common.diagonals import values
from bandhess_jax.extraction import products as _products

# --- What is left to probing ------------------------------------------------------------------------------------------

N = 9
UNKNOWN: dict[str, Callable[[Array], Array]] = {
    "cumsum": lambda v: jnp.cumsum(v)[2:] - jnp.cumsum(v)[:-2],
    "scan": lambda v: lax.scan(lambda c, a: (2 * a + c, c + a), v[0], v)[1],
    "gather": lambda v: v[jnp.array([0, 1, 1, 3, 2])],
    "cond": lambda v: lax.cond(jnp.sum(coefficients((3,))) > 9, lambda v: 2 * v, lambda v: v[::-1], v),
    "checkpoint": jax.checkpoint(lambda v: v[1:] + 2 * v[:-1]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_fallback(name: str) -> None:
    g = UNKNOWN[name]
    h = dense(gram(g, N), N)
    assert carried(gram(g, N), N) is None
    np.testing.assert_allclose(bh.from_matvec(gram(g, N), jnp.zeros(N), N - 1), store(h, N - 1), rtol=1e-12)
    weights = coefficients(g(jnp.ones(N)).shape, 1)
    ab = bh.hessian(lambda x: jnp.sum(weights * g(x) ** 2) / 2, N - 1)(jnp.ones(N))
    np.testing.assert_allclose(ab, store(h, N - 1), rtol=1e-12)


def test_fallback_of_callbacks_and_of_what_is_no_product() -> None:
    def on_host(v: Array) -> Array:
        return jax.pure_callback(lambda v: 3 * np.asarray(v), v, v, vmap_method="sequential")

    def loop(v: Array) -> Array:
        return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, 2 * c[1]), (0, v))[1]

    for matvec, main in ((on_host, 3), (loop, 4), (jnp.zeros_like, 0)):
        assert carried(matvec, N) is None
        np.testing.assert_array_equal(bh.from_matvec(matvec, jnp.zeros(N), 1), [[main] * N, [0] * N])
    for nonlinear in (lambda v: v * v, lambda v: 1 / v, lambda v: jnp.where(v > 0, v, 2 * v), lambda v: v.astype(int)):
        assert carried(nonlinear, N) is None


def test_axes_too_long_to_be_taken_apart() -> None:
    """A sum over all of v is n diagonals: unrolled where it is short, and no program of many thousands of parts."""
    for n in (values.SHORT, values.SHORT + 1, 500):
        c = coefficients((n,))
        ab = carried(lambda v, c=c: c * jnp.sum(c * v), n, rows=3 if n == 500 else n)
        assert (ab is None) == (n > values.SHORT)
    c = coefficients((4, 16, 16))
    blocks = gram(lambda v: jnp.sum(c[: v.size // 256] * v.reshape(-1, 16, 16), (1, 2)), 1024)
    assert carried(blocks, 1024, rows=256) is None


# --- The extraction ---------------------------------------------------------------------------------------------------


def window(x: Array) -> Array:
    """Half-bandwidth 3."""
    return jnp.sum(jnp.sin(x[3:] * x[1:-2] + 2 * x[:-3]) ** 2)


class Twice(bh.Direct):
    """A probing of the user's own, which shows itself."""

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        return 2 * super().decode(kept, T, d, k)


def test_no_products_in_the_program() -> None:
    x = jnp.linspace(-1.0, 2.0, 2**18)  # so long that probing loops
    text = jax.jit(bh.hessian(window, 3)).lower(x).as_text()
    probed = jax.jit(bh.hessian(window, 3, probing=Twice())).lower(x).as_text()
    for name in ("while", "remainder", "dynamic_slice"):
        assert f"stablehlo.{name}" in probed
        assert f"stablehlo.{name}" not in text
    assert "dot_general" not in text


def test_own_and_other_probings_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    x = coefficients((11,))
    ab = bh.hessian(window, 3)(x)
    np.testing.assert_allclose(ab, store(np.asarray(jax.jit(jax.hessian(window))(x)), 3), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bh.hessian(window, 3, probing=Twice())(x), 2 * ab, rtol=1e-12, atol=1e-13)

    def never(*_: Any) -> None:
        raise AssertionError("carried")

    monkeypatch.setattr(_products, "carry", never)
    for probing in ("substitution", "fourier", "random", Twice()):
        jax.make_jaxpr(bh.hessian(lambda x: window(x), 3, probing=probing))(x)
    with pytest.raises(AssertionError, match="carried"):
        jax.make_jaxpr(bh.hessian(lambda x: window(x), 3))(x)


def test_too_narrow_a_bandwidth() -> None:
    """As probing has it, folded into the band; `band_error` sees it, entries of another stage's block too."""
    x, z = coefficients((11,)), coefficients((6, 2))
    for k in (0, 2):
        ab = bh.hessian(window, k)(x)
        np.testing.assert_allclose(bh.hessian(window, k, probing=Twice())(x), 2 * ab, rtol=1e-12, atol=1e-13)
        assert bh.band_error(window)(ab, x) > 1e-3

    def neighbours(z: Array) -> Array:  # one off the diagonal, from stage to stage
        return jnp.sum(coefficients((5,)) * z[:-1, 1] * z[1:, 0]) + jnp.sum(z**2)

    assert bh.band_error(neighbours)(bh.hessian(neighbours, 0)(z), z) > 1e-3
    assert bh.band_error(neighbours)(bh.hessian(neighbours, 1)(z), z) < 1e-12


def test_not_a_number_and_infinity_stay_in_their_places() -> None:
    c = np.arange(1.0, N)
    c[2], c[5] = np.nan, np.inf
    ab = carried(lambda v: jnp.pad(c * v[1:], (0, 1)) + jnp.pad(c * v[:-1], (1, 0)), N)
    np.testing.assert_array_equal(ab[1], [*c, 0])
    np.testing.assert_array_equal(np.delete(ab, 1, 0), 0)
    # Constants that overflow are no warning of NumPy's, which pytest would raise.
    np.testing.assert_array_equal(carried(lambda v: v - 1e200 * (1e200 * v), N, 1), [[-np.inf] * N])
    np.testing.assert_array_equal(carried(lambda v: (1e200 * v).astype(np.float32), N, 1), [[np.inf] * N])


def test_single_precision() -> None:
    """No float64 on the way, though x64 is enabled; conversions round as the program has it."""
    x = coefficients((N,)).astype(np.float32)
    ab = bh.hessian(window, 3)(x)
    assert ab.dtype == np.float32
    assert "f64" not in str(jax.make_jaxpr(bh.hessian(window, 3))(x))
    np.testing.assert_allclose(ab, bh.hessian(window, 3)(x.astype(float)), rtol=1e-4, atol=1e-5)
    thirds = carried(lambda v: (v / 3).astype(np.float32).astype(float) * 3, N, 1)
    np.testing.assert_array_equal(thirds, [[float(np.float32(1 / 3)) * 3] * N])


def test_transforms() -> None:
    x, weights = coefficients((3, N)), coefficients((4, N), 1)

    def plain(x: Array) -> Array:
        h = jax.jit(jax.hessian(window))(x)
        return jnp.stack([jnp.pad(jnp.diagonal(h, -r), (0, r)) for r in range(4)])

    band = bh.hessian(window, 3)
    np.testing.assert_allclose(jax.jit(jax.vmap(band))(x), jax.jit(jax.vmap(plain))(x), rtol=1e-12, atol=1e-13)
    third, expected = (jax.jit(jax.grad(lambda x, f=f: jnp.sum(weights * f(x))))(x[0]) for f in (band, plain))
    np.testing.assert_allclose(third, expected, rtol=1e-11, atol=1e-12)
