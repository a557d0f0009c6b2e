"""Within JAX's ecosystem: lineax, optimistix, optax, and programs that are exported."""

from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest

import bandhess_jax as bj
from bandhess_jax.lineax import BandedCholesky, BandedLinearOperator, BandedLU
from bandhess_jax.optimistix import BandedNewton

N = 7
RNG = np.random.default_rng(0)
AB = jnp.asarray(RNG.normal(size=(3, N))).at[0].add(6.0)
GENERAL = jnp.asarray(RNG.normal(size=(4, N)))
B = jnp.asarray(RNG.normal(size=N))
DEFINITE = lx.positive_semidefinite_tag


def definite(ab: Any) -> BandedLinearOperator:
    return BandedLinearOperator(ab, DEFINITE)


def general(ab: Any) -> BandedLinearOperator:
    return BandedLinearOperator(ab, l_and_u=(2, 1))


def dense_general(ab: Any) -> np.ndarray:
    A = np.zeros((N, N))
    for i in range(N):
        for j in range(max(0, i - 2), min(N, i + 2)):
            A[i, j] = ab[1 + i - j, j]
    return A


@pytest.mark.parametrize(("operator", "dense"), [
    (definite(AB), np.asarray(bj.to_dense(AB))), (general(GENERAL), dense_general(GENERAL)),
], ids=["symmetric", "general"])  # fmt: skip
def test_an_operator_is_its_matrix(operator: BandedLinearOperator, dense: np.ndarray) -> None:
    np.testing.assert_array_equal(operator.as_matrix(), dense)
    np.testing.assert_array_equal(operator.T.as_matrix(), dense.T)
    np.testing.assert_allclose(operator.mv(B), dense @ B, rtol=1e-12)
    np.testing.assert_array_equal(lx.diagonal(operator), np.diag(dense))
    for found, offset in zip(lx.tridiagonal(operator), (0, -1, 1), strict=True):
        np.testing.assert_array_equal(found, np.diag(dense, offset))
    np.testing.assert_array_equal(lx.materialise(lx.linearise(lx.conj(operator))).as_matrix(), dense)
    np.testing.assert_allclose((2.0 * operator + operator).mv(B), 3 * dense @ B, rtol=1e-12)
    assert operator.in_structure() == operator.out_structure() == jax.ShapeDtypeStruct((N,), jnp.float64)


def test_what_an_operator_says_of_itself() -> None:
    assert lx.is_symmetric(definite(AB))
    assert lx.is_positive_semidefinite(definite(AB))
    assert not lx.is_symmetric(general(GENERAL))
    assert not lx.is_positive_semidefinite(BandedLinearOperator(AB))
    assert lx.is_diagonal(BandedLinearOperator(AB[:1]))
    assert not lx.is_diagonal(definite(AB))
    assert lx.is_tridiagonal(BandedLinearOperator(AB[:2]))
    assert not lx.is_tridiagonal(definite(AB))
    lower = BandedLinearOperator(GENERAL[:2], lx.unit_diagonal_tag, l_and_u=(1, 0))
    assert lx.is_lower_triangular(lower)
    assert lx.is_upper_triangular(lower.T)
    assert not lx.is_upper_triangular(lower)
    assert lx.has_unit_diagonal(lower.T)
    with pytest.raises(ValueError, match=r"l \+ u \+ 1 = 4"):
        BandedLinearOperator(AB, l_and_u=(2, 1))


def by_cholesky(ab: Any, b: Any) -> Any:
    return lx.linear_solve(definite(ab), b, BandedCholesky()).value


def by_lu(ab: Any, b: Any) -> Any:
    return lx.linear_solve(general(ab), b, BandedLU()).value


@pytest.mark.parametrize(("solve", "operator", "ab"), [(by_cholesky, definite, AB), (by_lu, general, GENERAL)])
def test_solvers(solve: Any, operator: Any, ab: Any) -> None:
    """Values and gradients, in jit, are those of the dense solve."""

    def loss(solve: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda ab, b: jnp.sum(solve(ab, b) ** 3), (0, 1)))(ab, B)

    found = loss(solve)
    expected = loss(lambda ab, b: jnp.linalg.solve(operator(ab).as_matrix(), b))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), found, expected)


def test_failures_are_results() -> None:
    bad = lx.linear_solve(definite(-AB), B, BandedCholesky(), throw=False)
    assert bad.result == lx.RESULTS.singular
    fine = lx.linear_solve(BandedLinearOperator(-AB, lx.negative_semidefinite_tag), B, BandedCholesky())
    np.testing.assert_allclose(fine.value, -by_cholesky(AB, B), rtol=1e-12)
    singular = lx.linear_solve(BandedLinearOperator(0 * GENERAL, l_and_u=(2, 1)), B, BandedLU(), throw=False)
    assert singular.result == lx.RESULTS.singular
    with pytest.raises(ValueError, match="tagged definite"):
        lx.linear_solve(BandedLinearOperator(AB), B, BandedCholesky())
    other = lx.MatrixLinearOperator(jnp.eye(N), DEFINITE)
    for solver, text in ((BandedCholesky(), "needs the bandwidth"), (BandedLU(), "needs lower and upper")):
        with pytest.raises(ValueError, match=text):
            lx.linear_solve(other, B, solver)


def test_other_operators_are_read_by_products() -> None:
    """Trees of stages as well; a LU's transpose; optimistix' root finding, whose Jacobian has three diagonals."""
    products = []

    def counted(x: Any) -> Any:
        products.append(None)
        return bj.matvec(AB, x)

    operator = lx.FunctionLinearOperator(counted, jax.ShapeDtypeStruct((N,), jnp.float64), DEFINITE)
    state = BandedCholesky(2).init(operator, {})
    np.testing.assert_allclose(BandedCholesky(2).compute(state, B, {})[0], by_cholesky(AB, B), rtol=1e-12)
    solver = BandedLU(2, 1)
    state = solver.init(lx.MatrixLinearOperator(general(GENERAL).as_matrix()), {})
    np.testing.assert_allclose(solver.compute(state, B, {})[0], by_lu(GENERAL, B), rtol=1e-12)
    transposed = solver.compute(solver.transpose(state, {})[0], B, {})[0]
    np.testing.assert_allclose(transposed, np.linalg.solve(dense_general(GENERAL).T, B), rtol=1e-7)

    def residual(y: Any, args: Any) -> Any:
        q, u = y["q"], y["u"]
        return {"q": q**3 + 3 * q - jnp.pad(u[1:], (0, 1)) - args, "u": 2 * u - jnp.pad(q[:-1], (1, 0))}

    newton = optx.Newton(1e-10, 1e-10, linear_solver=BandedLU(1, 1))
    y = optx.root_find(residual, newton, {"q": jnp.zeros(N), "u": jnp.zeros(N)}, B).value
    assert max(jnp.abs(part).max() for part in jax.tree.leaves(residual(y, B))) < 1e-12


def cost(y: Any, target: Any) -> Any:
    q, u = y["q"], y["u"]
    return jnp.sum((q[1:] - q[:-1] - u) ** 2) + jnp.sum(jnp.cosh(q - target)) + jnp.sum(u**4 + u**2)


START = {"q": jnp.zeros((6, 2)), "u": jnp.zeros((5, 2))}


def test_banded_newton_of_optimistix() -> None:
    """As newton, step by step; derivatives by the banded adjoint."""
    adjoint = optx.ImplicitAdjoint(linear_solver=BandedCholesky(1))

    def solve(target: Any) -> Any:
        found = optx.minimise(cost, BandedNewton(1), START, target, adjoint=adjoint, tags=frozenset({DEFINITE}))
        return jnp.sum(found.value["q"] ** 2), found

    def newton(target: Any) -> Any:
        found = bj.newton(cost, START, 1, args=(target,))
        return jnp.sum(found.x["q"] ** 2), found

    (_, found), gradient = jax.value_and_grad(solve, has_aux=True)(2.0)
    (_, expected), known = jax.jit(jax.value_and_grad(newton, has_aux=True))(2.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found.value, expected.x)
    assert found.stats["accepted_steps"] == expected.steps
    assert found.stats["status"] == bj.Status.CONVERGED
    np.testing.assert_allclose(found.stats["grad_norm"], expected.grad_norm, atol=1e-14)
    np.testing.assert_allclose(gradient, known, rtol=1e-8)
    assert found.result == optx.RESULTS.successful


def valley(y: Any, args: Any) -> Any:
    wide, tilt = args
    return jnp.sum((y[1:] - y[:-1] ** 2) ** 2 * 100 + (1 - y[:-1]) ** 2) + wide * (y[2:] @ y[:-2]) + tilt * jnp.sum(y)


@pytest.mark.parametrize(("wide", "tilt", "status", "result"), [
    (1.0, 0.0, "BAND_TOO_NARROW", optx.RESULTS.nonlinear_divergence),
    (0.0, np.nan, "NONFINITE", optx.RESULTS.nonfinite),
    (0.0, 0.0, "MAX_STEPS", optx.RESULTS.nonlinear_max_steps_reached),
])  # fmt: skip
def test_statuses_are_results(wide: float, tilt: float, status: str, result: Any) -> None:
    args = jnp.asarray([wide, tilt])
    found = optx.minimise(valley, BandedNewton(1), jnp.linspace(-1.0, 0, 6), args, max_steps=3, throw=False)
    assert found.result == result
    assert found.stats["status"] == bj.Status[status]


def test_optax() -> None:
    """Chained with a line search, from where the Hessian is indefinite to the minimum that newton finds."""
    optax = pytest.importorskip("optax")
    from bandhess_jax.optax import banded_newton, scale_by_banded_newton

    def fun(y: Any) -> Any:
        return cost(y, 2.0) - 3 * jnp.sum(jnp.exp(-(y["q"] ** 2)))

    solver, y = banded_newton(1), START
    state = solver.init(y)

    @jax.jit
    def step(y: Any, state: Any) -> Any:
        value, grad = jax.value_and_grad(fun)(y)
        updates, state = solver.update(grad, state, y, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(y, updates), state

    shifts = []
    for _ in range(12):
        y, state = step(y, state)
        shifts.append(float(state[0].shift))
    expected = bj.newton(fun, y, 1)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(jax.grad(fun)(y))) < 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), y, expected.x)
    assert shifts[-1] == 0
    concave = scale_by_banded_newton(0)
    direction, state = concave.update(B, concave.init(B), B, value_fn=lambda x: -jnp.sum(x**2))
    assert state.shift > 2
    np.testing.assert_allclose(direction, B / (state.shift - 2), rtol=1e-12)
    with pytest.raises(ValueError, match="value_fn"):
        concave.update(B, state, B)


def through_bytes(fun: Callable, *args: Any) -> Callable:
    """fun as `jax.export` makes it of portable programs, written and read again: no custom call of ours is left."""
    with bj.portable():
        exported = jax.export.export(jax.jit(fun))(*args)
    assert "@bandhess" not in exported.mlir_module()
    return jax.export.deserialize(exported.serialize()).call


def test_exported_programs() -> None:
    """A program with newton inside, and its derivative."""

    def fun(x: Any, target: Any) -> Any:
        return jnp.sum((x[1:] - x[:-1]) ** 2 + jnp.cosh(x[1:] - target)) + x[0] ** 2

    def least(target: Any) -> Any:
        result = bj.newton(fun, jnp.zeros(5), 1, args=(target,))
        return result.value, {"x": result.x, "status": result.status}

    def both(target: Any) -> Any:
        (value, found), slope = jax.value_and_grad(least, has_aux=True)(target)
        return found | {"value": value, "slope": slope, "solve": bj.solve(AB, B * target)}

    exported = through_bytes(both, jax.ShapeDtypeStruct((), jnp.float64))
    found, expected = exported(jnp.float64(2.0)), jax.jit(both)(jnp.float64(2.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)
    assert found["status"] == bj.Status.CONVERGED
    with pytest.raises(ValueError, match="custom call"):
        jax.export.export(jax.jit(both))(jax.ShapeDtypeStruct((), jnp.float64))


def test_an_exported_result() -> None:
    """Of sqp, whole, as docs/how-to/compile.md has it."""
    name = "bandhess_jax.SQPResult"
    jax.export.register_namedtuple_serialization(bj.SQPResult, serialized_name=name)

    def held(target: Any) -> bj.SQPResult:
        return bj.sqp(lambda x: jnp.sum((x - target) ** 2) / 2, lambda x: x[:1] - 1, jnp.zeros(3), 0)

    result = through_bytes(held, B[:3])(B[:3])
    assert isinstance(result, bj.SQPResult)
    assert result.status == bj.Status.CONVERGED
    np.testing.assert_allclose(result.x, [1, *B[1:3]], atol=1e-9)
    np.testing.assert_allclose(result.multipliers, B[:1] - 1, atol=1e-9)  # L = f + y (x0 - 1)
