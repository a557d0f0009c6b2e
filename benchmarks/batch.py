"""Solving a batch of banded systems, by vmap: bandhess against a loop over SciPy's solveh_banded, in one run.

python benchmarks/batch.py [--repeats 11] [--threads 1]
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import machine, medians, table
from scipy.linalg import solveh_banded

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)

CASES = [(1000, 1000, 4), (1000, 1000, 1), (1000, 1000, 16), (100, 1000, 4), (10, 10000, 4), (10000, 20, 4)]


def case(systems: int, n: int, w: int, repeats: int) -> list[Any]:
    rng = np.random.default_rng(n + w)
    ab = rng.standard_normal((systems, w + 1, n))
    ab[:, 0] = 4 * w + 2 + rng.random((systems, n))
    b = rng.standard_normal((systems, n))

    def loop() -> list[np.ndarray]:
        return [solveh_banded(one, rhs, lower=True, check_finite=False) for one, rhs in zip(ab, b, strict=True)]

    abj, bj, abt, bt = jnp.asarray(ab), jnp.asarray(b), torch.tensor(ab), torch.tensor(b)
    jax_solve = jax.jit(jax.vmap(bandhess_jax.solve))
    torch_solve = torch.func.vmap(bandhess_torch.solve)
    expected = np.stack(loop())
    for mine in (jax_solve(abj, bj), torch_solve(abt, bt)):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)
    # Each framework takes turns with the loop alone: the threads of one would spin during the other's turn.
    t = medians({"loop": loop, "torch": lambda: torch_solve(abt, bt)}, repeats)
    u = medians({"loop": loop, "jax": lambda: jax_solve(abj, bj).block_until_ready()}, repeats)
    return [systems, n, w, u["loop"], u["jax"], u["jax"] / u["loop"], t["loop"], t["torch"], t["torch"] / t["loop"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(machine("jax", "torch", "scipy"), end="; float64, one right-hand side a system, ")
    print(f"torch in {torch.get_num_threads()} threads, medians of {options.repeats}\n")
    rows = [case(*sizes, options.repeats) for sizes in CASES]
    table(["systems", "n", "w", "loop ms", "jax ms", "ratio", "loop ms", "torch ms", "ratio"], rows)


if __name__ == "__main__":
    main()
