"""SQP from a previous result, what it says of a band that is too narrow, and the value's derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
from backends import Backend
from sqp_cases import ENDS, HERE, YARD, in_yard
from trajectories import yard_inequalities

SOLVED = [end for end, (_, status) in ENDS.items() if status == "CONVERGED"]


@pytest.mark.parametrize("end", SOLVED)
def test_start_at_the_solution(backend: Backend, end: str) -> None:
    """One step at most, to the same point and the same multipliers."""
    c = ENDS[end][0]
    cold = in_yard(backend, c)
    warm = in_yard(backend, c, start=cold)
    assert warm.status == backend.package.Status.CONVERGED
    assert warm.steps <= 1
    np.testing.assert_allclose(backend.numpy(warm.x), backend.numpy(cold.x), atol=1e-6)
    for one, other in zip(*(backend.leaves(r.multipliers) for r in (warm, cold)), strict=True):
        np.testing.assert_allclose(backend.numpy(one), backend.numpy(other), atol=1e-5)
    assert 0 < float(cold.barrier) < 1e-6


def test_start_near_the_solution(backend: Backend) -> None:
    """After a small change of the problem, few steps."""
    c = ENDS["capped and curved"][0]
    cold, other = in_yard(backend, c), c._replace(cap=c.cap + 1e-3, level=c.level + 1e-3)
    warm = in_yard(backend, other, start=cold)
    assert warm.status == backend.package.Status.CONVERGED
    assert warm.steps <= 4 < in_yard(backend, other).steps
    np.testing.assert_allclose(float(warm.value), float(in_yard(backend, other).value), rtol=1e-7)


def test_start_with_bounds(backend: Backend) -> None:
    """Bounds' multipliers and the barrier are taken up, too; x0 gives the structure alone."""
    cost = lambda x: ((x["q"] - 3) ** 2).sum() + (x["q"][1:] * x["q"][:-1]).sum() + (x["u"] ** 2).sum()  # noqa: E731
    zero = {"q": backend.array(np.zeros(5)), "u": backend.array(np.zeros(4))}

    def call(**options: Any) -> Any:
        return backend.package.sqp(
            cost, lambda x: x["q"][1:] - x["q"][:-1] - x["u"], zero, 1, bounds=({"q": -1.0, "u": -0.1}, 1.5), **options
        )

    cold = call()
    warm = call(start=cold)
    assert cold.status == warm.status == backend.package.Status.CONVERGED
    assert cold.steps > 4
    assert warm.steps <= 1
    assert max(float(backend.numpy(side["q"]).max()) for side in cold.bound_multipliers) > 0.1
    np.testing.assert_allclose(float(warm.value), float(cold.value), rtol=1e-7)


def test_a_result_from_outside_starts_lanes(backend: Backend) -> None:
    """Each as if it were alone."""
    c = ENDS["capped and curved"][0]
    cold = in_yard(backend, c)
    problems = np.stack([c._replace(level=level).array() for level in (c.level, c.level + 1e-3)])

    def lane(each: Any, start: Any) -> Any:
        cost, constraints = YARD[backend.name]
        here = backend.array(HERE)
        result = backend.package.sqp(
            cost, constraints, here, 1, args=(each,), inequalities=yard_inequalities, start=start
        )
        return result.x, result.steps

    x, steps = backend.vmap(lane, (0, None))(backend.array(problems), cold)
    assert int(steps[0]) <= 1
    for i in range(2):
        alone, count = lane(backend.array(problems[i]), cold)
        np.testing.assert_allclose(backend.numpy(x[i]), backend.numpy(alone), atol=1e-9)
        assert int(steps[i]) == count


def test_start_is_a_result(backend: Backend) -> None:
    cold = in_yard(backend, ENDS["linear"][0])
    with pytest.raises(TypeError, match="start must be an SQPResult or None, got tuple"):
        in_yard(backend, ENDS["linear"][0], start=tuple(cold))
    with pytest.raises(ValueError, match="give start or multipliers, not both"):
        in_yard(backend, ENDS["linear"][0], start=cold, multipliers=cold.multipliers)
    with pytest.raises(ValueError, match="multipliers must have the structure"):
        in_yard(backend, ENDS["linear"][0], start=cold._replace(multipliers=cold.x))


def test_message_of_a_narrow_band(backend: Backend) -> None:
    """It names the leaf and the entry, and the remedy."""

    def constraints(x: Any) -> Any:
        return {"steps": x[1:] - x[:-1], "total": backend.xp.stack([x[0], x[2] + x[7]])}

    start = backend.array(np.linspace(1, 2, 9))
    result = backend.package.sqp(lambda x: (x**2).sum(), constraints, start, 1)
    assert result.status == backend.package.Status.BAND_TOO_NARROW
    for part in ("constraints(x)['total'][1]", "the bandwidth", "accumulator"):
        assert part in result.message
    result = backend.package.sqp(
        lambda x: (x**2).sum(), lambda x: x[1:] - x[:-1], start, 1, inequalities=lambda x: x[4:] * x[:-4]
    )
    assert "inequalities(x)[0]" in result.message
    result = backend.package.sqp(lambda x: (x[:-4] * x[4:]).sum() + (x**2).sum(), lambda x: x[:1], start, 1)
    assert result.status == backend.package.Status.BAND_TOO_NARROW
    assert "Hessian" in result.message
    assert backend.package.sqp(lambda x: (x**2).sum(), lambda x: x[:1], start, 1).message.startswith("converged")


def test_value_of_a_solution_that_is_not_unique(backend: Backend) -> None:
    """The minimum has a derivative where the minimiser has none: x[2] appears in nothing."""

    start = backend.array(np.zeros(3))

    def value(p: Any) -> Any:
        return backend.package.sqp(
            lambda x, p: p[0] * ((x[:2] - 1) ** 2).sum(), lambda x, p: x[:1] + x[1:2] - p[1], start, 1, args=(p,)
        ).value

    p = np.array([2.0, 0.5])  # the minimum is p0 (p1 - 2)^2 / 2
    np.testing.assert_allclose(float(value(backend.array(p))), 2.25, rtol=1e-7)
    np.testing.assert_allclose(backend.numpy(backend.grad(value)(backend.array(p))), [1.125, -3], rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rows_that_touch_more_than_at_the_start(backend: Backend, sign: float) -> None:
    """x[t + 1] = s (3 + 2 max(0, s x[t])^2) / 10 touches x[t] nowhere near 0 with s x[t] < 0. The least of
    sum (x - s)^2 by recursion from x[0]; where the rows touch x[t - 1] in place of x[t], the band is too narrow."""

    def squares(x: Any) -> Any:
        return ((x - sign) ** 2).sum()

    def solved(reach: int) -> Any:
        def rows(x: Any) -> Any:
            ahead = backend.xp.where(sign * x[:-reach] > 0, x[:-reach] ** 2, 0 * x[:-reach])
            return x[reach:] - sign * (0.3 + 0.2 * ahead)

        return backend.package.sqp(squares, rows, backend.array(np.zeros(12)), 1)

    def along(first: float) -> float:
        x = [first]
        for _ in range(11):
            x.append(0.3 + 0.2 * max(0.0, x[-1]) ** 2)
        return sum((each - 1) ** 2 for each in x)

    result = solved(1)
    assert result.status == backend.package.Status.CONVERGED
    assert result.steps <= 10  # without the entries that are seen late it takes 28
    best = scipy.optimize.minimize_scalar(along, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).fun
    np.testing.assert_allclose(float(result.value), best, rtol=1e-7)
    assert solved(2).status == backend.package.Status.BAND_TOO_NARROW
