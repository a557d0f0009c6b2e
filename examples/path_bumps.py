"""A stiff path from corner to corner among three bumps: Newton's method on a band of 5 rows.

python examples/path_bumps.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save
from problems import BUMPS, path, path_start

import bandhess_jax as bh


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    n = 100 if given.quick else 1000
    start = path_start(n)
    result = bh.newton(path(jnp), start, 4, history=True)
    way = result.history
    print(f"n = {n}: {result.status} in {result.steps} steps, f = {float(result.value):.9f}")
    print(f"{'step':>5}{'f':>16}{'max|g|':>10}")
    for k, (value, slope) in enumerate(zip(way.value, way.grad_norm, strict=True)):
        print(f"{k:5d}{float(value):16.9f}{float(slope):10.1e}")

    figure, (left, right) = axes(2, 8, 3.8)
    grid = np.linspace(-0.15, 1.15, 200)
    x, y = np.meshgrid(grid, grid)
    height = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) for a, b, s in BUMPS)
    left.contourf(x, y, height, levels=np.linspace(0.05, 1.1, 12), cmap="Greys", alpha=0.7)
    left.plot(*start.reshape(-1, 2).T, ":", color="0.4", label="start")
    left.plot(*np.asarray(result.x).reshape(-1, 2).T, color="tab:blue", linewidth=2, label="least energy")
    left.set(aspect="equal", title=f"{n // 2} points, {result.steps} Newton steps")
    left.legend(loc="lower right")
    right.semilogy(way.grad_norm, "o-", color="tab:blue")
    right.set(title="Largest entry of the gradient", xlabel="step")
    right.grid(alpha=0.3)
    save(figure, given.out / "path_bumps.png")


if __name__ == "__main__":
    main()
