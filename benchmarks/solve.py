"""Factorising and solving a positive definite band: bandhess against LAPACK's pbtrf + pbtrs, in one run.

python benchmarks/solve.py [--n 1000 10000 100000 1000000] [--w 1 2 4 8 16] [--repeats 21]
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import torch
from _common import machine, medians, table
from scipy.linalg import lapack

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)


def case(n: int, w: int, repeats: int) -> list[Any]:
    rng = np.random.default_rng(n + w)
    ab = rng.standard_normal((w + 1, n))
    ab[0] = 4 * w + 2 + rng.random(n)
    b = rng.standard_normal(n)
    fortran = np.asfortranarray(ab)

    def lapack_solve() -> np.ndarray:
        cb, info = lapack.dpbtrf(fortran, lower=1)
        assert info == 0
        return lapack.dpbtrs(cb, b, lower=1)[0]

    solve = jax.jit(bandhess_jax.solve)
    abj, bj, abt, bt = jnp.asarray(ab), jnp.asarray(b), torch.tensor(ab), torch.tensor(b)
    expected = lapack_solve()
    for mine in (solve(abj, bj), bandhess_torch.solve(abt, bt)):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)
    calls = {
        "lapack": lapack_solve,
        "jax": lambda: solve(abj, bj).block_until_ready(),
        "torch": lambda: bandhess_torch.solve(abt, bt),
        "scipy": lambda: scipy.linalg.solveh_banded(ab, b, lower=True, check_finite=False),
    }
    if w == 1:
        lower, upper = jnp.pad(abj[1, :-1], (1, 0)), jnp.pad(abj[1, :-1], (0, 1))
        tridiagonal = jax.jit(jax.lax.linalg.tridiagonal_solve)
        calls["tridiagonal"] = lambda: tridiagonal(lower, abj[0], upper, bj[:, None]).block_until_ready()
    t = medians(calls, repeats)
    row = [n, w, t["lapack"], t["jax"], t["jax"] / t["lapack"], t["torch"], t["torch"] / t["lapack"]]
    return [*row, t["scipy"] / t["lapack"], t["jax"] / t["tridiagonal"] if w == 1 else "-"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10000, 100000, 1000000])
    parser.add_argument("--w", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    print(machine("jax", "torch", "scipy"), f"; float64, one right-hand side, medians of {options.repeats}\n", sep="")
    rows = [case(n, w, options.repeats if n < 10**6 else 5) for n in options.n for w in options.w]
    table(
        [
            "n",
            "w",
            "pbtrf + pbtrs ms",
            "jax ms",
            "ratio",
            "torch ms",
            "ratio",
            "solveh_banded ratio",
            "jax/tridiagonal",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
