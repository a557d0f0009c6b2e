"""`detect_bandwidth` and `reorder_bandwidth`: what they find, at which cost, and what they refuse; what tells the user
of a band of the wrong structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from chains import rosenbrock
from oracles import reals, unique_coefficients
from problems import steering_stages

import bandhess_torch

ROUNDING = 256


def operator(n: int, k: int) -> np.ndarray:
    A = unique_coefficients(n, n, 0)
    A = A + A.T
    A[abs(np.arange(n)[:, None] - np.arange(n)) > k] = 0
    return A


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a batch would be recorded as one: PyTorch's, one after the other, can be counted."""
    one_by_one = lambda product, probes: torch.stack([product(v) for v in probes])  # noqa: E731
    monkeypatch.setattr(bandhess_torch.extraction.bandwidth, "multiply", one_by_one)


def first_look(T: int) -> int:
    """A random product, once more rescaled, and the columns of eight stages."""
    return 2 + min(T, 8)


@pytest.mark.parametrize(("n", "k"), [(30, 0), (30, 1), (30, 3), (90, 3), (1, 0)])
@pytest.mark.usefixtures("one_by_one")
def test_finds_it_at_a_cost_independent_of_n(backend: Backend, n: int, k: int) -> None:
    products: list = []
    fun = backend.quadratic(operator(n, k), products)
    found = backend.package.detect_bandwidth(fun)(backend.array(np.ones(n)))
    assert type(found) is int
    assert found == k
    assert len(products) == first_look(n) + 2 * k + 1


@pytest.mark.usefixtures("one_by_one")
def test_a_reach_that_the_first_look_misses(backend: Backend) -> None:
    """One far entry, between stages that are not among the first: doubling finds it."""
    A, products = operator(90, 1), []
    A[20, 26] = A[26, 20] = 0.5
    found = backend.package.detect_bandwidth(backend.quadratic(A, products))(backend.array(np.ones(90)))
    assert found == 6
    assert len(products) == first_look(90) + 3 + 5 + 9 + 17


@pytest.mark.usefixtures("one_by_one")
def test_a_dense_one_is_refused_at_once(backend: Backend) -> None:
    n, products = 600, []
    with pytest.raises(ValueError, match="more than 150 "):
        backend.package.detect_bandwidth(backend.quadratic(operator(n, n), products))(backend.array(np.ones(n)))
    assert len(products) == first_look(n)


def test_as_wide_as_the_matrix(backend: Backend) -> None:
    fun, x = (lambda x: backend.xp.sum(x) ** 2), backend.array(reals(12, 0))
    assert backend.package.detect_bandwidth(fun, max_bandwidth=11)(x) == 11
    assert backend.package.detect_bandwidth(fun, max_bandwidth=400)(x) == 11


@pytest.mark.usefixtures("one_by_one")
def test_denser_is_refused(backend: Backend) -> None:
    """Past max_bandwidth, by default max(16, T // 4); the message names the way out, tried where T is small."""
    n = 40
    products: list = []
    fun = backend.quadratic(operator(n, 17), products)
    with pytest.raises(ValueError, match=r"more than 16 .*T = 40.*finds no better; .*max_bandwidth=39"):
        backend.package.detect_bandwidth(fun)(backend.array(np.ones(n)))
    assert len(products) == 2 * first_look(n) + n

    def halves(x):  # stage t meets t + 1 and the one opposite: in another order, a ladder
        m = len(x) // 2
        return backend.xp.sum((x[1:] - x[:-1]) ** 2) + backend.xp.sum((x[m:] - x[:m]) ** 2)

    with pytest.raises(ValueError, match=r"more than 1 .*reorder_bandwidth\(fun\)\(x\) finds one of bandwidth 4;"):
        backend.package.detect_bandwidth(halves, max_bandwidth=1)(backend.array(np.ones(12)))
    with pytest.raises(ValueError, match=r"more than 0 .*reorder_bandwidth\(fun\)\(x\) looks for a better one"):
        backend.package.detect_bandwidth(halves, max_bandwidth=0)(backend.array(np.ones(300)))


def bends(xp: Any) -> Any:
    """Of a path in the plane, as stages (T, 2) or flat: bandwidth 2 or 4."""

    def fun(x: Any) -> Any:
        p = x.reshape(-1, 2)
        return xp.sum((p[2:] - 2 * p[1:-1] + p[:-2]) ** 4) + xp.sum(p[:, 0] ** 2 * p[:, 1])

    return fun


@pytest.mark.parametrize(
    ("shape", "dtype", "bandwidth"), [((10, 2), "float64", 2), ((10, 2), "float32", 2), ((20,), "float64", 4)]
)
def test_stages(backend: Backend, shape: tuple[int, ...], dtype: str, bandwidth: int) -> None:
    x = backend.array(reals(20, 0).reshape(shape), dtype)
    assert backend.package.detect_bandwidth(bends(backend.xp))(x) == bandwidth


def test_ragged_tree(backend: Backend) -> None:
    problem = steering_stages(7, ragged=True)
    x, *args = (backend.tree_map(backend.array, part) for part in (problem.x, *problem.args))
    assert backend.package.detect_bandwidth(problem.objective(backend.xp))(x, *args) == 1


def test_curvature_that_vanishes_at_x(backend: Backend) -> None:
    xp, zero = backend.xp, backend.array(np.zeros(9))
    assert backend.package.detect_bandwidth(lambda x: xp.sum((x[2:] - x[:-2]) ** 4))(zero) == 2


def test_what_counts_as_zero(backend: Backend) -> None:
    """Rounding noise does not widen the band; no curvature at all is bandwidth 0; of a branch, x's side is seen."""
    xp, x = backend.xp, backend.array(np.ones(9))

    def fun(x, far):
        near = xp.where(x[0] > 0, xp.sum(x[1:] * x[:-1]), xp.sum(x[3:] * x[:-3]))
        return xp.sum(x**2) + near + far * xp.sum(x[2:] * x[:-2])

    detect = backend.package.detect_bandwidth(fun)
    assert detect(x, backend.array(1e-14)) == 1
    assert detect(x, backend.array(1e-3)) == 2
    assert detect(-x, backend.array(0.0)) == 3
    assert backend.package.detect_bandwidth(lambda x: xp.sum(x))(x) == 0
    for shape in [(0,), (0, 2), (3, 0)]:
        assert backend.package.detect_bandwidth(lambda x: xp.sum(x**2))(backend.array(np.zeros(shape))) == 0


def test_argnums(backend: Backend) -> None:
    def fun(a, x, *, shift):
        return a * backend.xp.sum(x[shift:] * x[:-shift])

    x = backend.array(np.ones(6))
    assert backend.package.detect_bandwidth(fun, argnums=1)(backend.array(2.0), x, shift=2) == 2


def test_newton_detects(backend: Backend) -> None:
    """bandwidth=None, over a ragged tree."""
    xp, newton = backend.xp, backend.package.newton

    def fun(x):
        return xp.sum((x["q"][1:] - x["q"][:-1] - x["u"]) ** 2) + xp.sum(x["q"] ** 2) + xp.sum((x["u"] - 1) ** 2)

    x0 = {"q": backend.array(reals(5, 0)), "u": backend.array(reals(4, 1))}
    found, told = newton(fun, x0, None), newton(fun, x0, 1)
    assert found.status == told.status == backend.package.Status.CONVERGED
    for a, b in zip(backend.leaves(found.x), backend.leaves(told.x), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_input(backend: Backend) -> None:
    xp, x, detect = backend.xp, backend.array(np.ones(4)), backend.package.detect_bandwidth
    bad = [
        (ValueError, "max_bandwidth must be an int >= 0, got -1", lambda: detect(lambda x: x, max_bandwidth=-1)),
        (TypeError, "max_bandwidth must be an int >= 0, got 1.5", lambda: detect(lambda x: x, max_bandwidth=1.5)),
        (TypeError, "argnums must be one int", lambda: detect(lambda x: x, argnums=(0,))),
        (TypeError, "fun must return a real scalar", lambda: detect(lambda x: x)(x)),
        (FloatingPointError, "not finite at .*domain", lambda: detect(lambda x: xp.sum(x**0.5))(-x)),
        (TypeError, "argument 0 must have a real floating dtype", lambda: detect(xp.sum)(backend.array([1, 2]))),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()


def test_not_under_jit() -> None:
    detect = BACKENDS["jax"].package.detect_bandwidth(lambda x: jnp.sum(x**2))
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(detect)(jnp.ones(3))


# --- Another order of the stages -------------------------------------------------------------------------------------


def shuffled(xp: Any, place: Any) -> Any:
    """A chain of neighbours in the order x[place]."""

    def fun(x: Any) -> Any:
        y = x[place]
        return xp.sum((y[1:] * y[:-1]) ** 2) + xp.sum(y**2)

    return fun


def test_reordered_function_has_the_bandwidth(backend: Backend) -> None:
    T, d = 10, 2
    fun = shuffled(backend.xp, backend.array(np.random.default_rng(d).permutation(T)))
    x = reals(T * d, 0).reshape(T, d)
    permutation, k = backend.package.reorder_bandwidth(fun)(backend.array(x))
    np.testing.assert_array_equal(np.sort(permutation), np.arange(T))
    assert k == 1
    inverse = backend.array(np.argsort(permutation))
    reordered, y = (lambda y: fun(y[inverse])), backend.array(x[permutation])
    for function, point, wrong in [(reordered, y, False), (fun, backend.array(x), True)]:
        ab = backend.package.hessian(function, 1)(point)
        error = float(backend.package.band_error(function)(ab, point))
        assert error > 1e-3 if wrong else error <= ROUNDING * np.finfo(float).eps


def test_natural_order_is_kept(backend: Backend) -> None:
    """Where nothing is better: a chain, a dense Hessian, a ragged tree, nothing at all."""
    xp, reorder = backend.xp, backend.package.reorder_bandwidth
    x, problem = backend.array(np.ones(5)), steering_stages(7, ragged=True)
    tree, *args = (backend.tree_map(backend.array, part) for part in (problem.x, *problem.args))
    cases = [
        (reorder(rosenbrock(xp))(x), 5, 1),
        (reorder(lambda x: xp.sum(x) ** 2)(x), 5, 4),
        (reorder(problem.objective(xp))(tree, *args), 7, 1),
        (reorder(lambda x: xp.sum(x**2))(x[:0]), 0, 0),
    ]
    for (permutation, k), T, expected in cases:
        np.testing.assert_array_equal(permutation, np.arange(T))
        assert k == expected


# --- Mistakes of structure -------------------------------------------------------------------------------------------


def leaf_by_leaf(xp: Any) -> Any:
    """{"q": (3, 2), "u": (3,)} ravelled leaf after leaf, where stage after stage was meant."""

    def fun(x: Any) -> Any:
        q, u = x[:6].reshape(3, 2), x[6:]
        return xp.sum((q[1:] - q[:-1] - u[:-1, None]) ** 2) + xp.sum(x**2)

    return fun


def mistakes(backend: Backend) -> dict[str, tuple[Any, np.ndarray, int, int]]:
    """(fun, x, bandwidth, the right one)."""
    xp, x = backend.xp, reals(20, 0)
    bend = bends(xp)
    return {
        "too narrow": (lambda x: xp.sum(x[3:] ** 2 * x[:-3]), x, 2, 3),
        "stages counted as scalars": (bend, x, 2, 4),
        "stages too short": (bend, x.reshape(-1, 2), 1, 2),
        "stages of another size": (lambda x: bend(x.reshape(-1)), x.reshape(-1, 4), 0, 1),
        "permuted": (shuffled(xp, backend.array([3, 0, 4, 2, 5, 1])), x[:6], 1, 5),
        "leaf by leaf": (leaf_by_leaf(xp), x[:9], 5, 6),
    }


@pytest.mark.parametrize("mistake", mistakes(BACKENDS["torch"]))
def test_mistakes_of_structure(backend: Backend, mistake: str) -> None:
    """`band_error` sees every kind; with the right bandwidth it is content."""
    fun, x, k, right = mistakes(backend)[mistake]
    package, point = backend.package, backend.array(x)
    assert float(package.band_error(fun)(package.hessian(fun, k)(point), point)) > 1e-3
    error = float(package.band_error(fun)(package.hessian(fun, right)(point), point))
    assert error <= ROUNDING * np.finfo(float).eps


def test_newton_refuses_a_permuted_chain(backend: Backend) -> None:
    fun, x, k, _ = mistakes(backend)["permuted"]
    result = backend.package.newton(fun, backend.array(x), k)
    assert (result.status, result.steps) == (backend.package.Status.BAND_TOO_NARROW, 0)
