"""Drawing from N(mu, H^-1) when H is banded: when did British coal mining become safer, and how sure is that?

Disasters per year are counts; the log-rate bends little (problems.py). Newton's method finds its most probable course
mu, with the banded Hessian H there, and N(mu, H^-1) is Laplace's approximation of what else is probable. With H = L L^T

- a draw is mu + L^-T z, for z of independent standard normal numbers: `solve_triangular(transpose=True)`;
- the variance of each year is exact in `inverse_band`, with no draw and no dense matrix.

python examples/sampling.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from problems import DISASTERS, YEARS, smooth_counts

import bandhess_jax
import bandhess_torch

WEIGHT, DRAWS = 3000.0, 4000


def posterior(bh: Any, xp: Any, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log-rate `(n,)`, its standard deviations `(n,)` and draws `(n, k)` made of z `(n, k)`."""
    fun, counts = smooth_counts(xp), xp.asarray(DISASTERS)
    start = xp.asarray(np.full(len(DISASTERS), np.log(DISASTERS.mean())))
    result = bh.newton(fun, start, 2, args=(counts, WEIGHT))
    assert result.status == bh.Status.CONVERGED, result.status.name

    cb = bh.cholesky(bh.hessian(fun, 2)(result.x, counts, WEIGHT))
    draws = result.x[:, None] + bh.solve_triangular(cb, xp.asarray(z), transpose=True)
    return np.asarray(result.x), np.sqrt(np.asarray(bh.inverse_band(cb)[0])), np.asarray(draws)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    z = np.random.default_rng(1851).normal(size=(len(DISASTERS), DRAWS))
    mean, deviation, draws = posterior(bandhess_jax, jnp, z)
    for ours, theirs in zip((mean, deviation, draws), posterior(bandhess_torch, torch, z), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6)
    sampled = draws.std(axis=1)
    np.testing.assert_allclose(sampled, deviation, rtol=0.06)  # 4000 draws tell a deviation to 1.1 percent

    print(f"Log-rate of disasters, {YEARS[0]} to {YEARS[-1]}: standard deviation from H^-1 and from {DRAWS} draws")
    print(f"{'year':>6}{'rate':>8}{'5%':>8}{'95%':>8}{'deviation':>12}{'of draws':>10}")
    for i in [*range(0, len(YEARS), 15), len(YEARS) - 1]:
        low, high = np.exp(np.quantile(draws[i], [0.05, 0.95]))
        print(f"{YEARS[i]:6d}{np.exp(mean[i]):8.2f}{low:8.2f}{high:8.2f}{deviation[i]:12.4f}{sampled[i]:10.4f}")

    # What no variance tells, each draw does: here, the year in which its rate falls most.
    steepest = YEARS[np.argmin(np.diff(np.exp(draws), axis=0), axis=0)]
    low, median, high = np.quantile(steepest, [0.05, 0.5, 0.95])
    halved = np.mean(draws[YEARS == 1910] - draws[YEARS == 1870] < np.log(0.5))
    print(f"\nThe rate falls steepest about {median:.0f}; nine draws in ten say between {low:.0f} and {high:.0f}.")
    print(f"Probability that in 1910 it is less than half that of 1870: {halved:.2f}")
    print("JAX and PyTorch agree to 1e-6 in every draw.")


if __name__ == "__main__":
    main()
