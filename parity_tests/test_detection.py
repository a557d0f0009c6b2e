"""Finding the bandwidth, seeing a wrong one, finding a better order, and Gauss-Newton's matrix."""

import functools
from collections.abc import Callable
from typing import Any

import default_session
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from operators import PROBINGS, block_banded, counted_quadratic, error_in_eps
from problems import (
    Problem,
    blog_chain,
    integers,
    path2d_stages,
    ravel,
    reals,
    rosenbrock,
    sizes,
    staged_polynomial,
    steering,
    steering_stages,
    store,
    window_chain,
)

PROBLEMS = [
    blog_chain(12),
    window_chain(14, 2),
    path2d_stages(12),
    steering_stages(7, ragged=True),
    staged_polynomial("polynomial stages k=0", integers(12, 3).reshape(4, 3), 0),
]

# Gaussian coefficients may be small where an entry is wrong, but not by this much; and rounding, in eps.
SEEN = 1e-3
ROUNDING = 256


def inputs(backend: Backend, problem: Problem, dtype: str = "float64") -> tuple:
    x = backend.tree_map(lambda leaf: backend.array(leaf, dtype), problem.x)
    return x, *(backend.array(arg, dtype) for arg in problem.args)


def coupled(offset: int) -> Callable[[Any], Callable]:
    """A single coupling, at this offset exactly: all diagonals between are zero."""
    return lambda xp: lambda x: xp.sum(x[offset:] * x[:-offset]) + 2 * xp.sum(x**2)


# --- Finding it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_bandwidth_found(backend: Backend, problem: Problem) -> None:
    fun, args = problem.objective(backend.xp), inputs(backend, problem)
    found = backend.package.detect_bandwidth(fun)(*args)
    assert type(found) is int
    assert found == problem.bandwidth
    permutation, bandwidth = backend.package.reorder_bandwidth(fun)(*args)
    np.testing.assert_array_equal(np.sort(permutation), np.arange(sizes(problem.x)[0]))
    assert type(bandwidth) is int
    assert bandwidth == problem.bandwidth


def test_float32(backend: Backend) -> None:
    problem = window_chain(14, 2)
    detect = backend.package.detect_bandwidth(problem.objective(backend.xp))
    assert detect(*inputs(backend, problem, "float32")) == problem.bandwidth


def test_single_coupling(backend: Backend) -> None:
    """At narrower bandwidths its entry falls on a cell of another diagonal, and must not pass for that."""
    x = backend.array(reals(20, 0))
    assert backend.package.detect_bandwidth(coupled(5)(backend.xp))(x) == 5


def test_small_coupling(backend: Backend) -> None:
    """Entries above sqrt(eps) of their rows are seen, beside diagonals of another size."""
    xp = backend.xp

    def fun(x: Any, size: Any) -> Any:
        return xp.sum(x**2) + size * xp.sum(x[2:] * x[:-2])

    x = backend.array(reals(30, 0))
    detect = backend.package.detect_bandwidth(fun)
    assert detect(x, backend.array(1e-5)) == 2
    assert detect(x, backend.array(1e-12)) == 0


@pytest.mark.parametrize(("at", "dtype"), [(0.0, "float64"), (3.0, "float32")])
def test_curvature_that_vanishes_at_x(backend: Backend, at: float, dtype: str) -> None:
    """(x_{i+2} - x_i)^4 has a zero Hessian where all x are equal."""
    x = np.full(20, at)

    def fun(x: Any) -> Any:
        return backend.xp.sum((x[2:] - x[:-2]) ** 4)

    given = backend.array(x, dtype)
    np.testing.assert_array_equal(backend.package.hessian(fun, 2)(given), np.zeros((3, 20)))
    assert backend.package.detect_bandwidth(fun)(given) == 2
    np.testing.assert_array_equal(given, x.astype(dtype))  # the perturbation is not the caller's


def test_coupling_that_vanishes_at_zero_beside_one_that_does_not(backend: Backend) -> None:
    def fun(x: Any) -> Any:
        return backend.xp.sum(x[2:] ** 2 * x[:-2] ** 2) + backend.xp.sum(x**2)

    assert backend.package.detect_bandwidth(fun)(backend.array(np.zeros(20))) == 2


def test_stays_in_the_domain(backend: Backend) -> None:
    """x is moved, but no entry past zero."""
    x = np.concatenate([10.0 ** np.arange(-4, 0), np.ones(3)])

    def fun(x: Any) -> Any:
        return -backend.xp.sum(backend.xp.log(x)) + backend.xp.sum(backend.xp.sqrt(x[1:] * x[:-1]))

    assert backend.package.detect_bandwidth(fun)(backend.array(x)) == 1


def test_branch_taken(backend: Backend) -> None:
    """Of a branch only the side taken at x is seen."""
    xp = backend.xp

    def fun(x: Any) -> Any:
        return xp.sum(xp.where(x[2:] > 0, x[2:] * x[:-2], x[2:] ** 2))

    positive = np.abs(reals(12, 0)) + 0.1
    assert backend.package.detect_bandwidth(fun)(backend.array(positive)) == 2
    assert backend.package.detect_bandwidth(fun)(backend.array(-positive)) == 0


def test_no_coupling(backend: Backend) -> None:
    xp, detect = backend.xp, backend.package.detect_bandwidth
    x = backend.array(reals(9, 0))
    assert detect(lambda x: xp.sum(x**2 + xp.cos(x)))(x) == 0
    assert detect(lambda x: xp.sum(3 * x))(x) == 0
    assert detect(lambda x: xp.sum(0 * x) + 2)(x) == 0
    assert detect(lambda x: xp.sum(x) ** 2)(x[:1]) == 0
    assert detect(lambda x: xp.sum(x) ** 2)(x[:0]) == 0
    assert detect(lambda x: xp.sum(x) ** 2)(backend.array(np.zeros((0, 2)))) == 0
    assert detect(lambda x: xp.sum(x) ** 2, max_bandwidth=0)(backend.array(np.ones((1, 3)))) == 0
    assert detect(lambda x: xp.sum(x) ** 2)(x[:2]) == 1


def test_dense(backend: Backend) -> None:
    def dense(x: Any) -> Any:
        return backend.xp.sum(x) ** 2

    T = 18
    x, detect = backend.array(reals(T, 0)), backend.package.detect_bandwidth
    message = rf"max_bandwidth={max(16, T // 4)} .*T = {T}.*reorder_bandwidth.*max_bandwidth"
    with pytest.raises(ValueError, match=message):
        detect(dense)(x)
    assert detect(dense, max_bandwidth=T - 1)(x) == T - 1
    assert detect(dense, max_bandwidth=10 * T)(x) == T - 1


def test_max_bandwidth(backend: Backend) -> None:
    x, detect = backend.array(reals(30, 0)), backend.package.detect_bandwidth
    fun = coupled(3)(backend.xp)
    assert detect(fun, max_bandwidth=3)(x) == 3
    with pytest.raises(ValueError, match="max_bandwidth=2 "):
        detect(fun, max_bandwidth=2)(x)
    with pytest.raises(ValueError, match="max_bandwidth=0 "):
        detect(fun, max_bandwidth=0)(x)


def test_argnums_and_other_arguments(backend: Backend) -> None:
    xp = backend.xp

    def fun(order: int, x: Any, y: Any, *, scale: Any) -> Any:
        return scale * xp.sum(x[order:] * x[:-order]) + xp.sum(y[2:] * y[:-2]) + xp.sum(x) * xp.sum(y)

    args = (1, backend.array(reals(12, 0)), backend.array(reals(20, 1)))
    for argnums, expected in [(1, 1), (2, 2), (-1, 2), (-2, 1)]:
        detect = backend.package.detect_bandwidth(fun, argnums=argnums)
        assert detect(*args, scale=backend.array(2.0)) == expected


@pytest.mark.parametrize("where", ["everywhere", "one"])
def test_not_finite(backend: Backend, where: str) -> None:
    x = -np.ones(12)
    if where == "one":
        x[:-1] = 1
    for function in ("detect_bandwidth", "reorder_bandwidth"):
        find = getattr(backend.package, function)(lambda x: backend.xp.sum(x**2.5))
        with pytest.raises(FloatingPointError, match=r"not finite.*domain"):
            find(backend.array(x))


def test_bad_input(backend: Backend) -> None:
    xp, x = backend.xp, backend.array(reals(6, 0))
    detect, reorder = backend.package.detect_bandwidth, backend.package.reorder_bandwidth
    bad = [
        (ValueError, "max_bandwidth must be an int >= 0, got -1", lambda: detect(xp.sum, max_bandwidth=-1)),
        (TypeError, "max_bandwidth must be an int >= 0, got 1.5", lambda: detect(xp.sum, max_bandwidth=1.5)),
        (TypeError, "argnums must be one int", lambda: detect(xp.sum, argnums=(0,))),
        (TypeError, "argnums must be one int", lambda: reorder(xp.sum, argnums=None)),
        (TypeError, "fun must return a real scalar", lambda: detect(lambda x: x)(x)),
        (TypeError, "fun must return a real scalar", lambda: reorder(lambda x: x)(x)),
        (TypeError, "argument 0 must have a real floating dtype", lambda: detect(xp.sum)(backend.array([1, 2]))),
        (ValueError, "every leaf of argument 0 needs a leading stage axis", lambda: detect(xp.sum)(x[0])),
        (ValueError, "argument", lambda: detect(xp.sum)()),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("function", ["detect_bandwidth", "reorder_bandwidth"])
def test_refused_inside_transforms(backend: Backend, function: str) -> None:
    """A bandwidth is a Python int. In torch the program is not compiled: only torch.func's transforms are refused."""
    find = getattr(backend.package, function)(rosenbrock(backend.xp))

    def inside(x: Any) -> Any:
        found = find(x)
        return backend.xp.sum(x) * (found if function == "detect_bandwidth" else found[1])

    x = backend.array(reals(6, 0))
    transforms = [backend.grad, backend.vmap] + ([jax.jit] if backend.name == "jax" else [])
    for transform in transforms:
        with pytest.raises((TypeError, RuntimeError)) as caught:
            transform(inside)(backend.array(reals(12, 0).reshape(2, 6)) if transform is backend.vmap else x)
        if backend.name == "jax":
            assert "outside jit" in str(caught.value)
    if backend.name == "jax":
        with pytest.raises(TypeError, match="outside jit"):
            jax.jit(lambda x: backend.package.newton(rosenbrock(jnp), x, None).x)(x)


def test_cost_does_not_depend_on_n(backend: Backend) -> None:
    """Some 5 to 8 w products: (2k + 1) at every bandwidth tried, 0, 1, 2, 4, ..., and at most four to test it."""
    w, tried = 2, [0, 1, 2]
    products = {}
    for n in (40, 120):
        products[n] = []
        fun = counted_quadratic(backend, block_banded(n, 1, w, seed=0), products[n])
        assert backend.package.detect_bandwidth(fun)(backend.array(reals(n, 0))) == w
    assert len(products[40]) == len(products[120])
    assert sum(2 * k + 1 for k in tried) < len(products[40]) <= sum(2 * k + 1 + 4 for k in tried)


def test_evaluations_do_not_depend_on_n(backend: Backend) -> None:
    calls: dict[int, list] = {20: [], 60: []}
    for n in calls:
        fun = backend.tapped(coupled(1)(backend.xp), calls[n])
        assert backend.package.detect_bandwidth(fun)(backend.array(reals(n, 0))) == 1
        backend.settle()
    assert 1 <= len(calls[20]) == len(calls[60]) <= 2 * len([0, 1])


# --- Seeing a wrong one ----------------------------------------------------------------------------------------------

T, D = 6, 2


def trajectory(xp: Any) -> Callable:
    """(6, 2) stages: neighbours coupled in and across their scalars. Convex, and its minimum is not at 0."""

    def fun(x: Any) -> Any:
        step = x[1:] - x[:-1]
        return xp.sum(step**2 + 0.1 * step**4) + xp.sum(step[:, 0] * step[:, 1]) + xp.sum((x - 1) ** 2)

    return fun


SHUFFLE = np.array([3, 0, 5, 1, 4, 2])


# (order of the scalars, shape of x, bandwidth): what users get wrong about one and the same objective.
MISTAKES = {
    "none": (np.arange(T * D), (T, D), 1),
    "too narrow": (np.arange(T * D), (T, D), 0),
    "wrong stage size": (np.arange(T * D), (3, 4), 0),
    "scalars before stages": (np.arange(T * D).reshape(D, T).T.ravel(), (T, D), 1),
    "stages shuffled": (np.arange(T * D).reshape(T, D)[SHUFFLE].ravel(), (T, D), 1),
}


@functools.cache
def reordered(name: str) -> Callable:
    """One function for all, so that it is compiled once."""
    xp = BACKENDS[name].xp
    return lambda x, order: trajectory(xp)(x.reshape(-1)[order].reshape(T, D))


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistakes_show(backend: Backend, mistake: str) -> None:
    """In `band_error` and in newton's status."""
    order, shape, k = MISTAKES[mistake]
    fun, package = reordered(backend.name), backend.package
    x, order = backend.array(reals(T * D, 0).reshape(shape)), backend.array(order)
    error = float(package.band_error(fun)(package.hessian(fun, k)(x, order), x, order))
    result = package.newton(fun, x, k, args=(order,))
    if mistake == "none":
        assert error <= ROUNDING * np.finfo(float).eps
        assert result.status == package.Status.CONVERGED
        np.testing.assert_allclose(result.x, np.ones(shape), atol=1e-6)
    else:
        assert error > SEEN
        assert result.status == package.Status.BAND_TOO_NARROW


def test_mistake_that_shows_at_the_end_only(backend: Backend) -> None:
    """x0 = 0 hides a product of zeros; the end does not."""

    def fun(x: Any) -> Any:
        return backend.xp.sum((x - 1) ** 2) + 0.1 * backend.xp.sum(x[2:] ** 2 * x[:-2] ** 2)

    package = backend.package
    assert package.newton(fun, backend.array(np.zeros(5)), 1).status == package.Status.BAND_TOO_NARROW


# --- A better order --------------------------------------------------------------------------------------------------


def test_shuffled_chain(backend: Backend) -> None:
    T, d = 6, 2
    order = np.array([3, 0, 5, 1, 4, 2])

    def chain(x: Any) -> Any:
        step = x[1:] - x[:-1]
        return backend.xp.sum(step**2) + backend.xp.sum(x**4) + backend.xp.sum(x) * 0.5

    def shuffled(x: Any) -> Any:
        return chain(x[np.argsort(order)])

    x = backend.array(reals(T * d, 0).reshape(T, d))
    detect, reorder = backend.package.detect_bandwidth, backend.package.reorder_bandwidth
    assert detect(shuffled)(x) > 1
    permutation, bandwidth = reorder(shuffled)(x)
    assert bandwidth == 1
    np.testing.assert_array_equal(np.sort(permutation), np.arange(T))

    # In the order stages[permutation] the same objective has that bandwidth.
    def restored(y: Any) -> Any:
        return shuffled(y[np.argsort(permutation)])

    y = x[np.array(permutation)]
    assert float(restored(y)) == float(shuffled(x))
    assert detect(restored)(y) == bandwidth


def test_good_orders_stay(backend: Backend) -> None:
    x, reorder = backend.array(reals(6, 0)), backend.package.reorder_bandwidth
    for fun, expected in [(rosenbrock(backend.xp), 1), (lambda x: backend.xp.sum(x) ** 2, 5), (backend.xp.sum, 0)]:
        permutation, bandwidth = reorder(fun)(x)
        np.testing.assert_array_equal(permutation, np.arange(6))
        assert bandwidth == expected
    permutation, bandwidth = reorder(backend.xp.sum)(x[:0])
    assert (len(permutation), bandwidth) == (0, 0)


def test_separate_parts(backend: Backend) -> None:
    """Interleaved chains that do not couple: each gets its own place."""
    x = backend.array(reals(24, 0))
    permutation, bandwidth = backend.package.reorder_bandwidth(coupled(2)(backend.xp))(x)
    assert bandwidth == 1
    np.testing.assert_array_equal(np.sort(permutation), np.arange(24))


# --- Gauss-Newton ----------------------------------------------------------------------------------------------------


def pairs(xp: Any) -> Callable:
    """Residuals of three shapes, in a tree: they couple neighbouring stages."""

    def residuals(x: Any, scale: Any) -> Any:
        return {
            "steps": scale * (xp.sin(x[1:]) - x[:-1] ** 2),
            "whole": (xp.exp(0.3 * x), xp.sum(x[:1] * x[1:2])),
        }

    return residuals


def dense_gram(backend: Backend, residuals: Callable, x: np.ndarray, *args: Any) -> np.ndarray:
    """J^T J from the Jacobian, column by column."""

    def flat(x: Any) -> Any:
        return backend.xp.concatenate([leaf.reshape(-1) for leaf in backend.leaves(residuals(x, *args))])

    given = backend.array(x)
    columns = []
    for j in range(x.size):
        e = np.zeros(x.size)
        e[j] = 1
        columns.append(backend.numpy(backend.jvp(flat, (given,), (backend.array(e.reshape(x.shape)),))[1]))
    J = np.array(columns).T
    return J.T @ J


@pytest.mark.parametrize(
    ("probing", "shape"), [("direct", (5, 2)), ("substitution", (5, 2)), ("fourier", (9,)), ("random", (9,))]
)
def test_gauss_newton(backend: Backend, probing: str, shape: tuple[int, ...]) -> None:
    x = reals(int(np.prod(shape)), 0).reshape(shape)
    d = int(np.prod(shape[1:]))
    residuals, scale = pairs(backend.xp), backend.array(1.5)
    ab = backend.numpy(backend.package.gauss_newton(residuals, 1, probing=probing)(backend.array(x), scale))
    gram = dense_gram(backend, residuals, x, scale)
    assert error_in_eps(ab, store(gram, 2 * d - 1)) <= ROUNDING
    assert not np.any(np.tril(gram, -2 * d)), "the bandwidth of this test is wrong"


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_gauss_newton_is_exact_on_integers(backend: Backend, chunk_size: int | None) -> None:
    """And the same in both backends: the expected band is computed here."""
    x = integers(8, 0)
    ab = backend.package.gauss_newton(lambda x: x[1:] * x[:-1], 1, chunk_size=chunk_size)(backend.array(x))
    J = np.diag(x[1:], 0) @ np.eye(7, 8) + np.diag(x[:-1]) @ np.eye(7, 8, k=1)
    np.testing.assert_array_equal(ab, store(J.T @ J, 1))


def test_gauss_newton_ragged(backend: Backend) -> None:
    """{"q": (5, 2), "u": (4, 1)}: the dummy at the end has a unit diagonal."""
    x = {"q": reals(10, 0).reshape(5, 2), "u": reals(4, 1).reshape(4, 1)}
    given = backend.tree_map(backend.array, x)

    def residuals(x: Any) -> Any:
        q, u = x["q"], x["u"]
        return [q[1:] - q[:-1] - 0.5 * u * q[:-1], u**2, q]

    ab = backend.numpy(backend.package.gauss_newton(residuals, 1)(given))
    flat, dummy = ravel(x)
    _, unravel = backend.package.ravel_stages(given)
    gram = dense_gram(backend, lambda flat: residuals(unravel(flat)), flat) + np.diag(dummy.astype(float))
    assert error_in_eps(ab, store(gram, 2 * sizes(x)[1] - 1)) <= ROUNDING
    assert np.linalg.eigvalsh(gram)[0] > 0


def test_gauss_newton_argnums(backend: Backend) -> None:
    def residuals(order: int, y: Any, x: Any, *, scale: Any) -> Any:
        return [scale * x[order:] * x[:-order], y[1:] - 3 * y[:-1], y[:5] * x[:5]]

    y, x = integers(7, 0), integers(9, 1)
    scale = backend.array(2.0)
    for argnums, k, point in [(1, 1, y), (2, 2, x), (-1, 2, x), (-2, 1, y)]:
        ab = backend.package.gauss_newton(residuals, k, argnums=argnums)(2, *map(backend.array, (y, x)), scale=scale)

        def in_one(v: Any, argnums: int = argnums) -> Any:
            args = [2, backend.array(y), backend.array(x)]
            args[argnums] = v
            return residuals(*args, scale=scale)

        np.testing.assert_array_equal(ab, store(dense_gram(backend, in_one, point), k))


def test_gauss_newton_is_the_hessian_of_linear_residuals(backend: Backend) -> None:
    matrix = backend.array(np.tril(block_banded(8, 1, 2)))

    def residuals(x: Any) -> Any:
        return matrix @ x - 1

    x = backend.array(integers(8, 0))
    ab = backend.package.gauss_newton(residuals, 2)(x)
    np.testing.assert_array_equal(ab, backend.package.hessian(lambda x: backend.xp.sum(residuals(x) ** 2) / 2, 2)(x))


def test_gauss_newton_edges(backend: Backend) -> None:
    x = backend.array(reals(4, 0))
    gram = backend.package.gauss_newton
    np.testing.assert_array_equal(gram(lambda x: backend.array([1.0, 2.0]), 1)(x), np.zeros((2, 4)))
    np.testing.assert_array_equal(gram(lambda x: x[:0], 1)(x), np.zeros((2, 4)))
    np.testing.assert_array_equal(gram(lambda x: 2 * x, 1)(x[:0]), np.zeros((2, 0)))
    np.testing.assert_array_equal(gram(lambda x: 3 * backend.xp.sum(x), 0)(x[:1]), [[9]])
    np.testing.assert_array_equal(gram(lambda x: 2 * x, 5)(x[:2]), [[4, 4], *[[0, 0]] * 5])
    single = gram(lambda x: 2 * x, 1)(backend.array(reals(4, 0), "float32"))
    assert single.dtype == backend.dtype("float32")


def test_gauss_newton_transforms(backend: Backend) -> None:
    residuals, scale = pairs(backend.xp), backend.array(1.5)
    x = reals(3 * 6, 0).reshape(3, 6)
    gram = backend.package.gauss_newton(residuals, 1)
    batched = backend.numpy(backend.jit(backend.vmap(gram, (0, None)))(backend.array(x), scale))
    for lane, row in zip(batched, x, strict=True):
        assert error_in_eps(lane, store(dense_gram(backend, residuals, row, scale), 1)) <= ROUNDING
    # scale * sin and scale * x^2 alone: the band's derivative in scale is 2 / scale times their part.
    slope = backend.grad(lambda s: backend.xp.sum(gram(backend.array(x[0]), s)))(scale)
    full, without = (float(backend.xp.sum(gram(backend.array(x[0]), backend.array(s)))) for s in (1.5, 0.0))
    assert float(slope) == pytest.approx(2 * (full - without) / 1.5, rel=1e-12)


def test_gauss_newton_of_a_custom_reverse_rule(backend: Backend) -> None:
    """JAX's custom_vjp has no forward derivative: the error names the remedy. In torch there is nothing to refuse."""
    x = integers(6, 0)
    if backend.name == "jax":

        @jax.custom_vjp
        def double(x: Any) -> Any:
            return 2 * x

        double.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (2 * cotangent,))
        with pytest.raises(TypeError, match=r"gauss_newton.*custom_vjp.*custom_jvp"):
            backend.package.gauss_newton(lambda x: double(x[1:] - x[:-1]), 1)(jnp.asarray(x))

        @jax.custom_jvp
        def rule(x: Any) -> Any:
            return 2 * x

        rule.defjvp(lambda primals, tangents: (2 * primals[0], 2 * tangents[0]))
    else:

        class Double(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(x: Any) -> Any:
                return 2 * x

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

            @staticmethod
            def backward(ctx: Any, cotangent: Any) -> Any:
                return 2 * cotangent

        rule = Double.apply
    ab = backend.package.gauss_newton(lambda x: rule(x[1:] - x[:-1]), 1)(backend.array(x))
    np.testing.assert_array_equal(ab, [[4, 8, 8, 8, 8, 4], [-4, -4, -4, -4, -4, 0]])


# --- Ragged ends, in what the others do not cover --------------------------------------------------------------------


@pytest.mark.parametrize("probing", PROBINGS)
def test_operator_on_ragged_stages(backend: Backend, probing: str) -> None:
    T = 5
    like = {"q": backend.array(np.zeros((T, 2))), "u": backend.array(np.zeros(T - 1))}

    def matvec(v: Any) -> Any:
        q, u = v["q"], v["u"]
        zero = backend.xp.zeros_like(q[:1])
        forth = backend.xp.concatenate([q[1:] + u[:, None], zero], 0)
        back = backend.xp.concatenate([zero, q[:-1]], 0)
        return {"q": 4 * q + forth + back, "u": 5 * u + backend.xp.sum(q[:-1], 1) * 0 + backend.xp.sum(q[:-1], 1)}

    ab = backend.numpy(backend.package.from_matvec(matvec, like, 1, probing=probing))
    h = np.zeros((3 * T, 3 * T))
    for t in range(T):
        h[[3 * t, 3 * t + 1], [3 * t, 3 * t + 1]] = 4
        h[3 * t + 2, 3 * t + 2] = 5 if t < T - 1 else 1
        if t < T - 1:
            for i in range(2):
                h[3 * t + i, 3 * t + 3 + i] = h[3 * t + 3 + i, 3 * t + i] = 1
                h[3 * t + i, 3 * t + 2] = h[3 * t + 2, 3 * t + i] = 1
    assert error_in_eps(ab, store(h, 5)) <= 24
    np.testing.assert_array_equal(ab[0, -1], 1)


def test_band_error_of_ragged_stages(backend: Backend) -> None:
    problem = steering_stages(7, ragged=True)
    check = backend.package.band_error(steering(backend.xp))
    args = inputs(backend, problem)
    band = problem.band
    assert float(check(backend.array(band), *args)) <= ROUNDING * np.finfo(float).eps
    band[0, -1] = 0  # the dummy's diagonal is part of the band
    assert not float(check(backend.array(band), *args)) <= SEEN


def test_newton_finds_the_bandwidth_of_ragged_stages(backend: Backend) -> None:
    """And dummies take part in nothing, however large the other entries are."""
    x = {"q": reals(8, 0).reshape(4, 2), "u": reals(3, 1).reshape(3, 1)}

    def fun(x: Any) -> Any:
        q, u = x["q"], x["u"]
        return 1e6 * (backend.xp.sum((q[1:] - q[:-1] - u) ** 2) + backend.xp.sum((q - 2) ** 2) + backend.xp.sum(u**4))

    given = backend.tree_map(backend.array, x)
    result = backend.package.newton(fun, given, None)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(result.x["q"], np.full((4, 2), 2), atol=1e-4)
    np.testing.assert_allclose(result.x["u"], np.zeros((3, 1)), atol=1e-2)
    assert float(result.value) < 1e-2


# --- The default configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["detect_bandwidth", "reorder_bandwidth", "band_error", "gauss_newton", "newton", "newton detects"]
)
def test_default_configuration_of_jax(case: str) -> None:
    """With x64 off, as JAX comes."""
    outcome = default_session.outcomes()[case]
    assert outcome["error"] is None
    if "bandwidth" in case:
        assert outcome["values"] == 1
    else:
        assert outcome["dtype"] == "float32"
        assert np.all(np.isfinite(outcome["values"]))
