"""The interior-point engine in array operations, with NumPy's, JAX's and PyTorch's: ends, optimality, warm starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interior_quadratics import (
    BACKENDS,
    CASES,
    ENDS,
    Quadratics,
    backends,
    chain,
    optimality,
    quadratics,
    run,
    setup,
    squares,
)

from bandhess_common.interior_point import loop, state
from bandhess_common.status import Status
from bandhess_jax.optimise.sqp import ops as jax_operations


@backends
@pytest.mark.parametrize("case", CASES)
def test_ends(name: str, case: str) -> None:
    s = run(name, CASES[case], tol=1e-8)
    assert Status(int(s.status)) is ENDS[case]
    if ENDS[case] is Status.CONVERGED:
        assert optimality(CASES[case], s) < 2e-7
        assert float(s.report.grad_norm) < 1e-6
        assert float(s.report.violation) <= 1e-8
    if case == "saddle":
        np.testing.assert_allclose(abs(np.asarray(s.solution.x)), [0, 1, 0, 0], atol=1e-6)
    if case == "fixed":
        np.testing.assert_allclose(np.asarray(s.solution.x), [0.75, 0.25, 0, 0], atol=1e-7)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_rows_on_windows(name: str) -> None:
    s = run(name, chain(), tol=1e-8)
    assert Status(int(s.status)) is Status.CONVERGED
    assert optimality(chain(), s) < 1e-7


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_float32(name: str) -> None:
    """JAX's are the lanes of a batch, below."""
    s = run(name, CASES["active"], np.float32)
    assert Status(int(s.status)) is Status.CONVERGED
    assert optimality(CASES["active"], s) < 2e-3
    assert {np.asarray(a).dtype for a in (*s.report, *s.solution)} == {np.dtype(np.float32)}


@backends
def test_a_solution_starts_at_its_own_end(name: str) -> None:
    first = run(name, CASES["active"], tol=1e-8)
    again = run(name, CASES["active"], tol=1e-8, given=first.solution)
    assert Status(int(again.status)) is Status.CONVERGED
    assert int(again.steps) <= 1


def test_a_near_problem_takes_few_steps() -> None:
    first = run("numpy", CASES["active"], tol=1e-8)
    near = CASES["active"]._replace(b=CASES["active"].b * (1 + 1e-3))
    warm, cold = run("numpy", near, tol=1e-8, given=first.solution), run("numpy", near, tol=1e-8)
    assert Status(int(warm.status)) is Status.CONVERGED
    assert int(warm.steps) <= 6 < int(cold.steps)
    np.testing.assert_allclose(warm.solution.x, cold.solution.x, atol=1e-6)


def test_multipliers_may_be_given() -> None:
    """The third request, the first after the scales, is made with them."""
    p = CASES["fixed"]
    first = run("numpy", p, tol=1e-8)
    asked: list = []
    again = run("numpy", Asked(p, asked), tol=1e-8, given=first.solution, kind=state.GIVEN)
    np.testing.assert_allclose(asked[2], first.solution.y, atol=1e-12)
    np.testing.assert_allclose(again.solution.x, first.solution.x, atol=1e-7)


@backends
def test_a_narrow_band_ends_the_run(name: str) -> None:
    s = run(name, CASES["active"], narrow=2)
    assert (Status(int(s.status)), float(s.narrow), int(s.steps)) == (Status.BAND_TOO_NARROW, 2, 0)


def test_steps_are_limited() -> None:
    s = run("numpy", CASES["active"], max_steps=3)
    assert (Status(int(s.status)), int(s.steps)) == (Status.MAX_STEPS, 3)


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_programs_and_numpy_take_the_same_steps(name: str) -> None:
    ours, other = (run(b, CASES["active"], tol=1e-8) for b in (name, "numpy"))
    assert int(ours.steps) == int(other.steps)
    for a, b in zip(ours.solution, other.solution, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-6, atol=1e-8)


class Asked(NamedTuple):
    """A problem that notes with which multipliers derivatives are asked for."""

    p: Quadratics
    asked: list

    def __getattr__(self, name: str) -> Any:
        return getattr(self.p, name)

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        self.asked.append(y / sigma)
        return self.p.derivatives(x, sigma, y)


class Wall(NamedTuple):
    """A problem whose derivatives are NaN beyond x[0] = wall, though its values are finite."""

    p: Quadratics
    wall: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.p, name)

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        parts = self.p.derivatives(x, sigma, y)
        return parts if x[0] <= self.wall else (*parts[:2], parts[2] * np.nan, *parts[3:])


def test_a_step_to_where_derivatives_are_not_finite_is_halved() -> None:
    p = quadratics(1, (0, {0: -1.0}, squares(1.0)), [], [], x0=0.0)  # the full step leads to 1
    s = run("numpy", Wall(p, 0.6), max_steps=1)
    np.testing.assert_allclose(s.solution.x, 0.5)
    assert float(s.report.fraction) == 0.5


def test_gram_and_windows() -> None:
    """Against dense matrices, for all libraries."""
    rng = np.random.default_rng(0)
    n, r, L = 9, 5, 3
    first, rows, weights = rng.integers(0, n - L + 1, r).astype(np.int32), rng.standard_normal((r, L)), rng.random(r)
    J = np.zeros((r, n))
    for i, a in enumerate(first):
        J[i, a : a + L] = rows[i]
    H = J.T @ (weights[:, None] * J)
    expected = np.stack([np.pad(np.diagonal(H, -d), (0, d)) for d in range(L)])
    v = rng.standard_normal(n)
    for b in BACKENDS.values():
        to = b.array
        got = b.ops.gram(to(rows), to(first), to(weights), to(np.zeros((L, n))))
        np.testing.assert_allclose(np.asarray(got), expected, atol=1e-14)
        pushed = (to(rows) * b.ops.windows(to(v), to(first), L)).sum(1)
        np.testing.assert_allclose(np.asarray(pushed), J @ v, atol=1e-14)
        pulled = b.ops.add_windows(to(rows) * to(weights)[:, None], to(first), n)
        np.testing.assert_allclose(np.asarray(pulled), J.T @ weights, atol=1e-14)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_windows_come_with_the_derivatives(name: str) -> None:
    """Rows of two neighbours fit two windows of three: told in either, in turn, the state goes the same way."""
    p, ops = chain(), BACKENDS[name].ops
    to, problem = setup(name, p, np.float64, 1e-8, 200)
    n, r = len(p.x0), len(p.first)
    zero = to(np.zeros(n))
    given = state.Solution(to(p.x0), to(np.zeros(r)), zero, zero, to(0.0))
    ends = []
    for moves in (False, True):
        s, begins = loop.start(ops, problem, given.x, state.ESTIMATED, given), 0
        while s.request != state.DONE:
            x = np.asarray(s.x_request)
            if s.request == state.VALUES:
                s = loop.trial(ops, problem, s, state.Values(*map(to, p.values(x))))
                continue
            back = moves & (p.first > 0) & (p.first < n - 3) & (np.arange(r) % 2 == begins % 2)
            now = p._replace(first=(p.first - back).astype(np.int32))
            at = now.derivatives(x, float(s.sigma), np.asarray(s.y_request))
            s = loop.begin(ops, problem, s, state.Derivatives(*map(to, at), BACKENDS[name].array(now.first)))
            begins += 1
        assert begins > 4
        ends.append(s)
    assert Status(int(ends[0].status)) is Status.CONVERGED
    assert int(ends[0].steps) == int(ends[1].steps)
    np.testing.assert_allclose(*(np.asarray(s.solution.x) for s in ends), rtol=1e-12)


def test_a_batch_ends_as_its_problems_do() -> None:
    """One program, vmapped, in float32: lanes that have ended wait for the others."""
    cases = ["active", "saddle", "dependent", "infeasible"]
    problems = [CASES[case] for case in cases]
    stacked = [jnp.asarray(np.stack([getattr(p, field) for p in problems]), "float32") for field in ("A", "b", "c")]
    kits = [setup("jax", p, np.float32, None, 200)[1] for p in problems]

    def solve(problem: state.Problem, A: jax.Array, b: jax.Array, c: jax.Array, x0: jax.Array) -> state.State:
        ops = jax_operations
        zero = 0 * x0
        given = state.Solution(zero, zero[:3], zero, zero, zero[0])

        def values(x: jax.Array) -> tuple:
            v = c + b @ x + jnp.einsum("rij,i,j->r", A, x, x) / 2
            return v[0], v[1:]

        def turn(s: state.State) -> state.State:
            weights, J = jnp.concatenate([s.sigma[None], s.y_request]), b + A @ s.x_request
            W = jnp.tensordot(weights, A, 1)
            band = jnp.stack([jnp.pad(jnp.diagonal(W, -d), (0, d)) for d in range(4)])
            f, h = values(s.x_request)
            s = loop.begin(ops, problem, s, state.Derivatives(f, h, weights @ J, J[1:], band, 0 * f))
            return loop.trial(ops, problem, s, state.Values(*values(s.x_request)))

        start = loop.start(ops, problem, x0, state.ESTIMATED, given)
        return ops.while_loop(lambda s: s.request != state.DONE, turn, start)

    batch = jax.tree.map(lambda *a: np.stack(a), *kits)
    starts = jnp.asarray(np.stack([p.x0 for p in problems]), "float32")
    ends = jax.tree.map(np.asarray, jax.jit(jax.vmap(solve))(batch, *stacked, starts))
    assert [Status(int(v)) for v in ends.status] == [ENDS[case] for case in cases]
    assert {a.dtype for a in (*ends.report, *ends.solution)} == {np.dtype(np.float32)}
    for i, p in enumerate(problems):
        if cases[i] == "infeasible":  # its other variables may end anywhere, after as many steps as rounding makes
            continue
        alone = run("numpy", p, np.float32)
        assert abs(int(ends.steps[i]) - int(alone.steps)) <= 1
        # The saddle may be left to either side.
        np.testing.assert_allclose(abs(ends.solution.x[i]), abs(alone.solution.x), atol=1e-3)
        if ENDS[cases[i]] is Status.CONVERGED:
            assert optimality(p, jax.tree.map(lambda a, i=i: a[i], ends)) < 2e-3
