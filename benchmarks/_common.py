"""What the benchmarks share: the machine's line, interleaved timing, and the objectives, once for every framework."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np


def machine(*packages: str) -> str:
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}; {versions}"


def medians(calls: dict[str, Callable[[], Any]], repeats: int = 15) -> dict[str, float]:
    """Median milliseconds of each call, after two warm-ups.

    The calls take turns, so that drift of the machine hits all alike, in an order drawn anew each time. In its turn a
    call below 50 ms is made once unmeasured, as timeit does: else what ran before decides what the caches hold, and
    whether threads sleep. A short one is then repeated for half a millisecond.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    lengths: dict[str, float] = {}
    for name, call in calls.items():
        call()
        lengths[name] = seconds(call)[0]
    order, draw = list(calls.items()), random.Random(0)
    for _ in range(repeats):
        draw.shuffle(order)
        for name, call in order:
            number = min(100, max(1, int(5e-4 / max(lengths[name], 1e-9))))
            if lengths[name] < 0.05:
                call()
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append(1e3 * (time.perf_counter() - start) / number)
    return {name: statistics.median(values) for name, values in times.items()}


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Of all threads: XLA compiles in several."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A Markdown table, as benchmarks/README.md holds them."""
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    for row in [list(header), ["-" * width for width in widths], *cells]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |", flush=True)


def jax_ops() -> SimpleNamespace:
    import jax.numpy as jnp

    return SimpleNamespace(
        sin=jnp.sin,
        exp=jnp.exp,
        tanh=jnp.tanh,
        sum=jnp.sum,
        join=jnp.concatenate,
        ends=lambda x, v: jnp.array([v, v], x.dtype),
        rows=jnp.stack,
        apply=lambda weights, x: jnp.asarray(weights, x.dtype) @ x,
    )


def torch_ops() -> SimpleNamespace:
    import torch

    return SimpleNamespace(
        sin=torch.sin,
        exp=torch.exp,
        tanh=torch.tanh,
        sum=torch.sum,
        join=torch.cat,
        ends=lambda x, v: x.new_tensor([v, v]),
        rows=torch.stack,
        apply=lambda weights, x: torch.as_tensor(weights, dtype=x.dtype) @ x,
    )


def casadi_ops() -> SimpleNamespace:
    import casadi

    return SimpleNamespace(
        sin=casadi.sin,
        exp=casadi.exp,
        tanh=casadi.tanh,
        sum=lambda x: casadi.sum2(casadi.sum1(x)),
        join=lambda parts: casadi.vertcat(*parts),
        ends=lambda x, v: casadi.SX([v, v]),
        rows=lambda parts: casadi.horzcat(*parts).T,
        apply=lambda weights, x: casadi.DM(weights) @ x,
    )


def window(w: int) -> Callable:
    """sum exp(0.3 s) + s^2 with s a sum of sines over a window of w + 1 entries: half-bandwidth w."""

    def build(op: SimpleNamespace) -> Callable:
        def fun(x: Any) -> Any:
            n = x.shape[0]
            s = sum(op.sin((1 + 0.1 * k) * x[k : n - w + k]) for k in range(w + 1))
            return op.sum(op.exp(0.3 * s) + s**2) + 0.5 * op.sum(x**2)

        return fun

    return build


def rosenbrock(op: SimpleNamespace) -> Callable:
    return lambda x: op.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def path2d(op: SimpleNamespace) -> Callable:
    """The stiff path among bumps of shared problem PATH2D, flat: half-bandwidth 4."""

    def fun(x: Any) -> Any:
        points = x.shape[0] // 2
        h, kappa = 1 / (points + 1), 1e-3
        value = 0.0
        for p in (x[0::2], x[1::2]):
            q = op.join([op.ends(x, 0.0), p, op.ends(x, 1.0)])
            d = q[1:] - q[:-1]
            value = value + op.sum(d**2) / (2 * h) + kappa / (2 * h**3) * op.sum((d[1:] - d[:-1]) ** 2)
        for cx, cy, s in ((0.30, 0.38, 0.10), (0.62, 0.52, 0.12), (0.75, 0.86, 0.08)):
            value = value + 20 * h * op.sum(op.exp(-((x[0::2] - cx) ** 2 + (x[1::2] - cy) ** 2) / (2 * s**2)))
        return value

    return fun


def pendulum(op: SimpleNamespace) -> Callable:
    """A pendulum's stages (angle, rate, torque), its dynamics as a penalty: half-bandwidth 4."""

    def fun(x: Any) -> Any:
        h = 0.01
        angle, rate, torque = x[0::3], x[1::3], x[2::3]
        turn = angle[1:] - angle[:-1] - h * rate[:-1]
        spin = rate[1:] - rate[:-1] - h * (torque[:-1] - 9.81 * op.sin(angle[:-1]))
        return h / 2 * op.sum(torque**2) + 50 * (op.sum(turn**2) + op.sum(spin**2))

    return fun


def network(op: SimpleNamespace) -> Callable:
    """A cost by a small neural network (5, 32, 32) of each window of five entries: half-bandwidth 4, and products that
    go through matrices."""
    draw = np.random.default_rng(0)
    first, second = draw.standard_normal((32, 5)) / 2, draw.standard_normal((32, 32)) / 6

    def fun(x: Any) -> Any:
        windows = op.rows([x[k : x.shape[0] - 4 + k] for k in range(5)])
        return op.sum(op.tanh(op.apply(second, op.tanh(op.apply(first, windows)))) ** 2) + 0.5 * op.sum(x**2)

    return fun


OBJECTIVES: dict[str, tuple[Callable, int]] = {
    "window 2": (window(2), 2),
    "window 8": (window(8), 8),
    "rosenbrock": (rosenbrock, 1),
    "path2d": (path2d, 4),
    "pendulum": (pendulum, 4),
    "network": (network, 4),
}


def start(n: int, name: str, seed: int = 0) -> np.ndarray:
    """A point to differentiate at; a multiple of 6 entries, so that every objective has whole stages."""
    return 0.3 * np.random.default_rng(seed).standard_normal(n - n % 6)
