"""Newton's method under jit, vmap and autograd. The derivatives of the solution are in `test_implicit.py`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS
from minimisations import Landscape
from newton_cases import ENDS, HERE, HISTORIC, LANDSCAPE, on_landscape
from oracles import reals

import bandhess_jax


def test_jit() -> None:
    backend = BACKENDS["jax"]

    @jax.jit
    def solve(x0, c):
        return backend.package.newton(LANDSCAPE["jax"], x0, 1, args=(c,))

    for end in ("convex", "concave", "NaN at the start"):
        c, x0, status = ENDS[end]
        result = solve(jnp.asarray(x0), jnp.asarray(c.array()))
        assert int(result.status) == backend.package.Status[status]
        assert result.status.dtype == result.steps.dtype == jnp.asarray(0).dtype
        np.testing.assert_array_equal(backend.numpy(result.x), on_landscape(backend, x0, c).x)


def test_a_scan_carries_a_result() -> None:
    """One from a call outside jit, whose status and steps are Python's, goes in as what those inside come out as."""
    backend = BACKENDS["jax"]

    def solve(x0: jax.Array, c: jax.Array) -> Any:
        return backend.package.newton(lambda x, c: jnp.sum(c * (x - 1) ** 2 + (x - c) ** 4), x0, 0, args=(c,))

    problems = jnp.asarray([[1.0, 2.0, 3.0], [2.0, 1.0, 2.5]])
    first = solve(jnp.zeros(3), problems[0])
    end, steps = jax.lax.scan(lambda last, c: (new := solve(last.x, c), new.steps), first, problems)
    one = solve(first.x, problems[0])
    other = solve(one.x, problems[1])
    np.testing.assert_array_equal(steps, [one.steps, other.steps])
    np.testing.assert_allclose(end.x, other.x, rtol=1e-12)


def test_reports_under_jit(capsys: pytest.CaptureFixture) -> None:
    """A callback and the table work under jit; the history has room for max_steps, and NaN beyond the end."""
    backend, infos = BACKENDS["jax"], []
    options = {"history": True, "max_steps": 50}
    x0, c = jnp.asarray(4 * HERE), jnp.asarray(HISTORIC.array())
    watched = jax.jit(
        lambda x0: backend.package.newton(
            LANDSCAPE["jax"], x0, 1, args=(c,), callback=infos.append, verbose=True, **options
        )
    )(x0)
    jax.effects_barrier()
    alone = on_landscape(backend, 4 * HERE, HISTORIC, history=True, max_steps=50)
    assert [int(info.step) for info in infos] == list(range(alone.steps + 1))
    assert len(capsys.readouterr().out.splitlines()) == alone.steps + 2
    for row, short in zip(watched.history, alone.history, strict=True):
        assert row.shape == (51,)
        np.testing.assert_array_equal(row[: alone.steps + 1], short)
        assert np.isnan(row[alone.steps + 1 :]).all()


def test_vmap_keeps_lanes_apart() -> None:
    """Lanes of every end in one batch: each as if it were alone."""
    backend = BACKENDS["jax"]
    starts = jnp.asarray([x0 for _, x0, _ in ENDS.values()])
    coefficients = jnp.asarray([c.array() for c, _, _ in ENDS.values()])
    batch = jax.vmap(lambda x0, c: backend.package.newton(LANDSCAPE["jax"], x0, 1, args=(c,)))
    result = batch(starts, coefficients)
    for lane, (end, (c, x0, status)) in enumerate(ENDS.items()):
        assert backend.package.Status(int(result.status[lane])).name == status, end
        alone = on_landscape(backend, x0, c)
        if status == "CONVERGED":
            assert int(result.steps[lane]) == alone.steps
            np.testing.assert_allclose(backend.numpy(result.x[lane]), backend.numpy(alone.x), rtol=0, atol=1e-7)


def test_torch_vmap() -> None:
    """One lane after the other, with a status each."""
    backend, ends = BACKENDS["torch"], ["convex", "falling plane", "NaN at the start"]
    starts = torch.stack([backend.array(ENDS[end][1]) for end in ends])
    coefficients = torch.stack([backend.array(ENDS[end][0].array()) for end in ends])
    solve = torch.func.vmap(lambda x0, c: backend.package.newton(LANDSCAPE["torch"], x0, 1, args=(c,))[:5])
    batch = backend.package.NewtonResult(*solve(starts, coefficients))
    for lane, end in enumerate(ends):
        c, x0, status = ENDS[end]
        alone = on_landscape(backend, x0, c)
        np.testing.assert_array_equal(backend.numpy(batch.x[lane]), backend.numpy(alone.x))
        assert backend.package.Status(int(batch.status[lane])).name == status
        assert int(batch.steps[lane]) == alone.steps


def test_new_arguments_do_not_retrace() -> None:
    traces: list = []
    package = BACKENDS["jax"].package

    def fun(x, target):
        traces.append(None)
        return jnp.sum((x - target) ** 2) + jnp.sum((x[1:] - x[:-1]) ** 2)

    for seed in range(3):
        target = jnp.full(5, float(seed))
        result = package.newton(fun, jnp.asarray(reals(5, seed)), 1, args=(target,))
        np.testing.assert_allclose(result.x, target, rtol=0, atol=1e-12)
    assert len(traces) == 1


def test_torch_leaves_autograd_alone() -> None:
    """A start that requires grad, a module's parameter say, gives a plain result; grad mode stays as it was."""
    x0 = torch.tensor(HERE, requires_grad=True)
    c = torch.tensor(Landscape(curvature=1).array())
    result = BACKENDS["torch"].package.newton(LANDSCAPE["torch"], x0, 1, args=(c,))
    assert result.status == BACKENDS["torch"].package.Status.CONVERGED
    assert not result.x.requires_grad
    assert not result.value.requires_grad
    assert torch.is_grad_enabled()
    assert x0.grad is None
    np.testing.assert_array_equal(x0.detach(), HERE)


def test_time_is_the_hosts() -> None:
    x0 = jnp.asarray(HERE)

    def given(s):
        return bandhess_jax.newton(LANDSCAPE["jax"], x0, 1, args=(s * HISTORIC.array(),), max_seconds=1).value

    def closed(s):
        return bandhess_jax.newton(lambda x: jnp.sum(s * x**2), x0, 0, max_seconds=1).value

    for attempt in (jax.jit(given), jax.grad(given), jax.jit(closed)):
        with pytest.raises(ValueError, match=r"max_seconds needs the host.*outside jit, vmap and grad"):
            attempt(2.0)
