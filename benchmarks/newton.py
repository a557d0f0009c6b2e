"""Newton's method: does it arrive, in how many steps, by which globalisation, and how fast against its peers.

python benchmarks/newton.py [--tables arrival globalisation speed] [--cases PATH2D:1000 ...] [--repeats 5] [--cap 10]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import casadi
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import scipy.optimize
import torch
from _common import casadi_ops, jax_ops, machine, medians, path2d, seconds, table, torch_ops
from scipy.linalg import lapack

import bandhess_jax
import bandhess_torch
from bandhess_torch.optimise.newton import subproblem

jax.config.update("jax_enable_x64", True)

# --- Problems --------------------------------------------------------------------------------------------------------


def curly10(op: Any) -> Callable:
    """q^4 - 20 q^2 - q / 10 over sums q of 11 neighbours: half-bandwidth 10."""

    def fun(x: Any) -> Any:
        n = x.shape[0]
        full = op.join([x] + 5 * [op.ends(x, 0.0)])
        q = sum(full[j : n + j] for j in range(11))
        return op.sum(q**4 - 20 * q**2 - 0.1 * q)

    return fun


def genrose(op: Any) -> Callable:
    return lambda x: 1 + op.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2)


def engval1(op: Any) -> Callable:
    return lambda x: op.sum((x[:-1] ** 2 + x[1:] ** 2) ** 2) + op.sum(3 - 4 * x[:-1])


def ramp(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1)


def arch(n: int) -> np.ndarray:
    t = ramp(n // 2)
    bulge = 0.3 * np.sin(np.pi * t) / np.sqrt(2)
    return np.stack([t - bulge, t + bulge], 1).ravel()


class Case(NamedTuple):
    name: str
    n: int
    build: Callable
    w: int
    start: np.ndarray
    optimum: float
    limit: int  # steps

    def __str__(self) -> str:
        return f"{self.name}:{self.n}"


CASES = [
    Case("PATH2D", 1000, path2d, 4, arch(1000), 1.731691528, 9),
    Case("PATH2D", 10000, path2d, 4, arch(10000), 1.734592765, 10),
    Case("CURLY10", 1000, curly10, 10, 1e-4 * ramp(1000), -100316.290241, 16),
    Case("CURLY10", 10000, curly10, 10, 1e-4 * ramp(10000), -1003162.90241, 16),
    Case("GENROSE", 1000, genrose, 1, ramp(1000), 1.0, 850),
    Case("ENGVAL1", 5000, engval1, 1, np.full(5000, 2.0), 5548.6684194, 20),
]


def functions(case: Case) -> tuple[Callable, Callable, Callable]:
    """`(value, value and gradient, value with gradient and band)` of a NumPy vector, by JAX, compiled."""
    fun = case.build(jax_ops())
    return tuple(map(jax.jit, (fun, jax.value_and_grad(fun), bandhess_jax.value_grad_hessian(fun, case.w))))  # type: ignore[return-value]


def error(case: Case, value: Any) -> float:
    return abs(float(value) - case.optimum) / max(1.0, abs(case.optimum))


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


# --- Globalisation ---------------------------------------------------------------------------------------------------
# Prototypes on LAPACK's pbtrf, all with the same derivatives and the same stopping rule.


class Count(NamedTuple):
    steps: int
    values: int
    factorisations: int
    value: float


def shifted_step(g: np.ndarray, ab: np.ndarray, last: float) -> tuple[np.ndarray, float, int]:
    """-(H + shift I)^-1 g with the shift that IPOPT would take: 0, else a third of the last one, grown eightfold."""
    shift, tries = 0.0, 0
    while True:
        shifted = ab.copy(order="F")
        shifted[0] += shift
        factor, info = lapack.dpbtrf(shifted, lower=1, overwrite_ab=1)
        tries += 1
        if info == 0:
            return -lapack.dpbtrs(factor, g, lower=1)[0], shift, tries
        shift = 8 * shift if shift else max(last / 3, 1e-8 * np.abs(ab[0]).max())


class Armijo:
    """f must fall by 1e-4 of what the slope promises."""

    def __init__(self, f: float, _: float) -> None:
        self.reference = f

    def accepts(self, f: float, slope: float, gradient: Callable[[], float], convex: bool) -> bool:
        return f <= self.reference + 1e-4 * slope

    def arrived(self, f: float, _: float) -> None:
        self.reference = f


class NonMonotone(Armijo):
    """As Armijo, below the largest of the last ten values (Grippo, Lampariello, Lucidi 1986)."""

    def __init__(self, f: float, _: float) -> None:
        self.reference, self.values = f, [f]

    def arrived(self, f: float, _: float) -> None:
        self.values = [*self.values, f][-10:]
        self.reference = max(self.values)


class Filter(Armijo):
    """A step may raise f where H is positive definite, if no point met had both a smaller f and a smaller gradient; it
    is forgotten where H is not (after Gould, Sainvitu, Toint 2005, who filter the gradient's entries)."""

    def __init__(self, f: float, size: float) -> None:
        self.reference, self.points = f, [(f, size)]

    def accepts(self, f: float, slope: float, gradient: Callable[[], float], convex: bool) -> bool:
        if not convex:
            self.points = []
        if super().accepts(f, slope, gradient, convex):
            return True
        size = gradient() if convex else np.inf
        return convex and all(f < f0 - 1e-3 * size or size < 0.999 * size0 for f0, size0 in self.points)

    def arrived(self, f: float, size: float) -> None:
        self.reference = f
        self.points = [(f0, size0) for f0, size0 in self.points if f0 < f or size0 < size] + [(f, size)]


def line_search(case: Case, rule: type[Armijo], max_steps: int = 3000) -> Count:
    """Newton's method with shifts and backtracking."""
    value, value_grad, derivatives = functions(case)
    x, shift, values, factorisations = case.start.copy(), 0.0, 0, 0
    f, g, ab = (np.asarray(part) for part in derivatives(x))
    largest, acceptance = np.abs(g).max(), rule(float(f), float(np.abs(g).max()))
    for step in range(max_steps):
        p, now, tries = shifted_step(g, ab, shift)
        shift, factorisations = now or shift, factorisations + tries
        slope = float(g @ p)
        noise = np.finfo(float).eps * (np.abs(ab[0]) * np.abs(x)).max()
        if now == 0 and np.abs(g).max() <= max(1.5e-8 * largest, 32 * noise) and -slope <= 1e-11 * max(abs(f), 1e-4):
            return Count(step, values, factorisations, float(f))
        t = 1.0
        while t > 1e-12:
            trial = x + t * p
            values += 1
            if acceptance.accepts(
                float(value(trial)), t * slope, lambda at=trial: float(np.abs(value_grad(at)[1]).max()), now == 0
            ):
                break
            t /= 2
        else:
            return Count(step, values, factorisations, float(f))
        x = trial
        f, g, ab = (np.asarray(part) for part in derivatives(x))
        acceptance.arrived(float(f), float(np.abs(g).max()))
        largest = max(largest, np.abs(g).max())
    return Count(max_steps, values, factorisations, float(f))


def trust_region(case: Case) -> Count:
    """What is shipped, in torch, where calls can be counted."""
    calls = {"factor": 0, "fun": 0}
    shifted, kernel = subproblem._Shifted, subproblem.kernel
    factorise, fun = shifted.factorise, case.build(torch_ops())

    def counted_factorise(self: Any, shift: float) -> bool:
        calls["factor"] += 1
        return factorise(self, shift)

    def counted_fun(x: torch.Tensor) -> torch.Tensor:
        calls["fun"] += 1
        return fun(x)

    shifted.factorise = counted_factorise  # type: ignore[method-assign]
    subproblem.kernel = lambda name, plain, *operands: plain(*operands)  # the compiled search counts nothing
    try:
        result = by_torch(case, counted_fun)
    finally:
        shifted.factorise = factorise  # type: ignore[method-assign]
        subproblem.kernel = kernel
    return Count(result.steps, calls["fun"] - result.steps - 1, calls["factor"], float(result.value))


def globalisation(cases: list[Case]) -> None:
    methods = {
        "trust region (shipped)": trust_region,
        "shift, Armijo": lambda case: line_search(case, Armijo),
        "shift, non-monotone": lambda case: line_search(case, NonMonotone),
        "shift, filter": lambda case: line_search(case, Filter),
    }
    rows = []
    for case in cases:
        for name, method in methods.items():
            count = method(case)
            rows.append([case.name, case.n, name, *count[:3], error(case, count.value)])
    table(["problem", "n", "method", "steps = Hessians", "trial values", "factorisations", "error"], rows)


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
        first = seconds(lambda case=case, fun=in_jax: by_jax(case, fun))[0]
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
    header = ["problem", "n", "first call s", "jax ms", "torch ms", "IPOPT build s", "iterations", "IPOPT ms"]
    table([*header, "jax/IPOPT", "torch/IPOPT"], rows)
    print(f"\nOther peers, once, stopped after {cap:g} s (optimistix: 5000 steps), and the error they then have\n")
    table(["problem", "n", "peer", "iterations", "seconds", "error", "bandhess_jax's time / peer's"], others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = ["arrival", "globalisation", "speed"]
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


if __name__ == "__main__":
    main()
