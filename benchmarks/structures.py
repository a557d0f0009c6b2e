"""Borders and rings: what shared variables and closed curves cost beside a plain band; arrowheads beside IPOPT; a free
final time as one number or as one a stage.

python benchmarks/structures.py [--n 100000] [--w 8] [--p 4] [--repeats 21]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import machine, medians, table

import bandhess_jax
import bandhess_torch

sys.path.insert(0, str(Path(__file__).parent.parent / "parity_tests"))
import free_time

jax.config.update("jax_enable_x64", True)


def solves(n: int, w: int, p: int, repeats: int) -> None:
    """One right-hand side, by a plain band, one with a border of p, and a ring."""
    rng = np.random.default_rng(0)
    ab = rng.standard_normal((w + 1, n))
    ab[0] = 4 * w + 2 + rng.random(n)
    border, b = rng.standard_normal((p, n)), rng.standard_normal(n + p)
    rows = []
    for package, array in ((bandhess_jax, jnp.asarray), (bandhess_torch, torch.tensor)):
        solve = jax.jit(package.solve) if package is bandhess_jax else package.solve
        plain, corner = array(ab), array(1e3 * n * np.eye(p))
        cases = {
            "plain": (plain, array(b[:n])),
            "border": (package.Bordered(plain, array(border), corner), array(b)),
            "ring": (package.Cyclic(plain), array(b[:n])),
        }
        t = medians({name: partial(_run, solve, *case) for name, case in cases.items()}, repeats)
        name = package.__name__.removeprefix("bandhess_")
        rows.append([name, t["plain"], t["border"], t["border"] / t["plain"], t["ring"], t["ring"] / t["plain"]])
    print(f"Solve, n = {n}, w = {w}, a border of p = {p}, ms:\n")
    table(["", "plain", "border", "ratio", "ring", "ratio"], rows)


def _run(solve: Callable, H: Any, b: Any) -> Any:
    x = solve(H, b)
    return x.block_until_ready() if hasattr(x, "block_until_ready") else x


def extractions(n: int, repeats: int) -> None:
    """The Hessian of a chain of three neighbours: plain, with a shared weight, closed."""
    rows = []
    for package, xp, array in ((bandhess_jax, jnp, jnp.asarray), (bandhess_torch, torch, torch.tensor)):

        def bends(x: Any, first: Any, last: Any, xp: Any = xp) -> Any:
            return xp.sum((last - 2 * x + first) ** 2 * xp.exp(-(x**2)))

        plain = lambda x, bends=bends: bends(x[1:-1], x[:-2], x[2:])  # noqa: E731
        shared = lambda z, plain=plain: z["weight"] * plain(z["x"])  # noqa: E731
        ring = lambda x, bends=bends, xp=xp: bends(x, xp.roll(x, 1), xp.roll(x, -1))  # noqa: E731
        x = array(0.3 * np.random.default_rng(0).standard_normal(n))
        cases = {
            "plain": (package.hessian(plain, 2), x),
            "shared": (
                package.hessian(shared, 2, stage_axes={"x": 0, "weight": None}),
                {"x": x, "weight": array(np.array(1.5))},
            ),
            "ring": (package.hessian(ring, 2, periodic=True), x),
        }
        t = medians({name: partial(_extract, *case) for name, case in cases.items()}, repeats)
        name = package.__name__.removeprefix("bandhess_")
        rows.append([name, t["plain"], t["shared"], t["shared"] / t["plain"], t["ring"], t["ring"] / t["plain"]])
    print(f"\nHessian, n = {n}, w = 2, ms:\n")
    table(["", "plain", "one shared", "ratio", "ring", "ratio"], rows)


def _extract(hessian: Callable, x: Any) -> Any:
    return jax.block_until_ready(hessian(x)) if hessian.__module__.startswith("bandhess_jax") else hessian(x)


def bdqrtic(z: dict, xp: Any) -> Any:
    x = xp.concatenate([z["x"], xp.reshape(z["y"], (1,))])
    fourth = x[:-4] ** 2 + 2 * x[1:-3] ** 2 + 3 * x[2:-2] ** 2 + 4 * x[3:-1] ** 2 + 5 * z["y"] ** 2
    return xp.sum((3 - 4 * x[:-4]) ** 2 + fourth**2)


def liarwhd(z: dict, xp: Any) -> Any:
    x, y = z["x"], z["y"]
    return xp.sum(4 * (x**2 - y) ** 2 + (x - 1) ** 2) + 4 * (y**2 - y) ** 2 + (y - 1) ** 2


def arrowheads(repeats: int) -> None:
    """CUTEst's, n = 5000, minimised: newton with a shared variable, and IPOPT on CasADi's sparse Hessian."""
    rows, n, axes = [], 5000, {"x": 0, "y": None}
    for name, fun, k, start in (("BDQRTIC", bdqrtic, 3, 1.0), ("LIARWHD", liarwhd, 0, 4.0)):
        calls: dict[str, Callable] = {"ipopt": _ipopt(name, n, start)}
        ends = {}
        for package, xp, array in ((bandhess_jax, jnp, jnp.asarray), (bandhess_torch, torch, torch.tensor)):
            x0 = {"x": array(np.full(n - 1, start)), "y": array(np.array(start))}
            short = package.__name__.removeprefix("bandhess_")
            calls[short] = partial(package.newton, partial(fun, xp=xp), x0, k, stage_axes=axes)
            begin = time.process_time()
            ends[short] = calls[short]()
            ends[f"{short} first"] = time.process_time() - begin
        t = medians(calls, repeats)
        end = ends["jax"]
        rows.append([name, float(end.value), end.steps, t["ipopt"], t["jax"], t["jax"] / t["ipopt"], ends["jax first"],
                     t["torch"], t["torch"] / t["ipopt"]])  # fmt: skip
    print("\nArrowheads, n = 5000, ms (first call: CPU seconds):\n")
    table(["", "value", "steps", "IPOPT", "jax", "ratio", "first call", "torch", "ratio"], rows)


def _ipopt(name: str, n: int, start: float) -> Callable:
    x = casadi.SX.sym("x", n)
    y = x[-1]
    if name == "BDQRTIC":
        fourth = x[:-4] ** 2 + 2 * x[1:-3] ** 2 + 3 * x[2:-2] ** 2 + 4 * x[3:-1] ** 2 + 5 * y**2
        f = casadi.sum1((3 - 4 * x[:-4]) ** 2 + fourth**2)
    else:
        f = casadi.sum1(4 * (x**2 - y) ** 2 + (x - 1) ** 2)
    quiet = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes"}
    solver = casadi.nlpsol("solver", "ipopt", {"x": x, "f": f}, quiet)
    return lambda: solver(x0=start)


def free_times(repeats: int) -> None:
    """COPS' minimum-time problems by `sqp`: one step length that all stages share, and one a stage, tied."""
    rows = []
    for name, (make, N) in free_time.PROBLEMS.items():
        for package, xp, array in ((bandhess_jax, jnp, jnp.asarray), (bandhess_torch, torch, torch.tensor)):
            problem = make(xp, N)
            calls: dict[str, Callable] = {}
            for form, shared in (("shared", True), ("tied", False)):
                args, options = free_time.arguments(problem, xp, array, shared)
                calls[form] = partial(package.sqp, *args, **options)
            ends = {form: call() for form, call in calls.items()}
            t = medians(calls, repeats)
            gap = abs(float(ends["shared"].value) - float(ends["tied"].value)) / abs(float(ends["tied"].value))
            steps = [ends[form].steps for form in calls]
            short = package.__name__.removeprefix("bandhess_")
            value = float(ends["shared"].value)
            rows.append([name, short, value, gap, *steps, t["shared"], t["tied"], t["shared"] / t["tied"]])
    print("\nFree final time, ms:\n")
    table(["", "", "value", "difference", "steps, shared", "steps, tied", "shared", "tied", "ratio"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--w", type=int, default=8)
    parser.add_argument("--p", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=21)
    given = parser.parse_args()
    print(machine("jax", "torch", "casadi"), "; float64\n", sep="")
    solves(given.n, given.w, given.p, given.repeats)
    extractions(given.n, given.repeats)
    arrowheads(given.repeats)
    free_times(max(3, given.repeats // 3))
