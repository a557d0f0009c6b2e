"""Small problems, each the head of a kind on which interior-point methods or SQP fail: started at saddles, rows of odd
sizes or nearly dependent, points from which steps creep. One program a backend: all are its coefficients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from backends import BACKENDS, Backend

INF = np.inf
N = 3


class Small(NamedTuple):
    """x (3,) from `start`. Every function is constant + linear . x + x . square x / 2, of the objective plus wells
    sum (x_i^2 - 1)^2, of the first row plus wave sin 3 x_0 + touch (x_0 - 1)^2. Row i of the equalities that is not
    wanted is s_i = 0, of a further variable that nothing else reads."""

    start: list
    optimum: float | None
    objective: tuple = (0.0, [0.0] * N, np.zeros((N, N)))
    rows: tuple = ()  # at most 3
    inequalities: tuple = ()  # at most 2
    wells: float = 0.0
    wave: float = 0.0
    touch: float = 0.0
    lower: Any = -INF
    upper: Any = INF
    status: str = "CONVERGED"


def diagonal(*entries: float) -> np.ndarray:
    return np.diag([*entries, *[0.0] * (N - len(entries))])


def near(*point: float, weight: float = 1.0) -> tuple:
    """weight |x - point|^2."""
    goal = np.array([*point, *[0.0] * (N - len(point))])
    return weight * goal @ goal, -2 * weight * goal, 2 * weight * np.eye(N)


def row(constant: float, *linear: float, square: Any = ()) -> tuple:
    return constant, [*linear, *[0.0] * (N - len(linear))], diagonal(*square)


SQUARES = tuple(row(-1, square=2 * np.eye(N)[i]) for i in range(N))
CROSS = np.zeros((N, N))
CROSS[0, 1] = CROSS[1, 0] = 1
CIRCLE = row(-2, square=(2, 2))
DISC = row(0.05 - 0.5, 0.2, -0.4, square=(2, 2))  # |x - (-.1, .2)|^2 - .5
FLAT = (0.0, [0.0] * N, 2 * np.eye(N))

CASES = {
    "squares from 0": Small([0] * 3, 12, near(3, 3, 3), SQUARES),
    "squares from nearly 0": Small([1e-12] * 3, 12, near(3, 3, 3), SQUARES),
    "a saddle": Small([1, 1, 0], 0, (0.0, [0.0] * N, CROSS + diagonal(0, 0, 2)), (row(-2, 1, 1),), lower=0, upper=4),
    "wells": Small([0] * 3, 0, wells=1, lower=-5, upper=5),
    "outside a disc": Small([-3.4, -1.6, 0], 0, near(2.1, 1.5), inequalities=(DISC,)),
    "a wave in bounds": Small(
        [-2.6, -0.9, 0], 0.04248531, near(0.8, 1.3), (CIRCLE,), wave=0.3, lower=[0, -0.6, -INF]
    ),
    "a wave": Small([-2.9, -1.9, 0], None, near(0.3, 0), (CIRCLE,), wave=0.3),
    **{
        f"a row times {s:g}": Small([0] * 3, 2 / 3, FLAT, (row(-1, 1, 1), row(-s, 0, s, s)))
        for s in (1e-8, 1e-4, 1e4, 1e8)
    },
    **{
        f"rows apart by {e:g}": Small([0] * 3, 0.5, FLAT, (row(-1, 1, 1), row(-1 - e / 2, 1, 1 + e)))
        for e in (1e-6, 1e-7)
    },
    "a squared row": Small([0] * 3, 1.5, FLAT, (row(0), row(-1, 0, 1, 1)), touch=1),
    "a large row": Small([0] * 3, 1, FLAT, (row(-1e8, 1e8),)),
    "a gap under a large objective": Small(
        [0] * 3, None, near(weight=1e16), inequalities=(row(-2, 1), row(1, -1)), status="INFEASIBLE"
    ),
    "a circle that is empty": Small(
        [1, 1, 0], None, row(0, 1), (row(1, square=(2, 2)),), status="INFEASIBLE"
    ),
}  # fmt: skip


def packed(functions: tuple, count: int, unused: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constants, linear parts and squares of `count` functions, those not given constant."""
    functions += (row(unused),) * (count - len(functions))
    return tuple(np.array(part, float) for part in zip(*functions, strict=True))


@functools.cache
def functions(name: str) -> tuple[Callable, Callable, Callable]:
    xp = BACKENDS[name].xp

    def values(x: Any, c: tuple) -> Any:
        constant, linear, square = c
        return constant + linear @ x + (square @ x) @ x / 2

    def cost(z: Any, objective: tuple, rows: tuple, used: Any, inequalities: tuple, curves: Any) -> Any:
        x = z[:N]
        return values(x, objective)[0] + curves[0] * xp.sum((x**2 - 1) ** 2) + xp.sum(z[N:] ** 2)

    def equalities(z: Any, objective: tuple, rows: tuple, used: Any, inequalities: tuple, curves: Any) -> Any:
        first = curves[1] * xp.sin(3 * z[0]) + curves[2] * (z[0] - 1) ** 2
        return values(z[:N], rows) + curves[3:] * first + (1 - used) * z[N:]

    def above(z: Any, objective: tuple, rows: tuple, used: Any, inequalities: tuple, curves: Any) -> Any:
        return values(z[:N], inequalities)

    return cost, equalities, above


def solve(backend: Backend, p: Small) -> Any:
    def both(bound: Any, none: float) -> Any:
        return backend.array(np.concatenate([np.broadcast_to(np.array(bound, float), N), np.full(3, none)]))

    arrays = [packed((p.objective,), 1, 0.0), packed(p.rows, 3, 0.0), (np.arange(3) < len(p.rows)).astype(float)]
    arrays += [packed(p.inequalities, 2, 1.0), np.array([p.wells, p.wave, p.touch, 1, 0, 0])]
    args = tuple(backend.tree_map(backend.array, a) for a in arrays)
    cost, equalities, above = functions(backend.name)
    return backend.package.sqp(
        cost, equalities, backend.array([*map(float, p.start), 0, 0, 0]), 5, args=args, inequalities=above,
        bounds=(both(p.lower, -INF), both(p.upper, INF)), max_steps=500,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_small(backend: Backend, case: str) -> None:
    p = CASES[case]
    result = solve(backend, p)
    assert result.status.name == p.status
    assert result.steps <= (200 if p.status == "INFEASIBLE" else 55)  # a squared row: x - 1 halves
    rounding = 4 * np.finfo("float64").eps * max((np.abs(linear).max() for _, linear, _ in p.rows), default=0.0)
    assert (float(result.constraint_norm) <= 1e-8 + rounding) == (p.status == "CONVERGED")
    if p.optimum is not None:
        np.testing.assert_allclose(float(result.value), p.optimum, rtol=1e-6, atol=1e-6)
