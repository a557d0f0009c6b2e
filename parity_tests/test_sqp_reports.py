"""What SQP reports: callback, table, history, time limit; warm starts."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from sqp_cases import ENDS, EPS, HERE, YARD, in_yard, largest
from trajectories import Yard, yard_inequalities


def test_warm_start_callback_and_verbose(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    """From a solution and its multipliers, a slightly other problem takes fewer steps than from afar; seen by a call
    and a line at the start and after every step."""
    infos: list = []
    c = ENDS["curved"][0]
    cold, other = in_yard(backend, c), c._replace(level=1.01)
    result = in_yard(
        backend, other, backend.numpy(cold.x), multipliers=cold.multipliers, callback=infos.append, verbose=True
    )
    assert result.status == backend.package.Status.CONVERGED
    assert 0 < result.steps < in_yard(backend, other).steps
    assert [int(info.step) for info in infos] == list(range(result.steps + 1))
    assert float(infos[-1].value) == float(result.value)
    assert float(infos[-1].grad_norm) == float(result.grad_norm)
    assert all(0 < float(info.radius) <= 1 for info in infos[1:])
    assert len(capsys.readouterr().out.splitlines()) == result.steps + 2


def test_history(backend: Backend) -> None:
    """Against what a callback sees, against steps in closed form, and under a cap that cuts them."""
    infos: list = []
    result = in_yard(backend, ENDS["capped and curved"][0], callback=infos.append, history=True, max_steps=50)
    rows = {name: backend.numpy(row) for name, row in result.history._asdict().items()}
    assert list(rows) == ["value", "grad_norm", "constraint_norm", "step", "fraction", "shift", "barrier"]
    assert all(row.shape == (result.steps + 1,) for row in rows.values())
    for name, seen in (("value", "value"), ("grad_norm", "grad_norm"), ("shift", "shift"), ("fraction", "radius")):
        np.testing.assert_array_equal(rows[name], [float(getattr(info, seen)) for info in infos])
    last = rows["value"][-1], rows["grad_norm"][-1], rows["constraint_norm"][-1]
    assert last == (float(result.value), float(result.grad_norm), float(result.constraint_norm))
    start = YARD[backend.name][1](backend.array(HERE), backend.array(ENDS["capped and curved"][0].array()))
    beyond = HERE.max() - ENDS["capped and curved"][0].cap
    np.testing.assert_allclose(rows["constraint_norm"][0], max(largest(backend, start), beyond), rtol=8 * EPS)
    assert rows["step"][0] == rows["fraction"][0] == rows["shift"][0] == 0
    assert (rows["step"][1:] > 0).all()
    assert (rows["fraction"][1:] > 0).all()
    assert (rows["fraction"][1:] <= 1).all()
    assert rows["fraction"][1:].min() < 1
    c = backend.array(ENDS["capped and curved"][0].array())
    slope = np.abs(backend.numpy(backend.grad(YARD[backend.name][0])(backend.array(HERE), c))).max()
    assert 0.1 * slope < rows["barrier"][0] < slope  # 0.1 in units in which what f gains or changes by is 1
    assert (np.diff(rows["barrier"]) <= 0).all()
    assert 0 < rows["barrier"][-1] < 1e-8

    straight = backend.package.sqp(
        *YARD[backend.name], backend.array(HERE), 1, args=(backend.array(Yard().array()),), history=True, max_steps=50
    )
    way, moved = straight.history, backend.numpy(straight.x) - HERE
    np.testing.assert_allclose(backend.numpy(way.step)[:2], [0, np.linalg.norm(moved)], rtol=1e-7)
    np.testing.assert_array_equal(backend.numpy(way.fraction), [0, *[1] * straight.steps])
    np.testing.assert_array_equal(backend.numpy(way.barrier), np.zeros(straight.steps + 1))
    assert in_yard(backend, Yard()).history is None


@pytest.mark.parametrize("end", ["NaN at the start", "coupling outside the band"])
def test_history_of_an_end_at_the_start(backend: Backend, end: str) -> None:
    result = in_yard(backend, ENDS[end][0], history=True, max_steps=50)
    assert result.status.name == ENDS[end][1]
    assert result.steps == 0
    for row, expected in zip(result.history[:3], (result.value, result.grad_norm, result.constraint_norm), strict=True):
        assert row.shape == (1,)
        if end != "NaN at the start":
            assert float(row[0]) == float(expected)
    assert float(result.history.step[0]) == float(result.history.fraction[0]) == 0


def test_history_under_vmap() -> None:
    """Room for max_steps, and NaN beyond each lane's end."""
    backend, names = BACKENDS["jax"], ("curved", "capped and curved", "NaN at the start")
    options = {"history": True, "max_steps": 50}
    cs = jnp.asarray([ENDS[name][0].array() for name in names])
    cost, constraints = YARD["jax"]

    @jax.jit
    @jax.vmap
    def batch(c: Any) -> Any:
        return backend.package.sqp(
            cost, constraints, jnp.asarray(HERE), 1, args=(c,), inequalities=yard_inequalities, **options
        )

    lanes = batch(cs)
    for i, name in enumerate(names[:2]):
        steps = int(lanes.steps[i])
        alone = in_yard(backend, ENDS[name][0], **options)
        assert alone.steps == steps
        for rows, short in zip(lanes.history, alone.history, strict=True):
            assert rows.shape == (3, 51)
            np.testing.assert_allclose(rows[i, : steps + 1], short, rtol=1e-4, atol=1e-7)
            assert np.isnan(rows[i, steps + 1 :]).all()
    assert np.isnan(lanes.history.value[2]).all()


def test_time_limit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second whenever it is read."""
    c = ENDS["capped and curved"][0]
    free = in_yard(backend, c, history=True, max_steps=50)
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    ample = in_yard(backend, c, history=True, max_steps=50, max_seconds=np.inf)
    np.testing.assert_array_equal(backend.numpy(ample.x), backend.numpy(free.x))
    assert ample[1:5] == free[1:5]

    short = in_yard(backend, c, history=True, max_steps=50, max_seconds=3)
    assert short.status == backend.package.Status.TIME_LIMIT
    assert 0 < short.steps < free.steps
    assert float(short.value) == float(short.history.value[-1]) == float(free.history.value[short.steps])
    cost = YARD[backend.name][0](short.x, backend.array(c.array()))
    np.testing.assert_allclose(float(cost), float(short.value), rtol=8 * EPS)


def test_result_fields(backend: Backend) -> None:
    assert backend.package.SQPResult._fields == (
        "x", "value", "grad_norm", "steps", "status", "multipliers", "constraint_norm", "history",
        "bound_multipliers", "inequality_multipliers", "barrier", "outside",
    )  # fmt: skip
