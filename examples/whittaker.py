"""Whittaker's smoother (1923) on data with gaps: one banded solve, with a standard error at every point.

python examples/whittaker.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh


def energy(x: jax.Array, y: jax.Array, weight: jax.Array, smooth: float) -> jax.Array:
    """weight is 0 where y is missing; third differences are small."""
    third = jnp.diff(x, 3)
    return jnp.sum(weight * (y - x) ** 2) / 2 + smooth / 2 * jnp.sum(third**2)


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    n = 60 if given.quick else 300
    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, n)
    truth = np.exp(-(((t - 0.3) / 0.1) ** 2)) + 0.6 * np.exp(-(((t - 0.7) / 0.15) ** 2))
    noise = 0.05
    y = truth + noise * rng.normal(size=n)
    seen = (rng.random(n) < 0.6) & ~((t > 0.45) & (t < 0.58))
    smooth = 2e4 / noise**2 * (n / 300) ** 5
    zero = jnp.zeros(n)
    data = jnp.where(seen, y, 0), seen / noise**2, smooth

    slope, H = bh.value_grad_hessian(energy, 3)(zero, *data)[1:]
    cb = bh.cholesky(H)
    x = -np.asarray(bh.cho_solve(cb, slope))
    error = np.sqrt(np.asarray(bh.inverse_band(cb)[0]))
    inside = np.mean(np.abs(x - truth) < 1.96 * error)
    print(f"{seen.sum()} of {n} points seen; {100 * inside:.0f} per cent of the truth within 1.96 standard errors")

    figure, ax = axes(1, 8, 3.4)
    ax.plot(t[seen], y[seen], ".", color="0.6", label="seen")
    ax.fill_between(t, x - 1.96 * error, x + 1.96 * error, color="tab:blue", alpha=0.25, label="95 per cent")
    ax.plot(t, x, color="tab:blue", label="smoothed")
    ax.plot(t, truth, color="k", linewidth=0.8, label="truth")
    ax.legend()
    save(figure, given.out / "whittaker.png")


if __name__ == "__main__":
    main()
