"""Model-predictive control: `sqp` a tick, each from the one before, and the loop's cost differentiated through them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from backends import BACKENDS, Backend
from trajectories import GRAVITY

T, H, LIMIT = 30, 0.1, 6.0
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


def plan(backend: Backend, state: Any, p: Any, x0: Any = None, **options: Any) -> Any:
    box = np.array([LIMIT, np.inf, np.inf])
    bounds = backend.array(-box), backend.array(box)
    x0 = backend.array(np.zeros((T, 3))) if x0 is None else x0
    return backend.package.sqp(
        *functions(backend.name), x0, 1, args=(state, p), bounds=bounds, max_steps=200, **options
    )  # fmt: skip


def shifted(backend: Backend, result: Any) -> Any:
    """The plan a stage on."""
    move = lambda leaf: backend.xp.concatenate([leaf[1:], leaf[-1:]], 0)  # noqa: E731
    return result._replace(
        x=move(result.x), multipliers=move(result.multipliers),
        bound_multipliers=tuple(map(move, result.bound_multipliers)),
    )  # fmt: skip


def test_a_tick_takes_few_steps(backend: Backend) -> None:
    """A swing-up with |u| bounded and a plant that is a little off the plan, until it stands upright and the cost is
    nearly 0."""
    p, state, bounded = backend.array(PARAMETERS), backend.array([0.3, 0.0]), 0
    result = plan(backend, state, p)
    for tick in range(100):
        off = 1e-3 * np.array([np.sin(1.7 * tick), np.cos(2.3 * tick)]) * (tick < 80)
        state = result.x[0, 1:] + backend.array(off)
        result = plan(backend, state, p, start=shifted(backend, result))
        assert result.status == backend.package.Status.CONVERGED
        assert result.steps <= 4
        bounded += abs(float(result.x[0, 0])) > LIMIT - 1e-4
    assert bounded >= 5
    np.testing.assert_allclose(backend.numpy(state), [-np.pi, 0], atol=1e-3)


def loop_cost(backend: Backend, p: Any, truth: Any, ticks: int = 4) -> Any:
    """Of a plant with other parameters than those the plans believe in: these are p."""
    xp = backend.xp

    def tick(state: Any, _: Any) -> tuple[Any, Any]:
        u = plan(backend, state, p, tol=1e-11).x[0, 0]
        speed = state[1] + H * (u - truth[0] * xp.sin(state[0]) - truth[1] * state[1])
        return xp.stack([state[0] + H * speed, speed]), 10 * (1 + xp.cos(state[0])) + 0.1 * u**2

    state = backend.array([2.0, 0.5])
    if backend.name == "jax":
        state, costs = jax.lax.scan(tick, state, None, ticks)
        return costs.sum() + (state**2).sum()
    total = 0.0
    for _ in range(ticks):
        state, cost = tick(state, None)
        total = total + cost
    return total + (state**2).sum()


def test_a_loop_is_differentiated(backend: Backend) -> None:
    """With respect to the model's parameters, against central differences; some plans begin at the bound."""
    truth = backend.array(1.1 * PARAMETERS)
    both = jax.jit(jax.value_and_grad(lambda p: loop_cost(backend, p, truth)))
    if backend.name == "torch":
        both = lambda p: torch.func.grad_and_value(lambda p: loop_cost(backend, p, truth))(p)[::-1]  # noqa: E731
    _, slope = both(backend.array(PARAMETERS))
    h = 1e-4
    ends = [[float(both(backend.array(PARAMETERS + s * h * e))[0]) for s in (1, -1)] for e in np.eye(2)]
    expected = [(ahead - behind) / (2 * h) for ahead, behind in ends]
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(backend.numpy(slope), expected, rtol=1e-4)
