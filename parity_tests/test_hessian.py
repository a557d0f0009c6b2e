"""Bands of Hessians: closed forms, dense oracles, backend against backend, value and gradient, chunks."""

import numpy as np
import pytest
from backends import Backend
from chains import window_chain
from hessian_cases import BETWEEN_BACKENDS, CLOSED_FORM, assert_close, assert_same_band, band, inputs
from hypothesis import given
from hypothesis import strategies as st
from oracles import Problem, integers, ravel, reals, store
from problems import PROBLEMS, TREE, polynomial, staged_polynomial, steering_stages

problems = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


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
    np.testing.assert_array_equal(backend.numpy(ab), [[2, 2, 1], [2, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("degree", [0, 1])
def test_no_curvature(backend: Backend, degree: int) -> None:
    """Constant and linear objectives: their gradients do not depend on x, and autograd must not stumble on that."""
    x = backend.array(integers(5, 0))
    value, grad, ab = backend.package.value_grad_hessian(lambda x: backend.xp.sum(3 * x**0 * x**degree), 1)(x)
    assert float(value) == (15 if degree == 0 else 3 * integers(5, 0).sum())
    np.testing.assert_array_equal(backend.numpy(grad), [3 * degree] * 5)
    np.testing.assert_array_equal(backend.numpy(ab), np.zeros((2, 5)))


def test_gradient_does_not_depend_on_x(backend: Backend) -> None:
    _, grad, ab = backend.package.value_grad_hessian(lambda x: backend.xp.sum(3 * x), 1)(backend.array(reals(4, 0)))
    np.testing.assert_array_equal(backend.numpy(grad), [3] * 4)
    np.testing.assert_array_equal(backend.numpy(ab), np.zeros((2, 4)))


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
    np.testing.assert_array_equal(backend.numpy(ab), band(problem, backend.name))


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
