"""Units of variables: by factors of 1e-4 to 1e4, of all or of each by turns, ends are those of the plain problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy_operations
import pytest
from interior_driver import Engine, Problem, banded, cut, solve, windows
from test_interior_scales import in_units
from test_interior_shared import swing

from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.problem import problem as problem_of
from bandhess_common.status import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")

T, SHARED, ROWS = 12, 3, 6


def case(unit: float, mixed: bool = False, **more: Any) -> tuple[Problem, np.ndarray]:
    """The swing in these units, or in them and their inverses by turns; the fixed variable keeps its own."""
    p = swing(T, 3.0, **(more or {"shared": SHARED, "rows": ROWS}))
    units = np.full(len(p.x0), unit)
    if mixed:
        units[1::2] = 1 / unit
    units[-1] = 1.0
    return in_units(p, units), units


class Portable:
    """The portable engine by NumPy."""

    def __init__(self, p: Problem) -> None:
        r, n, L = len(p.values(p.x0)[1]), len(p.x0), p.rows
        self.p = p
        self.first, _ = windows(p.derivatives(p.x0, 1.0, np.ones(r))[-1], L, p.shared)
        limits = np.float64(1e-8), np.float64(500)
        self.task = problem_of(numpy_operations, p.lower, p.upper, p.fixed, self.first, p.m, limits, L, p.shared)
        zeros = np.zeros(r), np.zeros(n), np.zeros(n), np.float64(0)
        self.s = loop.start(numpy_operations, self.task, p.x0, np.int32(0), state.Solution(p.x0, *zeros))

    def turn(self) -> None:
        s, p = self.s, self.p
        if s.request == state.DERIVATIVES:
            f, h, g, W, J = p.derivatives(s.x_request, float(s.sigma), s.y_request)
            J, W = cut(J, self.first, p.rows, p.shared), np.nan_to_num(banded(W, p.rows, p.shared))
            given = state.Derivatives(np.float64(f), h, g, J, W, np.int32(0))
            self.s = loop.begin(numpy_operations, self.task, s, given)
        else:
            f, h = p.values(s.x_request)
            self.s = loop.trial(numpy_operations, self.task, s, state.Values(np.float64(f), h))


def units_of(p: Problem) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Those that the compiled engine and the portable one choose, and both x whose derivatives told them."""
    portable = Portable(p)
    r, n = len(portable.first), len(p.x0)
    engine = Engine(n, r, p.m, p.rows, p=p.shared)
    vectors = [p.lower, p.upper, p.fixed, p.x0, np.zeros(r), np.zeros(n), np.zeros(n)]
    engine.start(vectors, portable.first, [1e-8, 500, 0, 0])
    points = []
    with np.errstate(all="ignore"):
        for _ in range(2):
            np.testing.assert_allclose(portable.s.x_request, engine.vector("x_request"), rtol=1e-13)
            x = portable.s.x_request
            points.append(x)
            f, h, g, W, J = p.derivatives(x, 1.0, np.zeros(r))
            engine.begin(f, h, g, cut(J, portable.first, p.rows, p.shared), banded(W, p.rows, p.shared))
            portable.turn()
    return engine.vector("unit"), portable.s.units, points


def by_definition(p: Problem, points: list[np.ndarray]) -> np.ndarray:
    """Logarithms to the base 2 of each variable's own unit, entry by entry, and NaN of those that have none."""
    far, x = points
    beside = p.derivatives(far, 1.0, np.zeros(1000))[-1]
    _, h, _, _, J = p.derivatives(x, 1.0, np.zeros(1000))
    h = h - J @ (x - p.x0)  # to first order, of the start as given
    J = np.where(abs(J) < abs(beside) / 100, 0.0, J) * (1 - p.fixed)
    column = np.ones(J.shape[1])
    row = np.array([1.0 if np.count_nonzero(a) > 1 else 0.0 for a in J])
    for _ in range(4):
        across = [sum(a * a * c for a, c in zip(line, column, strict=True)) for line in J]
        down = [sum(a * a * b for a, b in zip(line, row, strict=True)) for line in J.T]
        column = np.array([np.sqrt(c / d) if d > 0 else 0.0 for c, d in zip(column, down, strict=True)])
        row = np.array([np.sqrt(b / a) if a > 0 else 0.0 for b, a in zip(row, across, strict=True)])
    relative = np.sqrt(column)
    # A larger one may stand for none.
    bounds = [[abs(b) for b in pair if abs(b) <= 1e4] for pair in zip(p.lower, p.upper, strict=True)]
    known = [abs(a) or min(b, default=0.0) for a, b in zip(p.x0, bounds, strict=True)]
    sizes = np.array([a / c for a, c in zip(known, relative, strict=True) if a > 0 and c > 0])
    ways = [abs(a) / max(abs(line * relative)) for a, line in zip(h, J, strict=True)]
    with np.errstate(divide="ignore"):
        log = np.log2(relative * max(np.mean(np.sqrt(sizes)) ** 2, max(ways) / 32))
    return np.where(relative > 0, log, np.nan)


def expected(p: Problem, own: np.ndarray) -> np.ndarray:
    """With their mean for those that have none, 1 of fixed variables, and none larger than the room between bounds."""
    log = np.where(np.isfinite(own), own, np.nanmean(own))
    room = [np.log2(b - a) if b > a else np.inf for a, b in zip(p.lower, p.upper, strict=True)]
    return np.minimum(log, room) * (1 - p.fixed)


@pytest.mark.parametrize("unit", [1e3, 1e-3])
def test_each_variable_has_a_unit_of_its_own_where_they_differ(unit: float) -> None:
    """Powers of two next to what the definition says; 1 of a fixed variable. In them the problem's variables are within
    two decades of each other and of what they are in the plain one."""
    p, units = case(unit, mixed=True)
    compiled, portable, x = units_of(p)
    np.testing.assert_array_equal(compiled, portable)
    log = np.log2(compiled)
    np.testing.assert_array_equal(log, np.round(log))
    own = by_definition(p, x)
    used = np.isfinite(own)
    assert np.count_nonzero(~used) == 2  # the last control, which no row has, and the fixed variable
    np.testing.assert_allclose(log, expected(p, own), atol=0.51)
    assert np.ptp(np.log10(compiled)) > 5
    assert np.ptp(np.log10(compiled * units)[used]) < 4


@pytest.mark.parametrize("unit", [1e4, 1e-4])
def test_so_they_have_where_all_are_far_from_1(unit: float) -> None:
    p, units = case(unit)
    compiled, portable, x = units_of(p)
    np.testing.assert_array_equal(compiled, portable)
    np.testing.assert_allclose(np.log2(compiled), expected(p, by_definition(p, x)), atol=0.51)
    assert np.exp2(abs(np.mean(np.log2(compiled * units)))) < 8


def test_no_unit_is_larger_than_the_room_between_bounds() -> None:
    """Half the angles are bounded to a thousandth of what the others' unit is; the rest keep theirs."""
    p, _ = case(1e4)
    plain, *_ = units_of(p)
    lower, upper = (np.broadcast_to(np.asarray(a, float), len(p.x0)).copy() for a in (p.lower, p.upper))
    narrow = np.arange(0, len(p.x0) // 2, 3)
    lower[narrow], upper[narrow] = p.x0[narrow] - plain[narrow] / 2000, p.x0[narrow] + plain[narrow] / 2000
    p = p._replace(lower=lower, upper=upper)
    compiled, portable, x = units_of(p)
    np.testing.assert_array_equal(compiled, portable)
    np.testing.assert_allclose(np.log2(compiled), expected(p, by_definition(p, x)), atol=0.51)
    np.testing.assert_allclose(np.log2(compiled[narrow]), np.log2(plain[narrow] / 1000), atol=0.51)


def test_units_remain_within_a_few_decades() -> None:
    for unit, mixed in ((1.0, False), (10.0, False), (0.1, False), (3.0, True)):
        compiled, portable, _ = units_of(case(unit, mixed)[0])
        assert np.all(compiled == 1)
        assert np.all(portable == 1)


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-9, 1e-6])
def test_what_nearly_vanishes_at_the_start_tells_no_unit(off: float) -> None:
    """Next to an axis of symmetry units are those on it: x^2 + y^2 = 1 and points on a line, from y = `off`."""
    n = 10

    def symmetric(x: np.ndarray) -> tuple[float, np.ndarray]:
        return x @ x, x[0::2] ** 2 + x[1::2] ** 2 - 1

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        J = np.zeros((n // 2, n))
        for i in range(n // 2):
            J[i, 2 * i : 2 * i + 2] = 2 * x[2 * i : 2 * i + 2]
        W = 2 * np.diag(sigma + np.repeat(y[: n // 2], 2))
        f, h = symmetric(x)
        return f, h, sigma * 2 * x + J.T @ y[: n // 2], W, J

    x0 = np.tile([0.5, off], n // 2)
    none = np.full(n, np.inf)
    p = case(1.0)[0]._replace(
        lower=-none, upper=none, fixed=np.zeros(n), x0=x0, m=n // 2, rows=2, shared=0, values=symmetric,
        derivatives=derivatives,
    )  # fmt: skip
    for units in units_of(p)[:2]:
        np.testing.assert_array_equal(units, np.ones(n))


@pytest.mark.parametrize(("unit", "mixed"), [(1e4, False), (1e-4, False), (1e3, True), (1e-3, True)])
def test_ends_are_those_of_the_plain_problem(unit: float, mixed: bool) -> None:
    """In the user's units, whatever is told: x, multipliers, the gap and the violation; a warm start is at its end."""
    plain, (p, units) = solve(case(1.0)[0]), case(unit, mixed)
    end = solve(p)
    assert end.status == plain.status == Status.CONVERGED
    assert end.steps <= 2.5 * plain.steps
    value = plain.registers["value"]
    assert end.registers["value"] == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(end.x * units, plain.x, atol=2e-5)
    np.testing.assert_allclose(end.y, plain.y, atol=2e-4)
    for name in ("z_lower", "z_upper"):
        np.testing.assert_allclose(getattr(end, name) / units, getattr(plain, name), atol=2e-4)
    assert 0 <= end.registers["gap"] < 2e-7 * value
    _, _, g, _, _ = p.derivatives(end.x, 1.0, end.y)
    dual = (g - end.z_lower + end.z_upper) * (1 - p.fixed)
    assert end.registers["grad_norm"] == pytest.approx(abs(dual).max(), rel=1e-3, abs=1e-9 * unit)
    assert solve(p, warm=end).steps <= 1


@pytest.mark.parametrize(("unit", "mixed"), [(1e4, False), (1e-3, True)])
def test_both_engines_take_the_same_steps(unit: float, mixed: bool) -> None:
    p, _ = case(unit, mixed)
    compiled, portable = solve(p), Portable(p)
    steps = []
    with np.errstate(all="ignore"):
        while portable.s.request:
            portable.turn()
            if portable.s.fresh:
                steps.append(portable.s.report)
    assert (portable.s.status, portable.s.steps) == (compiled.status, compiled.steps)
    for name in ("value", "grad_norm", "violation", "step", "gap"):
        ours, theirs = [float(getattr(s, name)) for s in steps[:6]], [s[name] for s in compiled.history[:6]]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(portable.s.solution.x, compiled.x, rtol=1e-6, atol=1e-8 * abs(compiled.x).max())
    np.testing.assert_allclose(portable.s.solution.z_upper, compiled.z_upper, rtol=1e-3, atol=1e-6)
