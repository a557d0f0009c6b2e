"""The standard problems of optimal control (CUTEst, COPS 3): steps, optimum and milliseconds of `sqp` against IPOPT.

python benchmarks/control.py [--repeats 7] [--only rocket]

One text states a problem for all three (parity_tests/control_problems.py). IPOPT has CasADi's exact sparse derivatives
and its defaults, tol = 1e-8. It relaxes bounds and inequalities by 1e-8, which shows in the values of YAO and CAMSHAPE:
the optimum that `sqp` must reach is the unrelaxed one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
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

sys.path.append(str(Path(__file__).parent.parent / "parity_tests"))
from control_problems import PROBLEMS, Control

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)  # two take as long here, at twice the CPU time, and stand in the way of XLA's

CASADI = SimpleNamespace(
    sum=lambda x: casadi.sum2(casadi.sum1(x)), sin=casadi.sin, cos=casadi.cos, exp=casadi.exp, sqrt=casadi.sqrt,
    concatenate=lambda parts: casadi.vertcat(*parts),
)  # fmt: skip


def stacked(parts: Any) -> Any:
    return casadi.vertcat(*parts) if isinstance(parts, list) else parts


def ipopt(make: Callable) -> Callable[[], tuple[float, int]]:
    problem: Control = make(CASADI, casadi.DM)
    stages, columns = problem.start.shape
    flat = casadi.SX.sym("z", problem.start.size)
    z = casadi.reshape(flat, columns, stages).T
    rows = [stacked(part(z)) if part else casadi.SX(0, 1) for part in (problem.constraints, problem.inequalities)]
    equal, least = (part.numel() for part in rows)
    solver = casadi.nlpsol(
        "s", "ipopt", {"x": flat, "f": problem.cost(z), "g": casadi.vertcat(*rows)},
        {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 1000}},
    )  # fmt: skip
    lower, upper = (np.broadcast_to(side, problem.start.shape).ravel() for side in (problem.lower, problem.upper))
    top = np.concatenate([np.zeros(equal), np.full(least, np.inf)])

    def call() -> tuple[float, int]:
        result = solver(x0=problem.start.ravel(), lbg=0, ubg=top, lbx=lower, ubx=upper)
        return float(result["f"]), int(solver.stats()["iter_count"])

    return call


def by_package(package: Any, xp: Any, array: Callable, make: Callable) -> Callable[[], Any]:
    problem: Control = make(xp, array)
    start = array(problem.start)
    bounds = tuple(array(np.broadcast_to(side, problem.start.shape)) for side in (problem.lower, problem.upper))
    call: dict[str, Any] = {"inequalities": problem.inequalities, "bounds": bounds}

    def solve() -> Any:
        result = package.sqp(problem.cost, problem.constraints, start, problem.bandwidth, **call)
        float(result.value)
        return result

    return solve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", help="a problem's name")
    options = parser.parse_args()
    print(f"{machine('jax', 'torch', 'casadi')}; float64, medians of {options.repeats}\n", flush=True)
    rows = []
    for name, make in PROBLEMS.items():
        if options.only not in (None, name):
            continue
        optimum = make(np, np.asarray).optimum
        calls = {
            "jax": by_package(bandhess_jax, jnp, jnp.asarray, make),
            "torch": by_package(bandhess_torch, torch, torch.tensor, make), "ipopt": ipopt(make),
        }  # fmt: skip
        first, found = cpu_seconds(calls["jax"])
        other, (_, iterations) = calls["torch"](), calls["ipopt"]()
        off = max(abs(float(one.value) - optimum) / abs(optimum) for one in (found, other))
        violation = max(float(one.constraint_norm) for one in (found, other))
        assert all(bool(one.success) for one in (found, other)), (name, found.message, other.message)
        assert max(off / 1e-6, violation / 1e-8) < 1, (name, off, violation)
        t = medians(calls, options.repeats)
        rows.append([
            name.upper().replace("_", "-"), make(np, np.asarray).start.size, float(found.value), off, violation, first,
            int(found.steps), int(other.steps), iterations, t["jax"], t["torch"], t["ipopt"], t["jax"] / t["ipopt"],
            t["torch"] / t["ipopt"],
        ])  # fmt: skip
    table(
        ["problem", "n", "value", "off", "violation", "first CPU s", "steps jax", "torch", "ipopt", "jax ms",
         "torch ms", "ipopt ms", "jax/ipopt", "torch/ipopt"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
