"""Derivatives of `sqp`'s solution where active rows depend on each other, so that x is unique and multipliers are not.

A rate r_t per stage, tied to the next one, is at its upper bound in every stage; the last state is at a curved limit
that stands there twice. Oracles: the dense conditions with pseudo-inverses, and differences of solutions.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import torch
from backends import BACKENDS, Backend

T = 24
STEP = 4 / T
DATA = np.linspace(0.2, 2.4, T)
P = np.array([1.1, 0.4, 2.0, 0.0, 0.0])  # of the data, the rates' bound, the limit; of one bound and one limit alone
ROOM = {"bounded": np.inf, "fixed": 0.0}  # of the rates, below their bound
TOGETHER, ALONE = slice(3), slice(3, 5)
TIES = slice(T - 1, 2 * T - 2)  # in the multipliers


@functools.cache
def functions(name: str) -> tuple:
    xp, data = BACKENDS[name].xp, BACKENDS[name].array(DATA)

    def cost(x: Any, p: Any) -> Any:
        return ((x[:, 0] - p[0] * data) ** 2).sum() + 0.15 * ((x[:, 1] - 2) ** 2).sum() + (x[:, 2] ** 2).sum()

    def equalities(x: Any, p: Any) -> Any:
        s, r = x[:, 0], x[:, 1]
        return xp.concatenate([s[1:] - s[:-1] - STEP * (0.1 * xp.sin(s[:-1]) + r[:-1] + x[:-1, 2]), r[1:] - r[:-1]])

    def inequalities(x: Any, p: Any) -> Any:
        limit = p[2] - x[-1, 0] - 0.1 * x[-1, 0] ** 2
        return xp.stack([limit, 3 * limit + p[4], x[-1, 0] + 1])

    return cost, equalities, inequalities


def upper(backend: Backend, p: Any) -> Any:
    """Bounds of x: p[1] of the rates, p[3] more in stage 2, and none of the rest."""
    one = backend.array(np.eye(T)[2])
    return backend.xp.stack([np.inf + 0 * one, p[1] + p[3] * one, np.inf + 0 * one], 1)


def solve(backend: Backend, p: Any, room: Any = np.inf) -> Any:
    none = backend.array(np.full(T, -np.inf))
    high = upper(backend, p)
    bounds = backend.xp.stack([none, high[:, 1] - room, none], 1), high
    cost, equalities, inequalities = functions(backend.name)
    start = backend.array(np.stack([DATA, 0.3 + 0 * DATA, 0 * DATA], 1))
    return backend.package.sqp(
        cost, equalities, start, 1, args=(p,), inequalities=inequalities, bounds=bounds, tol=1e-11
    )


def outcome(backend: Backend, p: Any, room: Any) -> Any:
    """x, the value, multipliers of the equalities, the inequalities and the rates' bounds, in one vector."""
    r = solve(backend, p, room)
    parts = r.x.reshape(-1), r.value[None], r.multipliers, r.inequality_multipliers, r.bound_multipliers[1][:, 1]
    return backend.xp.concatenate(parts)


SIZES = {"x": 3 * T, "value": 1, "y": 2 * T - 2, "z": 3, "z_upper": T}
PARTS = dict(zip(SIZES, np.split(np.arange(sum(SIZES.values())), np.cumsum(list(SIZES.values()))[:-1]), strict=True))
MULTIPLIERS = np.concatenate([PARTS["y"], PARTS["z"], PARTS["z_upper"]])


@functools.cache
def program(name: str, mode: str) -> Any:
    """The outcome, or its Jacobian forward or in reverse, as a function of p and the room below."""
    backend = BACKENDS[name]
    fun = functools.partial(outcome, backend)
    of = jax if name == "jax" else torch.func
    return backend.jit({"outcome": fun, "forward": of.jacfwd(fun), "reverse": of.jacrev(fun)}[mode])


@functools.cache
def found(name: str, mode: str, rates: str = "bounded") -> np.ndarray:
    backend = BACKENDS[name]
    return backend.numpy(program(name, mode)(backend.array(P), backend.array(ROOM[rates])))


@functools.cache
def differences(name: str, rates: str = "bounded") -> np.ndarray:
    """Of the outcome, by p where dependent rows move together."""
    backend, h = BACKENDS[name], 1e-5
    at = lambda p: backend.numpy(program(name, "outcome")(backend.array(p), backend.array(ROOM[rates])))  # noqa: E731
    return np.stack([(at(P + h * e) - at(P - h * e)) / (2 * h) for e in np.eye(5)[TOGETHER]], 1)


@functools.cache
def dense() -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of x and one choice of the active rows' multipliers, by p; and which of these are not unique."""
    cost, equalities, inequalities = functions("jax")
    v, p = jnp.asarray(found("jax", "outcome")), jnp.asarray(P)
    x = v[PARTS["x"]]

    def active(x: Any, p: Any) -> Any:
        c, g = equalities(x.reshape(T, 3), p), inequalities(x.reshape(T, 3), p)[:2]
        return jnp.concatenate([c, -g, x.reshape(T, 3)[:, 1] - upper(BACKENDS["jax"], p)[:, 1]])

    w = jnp.concatenate([v[PARTS["y"]], v[PARTS["z"]][:2], v[PARTS["z_upper"]]])
    lagrangian = lambda x, p: cost(x.reshape(T, 3), p) + w @ active(x, p)  # noqa: E731
    W, J = jax.hessian(lagrangian)(x, p), jax.jacfwd(active)(x, p)
    n, m = len(x), len(w)
    K = np.block([[np.asarray(W), np.asarray(J).T], [np.asarray(J), np.zeros((m, m))]])
    right = np.concatenate([jax.jacfwd(jax.grad(lagrangian), 1)(x, p), jax.jacfwd(active, 1)(x, p)])
    moved = -np.linalg.pinv(K, rcond=1e-9) @ right
    null = scipy.linalg.null_space(np.asarray(J).T, rcond=1e-9)
    assert null.shape[1] == T  # of T bounds and T - 1 ties T rates need T rows; of two limits one
    np.testing.assert_allclose((K @ moved + right)[:, TOGETHER], 0, atol=1e-8)
    assert np.abs((K @ moved + right)[:, ALONE]).max(0).min() > 0.1  # no x moves with one of them alone
    loose = np.abs(null).max(1) > 1e-9
    return moved[:n], np.insert(loose, 2 * T, False)  # the third inequality's is 0


def test_the_problem_is_what_it_says(backend: Backend) -> None:
    result = solve(backend, backend.array(P))
    assert result.status == backend.package.Status.CONVERGED
    x = backend.numpy(result.x)
    np.testing.assert_allclose(x[:, 1], P[1], rtol=1e-9)
    np.testing.assert_allclose(x[-1, 0] + 0.1 * x[-1, 0] ** 2, P[2], rtol=1e-9)
    assert backend.numpy(result.bound_multipliers[1])[:, 1].min() > 0.01
    assert backend.numpy(result.inequality_multipliers)[:2].min() > 0.01
    np.testing.assert_array_equal(dense()[1], [False] * (T - 1) + [True] * (T + 1) + [False] + [True] * T)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_x_and_value_have_derivatives(backend: Backend, mode: str) -> None:
    """Where the rows that depend on each other move together; in reverse with those of multipliers in one pass."""
    jacobian = found(backend.name, mode)[:, TOGETHER]
    np.testing.assert_allclose(jacobian[PARTS["x"]], dense()[0][:, TOGETHER], rtol=1e-6, atol=1e-7)
    for part in ("x", "value"):
        np.testing.assert_allclose(jacobian[PARTS[part]], differences(backend.name)[PARTS[part]], rtol=1e-5, atol=1e-5)
    assert np.abs(jacobian[PARTS["x"]]).max(0).min() > 0.1


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_multipliers_have_derivatives_where_they_are_unique(backend: Backend, mode: str) -> None:
    loose = dense()[1]
    jacobian = found(backend.name, mode)[MULTIPLIERS][:, TOGETHER]
    assert np.isnan(jacobian[loose]).all()
    expected = differences(backend.name)[MULTIPLIERS]
    np.testing.assert_allclose(jacobian[~loose], expected[~loose], rtol=1e-4, atol=1e-4)
    assert np.abs(expected[~loose]).max() > 0.1


def test_x_has_none_where_one_row_moves_alone(backend: Backend) -> None:
    """It follows the tighter bound, and no other."""
    assert np.isnan(found(backend.name, "forward")[PARTS["x"]][:, ALONE]).all()


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_rates_that_bounds_fix(backend: Backend, mode: str) -> None:
    """Ties between fixed rates are rows of nothing: any multipliers will do. All else is as if there were no ties."""
    jacobian, expected = found(backend.name, mode, "fixed")[:, TOGETHER], differences(backend.name, "fixed")
    np.testing.assert_allclose(jacobian[PARTS["x"]], dense()[0][:, TOGETHER], rtol=1e-6, atol=1e-7)
    for rows in (PARTS["x"], PARTS["value"], PARTS["y"][: T - 1]):
        np.testing.assert_allclose(jacobian[rows], expected[rows], rtol=1e-4, atol=1e-4)
    assert np.isnan(jacobian[PARTS["y"]][TIES]).all()


def test_a_sum_of_multipliers_that_is_unique(backend: Backend) -> None:
    """All that presses on the rates, and both limits' share: against differences."""

    def total(p: Any) -> Any:
        result = solve(backend, p)
        z = result.inequality_multipliers
        return result.bound_multipliers[1].sum() + z[0] + 3 * z[1]

    slope = backend.numpy(backend.grad(total)(backend.array(P)))[TOGETHER]
    weights = np.concatenate([np.zeros(2 * T - 2), [1, 3, 0], np.ones(T)])
    expected = weights @ differences(backend.name)[MULTIPLIERS]
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).min() > 0.1


def test_second_derivatives_of_x(backend: Backend) -> None:
    """Of the first state, against differences of the first derivatives."""
    first, direction, h = (lambda p: solve(backend, p).x[0, 0]), np.array([1.0, -2, 0.5, 0, 0]), 1e-4
    slope = backend.jit(backend.grad(first))
    ahead, behind = (backend.numpy(slope(backend.array(P + s * direction)))[TOGETHER] for s in (h, -h))
    expected = (ahead - behind) / (2 * h)
    twice = backend.jit(lambda p, along: backend.jvp(slope, (p,), (along,))[1])
    found = backend.numpy(twice(backend.array(P), backend.array(direction)))[TOGETHER]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.01
