"""What Newton's method reports and what it costs: time limit, callback, table, history, evaluations, memory."""

import itertools

import numpy as np
import pytest
from backends import Backend
from chains import window
from minimisations import Landscape, landscape_derivatives
from newton_cases import EPS, HERE, HISTORIC, LANDSCAPE, TOL, on_landscape
from oracles import reals


def test_time_limit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second whenever it is read."""
    c, x0 = Landscape(curvature=-1, quartic=1, spring=1), 4 * HERE
    free = on_landscape(backend, x0, c)
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    ample = on_landscape(backend, x0, c, max_seconds=1e6)
    np.testing.assert_array_equal(backend.numpy(ample.x), backend.numpy(free.x))
    assert ample[1:5] == free[1:5]

    short = on_landscape(backend, x0, c, max_seconds=4)
    assert short.status == backend.package.Status.TIME_LIMIT
    assert 0 < short.steps < free.steps
    start, here = (float(LANDSCAPE[backend.name](x, backend.array(c.array()))) for x in (backend.array(x0), short.x))
    np.testing.assert_allclose(here, float(short.value), rtol=8 * EPS)
    assert here < start


def test_result_fields(backend: Backend) -> None:
    assert backend.package.NewtonResult._fields == ("x", "value", "grad_norm", "steps", "status", "history")
    codes = ["CONVERGED", "PRECISION_FLOOR", "MAX_STEPS", "STALLED", "NONFINITE", "BAND_TOO_NARROW", "INFEASIBLE",
             "RANK_DEFICIENT", "UNBOUNDED", "TIME_LIMIT"]  # fmt: skip
    assert [(status.name, int(status)) for status in backend.package.Status] == [(c, i) for i, c in enumerate(codes)]


def test_callback_and_verbose(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    """At x0 and after every accepted step: a call with the values along the way, and a line that says the same."""
    infos: list = []
    x0, c = 4 * HERE, Landscape(curvature=-1, quartic=1, spring=1)
    result = on_landscape(backend, x0, c, callback=infos.append, verbose=True)
    assert result.steps == on_landscape(backend, x0, c).steps > 3  # looking on changes nothing
    assert [int(info.step) for info in infos] == list(range(result.steps + 1))
    assert all(isinstance(info, backend.package.StepInfo) for info in infos)
    values = [float(info.value) for info in infos]
    start = float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))
    np.testing.assert_allclose(values[0], start, rtol=8 * EPS)
    assert values[-1] == float(result.value)
    assert float(infos[-1].grad_norm) == float(result.grad_norm)
    assert np.all(np.diff(values) <= TOL * np.abs(values[:-1]))  # the last polish may rise by rounding
    assert all(float(info.radius) > 0 and float(info.shift) >= 0 for info in infos)

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["step", "f", "|grad|"]
    assert [int(line.split()[0]) for line in lines] == list(range(result.steps + 1))
    np.testing.assert_allclose([float(line.split()[1]) for line in lines], values, rtol=1e-11)


def test_history(backend: Backend) -> None:
    """Against what a callback sees; and on a quadratic, where everything is known."""
    infos: list = []
    result = on_landscape(backend, 4 * HERE, HISTORIC, callback=infos.append, history=True, max_steps=50)
    rows = {name: backend.numpy(row) for name, row in result.history._asdict().items()}
    assert all(row.shape == (result.steps + 1,) for row in rows.values())
    for name in ("value", "grad_norm", "shift", "radius"):
        np.testing.assert_array_equal(rows[name], [float(getattr(info, name)) for info in infos])
    assert np.isnan(rows["ratio"][0])
    assert rows["step"][0] == 0
    assert np.all(rows["ratio"][1:-1] >= 0.25)  # the bound of acceptance; the last may be rounding
    assert np.all(rows["step"][1:] > 0)
    assert np.any(rows["shift"] > 0)
    assert result.history._fields == ("value", "grad_norm", "step", "shift", "radius", "ratio")

    quadratic = Landscape(curvature=1, spring=2)
    result = on_landscape(backend, HERE, quadratic, callback=infos.append, history=True, max_steps=50)
    gradient, hessian = landscape_derivatives(HERE, quadratic)
    expected = ([HERE @ hessian @ HERE / 2, 0], [np.abs(gradient).max(), 0], [0, np.linalg.norm(HERE)], [0, 0])
    for row, numbers in zip(result.history, expected, strict=False):
        np.testing.assert_allclose(backend.numpy(row), numbers, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(float(result.history.ratio[1]), 1, rtol=1e-12)
    assert on_landscape(backend, HERE, quadratic).history is None


def test_silent_by_default(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    on_landscape(backend, HERE, Landscape(curvature=1))
    assert capsys.readouterr().out == ""


def test_evaluations(backend: Backend) -> None:
    """On a quadratic: derivatives at both ends, a value per trial, at most one more for the band check, one for x0."""
    calls: list = []
    fun = backend.tapped(lambda x: backend.xp.sum((x[1:] - 2 * x[:-1]) ** 2) + backend.xp.sum(x**2), calls)
    result = backend.package.newton(fun, backend.array(HERE), 1)
    backend.settle()
    assert (result.status, result.steps) == (backend.package.Status.CONVERGED, 1)
    assert 3 <= len(calls) <= 5


def test_no_dense_matrix(backend: Backend) -> None:
    n, w = 1009, 5
    x0 = backend.array(reals(n, 0))
    fun = window(w)(backend.xp)
    largest = backend.largest_array(lambda x: backend.package.newton(fun, x, w, max_steps=2).x, x0)
    assert n < largest <= (2 * w + 1) * (n + 2 * (2 * w + 1))
