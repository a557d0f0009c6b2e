"""Factorising and solving a positive definite band: bandhess against LAPACK's pbtrf + pbtrs, in one run; general bands.

python benchmarks/solve.py [--n 1000 10000 100000 1000000] [--w 1 2 4 8 16 32 64] [--repeats 21] [--only-general]

"jax" is the compiled CPU kernel where it is built, "pure" the program of XLA scans that serves elsewhere.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.linalg
import torch
from _common import machine, medians, table
from scipy.linalg import lapack

import bandhess_jax
import bandhess_jax.scipy
import bandhess_torch

jax.config.update("jax_enable_x64", True)


def case(n: int, w: int, repeats: int) -> tuple[list[Any], list[Any] | None]:
    rng = np.random.default_rng(n + w)
    ab = rng.standard_normal((w + 1, n))
    ab[0] = 4 * w + 2 + rng.random(n)
    b = rng.standard_normal(n)
    fortran = np.asfortranarray(ab)

    def lapack_solve() -> np.ndarray:
        cb, info = lapack.dpbtrf(fortran, lower=1)
        assert info == 0
        return lapack.dpbtrs(cb, b, lower=1)[0]

    solve, pure_solve = jax.jit(bandhess_jax.solve), jax.jit(bandhess_jax.solve)
    abj, bj, abt, bt = jnp.asarray(ab), jnp.asarray(b), torch.tensor(ab), torch.tensor(b)
    expected = lapack_solve()
    for mine in (solve(abj, bj), bandhess_torch.solve(abt, bt)):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)
    with bandhess_jax.portable():
        pure = pure_solve.lower(abj, bj).compile()
    calls = {
        "lapack": lapack_solve,
        "jax": lambda: solve(abj, bj).block_until_ready(),
        "pure": lambda: pure(abj, bj).block_until_ready(),
        "torch": lambda: bandhess_torch.solve(abt, bt),
        "scipy": lambda: scipy.linalg.solveh_banded(ab, b, lower=True, check_finite=False),
    }
    if w == 1:
        lower, upper = jnp.pad(abj[1, :-1], (1, 0)), jnp.pad(abj[1, :-1], (0, 1))
        tridiagonal = jax.jit(jax.lax.linalg.tridiagonal_solve)
        operator = lineax.TridiagonalLinearOperator(abj[0], abj[1, :-1], abj[1, :-1])
        by_lineax = jax.jit(lambda operator, b: lineax.linear_solve(operator, b, lineax.Tridiagonal()).value)
        diagonal, below = ab[0].copy(), ab[1, :-1].copy()
        calls["ptsv"] = lambda: lapack.dptsv(diagonal, below, b)
        calls["lineax"] = lambda: by_lineax(operator, bj).block_until_ready()
        calls["tridiagonal"] = lambda: tridiagonal(lower, abj[0], upper, bj[:, None]).block_until_ready()
    t = medians(calls, repeats)
    row = [n, w, t["lapack"]]
    for name in ("jax", "pure", "torch"):
        row += [t[name], t[name] / t["lapack"]]
    row.append(t["scipy"] / t["lapack"])
    if w > 1:
        return row, None
    peers = {name: t[name] for name in ("ptsv", "tridiagonal", "lineax")}
    return row, [n, t["jax"], *peers.values(), t["jax"] / min(peers.values())]


def general(n: int, w: int, dominant: bool, repeats: int) -> list[Any]:
    """LU with partial pivoting, w diagonals on either side; without a dominant diagonal most columns interchange."""
    rng = np.random.default_rng(n + w)
    ab = rng.standard_normal((2 * w + 1, n))
    if dominant:
        ab[w] += 4 * w + 2
    b = rng.standard_normal(n)
    padded = np.asfortranarray(np.pad(ab, ((w, 0), (0, 0))))
    solve, pure_solve = (
        jax.jit(partial(bandhess_jax.scipy.solve_banded, (w, w), check_finite=False)) for _ in range(2)
    )
    abj, bj = jnp.asarray(ab), jnp.asarray(b)
    x = solve(abj, bj)
    if dominant:
        np.testing.assert_allclose(x, lapack.dgbsv(w, w, padded, b)[2], rtol=1e-10, atol=1e-12)
    with bandhess_jax.portable():
        pure = pure_solve.lower(abj, bj).compile()
    calls = {
        "gbsv": lambda: lapack.dgbsv(w, w, padded, b),
        "jax": lambda: solve(abj, bj).block_until_ready(),
        "pure": lambda: pure(abj, bj).block_until_ready(),
        "scipy": lambda: scipy.linalg.solve_banded((w, w), ab, b, check_finite=False),
    }
    t = medians(calls, repeats)
    row = [n, w, "yes" if dominant else "no", t["gbsv"]]
    return [*row, t["jax"], t["jax"] / t["gbsv"], t["pure"], t["pure"] / t["gbsv"], t["scipy"] / t["gbsv"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10000, 100000, 1000000])
    parser.add_argument("--w", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--only-general", action="store_true", help="the last table alone")
    options = parser.parse_args()
    print(machine("jax", "torch", "scipy", "lineax"), f"; CPU kernels: {bandhess_jax.cpu_kernels()}", sep="")
    print(f"float64, one right-hand side, medians of {options.repeats} (9 at n = 1e6)\n")
    if not options.only_general:
        positive_definite(options)
    print("\nGeneral bands (l = u = w) against LAPACK's gbsv\n")
    rows = [general(n, w, d, options.repeats) for n in (10000, 100000) for w in (1, 2, 8) for d in (True, False)]
    table(["n", "w", "dominant", "gbsv ms", "jax ms", "ratio", "pure ms", "ratio", "solve_banded ratio"], rows)


def positive_definite(options: argparse.Namespace) -> None:
    rows = [case(n, w, options.repeats if n < 10**6 else 9) for n in options.n for w in options.w]
    ratio = "ratio"
    peers = ["solveh_banded ratio"]
    table(
        ["n", "w", "pbtrf + pbtrs ms", "jax ms", ratio, "pure ms", ratio, "torch ms", ratio, *peers],
        [r for r, _ in rows],
    )
    tridiagonal = [row for _, row in rows if row]
    if tridiagonal:
        print("\nTridiagonal (w = 1) against its own peers\n")
        table(["n", "jax ms", "ptsv ms", "tridiagonal_solve ms", "lineax ms", "jax / best"], tridiagonal)


if __name__ == "__main__":
    main()
