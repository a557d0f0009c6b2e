"""Quadratic functions under quadratic constraints, and the interior-point engine in array operations on them."""

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
