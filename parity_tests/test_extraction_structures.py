"""Hessians of closed curves and of functions with shared variables: by definition, entry by entry, and counted."""

from typing import Any

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from oracles import reals

from bandhess_jax.extraction import products

EPS = np.finfo("float64").eps

# (T, d, k): rings of 2k + 1 and 2k + 2 stages, of lengths that 2k + 1 divides or not, with a seam in the middle of a
# colour; a diagonal; blocks alone.
RINGS = [
    (3, 1, 1),
    (3, 2, 1),
    (5, 3, 2),
    (1, 2, 0),
    (5, 1, 2),
    (6, 1, 2),
    (10, 1, 1),
    (11, 1, 1),
    (4, 2, 1),
    (6, 3, 2),
    (11, 2, 1),
    (7, 1, 0),
    (2, 2, 0),
]
rings = pytest.mark.parametrize("size", RINGS, ids=str)


def matrix(T: int, d: int, k: int, p: int, closed: bool, seed: int = 0) -> np.ndarray:
    """Symmetric, of distinct integers where stages t and s are at most k apart, and in p last rows and columns."""
    n = T * d
    values = np.random.default_rng(seed).permutation(np.arange(1.0, (n + p) ** 2 + 1)).reshape(n + p, n + p)
    H = np.tril(values) + np.tril(values, -1).T
    for i in range(n):
        for j in range(n):
            apart = abs(i // d - j // d)
            if (min(apart, T - apart) if closed else apart) > k:
                H[i, j] = 0
    return H


def cells(H: np.ndarray, T: int, d: int, k: int, closed: bool) -> np.ndarray:
    """The band's cells by definition: what lies (k + 1) d rows down and within k stages, around the ring if closed."""
    n = T * d
    ab = np.zeros(((k + 1) * d, n))
    for r in range((k + 1) * d):
        for j in range(n):
            if (j % d + r) // d <= k and (closed or j + r < n):
                ab[r, j] = H[(j + r) % n, j]
    return ab


def quadratic(backend: Backend, H: np.ndarray) -> Any:
    """x^T H x / 2, by products with a matrix that no rule for diagonals knows."""
    A = backend.array(H)
    return lambda x: backend.xp.sum(backend.xp.reshape(x, (-1,)) * (A @ backend.xp.reshape(x, (-1,)))) / 2


@rings
def test_ring_by_definition(backend: Backend, size: tuple) -> None:
    T, d, k = size
    H = matrix(T, d, k, 0, True)
    x = backend.array(reals(T * d, 1).reshape((T, d) if d > 1 else T))
    found = backend.package.hessian(quadratic(backend, H), k, periodic=True)(x)
    assert isinstance(found, backend.package.Cyclic)
    np.testing.assert_array_equal(backend.numpy(found.ab), cells(H, T, d, k, True))
    np.testing.assert_array_equal(backend.numpy(backend.jit(backend.package.to_dense)(found)), H)


@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 20), st.integers(0, 2))
def test_sizes(k: int, d: int, more: int, p: int) -> None:
    """Any ring long enough, with and without shared variables, in both backends."""
    T = 2 * k + 1 + more
    H = matrix(T, d, k, p, True)
    xs, shared = reals(T * d, 1).reshape(T, d), reals(p, 2)
    for backend in BACKENDS.values():
        x = {"a": backend.array(xs), "b": backend.array(shared)}
        A, xp = backend.array(H), backend.xp

        def fun(x: Any, A: Any = A, xp: Any = xp) -> Any:
            flat = xp.concatenate([xp.reshape(x["a"], (-1,)), x["b"]])
            return flat @ (A @ flat) / 2

        found = backend.package.from_matvec(
            jax.grad(fun) if backend.name == "jax" else backend.grad(fun),
            x, k, stage_axes={"a": 0, "b": None}, periodic=True,
        )  # fmt: skip
        assert found.border.shape == (p, T * d)
        np.testing.assert_array_equal(backend.numpy(found.band.ab), cells(H, T, d, k, True))
        np.testing.assert_array_equal(backend.numpy(found.border), H[T * d :, : T * d])
        np.testing.assert_array_equal(backend.numpy(found.corner), H[T * d :, T * d :])


def curve(xp: Any) -> Any:
    """Two neighbours, and two further on; by rolls, which rules for diagonals know."""
    return lambda x: xp.sum(xp.sin(x * xp.roll(x, -1)) + x**4 * xp.roll(x, 2) ** 2)


@pytest.mark.parametrize("n", [5, 8, 9000])
def test_ring_of_a_function(backend: Backend, n: int) -> None:
    x = backend.array(reals(n, 3))
    fun = curve(backend.xp)
    H = backend.package.hessian(fun, 2, periodic=True)(x)
    if n == 8:
        dense = backend.numpy(backend.jit(backend.dense_hessian(fun))(x))
        np.testing.assert_allclose(backend.numpy(backend.package.to_dense(H)), dense, rtol=64 * EPS, atol=64 * EPS)
    assert float(backend.package.band_error(fun, periodic=True)(H, x)) <= 256 * EPS
    if n > 5:
        narrow = backend.package.hessian(fun, 1, periodic=True)(x)
        assert float(backend.package.band_error(fun, periodic=True)(narrow, x)) > 1e-3
    assert backend.package.detect_bandwidth(fun, periodic=True)(x) == 2


def problem(xp: Any, array: Any) -> tuple[Any, dict, dict]:
    """Positions, ragged controls, a scalar and a matrix that all stages share."""

    def fun(x: dict) -> Any:
        q, u, h, m = x["q"], x["u"], x["tf"], x["m"]
        return xp.sum(xp.sin(h * (q[1:] - q[:-1] @ m)) * u[:, None]) + h**3 * xp.sum(m**2) + xp.sum(u**2)

    leaves = {"q": (7, 2), "u": (6,), "tf": (), "m": (2, 2)}
    tree = {name: array(reals(int(np.prod(s)), i).reshape(s)) for i, (name, s) in enumerate(leaves.items())}
    return fun, tree, {"q": 0, "u": 0, "tf": None, "m": None}


def test_shared_leaves(backend: Backend) -> None:
    package = backend.package
    fun, x, axes = problem(backend.xp, backend.array)
    value, grad, H = package.value_grad_hessian(fun, 1, stage_axes=axes)(x)
    flat, unravel = package.ravel_stages(x, stage_axes=axes)
    dense = backend.numpy(backend.jit(backend.dense_hessian(lambda flat: fun(unravel(flat))))(flat)).copy()
    last = 6 * 3 + 2  # the dummy control of the last stage
    dense[last, last] = 1
    np.testing.assert_allclose(backend.numpy(backend.jit(package.to_dense)(H)), dense, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(backend.numpy(value), backend.numpy(fun(x)))
    assert tuple(grad["tf"].shape) == ()
    assert tuple(grad["m"].shape) == (2, 2)
    # Leaves in pytree order, those of a stage together, the shared ones last.
    expected = np.concatenate([backend.numpy(x["q"])[0], backend.numpy(x["u"])[:1]])
    np.testing.assert_array_equal(backend.numpy(flat)[:3], expected)
    np.testing.assert_array_equal(backend.numpy(flat)[21:], [*backend.numpy(x["m"]).ravel(), float(x["tf"])])
    assert float(package.band_error(fun, stage_axes=axes)(H, x)) <= 256 * EPS
    broken = H._replace(border=H.border * 1.001)
    assert float(package.band_error(fun, stage_axes=axes)(broken, x)) > 1e-5
    assert package.detect_bandwidth(fun, stage_axes=axes)(x) == 1


def test_gauss_newton(backend: Backend) -> None:
    xp = backend.xp
    residuals = lambda x: x["a"] * x["s"] - xp.roll(x["a"], 1) ** 2  # noqa: E731
    x = {"a": backend.array(reals(7, 0)), "s": backend.array(np.array(0.7))}
    axes = {"a": 0, "s": None}
    found = backend.package.gauss_newton(residuals, 1, stage_axes=axes, periodic=True)(x)
    a = reals(7, 0)
    J = np.zeros((7, 8))
    for i in range(7):
        J[i, i], J[i, (i - 1) % 7], J[i, 7] = 0.7, -2 * a[i - 1], a[i]
    np.testing.assert_allclose(backend.numpy(backend.package.to_dense(found)), J.T @ J, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("size", [(10, 1, 1), (11, 2, 1), (12, 1, 2)], ids=str)
def test_products_are_counted(backend: Backend, size: tuple) -> None:
    """Around a ring ceil(T / floor(T / (2k + 1))) d; with p shared variables p more than the stages' (2k + 1) d."""
    T, d, k = size
    shape = (T, d) if d > 1 else (T,)
    products: list = []
    fun = backend.quadratic(matrix(T, d, k, 0, True), products)
    flat = lambda x: fun(x.reshape(-1))  # noqa: E731
    backend.package.hessian(flat, k, periodic=True, chunk_size=1)(backend.array(np.ones(shape)))
    backend.settle()
    assert sum(np.atleast_2d(v).shape[0] for v in products) == -(-T // (T // (2 * k + 1))) * d
    products.clear()
    with_shared = backend.quadratic(matrix(T, d, k, 3, False), products)
    both = lambda x: with_shared(backend.xp.concatenate([x["a"].reshape(-1), x["s"]]))  # noqa: E731
    x = {"a": backend.array(np.ones(shape)), "s": backend.array(np.ones(3))}
    backend.package.hessian(both, k, stage_axes={"a": 0, "s": None}, chunk_size=1)(x)
    backend.settle()
    assert sum(np.atleast_2d(v).shape[0] for v in products) == min(2 * k + 1, T) * d + 3


def test_transforms(backend: Backend) -> None:
    """Under jit, vmap and grad, like any Hessian."""
    package = backend.package
    fun, x, axes = problem(backend.xp, backend.array)
    hessian = package.hessian(fun, 1, stage_axes=axes)
    once = hessian(x)
    stacked = backend.tree_map(lambda a: backend.xp.stack([a, 2 * a]), x)
    lanes = backend.vmap(backend.jit(hessian))(stacked)
    for one, lane in zip(backend.leaves(once), backend.leaves(lanes), strict=True):
        np.testing.assert_allclose(backend.numpy(lane)[0], backend.numpy(one), rtol=1e-12, atol=1e-13)
    h = lambda tf: hessian({**x, "tf": tf}).border[-1, 0]  # noqa: E731
    slope = backend.grad(h)(x["tf"])
    step = 1e-6
    ends = [float(h(x["tf"] + s)) for s in (step, -step)]
    np.testing.assert_allclose(float(slope), (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_wrong_arguments(backend: Backend) -> None:
    package, array = backend.package, backend.array
    total = lambda x: backend.xp.sum(x**2)  # noqa: E731
    for T, shape in [(4, (4,)), (4, (4, 2))]:
        with pytest.raises(ValueError, match=f"periodic=True with bandwidth 2 needs T > 4 stages, got {T}.*dense"):
            package.hessian(total, 2, periodic=True)(array(np.ones(shape)))
    with pytest.raises(ValueError, match='probing="direct"'):
        package.hessian(total, 1, periodic=True, probing="fourier")(array(np.ones(9)))
    tree = {"q": array(np.ones(5)), "s": array(np.array(1.0))}
    fun = lambda x: backend.xp.sum(x["q"]) * x["s"]  # noqa: E731
    with pytest.raises(ValueError, match="stage_axes"):
        package.hessian(fun, 1)(tree)
    with pytest.raises(ValueError, match="stage_axes must leave some leaf"):
        package.hessian(fun, 1, stage_axes=None)(tree)
    with pytest.raises(ValueError, match=r"0 .*or None"):
        package.hessian(fun, 1, stage_axes={"q": 1, "s": None})(tree)
    with pytest.raises(ValueError, match="prefix of argument 0"):
        package.hessian(fun, 1, stage_axes={"q": 0})(tree)
    ragged = {"q": array(np.ones(5)), "u": array(np.ones(4))}
    with pytest.raises(ValueError, match="as many intervals as knots"):
        package.hessian(lambda x: total(x["q"]), 1, periodic=True)(ragged)
    plain = package.hessian(total, 1)(array(np.ones(5)))
    with pytest.raises(ValueError, match="same stage_axes and periodic"):
        package.band_error(total, periodic=True)(plain, array(np.ones(5)))


@pytest.mark.parametrize("n", [64, 400])
def test_detection_tells_what_it_is(backend: Backend, n: int) -> None:
    """A border and a ring are not called dense; what is dense is."""
    xp, x = backend.xp, backend.array(reals(n, 5))
    detect = backend.package.detect_bandwidth
    with pytest.raises(ValueError, match="its ends meet: give periodic=True"):
        detect(lambda x: xp.sum(x**2 * xp.roll(x, 1)))(x)
    for place in (0, n - 1):
        with pytest.raises(ValueError, match=f"stage {place} meets all others.*stage_axes"):
            detect(lambda x, place=place: xp.sum(x[1:] ** 2 * x[:-1]) + xp.sum(x * x[place] ** 2))(x)
    with pytest.raises(ValueError, match="order of the stages"):
        detect(lambda x: xp.sum(x) ** 3)(x)


def test_shared_variables_leave_the_diagonals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over all stages, which the shared variable's row is, keeps the stages' own band from being carried no more
    than it does without: no product is formed for it."""
    carried, carry = [], products.carry

    def noted(*args: Any) -> Any:
        carried.append(carry(*args))
        return carried[-1]

    monkeypatch.setattr(products, "carry", noted)
    xp = jax.numpy
    fun = lambda z: z["s"] * xp.sum((z["x"][1:] - z["x"][:-1]) ** 2 * xp.exp(z["x"][1:]))  # noqa: E731
    x = {"x": xp.asarray(reals(100, 0)), "s": xp.asarray(1.5)}
    H = BACKENDS["jax"].package.hessian(fun, 1, stage_axes={"x": 0, "s": None})(x)
    assert [ab is not None for ab in carried] == [True]
    dense = jax.jit(jax.hessian(lambda flat: fun({"x": flat[:100], "s": flat[100]})))(xp.append(x["x"], x["s"]))
    np.testing.assert_allclose(jax.jit(BACKENDS["jax"].package.to_dense)(H), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(3, 2, 1), (5, 3, 2), (4, 2, 1), (1, 3, 0)], ids=str)
@pytest.mark.parametrize("p", [0, 2])
def test_solving_on_short_rings(backend: Backend, size: tuple, p: int) -> None:
    """T = 2k + 1 stages of several scalars, where each meets all others: solved, inverted and factored as any ring."""
    T, d, k = size
    package, n = backend.package, T * d
    h = matrix(T, d, k, p, True)
    h = h / h.max() + np.diag(2 * np.abs(h / h.max()).sum(1))
    ring = package.Cyclic(backend.array(cells(h, T, d, k, True)))
    H = package.Bordered(ring, backend.array(h[n:, :n]), backend.array(h[n:, n:])) if p else ring
    b = reals(n + p, 4)

    def run(H: Any, b: Any) -> tuple:
        factor = package.factor(H)
        inverse = package.to_dense(package.inverse_band(factor))
        return package.to_dense(H), package.matvec(H, b), package.solve(H, b), factor.logdet(), inverse

    dense, product, x, logdet, found = map(backend.numpy, backend.jit(run)(H, backend.array(b)))
    np.testing.assert_array_equal(dense, h)
    np.testing.assert_allclose(product, h @ b, rtol=1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(h, b), rtol=1e-10)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(h)[1], rtol=1e-12)
    inverse = np.linalg.inv(h)
    near = matrix(T, d, k, 0, True) != 0
    inverse[:n, :n] = np.where(near, inverse[:n, :n], 0)
    found = found.copy()
    found[:n, :n] = np.where(near, found[:n, :n], 0)  # within the band's rows, but further than k stages
    np.testing.assert_allclose(found, inverse, atol=1e-13)
    if not p:
        again = lambda h: package.to_dense(package.from_dense(h, (k + 1) * d - 1, periodic=True))  # noqa: E731
        np.testing.assert_array_equal(backend.numpy(backend.jit(again)(backend.array(h))), h)
