"""Convex quadratic programs in stages: a chain of masses, 8 states, 3 controls, all bounded; `sqp` against PIQP, which
is written for them (multistage backend), and IPOPT.

python benchmarks/convex.py [--repeats 11]

PIQP is given the matrices and sets up and solves; `sqp` and IPOPT find derivatives by themselves.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import torch
from _common import machine, medians, table
from scipy.linalg import expm

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)  # two take as long here, at twice the CPU time, and stand in the way of XLA's

COUNT = 4
PIQP = importlib.util.find_spec("piqp") is not None


def dynamics() -> tuple[np.ndarray, np.ndarray]:
    """Half a second of masses between springs, pushed apart by three actuators: x after is A x + B u."""
    K = 2 * np.eye(COUNT) - np.eye(COUNT, k=1) - np.eye(COUNT, k=-1)
    F = np.zeros((COUNT, 3))
    F[0, 0], F[1, 0], F[1, 1], F[2, 1], F[2, 2], F[3, 2] = 1, -1, 1, -1, 1, -1
    rate = np.zeros((2 * COUNT + 3, 2 * COUNT + 3))
    rate[:COUNT, COUNT : 2 * COUNT] = np.eye(COUNT)
    rate[COUNT : 2 * COUNT, :COUNT], rate[COUNT : 2 * COUNT, 2 * COUNT :] = -K, F
    E = expm(rate / 2)
    return E[: 2 * COUNT, : 2 * COUNT], E[: 2 * COUNT, 2 * COUNT :]


A, B = dynamics()
X0 = np.random.default_rng(0).uniform(-3, 3, 2 * COUNT)
BOX = np.array([0.5] * 3 + [4.0] * (2 * COUNT))


def by_package(package: Any, xp: Any, array: Callable, T: int) -> Callable[[], tuple[float, int]]:
    a, b, x0, box = map(array, (A.T, B.T, X0, BOX))

    def rows(z: Any) -> Any:
        before = xp.concatenate([x0[None], z[:-1, 3:]], 0)
        return z[:, 3:] - before @ a - z[:, :3] @ b

    start, cost = array(np.zeros((T, len(BOX)))), lambda z: (z**2).sum()

    def call() -> tuple[float, int]:
        result = package.sqp(cost, rows, start, 1, bounds=(-box, box))
        return float(result.value), int(result.steps)

    return call


def matrices(T: int) -> tuple[sp.csc_matrix, np.ndarray]:
    """Of the rows: matrix and right-hand side."""
    d = len(BOX)
    here = np.hstack([-B, np.eye(2 * COUNT)])
    before = np.hstack([np.zeros((2 * COUNT, 3)), -A])
    rows = sp.kron(sp.identity(T), here) + sp.kron(sp.eye(T, k=-1), before)
    right = np.zeros(2 * COUNT * T)
    right[: 2 * COUNT] = A @ X0
    assert rows.shape[1] == d * T
    return sp.csc_matrix(rows), right


def by_piqp(T: int) -> Callable[[], tuple[float, int]]:
    import piqp

    rows, right = matrices(T)
    n = rows.shape[1]
    square, linear, box = sp.csc_matrix(2 * sp.identity(n)), np.zeros(n), np.tile(BOX, T)

    def call() -> tuple[float, int]:
        solver = piqp.SparseSolver()
        solver.settings.kkt_solver = piqp.KKTSolver.sparse_multistage
        solver.setup(square, linear, rows, right, x_l=-box, x_u=box)
        if solver.solve() != piqp.PIQP_SOLVED:
            raise RuntimeError("PIQP did not solve it")
        return float(solver.result.info.primal_obj), int(solver.result.info.iter)

    return call


def by_ipopt(T: int) -> Callable[[], tuple[float, int]]:
    rows, right = matrices(T)
    z, box = casadi.SX.sym("z", rows.shape[1]), np.tile(BOX, T)
    problem = {"x": z, "f": casadi.sumsqr(z), "g": casadi.DM(rows) @ z - right}
    solver = casadi.nlpsol("s", "ipopt", problem, {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes"}})

    def call() -> tuple[float, int]:
        result = solver(x0=0, lbg=0, ubg=0, lbx=-box, ubx=box)
        return float(result["f"]), int(solver.stats()["iter_count"])

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--stages", type=int, nargs="*", default=[30, 300, 2000])
    options = parser.parse_args()
    print(f"{machine('jax', 'torch', 'casadi')}; float64, medians of {options.repeats}\n", flush=True)
    rows = []
    for T in options.stages:
        calls = {
            "jax": by_package(bandhess_jax, jnp, jnp.asarray, T),
            "torch": by_package(bandhess_torch, torch, torch.as_tensor, T), "ipopt": by_ipopt(T),
        }  # fmt: skip
        if PIQP:
            calls["piqp"] = by_piqp(T)
        found = {name: call() for name, call in calls.items()}
        for name, (value, _) in found.items():
            assert abs(value - found["jax"][0]) <= 1e-6 * abs(value), (T, name, value, found["jax"][0])
        t, steps = medians(calls, options.repeats), {name: steps for name, (_, steps) in found.items()}
        rows.append([
            T, steps["jax"], t["jax"], t["torch"], steps.get("piqp", "-"), t.get("piqp", "-"), steps["ipopt"],
            t["ipopt"],
            t["jax"] / t["piqp"] if PIQP else "-", t["jax"] / t["ipopt"], t["torch"] / t["ipopt"],
        ])  # fmt: skip
    table(
        ["T", "steps", "jax ms", "torch ms", "piqp steps", "piqp ms", "ipopt steps", "ipopt ms", "jax/piqp",
         "jax/ipopt", "torch/ipopt"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
