"""A smoother that outliers do not pull: Student's t in the place of the normal distribution, by Newton's method.

Its energy is not convex: the trust region goes where curvature is negative, and the result is a proven minimum.

python examples/student_t.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh

DEGREES, SIZE = 3.0, 0.1


def bend(x: jax.Array) -> jax.Array:
    return jnp.sum((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2)


def robust(x: jax.Array, y: jax.Array, weight: float) -> jax.Array:
    far = ((y - x) / SIZE) ** 2 / DEGREES
    return (DEGREES + 1) / 2 * jnp.sum(jnp.log1p(far)) + weight / 2 * bend(x)


def normal(x: jax.Array, y: jax.Array, weight: float) -> jax.Array:
    return jnp.sum(((y - x) / SIZE) ** 2) / 2 + weight / 2 * bend(x)


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    n = 60 if given.quick else 400
    rng = np.random.default_rng(2)
    t = np.linspace(0, 1, n)
    truth = np.sin(9 * t) * np.exp(-t)
    y = truth + SIZE * rng.normal(size=n)
    hit = rng.random(n) < 0.15
    y[hit] += rng.choice([-1, 3], size=hit.sum()) * rng.random(hit.sum())
    weight = 2e6 * (n / 400) ** 3
    fits = {}
    print(f"{'errors':>12}{'status':>12}{'steps':>7}{'rms error':>11}")
    for name, energy in (("normal", normal), ("Student's t", robust)):
        result = bh.newton(energy, jnp.asarray(y), 2, args=(y, weight))
        fits[name] = np.asarray(result.x)
        print(f"{name:>12}{result.status:>12}{result.steps:7d}{np.sqrt(np.mean((fits[name] - truth) ** 2)):11.4f}")

    figure, ax = axes(1, 8, 3.6)
    ax.plot(t, y, ".", color="0.7", label="data, one in seven of them wrong")
    ax.plot(t, truth, color="k", linewidth=0.8, label="truth")
    ax.plot(t, fits["normal"], color="tab:orange", label="normal errors")
    ax.plot(t, fits["Student's t"], color="tab:blue", label="Student's t")
    ax.legend()
    save(figure, given.out / "student_t.png")


if __name__ == "__main__":
    main()
