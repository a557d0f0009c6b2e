"""Starts, tolerances, limits, reports and multipliers are no part of a program: others trace nothing anew."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend

START = np.linspace(-1.0, 2.0, 6)
TRACES: list = []


def valley(xp: Any, x: Any) -> Any:
    return xp.sum((x[1:] - x[:-1] ** 2) ** 2) + xp.sum((x - 1) ** 4)


def cost(x: Any) -> Any:
    if isinstance(x, jax.core.Tracer):
        TRACES.append(None)
    return valley(jnp, x)


def ends(x: Any) -> Any:
    return x[:1] - 0.5


def calls(backend: Backend) -> dict:
    fun = cost if backend.name == "jax" else lambda x: valley(backend.xp, x)
    return {
        "newton": lambda x0=START, **options: backend.package.newton(fun, backend.array(x0), 1, **options),
        "sqp": lambda x0=START, **options: backend.package.sqp(fun, ends, backend.array(x0), 1, **options),
    }


@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_other_limits_and_reports(backend: Backend, name: str, capsys: pytest.CaptureFixture) -> None:
    call, infos = calls(backend)[name], []
    first = call()
    traced = len(TRACES)
    assert traced > 0 or backend.name == "torch"
    loose, short, timed = call(tol=1e-2), call(max_steps=2), call(max_seconds=60)
    assert first.status == loose.status == backend.package.Status.CONVERGED
    assert loose.steps < first.steps
    assert (short.status.name, short.steps, timed.steps) == ("MAX_STEPS", 2, first.steps)

    for seen in (
        call(verbose=True), call(callback=infos.append), call(callback=lambda info: infos.append(info), max_seconds=60),
    ):  # fmt: skip
        assert seen.steps == first.steps  # looking on changes nothing
        np.testing.assert_array_equal(backend.numpy(seen.x), backend.numpy(first.x))
    assert [int(info.step) for info in infos] == 2 * [*range(first.steps + 1)]
    assert float(infos[-1].value) == float(first.value)
    assert len(capsys.readouterr().out.splitlines()) == first.steps + 2
    assert call(x0=START + 0.1).status == first.status
    if name == "sqp":
        assert call(multipliers=first.multipliers).status == first.status
    assert len(TRACES) == traced


@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_limits_inside_jit_and_vmap(name: str) -> None:
    """Where the loop is part of another program they are numbers in it."""
    call = calls(BACKENDS["jax"])[name]
    inside = jax.jit(lambda: call(max_steps=2)[:5])()
    assert (int(inside[4]), int(inside[3])) == (int(call(max_steps=2).status), 2)


@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_reports_inside_jit(name: str) -> None:
    """A part of the program there, they say what the host says from outside."""
    call, inside, outside = calls(BACKENDS["jax"])[name], [], []
    jax.jit(lambda: call(callback=inside.append)[:5])()
    jax.effects_barrier()
    call(callback=outside.append)
    assert len(inside) == len(outside) > 2
    for info, same in zip(inside, outside, strict=True):
        assert all(isinstance(number, jax.Array) for number in same)
        np.testing.assert_allclose(same, info, rtol=1e-6, atol=1e-9)


def test_an_error_in_a_callback_ends_the_call(backend: Backend) -> None:
    def stop(info: Any) -> None:
        if info.step == 1:
            raise KeyError("enough")

    for call in calls(backend).values():
        with pytest.raises(KeyError, match="enough"):
            call(callback=stop)
