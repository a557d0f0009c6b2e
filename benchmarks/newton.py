"""Newton's method: does it arrive, in how many steps, by which globalisation, and how fast against its peers.

python benchmarks/newton.py [--tables arrival globalisation speed batch] [--cases PATH2D:1000 ...] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import scipy.optimize
import torch
from _common import casadi_ops, cpu_seconds, jax_ops, machine, medians, seconds, table, torch_ops
from newton_globalisation import globalisation
from newton_problems import CASES, Case, engval1, error, functions, genrose

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)

# --- Arrival ---------------------------------------------------------------------------------------------------------


def by_jax(case: Case, fun: Callable, **options: Any) -> Any:
    result = bandhess_jax.newton(fun, jnp.asarray(case.start), case.w, **options)
    return result._replace(x=result.x.block_until_ready())


def by_torch(case: Case, fun: Callable) -> Any:
    return bandhess_torch.newton(fun, torch.tensor(case.start), case.w)


def arrival(cases: list[Case]) -> None:
    rows = []
    for case in cases:
        in_jax, in_torch = by_jax(case, case.build(jax_ops())), by_torch(case, case.build(torch_ops()))
        for result in (in_jax, in_torch):
            assert error(case, result.value) <= 1e-8, (case, float(result.value))
            assert result.steps <= case.limit, (case, result.steps)
        assert abs(in_jax.steps - in_torch.steps) <= (0.05 * in_jax.steps if in_jax.steps >= 50 else 0)
        ends = [result.status.name for result in (in_jax, in_torch)]
        rows.append([case.name, case.n, case.limit, in_jax.steps, in_torch.steps, error(case, in_jax.value),
                     error(case, in_torch.value), float(in_jax.grad_norm), *ends])  # fmt: skip
    header = ["problem", "n", "allowed", "jax steps", "torch steps", "jax error", "torch error", "max|g|", "jax ends"]
    table([*header, "torch ends"], rows)


# --- Speed -----------------------------------------------------------------------------------------------------------


class LateError(Exception):
    pass


def ipopt(case: Case) -> Callable[[], tuple[float, int]]:
    x = casadi.SX.sym("x", case.n)
    quiet = {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 3000}}
    solver = casadi.nlpsol("solver", "ipopt", {"x": x, "f": case.build(casadi_ops())(x)}, quiet)

    def call() -> tuple[float, int]:
        solution = solver(x0=case.start)
        return float(solution["f"]), solver.stats()["iter_count"]

    return call


def scipy_peer(case: Case, method: str, cap: float) -> tuple[float, float, int]:
    """`(seconds, f, iterations)`; stopped after cap seconds."""
    _, value_grad, _ = functions(case)
    product = jax.jit(lambda x, v: jax.jvp(jax.grad(case.build(jax_ops())), (x,), (v,))[1])
    best, iterations = [np.inf], [0]

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        if time.perf_counter() > end:
            raise LateError
        f, g = value_grad(x)
        best[0] = min(best[0], float(f))
        return float(f), np.asarray(g)

    def count(_: Any) -> None:
        iterations[0] += 1

    settings: dict[str, Any] = {"jac": True, "callback": count}
    if method == "L-BFGS-B":
        settings["options"] = {"maxiter": 10**6, "maxfun": 10**7, "ftol": 0, "gtol": 1e-8, "maxcor": 20}
    else:
        settings |= {"hessp": lambda x, v: np.asarray(product(x, v)), "options": {"gtol": 1e-6, "maxiter": 10**5}}
    end = np.inf
    fun(case.start), product(case.start, case.start)
    began = time.perf_counter()
    end = began + cap
    with contextlib.suppress(LateError):
        scipy.optimize.minimize(fun, case.start, method=method, **settings)
    return time.perf_counter() - began, best[0], iterations[0]


def optimistix_peer(case: Case, max_steps: int) -> tuple[float, float, int]:
    """L-BFGS, compiled."""
    fun = case.build(jax_ops())
    solver = optimistix.LBFGS(rtol=1e-10, atol=1e-10)

    @jax.jit
    def solve(x: Any) -> tuple:
        end = optimistix.minimise(lambda x, _: fun(x), solver, x, max_steps=max_steps, throw=False)
        return fun(end.value), end.stats["num_steps"]

    start = jnp.asarray(case.start)
    compiled = solve.lower(start).compile()
    took, (f, steps) = seconds(lambda: jax.block_until_ready(compiled(start)))
    return took, float(f), int(steps)


def speed(cases: list[Case], repeats: int, cap: float) -> None:
    rows, others = [], []
    for case in cases:
        in_jax, in_torch = case.build(jax_ops()), case.build(torch_ops())
        first = cpu_seconds(lambda case=case, fun=in_jax: by_jax(case, fun))[0]
        build, solve = seconds(lambda case=case: ipopt(case))
        found, iterations = solve()
        assert error(case, found) <= 1e-6, (case, found)
        calls = {
            "jax": lambda case=case, fun=in_jax: by_jax(case, fun),
            "torch": lambda case=case, fun=in_torch: by_torch(case, fun),
            "ipopt": solve,
        }
        t = medians(calls, repeats)
        rows.append([case.name, case.n, first, t["jax"], t["torch"], build, iterations, t["ipopt"],
                     t["jax"] / t["ipopt"], t["torch"] / t["ipopt"]])  # fmt: skip
        for name in ("L-BFGS-B", "trust-krylov"):
            took, f, steps = scipy_peer(case, name, cap)
            others.append([case.name, case.n, f"SciPy {name}", steps, took, error(case, f), 1e-3 * t["jax"] / took])
        took, f, steps = optimistix_peer(case, 5000)
        others.append([case.name, case.n, "optimistix LBFGS", steps, took, error(case, f), 1e-3 * t["jax"] / took])
    header = ["problem", "n", "first call CPU s", "jax ms", "torch ms", "IPOPT build s", "iterations", "IPOPT ms"]
    table([*header, "jax/IPOPT", "torch/IPOPT"], rows)
    print(f"\nOther peers, once, stopped after {cap:g} s (optimistix: 5000 steps), and the error they then have\n")
    table(["problem", "n", "peer", "iterations", "seconds", "error", "bandhess_jax's time / peer's"], others)


# --- Batches ---------------------------------------------------------------------------------------------------------


def batch(repeats: int) -> None:
    """A hundred starts at once, in JAX: near ENGVAL1's, steps alike; all over GENROSE's plane, steps unlike."""
    rng, rows = np.random.default_rng(0), []
    for name, build, centre, spread in (("ENGVAL1", engval1, 2.0, 0.1), ("GENROSE", genrose, 0.0, 1.0)):
        fun = build(jax_ops())
        solve = partial(bandhess_jax.newton, fun, bandwidth=1, max_steps=3000)
        together, one = jax.jit(jax.vmap(solve)), jax.jit(solve)
        for n in (10, 100, 1000) if name == "ENGVAL1" else (10, 100):
            starts = jnp.asarray(centre + spread * rng.normal(size=(100, n)))
            first, results = cpu_seconds(partial(waited, together, starts))
            calls = {
                "vmap": partial(waited, together, starts),
                "jit": lambda one=one, starts=starts: [waited(one, x) for x in starts],
                "call": lambda solve=solve, starts=starts: [waited(solve, x) for x in starts],
            }
            t_ms = medians(calls, repeats)
            steps = f"{int(results.steps.min())} to {int(results.steps.max())}"
            each = [t_ms[kind] / 100 for kind in ("vmap", "jit", "call")]
            rows.append([name, n, first, steps, *each, each[0] / each[1], each[0] / each[2]])
    header = ["100 starts", "n", "first CPU s", "steps", "vmap ms a start", "jitted, one by one", "calls, one by one"]
    table([*header, "vmap/jitted", "vmap/calls"], rows)


def waited(solve: Callable, x: Any) -> Any:
    return jax.block_until_ready(solve(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = ["arrival", "globalisation", "speed", "batch"]
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables)
    parser.add_argument("--cases", nargs="+", choices=list(map(str, CASES)), default=list(map(str, CASES)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cap", type=float, default=10.0)
    options = parser.parse_args()
    cases = [case for case in CASES if str(case) in options.cases]
    print(machine("jax", "torch", "casadi", "scipy", "optimistix"), "; float64\n", sep="")
    if "arrival" in options.tables:
        arrival(cases)
        print()
    if "globalisation" in options.tables:
        globalisation(cases)
        print()
    if "speed" in options.tables:
        speed(cases, options.repeats, options.cap)
        print()
    if "batch" in options.tables:
        batch(options.repeats)


if __name__ == "__main__":
    main()
