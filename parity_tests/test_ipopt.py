"""What cyipopt is given, by its documented interface: structures and values are those of dense derivatives."""

import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bandhess_jax as bj
from bandhess_jax import ipopt

START = {"q": jnp.linspace(0.1, 1, 10).reshape(5, 2), "u": jnp.linspace(-1, 1, 4)}


def fun(x: dict, p: Any) -> Any:
    return jnp.sum(jnp.cosh(x["q"])) + jnp.sum(x["u"] ** 4) + p * jnp.sum(x["q"][1:, 0] * x["q"][:-1, 1])


def motion(x: dict, p: Any) -> Any:
    q, u = x["q"], x["u"]
    return {"step": q[1:, 0] - q[:-1, 0] - q[:-1, 1] * u, "end": q[-1:, 1] ** 2 - p}


def room(x: dict, p: Any) -> Any:
    return 2 - x["q"][:, 0] ** 2


LOWER = {"q": None, "u": -0.5}


@pytest.fixture(scope="module")
def given() -> ipopt.BandedProblem:
    return ipopt.problem(fun, motion, START, 1, args=(0.5,), inequalities=room, bounds=(LOWER, None))


def lagrangian(x: Any, sigma: Any, y: Any, unravel: Any) -> tuple[Any, Any]:
    tree = unravel(x)
    c = motion(tree, 0.5)
    h = jnp.concatenate([*jax.tree.leaves(c), room(tree, 0.5)])
    return sigma * fun(tree, 0.5) + y @ h, h


def test_structures_and_values(given: ipopt.BandedProblem) -> None:
    n, m = given.n, given.m
    assert (n, m) == (15, 4 + 1 + 5)
    x, y = np.random.default_rng(0).uniform(0.2, 1, n), np.random.default_rng(1).normal(size=m)

    @jax.jit
    def known(x: Any, sigma: Any, y: Any) -> tuple:
        of = lambda x: lagrangian(x, sigma, y, given.unravel)  # noqa: E731
        return *of(x), jax.grad(lambda x: fun(given.unravel(x), 0.5))(x), *jax.jacobian(
            lambda x: (of(x)[1], jax.grad(lambda x: of(x)[0])(x)))(x)  # fmt: skip

    value, h, gradient, jacobian, hessian = known(x, 0.5, y)
    value = (value - y @ h) / 0.5
    np.testing.assert_allclose(given.objective(x), value, rtol=1e-13)
    np.testing.assert_allclose(given.constraints(x), h, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(given.gradient(x), gradient, rtol=1e-12, atol=1e-14)
    dense, (rows, columns) = np.zeros((m, n)), given.jacobianstructure()
    dense[rows, columns] = given.jacobian(x)
    np.testing.assert_allclose(dense, jacobian, rtol=1e-12, atol=1e-14)
    dense, (rows, columns) = np.zeros((n, n)), given.hessianstructure()
    assert (rows >= columns).all()
    assert len({*zip(rows, columns, strict=True)}) == len(rows)
    dense[rows, columns] = given.hessian(x, y, 0.5)
    dummy = n - 1  # of the ragged leaf: the band has a 1 there
    lower = np.delete(np.tril(hessian), dummy, 0)
    np.testing.assert_allclose(np.delete(dense, dummy, 0), lower, rtol=1e-12, atol=1e-13)


def test_bounds(given: ipopt.BandedProblem) -> None:
    assert given.unravel(given.lb)["u"].tolist() == [-0.5] * 4
    assert np.isneginf(given.unravel(given.lb)["q"]).all()
    assert (given.lb[-1], given.ub[-1]) == (0, 0)  # the dummy
    np.testing.assert_array_equal(given.cu, [0] * 5 + [np.inf] * 5)
    np.testing.assert_array_equal(given.cl, 0)
    jax.tree.map(np.testing.assert_array_equal, given.unravel(jnp.asarray(given.x0)), START)


def test_what_is_wrong(given: ipopt.BandedProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="float64"):
        ipopt.problem(fun, None, jax.tree.map(lambda a: a.astype(jnp.float32), START), 1, args=(0.5,))
    narrow = ipopt.problem(lambda x: jnp.sum(x[2:] * x[:-2]), None, jnp.ones(6), 1)
    with pytest.raises(ValueError, match="outside the band"):
        narrow.hessian(np.ones(6), np.zeros(0), 1.0)
    monkeypatch.setitem(sys.modules, "cyipopt", None)
    with pytest.raises(ImportError, match=r"bandhess\[ipopt\]"):
        given.solve()


def test_solve(given: ipopt.BandedProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for cyipopt, which checks the calls and returns what `sqp` finds: a point where the
    conditions of first order hold in the numbers that IPOPT is given."""
    known = bj.sqp(fun, motion, START, 1, args=(0.5,), inequalities=room, bounds=(LOWER, None))
    flat = bj.ravel_stages(known.x)[0]
    said = []

    class Problem:
        def __init__(self, n: int, m: int, problem_obj: Any, lb: Any, ub: Any, cl: Any, cu: Any) -> None:
            said.append((n, m, len(lb), len(ub), len(cl), len(cu)))
            self.callbacks = problem_obj

        def add_option(self, name: str, value: Any) -> None:
            said.append((name, value))

        def solve(self, x0: np.ndarray) -> tuple:
            x, of = np.asarray(flat), self.callbacks
            y = np.concatenate([*map(np.ravel, jax.tree.leaves(known.multipliers)), -known.inequality_multipliers])
            J, (rows, columns) = np.zeros((of.m, of.n)), of.jacobianstructure()
            J[rows, columns] = of.jacobian(x)
            lower = bj.ravel_stages(known.bound_multipliers[0])[0]
            np.testing.assert_allclose(of.gradient(x) + y @ J - lower, 0, atol=1e-6)
            assert np.abs(of.constraints(x)[:5]).max() < 1e-6
            return x, {"status": 0}

    monkeypatch.setitem(sys.modules, "cyipopt", SimpleNamespace(Problem=Problem))
    x, info = given.solve(tol=1e-9)
    assert said == [(15, 10, 15, 15, 10, 10), ("tol", 1e-9)]
    assert info == {"status": 0}
    assert jax.tree.structure(x) == jax.tree.structure(START)
