"""Model-predictive control: `sqp` a tick, each from the one before, and the loop's cost differentiated through them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from trajectories import GRAVITY

T, H, LIMIT = 20, 0.1, 6.0
PARAMETERS = np.array([GRAVITY, 0.3])  # gravity over length, and friction


@functools.cache
def functions(name: str) -> tuple[Callable, Callable]:
    """Stages (u_k, angle_{k+1}, speed_{k+1}) of a pendulum from a given state; upright is the angle pi."""
    xp = BACKENDS[name].xp

    def cost(z: Any, state: Any, p: Any) -> Any:
        far = 1 + xp.cos(z[:, 1])
        return H * xp.sum(10 * far + 0.1 * z[:, 2] ** 2 + 0.1 * z[:, 0] ** 2) + 10 * far[-1] + z[-1, 2] ** 2

    def dynamics(z: Any, state: Any, p: Any) -> Any:
        before = xp.concatenate([state[None], z[:-1, 1:]], 0)
        speed = before[:, 1] + H * (z[:, 0] - p[0] * xp.sin(before[:, 0]) - p[1] * before[:, 1])
        return z[:, 1:] - xp.stack([before[:, 0] + H * speed, speed], 1)

    return cost, dynamics


def plan(backend: Backend, state: Any, p: Any, **start: Any) -> Any:
    box = np.array([LIMIT, np.inf, np.inf])
    bounds = backend.array(-box), backend.array(box)
    return backend.package.sqp(
        *functions(backend.name), backend.array(np.zeros((T, 3))), 1, args=(state, p), bounds=bounds, max_steps=200,
        **start,
    )  # fmt: skip


def pushed(backend: Backend, tick: int, state: Any) -> Any:
    """The state that a tick meets: the one planned, a little off."""
    off = 1e-2 * np.array([np.sin(1.7 * tick), np.cos(2.3 * tick)])
    return state + backend.array(off)


def test_a_tick_takes_few_steps(backend: Backend) -> None:
    """A swing-up with |u| bounded, a hundred ticks, the plan shifted by nobody: `start=` carries all."""
    p, state, ticks, bounded = backend.array(PARAMETERS), backend.array([0.3, 0.0]), 100, 0
    result = plan(backend, state, p)
    steps = []
    for tick in range(ticks):
        state = pushed(backend, tick, result.x[0, 1:])
        result = plan(backend, state, p, start=result)
        assert result.status == backend.package.Status.CONVERGED
        bounded += abs(float(result.x[0, 0])) > LIMIT - 1e-4
        steps.append(result.steps)
    print(steps)
    assert max(steps) <= 4
    assert bounded >= 3
    np.testing.assert_allclose(np.cos(float(state[0])), -1, atol=1e-2)
