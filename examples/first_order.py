"""What Newton's method is compared with: gradients only, for an equal time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import minimize


class Run(NamedTuple):
    """Where a solve ended, and its history: the objective against the seconds since its start."""

    x: np.ndarray
    iterations: int
    seconds: list[float]
    values: list[float]
    total: float


def adam(fun: Callable, x0: np.ndarray, rate: float, budget: float) -> Run:
    """Gradient descent with Adam's step sizes (Kingma and Ba 2015), its loop compiled; compiling is not counted."""

    def step(i: Any, state: tuple) -> tuple:
        x, m, v, t = state
        g = jax.grad(fun)(x)
        m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, t + 1
        return x - rate * m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v, t

    @jax.jit
    def steps(state: tuple) -> tuple:
        state = lax.fori_loop(0, 100, step, state)
        return state, fun(state[0])

    x = jnp.asarray(x0)
    state = (x, jnp.zeros_like(x), jnp.zeros_like(x), 0.0)
    jax.block_until_ready(steps(state))
    seconds, values, began = [0.0], [float(fun(x))], time.perf_counter()
    while seconds[-1] < budget:
        state, value = steps(state)
        values.append(float(value))
        seconds.append(time.perf_counter() - began)
    return Run(np.asarray(state[0]), int(state[3]), seconds, values, seconds[-1])


def lbfgsb(fun: Callable, x0: np.ndarray, budget: float) -> Run:
    """SciPy's L-BFGS-B with compiled gradients; compiling is not counted."""
    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad)

    seconds, values = [0.0], [evaluate(x0)[0]]
    began = time.perf_counter()

    def record(intermediate_result: Any) -> None:
        seconds.append(time.perf_counter() - began)
        values.append(float(intermediate_result.fun))
        if seconds[-1] > budget:
            raise StopIteration

    unlimited = {"maxiter": 10**9, "maxfun": 10**9, "ftol": 0, "gtol": 1e-9}
    result = minimize(evaluate, x0, jac=True, method="L-BFGS-B", callback=record, options=unlimited)
    return Run(result.x, result.nit, seconds, values, seconds[-1])
