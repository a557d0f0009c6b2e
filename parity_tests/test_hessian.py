"""Bands of Hessians: closed forms, dense oracles, backend against backend, promised costs, transforms, arguments."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    PROBLEMS,
    TREE,
    Problem,
    integers,
    polynomial,
    ravel,
    reals,
    rosenbrock,
    rosenbrock_chain,
    staged_polynomial,
    steering_stages,
    store,
    unique_coefficients,
    unstore_lower,
    window,
    window_chain,
)

problems = pytest.mark.parametrize("problem", PROBLEMS, ids=str)
both_ways = pytest.mark.parametrize("chunk_size", [1, None])

# Rounding: each entry is a sum of some tens of terms of at most the size of the largest entry.
CLOSED_FORM = 64
# Two backends evaluate the same expressions in the same order; their exp and sin may differ in the last bit.
BETWEEN_BACKENDS = 16


def assert_close(actual: np.ndarray, expected: np.ndarray, multiple: float) -> None:
    """Within a multiple of eps (of the actual dtype) of the largest entry."""
    eps = np.finfo(actual.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=0, atol=multiple * eps * np.abs(expected).max(initial=0))


def assert_same_band(problem: Problem, actual: np.ndarray, expected: np.ndarray, multiple: float) -> None:
    assert actual.shape == expected.shape
    if problem.exact:
        np.testing.assert_array_equal(actual, expected)
    else:
        assert_close(actual, expected, multiple)
    unused = np.arange(actual.shape[0])[:, None] + np.arange(actual.shape[1]) >= actual.shape[1]
    np.testing.assert_array_equal(actual[unused], 0)


def inputs(backend: Backend, problem: Problem, dtype: str = "float64") -> tuple:
    x = backend.tree_map(lambda leaf: backend.array(leaf, dtype), problem.x)
    return x, *(backend.array(arg, dtype) for arg in problem.args)


@functools.cache
def band(problem: Problem, name: str) -> np.ndarray:
    backend = BACKENDS[name]
    fun = problem.objective(backend.xp)
    return backend.numpy(backend.package.hessian(fun, problem.bandwidth)(*inputs(backend, problem)))


# --- Right entries in the right places -------------------------------------------------------------------------------


@problems
def test_closed_form(backend: Backend, problem: Problem) -> None:
    assert_same_band(problem, band(problem, backend.name), problem.band, CLOSED_FORM)


@problems
def test_dense_oracle(backend: Backend, problem: Problem) -> None:
    fun = problem.objective(backend.xp)
    x, *args = inputs(backend, problem)
    flat, unravel = backend.package.ravel_stages(x)
    dense = backend.numpy(backend.jit(backend.dense_hessian(lambda flat: fun(unravel(flat), *args)))(flat))
    dense = dense + np.diag(ravel(problem.x)[1].astype(float))  # dummies: unit diagonal
    w = len(problem.band) - 1
    assert_same_band(problem, band(problem, backend.name), store(dense, w), BETWEEN_BACKENDS)
    assert not np.any(np.tril(dense, -w - 1)), "the problem's own bandwidth is wrong"


@problems
def test_backends_agree(problem: Problem) -> None:
    assert_same_band(problem, band(problem, "jax"), band(problem, "torch"), BETWEEN_BACKENDS)


def test_blog_chain(backend: Backend) -> None:
    def fun(x):
        return ((x[1:] - x[:-1]) ** 2).sum() / 2 + x[0] ** 2 / 2 + x[-1] ** 2 / 2

    ab = backend.numpy(backend.package.hessian(fun, 1)(backend.array(np.zeros(12))))
    np.testing.assert_array_equal(ab, [[2] * 12, [-1] * 11 + [0]])


@given(n=st.sampled_from([1, 2, 7]), k=st.sampled_from([0, 1, 3, 9]), wider=st.sampled_from([0, 2]))
def test_any_size_and_bandwidth(backend: Backend, n: int, k: int, wider: int) -> None:
    """A bandwidth that is wider than need be, or than the matrix, gives the same band and zeros below."""
    problem = polynomial(n, k)
    ab = backend.package.hessian(problem.objective(backend.xp), k + wider)(*inputs(backend, problem))
    np.testing.assert_array_equal(backend.numpy(ab), store(problem.hessian, k + wider), strict=True)


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_no_stages(backend: Backend, shape: tuple[int, ...]) -> None:
    d = int(np.prod(shape[1:]))
    x = backend.array(np.zeros(shape))
    value, grad, ab = backend.package.value_grad_hessian(lambda x: backend.xp.sum(x**2), 2)(x)
    assert float(value) == 0
    assert tuple(grad.shape) == shape
    np.testing.assert_array_equal(backend.numpy(ab), np.zeros((3 * d, 0)), strict=True)


def test_wider_than_the_stages(backend: Backend) -> None:
    problem = staged_polynomial("short", integers(6, 0).reshape(3, 2), 2)
    ab = backend.package.hessian(problem.objective(backend.xp), 6)(*inputs(backend, problem))
    np.testing.assert_array_equal(backend.numpy(ab), store(problem.hessian, 13), strict=True)


def test_one_stage_whose_controls_are_all_missing(backend: Backend) -> None:
    x = {"q": backend.array([[1.0, 2.0]]), "u": backend.array(np.zeros((0, 1)))}
    ab = backend.package.hessian(lambda x: backend.xp.sum(x["q"]) ** 2 + backend.xp.sum(x["u"]), 0)(x)
    np.testing.assert_array_equal(ab, [[2, 2, 1], [2, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("degree", [0, 1])
def test_no_curvature(backend: Backend, degree: int) -> None:
    """Constant and linear objectives: their gradients do not depend on x, and autograd must not stumble on that."""
    x = backend.array(integers(5, 0))
    value, grad, ab = backend.package.value_grad_hessian(lambda x: backend.xp.sum(3 * x**0 * x**degree), 1)(x)
    assert float(value) == (15 if degree == 0 else 3 * integers(5, 0).sum())
    np.testing.assert_array_equal(grad, [3 * degree] * 5)
    np.testing.assert_array_equal(ab, np.zeros((2, 5)))


def test_gradient_does_not_depend_on_x(backend: Backend) -> None:
    _, grad, ab = backend.package.value_grad_hessian(lambda x: backend.xp.sum(3 * x), 1)(backend.array(reals(4, 0)))
    np.testing.assert_array_equal(grad, [3] * 4)
    np.testing.assert_array_equal(ab, np.zeros((2, 4)))


@pytest.mark.parametrize("problem", [polynomial(23, 3), window_chain(31, 5), steering_stages(7, ragged=True)], ids=str)
def test_float32(backend: Backend, problem: Problem) -> None:
    value, grad, ab = backend.package.value_grad_hessian(problem.objective(backend.xp), problem.bandwidth)(
        *inputs(backend, problem, "float32")
    )
    for part in [value, *backend.leaves(grad), ab]:
        assert part.dtype == backend.dtype("float32")
    assert_same_band(problem, backend.numpy(ab), problem.band.astype("float32"), CLOSED_FORM)


# --- Value and gradient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [polynomial(14, 1), staged_polynomial("tree", TREE, 1), steering_stages(7, ragged=True)], ids=str
)
def test_value_grad_hessian(backend: Backend, problem: Problem) -> None:
    fun = problem.objective(backend.xp)
    x, *args = inputs(backend, problem)
    value, grad, ab = backend.package.value_grad_hessian(fun, problem.bandwidth)(x, *args)
    assert_close(backend.numpy(value)[None], backend.numpy(backend.jit(fun)(x, *args))[None], 8)
    expected = backend.jit(backend.grad(fun))(x, *args)
    assert type(grad) is type(x)
    assert len(backend.leaves(grad)) == len(backend.leaves(x))
    for leaf, want in zip(backend.leaves(grad), backend.leaves(expected), strict=True):
        assert leaf.shape == want.shape
        assert_close(backend.numpy(leaf), backend.numpy(want), 8)
    np.testing.assert_array_equal(ab, band(problem, backend.name))


# --- Chunks ----------------------------------------------------------------------------------------------------------


EXACT, ROUNDED = staged_polynomial("tree", TREE, 1), window_chain(31, 5)


@pytest.mark.parametrize(
    ("problem", "chunk_size"),
    [*((EXACT, size) for size in (1, 2, 3, 1000, None, "auto")), (ROUNDED, 3), (ROUNDED, None)],
)
def test_chunks_change_nothing(backend: Backend, problem: Problem, chunk_size: int | str | None) -> None:
    fun = problem.objective(backend.xp)
    ab = backend.package.hessian(fun, problem.bandwidth, chunk_size=chunk_size)(*inputs(backend, problem))
    # The compiler may fuse a batched product in another way; nothing else may differ.
    assert_same_band(problem, backend.numpy(ab), problem.band if problem.exact else band(problem, backend.name), 4)


# --- The promised cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(9, 0), (9, 2), (3, 2), (4, 9), (1, 1)])
def test_products(backend: Backend, n: int, k: int) -> None:
    A = unique_coefficients(n, n, 0)
    A = A + A.T
    A[abs(np.arange(n)[:, None] - np.arange(n)) > k] = 0
    products: list = []
    fun = backend.quadratic(A, products)
    ab = backend.package.hessian(fun, k, chunk_size=1)(backend.array(integers(n, 0)))
    np.testing.assert_array_equal(ab, store(A, k))
    assert len(products) == min(2 * k + 1, n)


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_one_evaluation(backend: Backend, chunk_size: int | None) -> None:
    calls: list = []
    problem = window_chain(20, 2)
    fun = backend.tapped(problem.objective(backend.xp), calls)
    backend.package.value_grad_hessian(fun, 2, chunk_size=chunk_size)(*inputs(backend, problem))
    backend.settle()
    assert len(calls) == 1


@both_ways
def test_no_dense_matrix(backend: Backend, chunk_size: int | None) -> None:
    n, w = 1009, 3
    x = backend.array(reals(n, 0))
    fun = window(w)(backend.xp)
    largest = backend.largest_array(backend.package.hessian(fun, w, chunk_size=chunk_size), x)
    probes = 1 if chunk_size == 1 else 2 * w + 1
    # The band itself with its colours rounded up, or a batch of products: both far below n^2.
    assert largest <= max(
        (w + 1) * (n + 2 * w + 1), (2 * w + 1) * (n + 2 * (2 * w + 1)), probes * (n + 2 * (2 * w + 1))
    )
    assert backend.largest_array(backend.dense_hessian(fun), x) >= n * n, "this test could not fail"


def long_constants(text: str, n: int) -> list[str]:
    """Constants of n or more elements that are written out in a lowered program (a splat holds one number)."""
    found = []
    for line in text.splitlines():
        if "stablehlo.constant" in line and ("dense<[" in line or 'dense<"' in line):
            dims = line.rsplit("tensor<", 1)[1].split(">", 1)[0].split("x")[:-1]
            if np.prod([int(dim) for dim in dims]) >= n:
                found.append(line[:80])
    return found


@both_ways
def test_no_constant_of_the_size_of_x_in_the_program(chunk_size: int | None) -> None:
    package = BACKENDS["jax"].package
    T = 1009
    x = {"q": jnp.zeros((T, 2)), "u": jnp.zeros(T - 1)}

    def fun(x):
        return jnp.sum(jnp.sin(x["q"][1:] - x["q"][:-1])) + jnp.sum(x["u"] ** 2)

    text = jax.jit(package.hessian(fun, 1, chunk_size=chunk_size)).lower(x).as_text()
    assert "stablehlo" in text
    assert not long_constants(text, T)
    embedded = jnp.asarray(reals(T, 0))
    assert long_constants(jax.jit(lambda x: x + embedded).lower(embedded).as_text(), T), "this test could not fail"


# --- Transforms ------------------------------------------------------------------------------------------------------


@both_ways
def test_vmap_over_points(backend: Backend, chunk_size: int | None) -> None:
    x = integers(3 * 12, 0).reshape(3, 12)
    hessian = backend.package.hessian(rosenbrock(backend.xp), 1, chunk_size=chunk_size)
    batched = backend.vmap(hessian)(backend.array(x))
    np.testing.assert_array_equal(batched, np.stack([backend.numpy(hessian(backend.array(row))) for row in x]))


def test_vmap_over_an_argument(backend: Backend) -> None:
    hessian = backend.package.hessian(lambda x, a: a * backend.xp.sum((x[1:] * x[:-1]) ** 2), 1)
    x = backend.array(integers(6, 0))
    batched = backend.vmap(hessian, (None, 0))(x, backend.array([1.0, 2.0]))
    np.testing.assert_array_equal(batched[1], backend.numpy(hessian(x, backend.array(2.0))))
    np.testing.assert_array_equal(batched[0] * 2, backend.numpy(batched[1]))


def test_third_derivatives(backend: Backend) -> None:
    """The gradient of a weighted band is that of the weighted dense Hessian, each cell weighing once."""
    problem = rosenbrock_chain(9)
    fun = problem.objective(backend.xp)
    (x,) = inputs(backend, problem)
    weight = unique_coefficients(2, 9, 1)
    weight[1, -1] = 0
    on_band, on_dense = backend.array(weight), backend.array(unstore_lower(weight))
    by_band = backend.grad(lambda x: backend.xp.sum(on_band * backend.package.hessian(fun, 1)(x)))
    by_dense = backend.grad(lambda x: backend.xp.sum(on_dense * backend.dense_hessian(fun)(x)))
    third = backend.numpy(backend.jit(by_band)(x))
    np.testing.assert_array_equal(third, backend.jit(by_dense)(x))
    tangent = integers(9, 2)
    _, along = backend.jvp(backend.package.hessian(fun, 1), (x,), (backend.array(tangent),))
    assert np.sum(weight * backend.numpy(along)) == tangent @ third


def test_gradient_in_another_argument(backend: Backend) -> None:
    x = backend.array(integers(7, 0))
    hessian = backend.package.hessian(lambda x, a: a**3 * backend.xp.sum(x[1:] * x[:-1] ** 2), 1)
    grad = backend.grad(lambda a: backend.xp.sum(hessian(x, a)))(backend.array(2.0))
    assert float(grad) == 3 * 4 * float(backend.xp.sum(hessian(x, backend.array(1.0))))


def test_jit() -> None:
    problem = polynomial(23, 3)
    backend = BACKENDS["jax"]
    hessian = jax.jit(backend.package.hessian(problem.objective(jnp), 3))
    np.testing.assert_array_equal(hessian(*inputs(backend, problem)), problem.band)


def test_torch_autograd_through_the_band() -> None:
    """Plain autograd, without torch.func: x is a leaf that requires grad."""
    x = torch.tensor(integers(6, 0), requires_grad=True)
    package = BACKENDS["torch"].package
    package.hessian(rosenbrock(torch), 1)(x).sum().backward()
    expected = torch.func.grad(lambda x: package.hessian(rosenbrock(torch), 1)(x).sum())(x.detach())
    np.testing.assert_array_equal(x.grad, expected)


def test_new_arguments_do_not_retrace() -> None:
    traces: list = []
    package = BACKENDS["jax"].package

    def fun(x, a):
        traces.append(None)
        return a * jnp.sum(x[1:] ** 2 * x[:-1])

    first = None
    for seed in range(4):
        x, a = jnp.asarray(integers(8, seed)), jnp.asarray(float(seed))
        # New function objects from `hessian` each time: what counts is `fun`.
        ab = package.hessian(fun, 1)(x, a)
        first = first or len(traces)
        np.testing.assert_array_equal(ab[1, :-1], seed * 2 * integers(8, seed)[1:])
    assert len(traces) == first


# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argnums", [0, 1, 2, -1, -2])
def test_argnums(backend: Backend, argnums: int) -> None:
    def fun(x, y, z):
        chains = [backend.xp.sum(c * v[1:] ** 2 * v[:-1]) for c, v in [(1, x), (10, y), (100, z)]]
        return chains[0] + chains[1] + chains[2] + backend.xp.sum(x) * backend.xp.sum(y) * backend.xp.sum(z)

    values = [integers(n, n) for n in (5, 6, 7)]
    args = [backend.array(v) for v in values]
    v, scale = values[argnums], [1.0, 10.0, 100.0][argnums]
    expected = np.zeros((2, len(v)))
    expected[0, 1:] = 2 * scale * v[:-1]
    expected[1, :-1] = 2 * scale * v[1:]
    np.testing.assert_array_equal(backend.package.hessian(fun, 1, argnums=argnums)(*args), expected)


def test_arguments_of_other_kinds(backend: Backend) -> None:
    """Integers, strings, functions, keyword arguments and trees beside x reach `fun` as they are."""

    def fun(power, x, tree, kind, link, *, shift, order=1):
        assert kind == "chain"
        assert type(power) is int
        assert type(order) is int
        v = link(x) + shift
        return backend.xp.sum(v[order:] ** power * v[:-order] * tree["weight"][0]) + 0 * len(tree["name"])

    x, shift = backend.array(integers(6, 0)), backend.array(integers(6, 1))
    tree = {"weight": (backend.array(3.0),), "name": "w"}
    ab = backend.package.hessian(fun, 2, argnums=1)(2, x, tree, "chain", lambda x: 2 * x, shift=shift, order=2)
    v = 2 * integers(6, 0) + integers(6, 1)
    expected = np.zeros((3, 6))
    expected[0, 2:] = 4 * 3 * 2 * v[:-2]
    expected[2, :-2] = 4 * 3 * 2 * v[2:]
    np.testing.assert_array_equal(ab, expected)


def test_integer_array_beside(backend: Backend) -> None:
    order = backend.array([2, 0, 1])
    ab = backend.package.hessian(lambda x, i: backend.xp.sum(x[i] ** 3 * backend.array([1.0, 2, 3])), 0)
    np.testing.assert_array_equal(ab(backend.array([1.0, 1, 1]), order), [[12, 18, 6]])


def test_has_aux(backend: Backend) -> None:
    def fun(x):
        value = backend.xp.sum(x**3)
        return value, {"twice": 2 * value, "count": backend.array(3)}

    x = backend.array([1.0, 2.0])
    ab, aux = backend.package.hessian(fun, 0, has_aux=True)(x)
    np.testing.assert_array_equal(ab, [[6, 12]])
    assert (float(aux["twice"]), int(aux["count"])) == (18, 3)
    (value, aux), grad, ab = backend.package.value_grad_hessian(fun, 0, has_aux=True)(x)
    assert (float(value), float(aux["twice"])) == (9, 18)
    np.testing.assert_array_equal(grad, [3, 12])
    np.testing.assert_array_equal(ab, [[6, 12]])


# --- Functions of all kinds (test_objectives.py: what they may be made of) ------------------------------------------


def test_unhashable_callable(backend: Backend) -> None:
    class Weighted:
        __hash__ = None

        def __init__(self, weight):
            self.weight = weight

        def __call__(self, x):
            return backend.xp.sum(self.weight * x**2)

    x = backend.array(np.zeros(3))
    for weight in (1.0, 2.0):
        np.testing.assert_array_equal(backend.package.hessian(Weighted(weight), 0)(x), [[2 * weight] * 3])


def test_jitted_objective_with_static_arguments() -> None:
    @functools.partial(jax.jit, static_argnums=1)
    def fun(x, order):
        return jnp.sum(x[order:] ** 2 * x[:-order])

    x = integers(5, 0)
    ab = BACKENDS["jax"].package.hessian(lambda x: fun(x, 2), 2)(jnp.asarray(x))
    np.testing.assert_array_equal(ab[2, :3], 2 * x[2:])


@both_ways
def test_loop_with_dynamic_indexing(chunk_size: int | None) -> None:
    def fun(x):
        return jax.lax.fori_loop(1, x.shape[0], lambda i, total: total + x[i] ** 2 * x[i - 1], 0.0)

    x = integers(8, 1)
    ab = BACKENDS["jax"].package.hessian(fun, 1, chunk_size=chunk_size)(jnp.asarray(x))
    np.testing.assert_array_equal(ab, [[0, *2 * x[:-1]], [*2 * x[1:], 0]])


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(backend: Backend) -> None:
    xp, p = backend.xp, backend.package
    x = backend.array(np.ones(4))

    def total(x, *args: Any) -> Any:
        return xp.sum(x)

    def twice(x):
        return xp.sum(x), xp.sum(x)

    for make in (p.hessian, p.value_grad_hessian):

        def call(fun=total, bandwidth=1, args=(x,), make=make, **options):
            return lambda: make(fun, bandwidth, **options)(*args)

        bad = [
            (TypeError, "fun must be a function, got str", call("energy")),
            (TypeError, r"fun must return a real scalar.*\(4,\)", call(lambda x: x)),
            (TypeError, r"fun must return a real scalar.*\(1,\)", call(lambda x: x[:1])),
            (TypeError, "fun must return a real scalar.*int", call(lambda x: backend.array(3))),
            (TypeError, "fun must return a real scalar.*complex", call(lambda x: xp.sum(x) * 1j)),
            (TypeError, "fun must return a scalar.*NoneType", call(lambda x: None)),
            (TypeError, "fun must return a scalar.*tuple", call(twice)),
            (TypeError, r"fun must return \(value, aux\)", call(has_aux=True)),
            (ValueError, "bandwidth must be an int >= 0, got -1", call(bandwidth=-1)),
            (TypeError, "bandwidth must be an int >= 0, got 1.0", call(bandwidth=1.0)),
            (TypeError, "bandwidth must be an int >= 0, got True", call(bandwidth=True)),
            (TypeError, r"argnums must be one int, got \(0, 1\)", call(argnums=(0, 1))),
            (TypeError, "argnums must be one int, got None", call(argnums=None)),
            (ValueError, r"argument 1 .*argnums", call(argnums=1)),
            (ValueError, r"argument -2 .*argnums", call(argnums=-2)),
            (ValueError, r"argument 0 .*argnums", call(args=())),
            (ValueError, "probing must be one of", call(probing="fft")),
            (ValueError, "chunk_size must be an int >= 1", call(chunk_size=0)),
            (TypeError, "chunk_size must be an int >= 1", call(chunk_size="many")),
            (TypeError, "argument 0 must have a real floating dtype, got .*int", call(args=(backend.array([1, 2]),))),
            (TypeError, "argument 0 must have a real floating dtype.*complex", call(args=(backend.array([1j]),))),
            (ValueError, "every leaf of argument 0 needs a leading stage axis", call(args=(backend.array(1.0),))),
            (ValueError, "argument 0 must share a leading", call(args=([x, backend.array(np.ones(2))],))),
            (TypeError, "argument 1 must have a real floating dtype", call(args=(x, backend.array([1])), argnums=1)),
            (TypeError, "argument 0 must be a", call(args=(1.0,))),
        ]
        for error, message, attempt in bad:
            with pytest.raises(error, match=message):
                attempt()


@pytest.mark.parametrize("maker", ["hessian", "value_grad_hessian", "band_error"])
def test_wrong_options_raise_before_the_function_is_called(backend: Backend, maker: str) -> None:
    make = getattr(backend.package, maker)
    options = {} if maker == "band_error" else {"bandwidth": 1}
    with pytest.raises(TypeError, match="argnums must be one int"):
        make(lambda x: x, **options, argnums=(0,))
