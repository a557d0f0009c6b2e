"""`gauss_newton`: the band of J^T J against the dense one, over trees, ragged ends, dtypes and transforms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from oracles import integers, ravel, reals, store, unique_coefficients
from problems import MIX, STEP

ROUNDING = 64
T = 5
TREE = {"q": reals(3 * T, 0).reshape(T, 3), "u": reals(2 * (T - 1), 1).reshape(T - 1, 2)}


def steps(xp: Any) -> Any:
    """Residuals of two kinds, over a ragged tree: of the dynamics, and of the controls."""

    def residuals(x: Any, mix: Any) -> Any:
        q, u = x["q"], x["u"]
        return {"dynamics": q[1:] - q[:-1] - STEP * (xp.sin(q[:-1]) + u @ mix.T), "effort": [u**3]}

    return residuals


def steps_jacobian(x: dict[str, np.ndarray]) -> np.ndarray:
    """Row by row, in the stage-major order of the columns."""
    rows = []
    for t in range(T - 1):
        for i in range(3):
            row = np.zeros((T, 5))
            row[t + 1, i], row[t, i], row[t, 3:] = 1, -1 - STEP * np.cos(x["q"][t, i]), -STEP * MIX[i]
            rows.append(row.ravel())
        for i in range(2):
            row = np.zeros((T, 5))
            row[t, 3 + i] = 3 * x["u"][t, i] ** 2
            rows.append(row.ravel())
    return np.array(rows)


def expected(x: dict[str, np.ndarray]) -> np.ndarray:
    J = steps_jacobian(x)
    return store(J.T @ J + np.diag(ravel(x)[1].astype(float)), 9)


@pytest.mark.parametrize("probing", ["direct", "substitution"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ragged_tree(backend: Backend, probing: str, dtype: str) -> None:
    x = {key: backend.array(leaf, dtype) for key, leaf in TREE.items()}
    ab = backend.package.gauss_newton(steps(backend.xp), 1, probing=probing)(x, backend.array(MIX, dtype))
    assert ab.dtype == backend.dtype(dtype)
    atol = ROUNDING * np.finfo(dtype).eps * expected(TREE).max()
    np.testing.assert_allclose(backend.numpy(ab), expected(TREE), rtol=0, atol=atol)


def test_integers_exactly_and_dense(backend: Backend) -> None:
    """r = C x for distinct integers C over two neighbours: J^T J by the dense product, to the last bit; no curvature
    of the residuals enters, though they have some."""
    n = 8
    a, b = unique_coefficients(2, n, 0)
    x = integers(n, 1)
    J = np.diag(a) + np.diag(b[:-1], 1)
    J[:, 0] *= 2 * x[0]  # the first variable enters squared
    first = backend.array([1.0, *np.zeros(n - 1)])

    def residuals(x: Any) -> Any:
        y = x + first * (x * x - x)
        return backend.array(a) * y + backend.array(b) * backend.xp.concatenate([y[1:], 0 * y[:1]])

    ab = backend.package.gauss_newton(residuals, 1)(backend.array(x))
    np.testing.assert_array_equal(backend.numpy(ab), store(J.T @ J, 1), strict=True)
    assert np.linalg.eigvalsh(J.T @ J).min() >= 0


@pytest.mark.parametrize("argnums", [1, -2])
def test_arguments(backend: Backend, argnums: int) -> None:
    """argnums, further arguments and keywords."""

    def residuals(scale, x, power, *, shift):
        return scale * (x + shift) ** power

    x, shift = integers(4, 0), integers(4, 1)
    ab = backend.package.gauss_newton(residuals, 0, argnums=argnums)(
        backend.array(3.0), backend.array(x), 2, shift=backend.array(shift)
    )
    np.testing.assert_array_equal(backend.numpy(ab), (6 * (x + shift))[None] ** 2)


@pytest.mark.parametrize(("probing", "promised"), [("direct", 5), ("substitution", 3)])
def test_products(backend: Backend, probing: str, promised: int) -> None:
    """A transposed product a probe, and one that linearises where J itself is had by transposing twice."""
    A = np.tril(np.triu(unique_coefficients(9, 9, 0)), 2)
    products: list = []
    residuals = backend.linear(A, products)
    ab = backend.package.gauss_newton(residuals, 2, probing=probing, chunk_size=1)(backend.array(integers(9, 0)))
    np.testing.assert_array_equal(backend.numpy(ab), store(A.T @ A, 2))
    assert len(products) == promised + (backend.name == "torch")


@pytest.mark.parametrize("chunk_size", [1, None])
def test_one_evaluation(backend: Backend, chunk_size: int | None) -> None:
    calls: list = []
    residuals = backend.tapped(lambda x: x[1:] ** 2 - x[:-1], calls)
    ab = backend.package.gauss_newton(residuals, 1, chunk_size=chunk_size)(backend.array([1.0, 2, 3]))
    backend.settle()
    np.testing.assert_array_equal(backend.numpy(ab), [[1, 17, 36], [-4, -6, 0]])
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("residuals", "expected"),
    [
        (lambda xp: lambda x: 0 * x[:1] + 1, [[0, 0, 0], [0, 0, 0]]),
        (lambda xp: lambda x: [x[1:] - x[:-1], xp.ones_like(x)], [[1, 2, 1], [-1, -1, 0]]),
        (lambda xp: lambda x: x[0] * x[1], [[4, 1, 0], [2, 0, 0]]),
        (lambda xp: lambda x: x[:0], [[0, 0, 0], [0, 0, 0]]),
        pytest.param(
            lambda xp: lambda x: (1 + 2j) * x,
            [[5, 5, 5], [0, 0, 0]],
            marks=pytest.mark.promotes("a complex number times real ones"),
        ),
    ],
    ids=["constant", "one of two is constant", "scalar", "none", "complex"],
)
def test_residuals_of_all_kinds(backend: Backend, residuals: Any, expected: list) -> None:
    ab = backend.package.gauss_newton(residuals(backend.xp), 1)(backend.array([1.0, 2, 3]))
    assert ab.dtype == backend.dtype("float64")
    np.testing.assert_array_equal(backend.numpy(ab), expected)


def test_transforms(backend: Backend) -> None:
    """vmap over x, over an argument, over both; the gradient of the band."""
    band = backend.package.gauss_newton(lambda x, a: a * x[1:] ** 2 - x[:-1], 1)
    x, a = integers(3 * 4, 0).reshape(3, 4), integers(3, 1)
    single = [[backend.numpy(band(backend.array(v), backend.array(s))) for s in a] for v in x]
    over_x = backend.vmap(band, (0, None))(backend.array(x), backend.array(a[0]))
    over_a = backend.vmap(band, (None, 0))(backend.array(x[0]), backend.array(a))
    over_both = backend.jit(backend.vmap(band))(backend.array(x), backend.array(a))
    np.testing.assert_array_equal(backend.numpy(over_x), [row[0] for row in single])
    np.testing.assert_array_equal(backend.numpy(over_a), single[0])
    np.testing.assert_array_equal(backend.numpy(over_both), [single[i][i] for i in range(3)])
    # sum over the band of (2 a x_i)^2 and 1 on the diagonal, -2 a x_i below it
    grad = backend.grad(lambda x: backend.xp.sum(band(x, backend.array(1.0))))(backend.array(x[0]))
    np.testing.assert_array_equal(backend.numpy(grad), [0, *(8 * x[0, 1:] - 2)])


def test_custom_vjp_is_refused_with_the_remedy() -> None:
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, cotangent: (2 * x * cotangent,))
    with pytest.raises(TypeError, match=r"custom_vjp.*custom_jvp.*hessian on 0.5"):
        BACKENDS["jax"].package.gauss_newton(square, 0)(jnp.ones(3))


def test_bad_input(backend: Backend) -> None:
    x = backend.array(np.ones(3))

    def call(residuals=lambda x: x, bandwidth=1, args=(x,), **options):
        return lambda: backend.package.gauss_newton(residuals, bandwidth, **options)(*args)

    bad = [
        (TypeError, "residuals must be a function, got NoneType", call(None)),
        (TypeError, "residuals must return a floating .*int64", call(lambda x: [x, backend.array([1, 2])])),
        (TypeError, "residuals must return a floating .*str", call(lambda x: "r")),
        (TypeError, "residuals must return a floating", call(lambda x: None)),
        (TypeError, "argnums must be one int", call(argnums=(0,))),
        (ValueError, "bandwidth must be an int >= 0, got -1", call(bandwidth=-1)),
        (ValueError, "probing must be one of", call(probing="none")),
        (ValueError, r"argument 1 .*argnums", call(argnums=1)),
        (TypeError, "argument 0 must have a real floating dtype", call(args=(backend.array([1, 2]),))),
    ]
    for error, message, attempt in bad:
        with pytest.raises(error, match=message):
            attempt()
