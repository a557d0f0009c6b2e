"""Trajectories with constraints: milliseconds a solve against IPOPT and FATROP, both through CasADi.

python benchmarks/sqp.py [--repeats 11] [--only "C1 T=1000"]

C1: pendulum swing-up, RK4 in T steps, n = 3 T. C2: cart-pole swing-up (Kelly 2017), collocation on N + 1 knots,
n = 5 (N + 1). Every solver starts from the same point and must end at the same objective.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import cpu_seconds, machine, medians, table

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)  # two take as long here, at twice the CPU time, and stand in the way of XLA's

GRAVITY, M1, M2, LENGTH, DISTANCE = 9.81, 1.0, 0.3, 0.5, 1.0
INF = math.inf


# --- The problems on columns: `op` joins and stacks them for each framework ------------------------------------------


def array_ops(xp: Any) -> SimpleNamespace:
    def columns(z: Any) -> list:
        return [z[:, i] for i in range(z.shape[1])]

    return SimpleNamespace(
        sin=xp.sin, cos=xp.cos, sum=xp.sum, columns=columns, flat=lambda parts: parts,
        before=lambda v, first: xp.concatenate([xp.zeros_like(v[:1]) + first, v[:-1]], 0), last=lambda v: v[-1:],
    )  # fmt: skip


def casadi_ops(d: int) -> SimpleNamespace:
    return SimpleNamespace(
        sin=casadi.sin, cos=casadi.cos, sum=casadi.sum1, columns=lambda z: [z[i::d] for i in range(d)],
        flat=lambda parts: casadi.vertcat(*parts), before=lambda v, first: casadi.vertcat(first, v[:-1]),
        last=lambda v: v[-1:],
    )  # fmt: skip


def runge_kutta(op: SimpleNamespace, angle: Any, rate: Any, u: Any, h: float) -> tuple:
    def slope(a: Any, b: Any) -> tuple:
        return b, u - GRAVITY * op.sin(a)

    k1 = slope(angle, rate)
    k2 = slope(angle + h / 2 * k1[0], rate + h / 2 * k1[1])
    k3 = slope(angle + h / 2 * k2[0], rate + h / 2 * k2[1])
    k4 = slope(angle + h * k3[0], rate + h * k3[1])
    return tuple(x + h / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]) for i, x in enumerate((angle, rate)))


def pendulum(op: SimpleNamespace, T: int) -> tuple[Callable, Callable]:
    h = 4 / T

    def cost(z: Any) -> Any:
        return h / 2 * op.sum(op.columns(z)[0] ** 2)

    def constraints(z: Any) -> Any:
        u, angle, rate = op.columns(z)
        a, r = runge_kutta(op, op.before(angle, 0), op.before(rate, 0), u, h)
        return op.flat((angle - a, rate - r, op.last(angle) - math.pi, op.last(rate)))

    return cost, constraints


def pendulum_start(T: int) -> np.ndarray:
    return np.stack([np.zeros(T), math.pi * np.arange(1, T + 1) / T, np.full(T, math.pi / 4)], 1)


def cart(op: SimpleNamespace, N: int) -> tuple[Callable, Callable]:
    h = 2 / N

    def cost(z: Any) -> Any:
        u = op.columns(z)[4]
        return h / 2 * op.sum(u[1:] ** 2) + h / 2 * op.sum(u[:-1] ** 2)

    def constraints(z: Any) -> Any:
        *x, u = op.columns(z)
        s, c, turn = op.sin(x[1]), op.cos(x[1]), x[3]
        mass = M1 + M2 * (1 - c**2)
        push = (LENGTH * M2 * s * turn**2 + u + M2 * GRAVITY * c * s) / mass
        spin = -(LENGTH * M2 * c * s * turn**2 + u * c + (M1 + M2) * GRAVITY * s) / (LENGTH * mass)
        slopes = (x[2], turn, push, spin)
        steps = [q[1:] - q[:-1] - h / 2 * (f[1:] + f[:-1]) for q, f in zip(x, slopes, strict=True)]
        ends = [op.last(q) - goal for q, goal in zip(x, (DISTANCE, math.pi, 0, 0), strict=True)]
        return op.flat((*steps, *(q[:1] for q in x), *ends))

    return cost, constraints


def cart_start(N: int) -> np.ndarray:
    t, zero = np.arange(N + 1) / N, np.zeros(N + 1)
    return np.stack([DISTANCE * t, math.pi * t, zero, zero, zero], 1)


# --- The peers -------------------------------------------------------------------------------------------------------


def quiet(solver: str) -> dict:
    return {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes"}} if solver == "ipopt" else {
        "print_time": False, "fatrop": {"print_level": 0}, "structure_detection": "auto",
    }  # fmt: skip


def ipopt(build: Callable, size: int, start: np.ndarray, limit: np.ndarray) -> Callable[[], tuple[float, int]]:
    z = casadi.SX.sym("z", start.size)
    cost, constraints = build(casadi_ops(start.shape[1]), size)
    solver = casadi.nlpsol("s", "ipopt", {"x": z, "f": cost(z), "g": constraints(z)}, quiet("ipopt"))
    bound = np.tile(limit, len(start))

    def call() -> tuple[float, int]:
        result = solver(x0=start.ravel(), lbg=0, ubg=0, lbx=-bound, ubx=bound)
        return float(result["f"]), int(solver.stats()["iter_count"])

    return call


def fatrop(T: int) -> Callable[[], tuple[float, int]]:
    """C1 in the order of stages that FATROP wants: x_0, u_0, x_1, ..., x_T; each stage's step before its conditions."""
    h = 4 / T
    x = [casadi.SX.sym(f"x{k}", 2) for k in range(T + 1)]
    u = [casadi.SX.sym(f"u{k}") for k in range(T)]
    op = casadi_ops(1)
    g: list = []
    for k in range(T):
        g.append(x[k + 1] - casadi.vertcat(*runge_kutta(op, x[k][0], x[k][1], u[k], h)))
        if k == 0:
            g.append(x[0])
    g.append(x[T] - casadi.vertcat(math.pi, 0))
    z = casadi.vertcat(*[part for k in range(T) for part in (x[k], u[k])], x[T])
    g_all = casadi.vertcat(*g)
    problem = {"x": z, "f": h / 2 * casadi.sumsqr(casadi.vertcat(*u)), "g": g_all}
    solver = casadi.nlpsol("s", "fatrop", problem, {**quiet("fatrop"), "equality": [True] * g_all.numel()})
    start = pendulum_start(T)
    x0 = np.zeros((T + 1, 3))
    x0[1:, :2] = start[:, 1:]
    x0[:T, 2] = start[:, 0]
    first = x0.ravel()[: 3 * T + 2]

    def call() -> tuple[float, int]:
        result = solver(x0=first, lbg=0, ubg=0)
        return float(result["f"]), int(solver.stats()["iter_count"])

    return call


def batch() -> None:
    """A hundred starts of C1 at once: the straight line bent by up to a turn."""
    funs = pendulum(array_ops(jnp), 100)
    rng = np.random.default_rng(0)
    t = np.arange(1, 101) / 100
    bends = rng.uniform(-3, 3, 100)
    starts = np.stack([pendulum_start(100)] * 100)
    starts[:, :, 1] += bends[:, None] * np.sin(math.pi * t)
    starts[:, :, 2] += bends[:, None] * math.pi / 4 * np.cos(math.pi * t)
    together = jax.jit(jax.vmap(lambda x: bandhess_jax.sqp(*funs, x, 1, max_steps=100)))
    one = jax.jit(lambda x: bandhess_jax.sqp(*funs, x, 1, max_steps=100))
    xs = jnp.asarray(starts)
    first, results = cpu_seconds(lambda: jax.block_until_ready(together(xs)))
    status = np.asarray(results.status)
    calls = {
        "vmap": lambda: jax.block_until_ready(together(xs)),
        "loop": lambda: [jax.block_until_ready(one(x)) for x in xs],
    }
    t_ms = medians(calls, 3)
    print()
    values = np.unique(np.round(np.asarray(results.value)[status == 0], 5))
    row = ["bent by up to 3 rad", first, int((status == 0).sum()), len(values)]
    row += [f"{int(results.steps.min())} to {int(results.steps.max())}", t_ms["vmap"] / 100, t_ms["loop"] / 100]
    header = ["100 starts of C1 T=100", "first CPU s", "converged", "optima", "steps", "vmap ms a start"]
    table([*header, "one by one ms a start"], [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", help="a part of the problem's name, or batch")
    options = parser.parse_args()
    print(f"{machine('jax', 'torch', 'casadi')}; float64, medians of {options.repeats}\n", flush=True)
    free3, free5 = np.full(3, INF), np.full(5, INF)
    cases = {
        "C1 T=100": (pendulum, 100, pendulum_start(100), free3),
        "C1 T=1000": (pendulum, 1000, pendulum_start(1000), free3),
        "C1 T=1000, bounded": (pendulum, 1000, pendulum_start(1000), np.array([5, INF, INF])),
        "C2 N=100": (cart, 100, cart_start(100), free5),
        "C2 N=1000": (cart, 1000, cart_start(1000), free5),
        "C2 N=1000, bounded": (cart, 1000, cart_start(1000), np.array([INF, INF, INF, INF, 10])),
    }
    rows = []
    for name, (build, size, start, limit) in cases.items():
        if options.only and options.only not in name:
            continue
        bounded = bool(np.isfinite(limit).any())
        by_jax, by_torch = build(array_ops(jnp), size), build(array_ops(torch), size)
        xj, xt = jnp.asarray(start), torch.tensor(start)
        bounds_j = (jnp.asarray(-limit), jnp.asarray(limit)) if bounded else None
        bounds_t = (torch.tensor(-limit), torch.tensor(limit)) if bounded else None

        def solve_jax(funs: tuple = by_jax, x: Any = xj, bounds: Any = bounds_j) -> Any:
            result = bandhess_jax.sqp(*funs, x, 1, bounds=bounds)
            result.x.block_until_ready()
            return result

        def solve_torch(funs: tuple = by_torch, x: Any = xt, bounds: Any = bounds_t) -> Any:
            return bandhess_torch.sqp(*funs, x, 1, bounds=bounds)

        peers = {"ipopt": ipopt(build, size, start, limit)}
        if build is pendulum and not bounded and casadi.has_nlpsol("fatrop"):
            peers["fatrop"] = fatrop(size)
        first, found = cpu_seconds(solve_jax)
        other = solve_torch()
        values = {key: call() for key, call in peers.items()}
        for value in (float(other.value), *(value for value, _ in values.values())):
            assert abs(value - float(found.value)) <= 1e-6 * abs(value), (name, value, float(found.value))
        t = medians({"jax": solve_jax, "torch": solve_torch, **peers}, options.repeats)
        rows.append([
            name, first, found.steps, t["jax"], t["torch"], values["ipopt"][1], t["ipopt"], t["jax"] / t["ipopt"],
            t["torch"] / t["ipopt"], values["fatrop"][1] if "fatrop" in values else "-", t.get("fatrop", "-"),
            t["jax"] / t["fatrop"] if "fatrop" in t else "-",
        ])  # fmt: skip
    if rows:
        table(
            ["problem", "first CPU s", "steps", "jax ms", "torch ms", "ipopt steps", "ipopt ms", "jax/ipopt",
             "torch/ipopt", "fatrop steps", "fatrop ms", "jax/fatrop"],
            rows,
        )  # fmt: skip
    if options.only in (None, "batch"):
        batch()


if __name__ == "__main__":
    main()
