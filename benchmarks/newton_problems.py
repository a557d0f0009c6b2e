"""The problems that Newton's method is measured on; their optima are in the literature or from several solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from _common import jax_ops, path2d

import bandhess_jax


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
