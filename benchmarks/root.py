"""`root` against Newton's method with a dense Jacobian (optimistix) and SciPy's collocation (`solve_bvp`).

Run from this folder: `python root.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import scipy.integrate
import torch
from _common import cpu_seconds, machine, medians, table

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)


def broyden(xp: Any) -> Callable:
    def fun(y: Any) -> Any:
        zero = 0 * y[:1]
        return (3 - 2 * y) * y - xp.concatenate([zero, y[:-1]]) - 2 * xp.concatenate([y[1:], zero]) + 1

    return fun


def boundary_value(xp: Any, T: int) -> Callable:
    """y'' = 3/2 y^2, y(0) = 4, y(1) = 1, in stages (y, y') with the trapezoidal rule between them."""

    def fun(stages: Any) -> Any:
        y, v = stages[:, 0], stages[:, 1]
        slope = xp.stack([v, 1.5 * y**2], 1)
        between = stages[1:] - stages[:-1] - (slope[1:] + slope[:-1]) / (2 * (T - 1))
        return xp.concatenate([y[:1] - 4, between.reshape(-1), y[-1:] - 1]).reshape(T, 2)

    return fun


def line(t: np.ndarray) -> np.ndarray:
    return np.stack([4 - 3 * t, -3 + 0 * t], 1)


def calls_of(build: Callable, start: np.ndarray, dense: bool) -> dict[str, Callable[[], Any]]:
    in_jax, in_torch = build(jnp), build(torch)
    x, t = jnp.asarray(start), torch.from_numpy(start)
    solver = optimistix.Newton(rtol=1e-8, atol=1e-8)

    @jax.jit
    def peer(x: Any) -> Any:
        return optimistix.root_find(lambda y, _: in_jax(y), solver, x, throw=False).value

    calls = {
        "jax": lambda: jax.block_until_ready(bandhess_jax.root(in_jax, x, 1, 1).x),
        "torch": lambda: bandhess_torch.root(in_torch, t, 1, 1).x,
    }
    return calls | ({"optimistix": lambda: jax.block_until_ready(peer(x))} if dense else {})


def collocation(T: int) -> tuple[Callable[[], Any], float]:
    """SciPy's solve_bvp from T knots, to the accuracy that the trapezoidal rule has on these; and its error."""
    t = np.linspace(0, 1, T)
    solution = bandhess_jax.root(boundary_value(jnp, T), jnp.asarray(line(t)), 1, 1)
    error = float(np.abs(np.asarray(solution.x)[:, 0] - 4 / (1 + t) ** 2).max())

    def call() -> Any:
        return scipy.integrate.solve_bvp(
            lambda t, y: np.stack([y[1], 1.5 * y[0] ** 2]), lambda a, b: np.array([a[0] - 4, b[0] - 1]), t, line(t).T,
            tol=1e-3, max_nodes=10**6,
        )  # fmt: skip

    assert np.abs(call().sol(t)[0] - 4 / (1 + t) ** 2).max() < max(error, 1e-3)
    return call, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(machine("jax", "torch", "optimistix", "scipy"), "; float64\n", sep="")
    rows = []
    for name, n in (
        ("Broyden", 100),
        ("Broyden", 1000),
        ("Broyden", 10**5),
        ("BVP", 101),
        ("BVP", 1001),
        ("BVP", 10**4),
    ):
        t = np.linspace(0, 1, n)
        build = broyden if name == "Broyden" else lambda xp, n=n: boundary_value(xp, n)
        start = -np.ones(n) if name == "Broyden" else line(t)
        calls = calls_of(build, start, start.size <= 2002)
        if name == "BVP":
            calls["solve_bvp"] = collocation(n)[0]
        first = {key: cpu_seconds(call)[0] for key, call in calls.items()}
        times = medians(calls, options.repeats)
        steps = bandhess_jax.root(build(jnp), jnp.asarray(start), 1, 1).steps
        peer, scipy_ms = times.get("optimistix"), times.get("solve_bvp")
        rows.append([
            name, start.size, steps, first["jax"], times["jax"], times["torch"],
            first.get("optimistix", "-"), peer or "-", times["jax"] / peer if peer else "-",
            scipy_ms or "-", times["jax"] / scipy_ms if scipy_ms else "-",
        ])  # fmt: skip
    header = ["problem", "n", "steps", "first CPU s", "jax ms", "torch ms", "optimistix first CPU s", "optimistix ms"]
    table([*header, "jax/optimistix", "solve_bvp ms", "jax/solve_bvp"], rows)


if __name__ == "__main__":
    main()
