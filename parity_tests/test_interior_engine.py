"""The compiled interior-point engine through ctypes: small problems whose solutions are known, and its ends."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from interior_driver import Engine, banded, cut, solve
from interior_problems import chain, circle, linear, none, problem, square
from numpy_operations import hashed as noise

import bandhess_jax
from bandhess_common.interior_point.constants import constants, constants_of_engine
from bandhess_common.kernels.interior import REGISTERS, VALUES, Layout, words
from bandhess_common.status import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")

INF = np.inf
EPS = {"float64": 1e-8, "float32": 3e-4}
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


@dtypes
def test_bounds(dtype: str) -> None:
    """Multipliers have the signs of L = f + y . h - z_l (x - lower) - z_u (upper - x)."""
    p = problem(square([1, 2, 4], [-1, 3, 0.5]), none, [0, 0, 0], lower=[0, -INF, 0], upper=[INF, 2, 1])
    end = solve(p, dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.CONVERGED
    np.testing.assert_allclose(end.x, [0, 2, 0.5], atol=30 * EPS[dtype])
    np.testing.assert_allclose(end.z_lower, [1, 0, 0], atol=100 * EPS[dtype])
    np.testing.assert_allclose(end.z_upper, [0, 2, 0], atol=100 * EPS[dtype])


@dtypes
@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_equalities_and_inequalities(dtype: str, scale: float) -> None:
    """x + y = 1, x >= 0.75 as a row: y is -3/4 of the equality's, and unscaled whatever the rows' scale."""
    p = problem(square([1, 1], [0, 0]), linear([[scale, scale], [scale, 0]], [scale, 0.75 * scale]), [0, 0], m=1)
    end = solve(p, dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.CONVERGED
    np.testing.assert_allclose(end.x, [0.75, 0.25], atol=30 * EPS[dtype])
    np.testing.assert_allclose(end.y * scale, [-0.25, -0.5], atol=100 * EPS[dtype])


@dtypes
def test_chain(dtype: str) -> None:
    """A pendulum with bounded torque: KKT conditions in the original functions, and a warm start's one step."""
    p = chain(20, 2.0)
    end = solve(p, dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.CONVERGED
    _, h, g, _, _ = p.derivatives(end.x.astype(float), 1.0, end.y.astype(float))
    assert np.abs(h).max() < EPS[dtype]
    assert np.abs(g - end.z_lower + end.z_upper).max() < 100 * EPS[dtype]
    assert end.z_lower.min() >= 0
    assert end.z_upper.min() >= 0
    assert end.z_upper.max() > 0.01  # the bound matters
    assert [row["steps"] for row in end.history] == list(range(end.steps + 1))
    assert end.history[0]["step"] == 0
    again = solve(p, dtype=dtype, tol=EPS[dtype], warm=end)
    assert again.status is Status.CONVERGED
    assert again.steps <= 1


def test_warm_start_after_a_small_change() -> None:
    end = solve(chain(20, 2.0))
    moved = chain(20, 2.01)
    cold, warm = solve(moved), solve(moved, warm=end)
    assert cold.status is warm.status is Status.CONVERGED
    assert warm.registers["value"] == pytest.approx(cold.registers["value"], abs=1e-6)
    assert warm.steps < cold.steps


def test_given_multipliers() -> None:
    p = problem(square([1, 1], [0, 0]), circle, [0.8, 0.9], m=1)
    end = solve(p)
    assert solve(p, y=end.y, x0=end.x).steps == 0


def test_fixed_variables() -> None:
    """Held at `lower`; they have no multiplier, and derivatives with respect to them count nowhere."""
    p = problem(
        square([1, 1, 1], [0, 0, 0]), linear([[1, 1, 1]], [6]), [0, 0, 0], m=1,
        lower=[-INF, 2, -INF], upper=[INF, 2, INF], fixed=[0, 1, 0],
    )  # fmt: skip
    end = solve(p)
    assert end.status is Status.CONVERGED
    np.testing.assert_allclose(end.x, [2, 2, 2], atol=1e-8)
    assert end.x[1] == 2
    assert end.z_lower[1] == end.z_upper[1] == 0


@dtypes
def test_saddles_are_left(dtype: str) -> None:
    def f(x: np.ndarray) -> tuple:
        return -(x[0] ** 2) - 2 * x[1] ** 2, [-2 * x[0], -4 * x[1]], np.diag([-2, -4])

    end = solve(problem(f, circle, [1, 0], m=1), dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.CONVERGED
    assert end.registers["value"] == pytest.approx(-2, abs=10 * EPS[dtype])


@dtypes
def test_infeasible(dtype: str) -> None:
    p = problem(square([1], [0]), linear([[1], [-1]], [2, -1]), [0], m=0)  # x >= 2 and x <= 1
    assert solve(p, dtype=dtype, tol=EPS[dtype]).status is Status.INFEASIBLE

    def apart(x: np.ndarray) -> tuple:
        return [x @ x + 1], [2 * x], [2 * np.eye(2)]

    end = solve(problem(square([1, 1], [2, 0]), apart, [1, 1], m=1), dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.INFEASIBLE
    np.testing.assert_allclose(end.x, 0, atol=1e-3)
    assert [row["steps"] for row in end.history] == list(range(end.steps + 1))


def test_restoration_comes_back() -> None:
    """Wächter and Biegler's example from either side, and with a bound beyond which its solution lies.
    (-1, 0, 0) is the least of the violation nearby: many starts on that side end there, as IPOPT's do."""

    def h(x: np.ndarray) -> tuple:
        one = np.diag([2.0, 0, 0])
        return [x[0] ** 2 - x[1] - 1, x[0] - x[2] - 0.5], [[2 * x[0], -1, 0], [1, 0, -1]], [one, 0 * one]

    p = problem(lambda x: (x[0], [1, 0, 0], np.zeros((3, 3))), h, [-2, 3, 1], m=2, lower=[-INF, 0, 0])
    assert solve(p._replace(upper=[0, INF, INF])).status is Status.INFEASIBLE
    for start in ([0.5, 3, 1], [-1, 3, 1]):
        end = solve(p, x0=start)
        assert end.status is Status.CONVERGED
        np.testing.assert_allclose(end.x, [1, 0, 0.5], atol=1e-6)


@dtypes
def test_dependent_rows(dtype: str) -> None:
    twice = linear([[1, 1, 0], [2, 2, 0], [0, 1, 1]], [1, 2, 1])
    end = solve(problem(square([1, 1, 1], [0, 0, 0]), twice, [0, 0, 0], m=3), dtype=dtype, tol=EPS[dtype])
    assert end.status is Status.RANK_DEFICIENT
    np.testing.assert_allclose(end.x, [1 / 3, 2 / 3, 1 / 3], atol=10 * EPS[dtype])


def test_unbounded() -> None:
    p = problem(lambda x: (-x @ x, -2 * x, -2 * np.eye(2)), none, [1, 1])
    assert solve(p).status is Status.UNBOUNDED


def test_what_is_not_finite() -> None:
    def f(x: np.ndarray) -> tuple:  # -log(x) + x, undefined left of 0
        return x[0] - np.log(x[0]), [1 - 1 / x[0]], [[1 / x[0] ** 2]]

    assert solve(problem(f, none, [-1])).status is Status.NONFINITE
    end = solve(problem(f, none, [30]))  # the first full step leads to a negative number
    assert end.status is Status.CONVERGED
    np.testing.assert_allclose(end.x, 1, atol=1e-7)

    def wall(x: np.ndarray) -> tuple:  # finite values, but no derivatives beyond 2
        g = 2 * (x[0] - 3) if x[0] < 2 else np.nan
        return (x[0] - 3) ** 2, [g], [[2.0]]

    end = solve(problem(wall, none, [0]))
    assert end.status in (Status.NONFINITE, Status.STALLED, Status.PRECISION_FLOOR)
    assert 0 < end.x[0] < 2  # the last point with finite derivatives


def test_other_ends() -> None:
    p = chain(10, 4.0)
    assert solve(p, narrow=2).status is Status.BAND_TOO_NARROW
    assert solve(p, narrow=2).registers["narrow"] == 2
    end = solve(p, max_steps=2)
    assert end.status is Status.MAX_STEPS
    assert end.steps == 2


def test_a_call_that_was_not_asked_for() -> None:
    """Changes nothing but `fresh`: a lane of a batch may have ended, or want something else."""
    p = problem(square([1, 2], [1, 1]), circle, [0.5, 0.5], m=1)
    engine = Engine(2, 1, 1, 2)
    zeros = [np.zeros(k) for k in (2, 1, 2, 2)]
    bounds = [np.full(2, -INF), np.full(2, INF), np.zeros(2)]
    engine.start([*bounds, p.x0, *zeros[1:]], np.zeros(1, np.int32), [1e-8, 100, 0, 0])
    before = engine.state.copy()
    engine.trial(np.nan, [np.nan])
    np.testing.assert_array_equal(engine.state, before)
    assert engine.register("request") == 1


def test_layout_is_checked() -> None:
    engine = Engine(4, 1, 1, 2)
    engine.state = engine.state[:-1].copy()
    with pytest.raises(ValueError, match="operand 9 must be"):
        engine.start(
            [np.zeros(4)] * 4 + [np.zeros(1), np.zeros(4), np.zeros(4)], np.zeros(1, np.int32), [1e-8, 1, 0, 0]
        )
    engine = Engine(4, 1, 1, 2)
    vectors = [np.zeros(4)] * 4 + [np.zeros(1), np.zeros(4), np.zeros(4)]
    derivatives = [0.0, np.zeros(1), np.zeros(4), np.zeros((1, 2)), np.zeros((2, 4))]
    for first in (-1, 3):
        engine.start(vectors, np.array([first], np.int32), [1e-8, 1, 0, 0])
        before = engine.state.copy()
        with pytest.raises(ValueError, match="bandhess_interior_begin: a row's window"):
            engine.begin(*derivatives)
        np.testing.assert_array_equal(engine.state, before)
    engine.start(vectors, np.array([2], np.int32), [1e-8, 1, 0, 0])
    derivatives[-1] = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"operand 6 must have at most 2 rows, .*, got \(3, 4\) of float64"):
        engine.begin(*derivatives)
    derivatives[-1] = np.zeros((1, 4))  # diagonals that hold nothing may be left out
    engine.begin(*derivatives)


@pytest.mark.parametrize("early", [0, 1])
def test_windows_come_with_the_derivatives(early: int) -> None:
    """Rows of x[1] alone fit the columns from 0 on as well as those from 1 on: told so in turn, nothing changes."""

    def rows(x: np.ndarray) -> tuple:
        return [x[1] ** 2 - 2, 3 - x[1]], [[0, 2 * x[1], 0], [0, -1, 0]], [np.diag([0, 2, 0]), np.zeros((3, 3))]

    p = problem(square([1, 1, 1], [0, 3, 1]), rows, [1, 1, 1], m=1)
    ends = []
    for moves in (False, True):
        engine, begins = Engine(3, 2, 1, 2), 0
        zeros = [np.zeros(k) for k in (3, 2, 3, 3)]
        engine.start([np.full(3, -INF), np.full(3, INF), zeros[0], p.x0, *zeros[1:]], zeros[1], [1e-8, 100, 0, 0])
        while engine.register("request"):
            x = engine.vector("x_request")
            if engine.register("request") == VALUES:
                engine.trial(*p.values(x))
                continue
            f, h, g, W, J = p.derivatives(x, engine.register("sigma"), engine.vector("y_request"))
            engine.first = np.array([begins + early, begins + 1 - early], np.int32) % 2 * moves
            engine.begin(f, h, g, cut(J, engine.first, 2), banded(W, 2))
            begins += 1
        assert begins > 4
        ends.append([engine.register(name) for name in ("status", "steps", "value")] + [*engine.solution()[0]])
    assert ends[0][0] == Status.CONVERGED
    np.testing.assert_allclose(*ends, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(ends[0][3:], [0, 2**0.5, 1], atol=1e-8)


def test_lists() -> None:
    assert len(constants(2.0**-52)) == len(constants(2.0**-23))
    assert REGISTERS.index("status") == 0
    assert Layout(5, 2, 9).window == 5
    with pytest.raises(KeyError):
        Layout(5, 2, 3).place("no")
    assert np.abs(noise(1000, 1)).max() <= 1
    assert abs(noise(1000, 1).mean()) < 0.1


@dtypes
def test_by_xla(dtype: str) -> None:
    """A batch of two through XLA's front, states in place of states, and one after the other through ctypes."""
    p = problem(square([1, 2], [1, 1]), circle, [0.5, 0.5], m=1)
    zeros = [np.zeros(k) for k in (1, 2, 2)]
    bounds = [np.full(2, -INF), np.full(2, INF), np.zeros(2)]
    first, numbers = np.zeros(1, np.int32), [EPS[dtype], 100, 0, 0]
    points = [np.array([0.5, 0.5]), np.array([2.0, -1.0])]
    engines = []
    for x in points:
        engines.append(Engine(2, 1, 1, 2, dtype))
        engines[-1].start([*bounds, x, *zeros], first, numbers)
    if bandhess_jax.cpu_kernels() != "compiled":
        pytest.skip(bandhess_jax.cpu_kernels())
    word, size = words(dtype, engines[0].layout.size)
    both = [jax.ShapeDtypeStruct((2, size), word), jax.ShapeDtypeStruct((2, engines[0].layout.head), dtype)]
    fixed = np.array(constants_of_engine(float(np.finfo(dtype).eps))).view(word)
    shared = [*bounds, points, *zeros, [*numbers, 0]]
    operands = [np.broadcast_to(np.asarray(a, dtype), (2, np.shape(a)[-1])) for a in shared]
    operands += [np.broadcast_to(fixed, (2, len(fixed))), np.zeros((2, size), word)]
    state, head = jax.jit(jax.ffi.ffi_call("bandhess_interior_start", both), static_argnames=("rows", "m", "shared"))(
        *operands, rows=np.float64(2), m=np.float64(1), shared=np.float64(0)
    )
    np.testing.assert_array_equal(state, [e.words(e.state) for e in engines])
    np.testing.assert_array_equal(head, [e.head for e in engines])
    call = jax.ffi.ffi_call("bandhess_interior_begin", both, input_output_aliases={0: 0})
    turn = jax.jit(lambda *operands: call(*operands, shared=np.float64(0)))
    for _ in range(3):
        told = []
        for e in engines:
            f, h, g, W, J = p.derivatives(e.vector("x_request"), e.register("sigma"), e.vector("y_request"))
            told.append([np.array(a, dtype) for a in (f, h, g)])
            told[-1] += [first, *(np.array(a, dtype) for a in (J, banded(W, 2), 0.0))]
            e.begin(f, h, g, J, banded(W, 2))
        state, head = turn(state, *(np.stack(parts) for parts in zip(*told, strict=True)))
        np.testing.assert_array_equal(state, [e.words(e.state) for e in engines])
        np.testing.assert_array_equal(head, [e.head for e in engines])
