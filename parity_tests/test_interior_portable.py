"""The interior-point engine in array operations, with NumPy's, JAX's and PyTorch's: ends, optimality, warm starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy_operations
import pytest
import torch

from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.problem import problem as problem_of
from bandhess_common.status import Status
from bandhess_jax.optimise.sqp import ops as jax_operations
from bandhess_torch.optimise.sqp import ops as torch_operations

INF = np.inf


class Quadratics(NamedTuple):
    """f and h = (c, g), each c + b . x + x . A x / 2; the bounds and a start."""

    A: np.ndarray  # (1 + r, n, n)
    b: np.ndarray  # (1 + r, n)
    c: np.ndarray  # (1 + r,)
    m: int
    lower: np.ndarray
    upper: np.ndarray
    x0: np.ndarray
    w: int  # of the band; row i begins at first[i]
    first: np.ndarray

    def values(self, x: np.ndarray) -> tuple:
        v = self.c + self.b @ x + np.einsum("rij,i,j->r", self.A, x, x) / 2
        return v[0], v[1:]

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        weights, J = np.concatenate([[sigma], y]), self.b + self.A @ x
        W, (n, L) = np.tensordot(weights, self.A, 1), (len(x), min(self.w + 1, len(x)))
        band = np.full((self.w + 1, n), 7.0)  # unused cells hold anything
        for d in range(min(self.w + 1, n)):
            band[d, : n - d] = np.diagonal(W, -d)
        rows = np.stack([J[1 + i, a : a + L] for i, a in enumerate(self.first)]) if len(y) else np.zeros((0, L))
        return *self.values(x), weights @ J, rows, band, 0.0


def quadratics(n: int, f: tuple, c: list, g: list, lower: Any = -INF, upper: Any = INF, x0: Any = 0.0) -> Quadratics:
    """Each function is (constant, {i: b_i}, {(i, j): A_ij})."""
    A, b, constant = np.zeros((1 + len(c + g), n, n)), np.zeros((1 + len(c + g), n)), np.zeros(1 + len(c + g))
    for k, (value, linear, square) in enumerate([f, *c, *g]):
        constant[k] = value
        for i, v in linear.items():
            b[k, i] = v
        for (i, j), v in square.items():
            A[k, i, j] = A[k, j, i] = v
    box = [np.array(np.broadcast_to(np.asarray(v, float), n)) for v in (lower, upper, x0)]
    return Quadratics(A, b, constant, len(c), *box, n - 1, np.zeros(len(c + g), np.int32))


def squares(*v: float) -> dict:
    return {(i, i): a for i, a in enumerate(v)}


WIDE = (9.0, {}, squares(-2, -2, -2, -2))  # 9 - |x|^2
SUM = (-1.0, {0: 1, 1: 1}, {})
CASES = {  # of one shape, so that JAX compiles once
    "active": quadratics(4, (0, {0: -4, 1: 2, 2: -2, 3: -1}, squares(2, 2, 2, 2)), [SUM, (0, {2: 1}, {(3, 3): -2})],
                         [(1.5, {}, squares(-2, -2, -2, -2))], [0, -INF, -INF, 0.4], [INF, 0.3, INF, INF]),
    "fixed": quadratics(4, (0, {0: -4}, squares(2, 2, 2, 2)), [SUM, (0, {2: 1, 3: -1}, {})], [WIDE],
                        [-INF, 0.25, -INF, -INF], [INF, 0.25, INF, INF]),
    "saddle": quadratics(4, (0, {}, squares(-2, -4, 2, 2)), [(-1, {}, squares(2, 2, 0, 0)), (0, {2: 1, 3: -1}, {})],
                         [WIDE], x0=[1, 0, 0, 0]),
    "dependent": quadratics(4, (0, {}, squares(2, 2, 2, 2)), [SUM, SUM], [WIDE]),
    "infeasible": quadratics(4, (0, {0: 1}, {}), [(1, {}, squares(2)), SUM], [WIDE], x0=1.0),
    "unbounded": quadratics(4, (0, {}, squares(0, 0, 0, -2)), [SUM, (-1, {2: 1}, {})], [(1, {0: 1}, {})], x0=1.0),
    "nonfinite": quadratics(4, (np.nan, {}, {}), [SUM, SUM], [WIDE]),
}  # fmt: skip
ENDS = {
    "active": Status.CONVERGED, "fixed": Status.CONVERGED, "saddle": Status.CONVERGED,
    "dependent": Status.RANK_DEFICIENT, "infeasible": Status.INFEASIBLE, "unbounded": Status.UNBOUNDED,
    "nonfinite": Status.NONFINITE,
}  # fmt: skip


def chain(n: int = 30) -> Quadratics:
    """Neighbours x[i] x[i + 1] = 1 + i / n, window by window, and x[i] <= 1.5 for every third."""
    c = [(-1 - i / n, {}, {(i, i + 1): 1.0}) for i in range(n - 1)]
    g = [(1.5, {i: -1.0}, {}) for i in range(0, n, 3)]
    p = quadratics(n, (0, {}, squares(*np.ones(n))), c, g, x0=1.0)
    return p._replace(w=2, first=np.minimum([*range(n - 1), *range(0, n, 3)], n - 3).astype(np.int32))


class Backend(NamedTuple):
    ops: Any
    array: Callable[[Any], Any]
    wrap: Callable = lambda fun: fun


BACKENDS = {
    "numpy": Backend(numpy_operations, np.asarray),
    "jax": Backend(jax_operations, jnp.asarray, jax.jit),
    "torch": Backend(torch_operations, torch.as_tensor),
}
backends = pytest.mark.parametrize("name", BACKENDS)


@cache
def engine(name: str) -> tuple:
    b = BACKENDS[name]
    return b.wrap(partial(loop.begin, b.ops)), b.wrap(partial(loop.trial, b.ops))


def setup(name: str, p: Quadratics, dtype: Any, tol: float | None, max_steps: int) -> tuple:
    to = lambda a: BACKENDS[name].array(np.asarray(a, dtype))  # noqa: E731
    fixed = p.lower == p.upper
    limits = (np.finfo(dtype).eps ** 0.5 if tol is None else tol, max_steps)
    first = BACKENDS[name].array(p.first)
    return to, problem_of(BACKENDS[name].ops, to(p.lower), to(p.upper), to(fixed), first, p.m, limits, p.w + 1)


def run(
    name: str, p: Quadratics, dtype: Any = np.float64, given: Any = None, narrow: int = 0, tol: float | None = None,
    max_steps: int = 200, kind: int = state.WARM,
) -> state.State:  # fmt: skip
    """The last state; given, a solution to start from, and `kind` of this start."""
    to, problem = setup(name, p, dtype, tol, max_steps)
    kind = state.ESTIMATED if given is None else kind
    zero = to(np.zeros(len(p.x0)))
    blank = state.Solution(to(p.x0), to(np.zeros(len(p.first))), zero, zero, to(0.0))
    begin, trial = engine(name)
    s = loop.start(BACKENDS[name].ops, problem, (given or blank).x, kind, given or blank)
    with np.errstate(all="ignore"):
        while s.request != state.DONE:
            x = np.asarray(s.x_request, float)
            if s.request == state.DERIVATIVES:
                parts = p.derivatives(x, float(s.sigma), np.asarray(s.y_request, float))
                s = begin(problem, s, state.Derivatives(*map(to, (*parts[:-1], narrow))))
            else:
                s = trial(problem, s, state.Values(*map(to, p.values(x))))
    return s


def optimality(p: Quadratics, s: state.State) -> float:
    """The largest error of the conditions of Karush, Kuhn and Tucker, from the solution's own numbers."""
    x, y, low, up = (np.asarray(a, float) for a in s.solution[:4])
    _, h = p.values(x)
    J = p.b + p.A @ x
    free = p.lower < p.upper
    grad = (J[0] + y @ J[1:] - low + up)[free]
    c, g = h[: p.m], h[p.m :]
    feasible = [c, np.minimum(g, 0), np.minimum(x - p.lower, 0), np.minimum(p.upper - x, 0)]
    products = [y[p.m :] * g, (low * np.where(low > 0, x - p.lower, 0)), up * np.where(up > 0, p.upper - x, 0)]
    signs = [np.maximum(y[p.m :], 0), np.minimum(low, 0), np.minimum(up, 0)]
    return max(np.max(np.abs(v), initial=0) for v in (grad, *feasible, *products, *signs))


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


@backends
def test_float32(name: str) -> None:
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


def test_a_batch_ends_as_its_problems_do() -> None:
    """One program, vmapped: lanes that have ended wait for the others."""
    cases = ["active", "saddle", "dependent", "infeasible"]
    problems = [CASES[case] for case in cases]
    stacked = [jnp.stack([jnp.asarray(getattr(p, field)) for p in problems]) for field in ("A", "b", "c")]
    kits = [setup("jax", p, np.float64, 1e-8, 200)[1] for p in problems]

    def solve(problem: state.Problem, A: jax.Array, b: jax.Array, c: jax.Array, x0: jax.Array) -> state.State:
        ops = jax_operations
        zero = jnp.zeros(4)
        given = state.Solution(zero, jnp.zeros(3), zero, zero, jnp.zeros(()))

        def values(x: jax.Array) -> tuple:
            v = c + b @ x + jnp.einsum("rij,i,j->r", A, x, x) / 2
            return v[0], v[1:]

        def turn(s: state.State) -> state.State:
            weights, J = jnp.concatenate([s.sigma[None], s.y_request]), b + A @ s.x_request
            W = jnp.tensordot(weights, A, 1)
            band = jnp.stack([jnp.pad(jnp.diagonal(W, -d), (0, d)) for d in range(4)])
            f, h = values(s.x_request)
            s = loop.begin(ops, problem, s, state.Derivatives(f, h, weights @ J, J[1:], band, jnp.zeros(())))
            return loop.trial(ops, problem, s, state.Values(*values(s.x_request)))

        start = loop.start(ops, problem, x0, state.ESTIMATED, given)
        return ops.while_loop(lambda s: s.request != state.DONE, turn, start)

    batch = jax.tree.map(lambda *a: jnp.stack(a), *kits)
    ends = jax.jit(jax.vmap(solve))(batch, *stacked, jnp.stack([jnp.asarray(p.x0) for p in problems]))
    assert [Status(int(v)) for v in ends.status] == [ENDS[case] for case in cases]
    for i, p in enumerate(problems):
        alone = run("numpy", p, tol=1e-8)
        assert abs(int(ends.steps[i]) - int(alone.steps)) <= 1
        if cases[i] == "infeasible":  # other variables may end anywhere
            continue
        # The saddle may be left to either side.
        np.testing.assert_allclose(abs(ends.solution.x[i]), abs(alone.solution.x), atol=1e-5)
