"""A planar quadrotor flies past three circles: inequalities, bounds on the thrusts, collocation.

python examples/quadrotor.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save
from matplotlib.patches import Circle

import bandhess_jax as bh

SECONDS, GRAVITY, ARM, INERTIA, THRUST = 3.0, 9.81, 0.2, 0.02, 10.0
CIRCLES = np.array([[1.2, 0.1, 0.45], [2.6, 0.9, 0.5], [3.7, 0.1, 0.4]])  # centre and radius


def cost(z: dict) -> jax.Array:
    """z holds x, `(N + 1, 6)`: place (2), tilt and their rates, and u, `(N + 1, 2)`: the thrusts, for a mass of 1."""
    u = z["u"]
    return SECONDS / len(u) * (jnp.sum((u - GRAVITY / 2) ** 2) + 10 * jnp.sum((u[1:] - u[:-1]) ** 2))


def motion(z: dict) -> tuple:
    x, u = z["x"], z["u"]
    lift, tilt = u[:, 0] + u[:, 1], x[:, 2]
    push = [-lift * jnp.sin(tilt), lift * jnp.cos(tilt) - GRAVITY, ARM / INERTIA * (u[:, 1] - u[:, 0])]
    slope = jnp.concatenate([x[:, 3:], jnp.stack(push, 1)], 1)
    h = SECONDS / (len(x) - 1)
    begin, goal = jnp.array([0, 0.5, 0, 0, 0, 0]), jnp.array([5.0, 0.5, 0, 0, 0, 0])
    return x[1:] - x[:-1] - h / 2 * (slope[:-1] + slope[1:]), x[0] - begin, x[-1] - goal


def clear(z: dict) -> jax.Array:
    """Not negative outside the circles, each larger by the arm."""
    apart = z["x"][:, None, :2] - CIRCLES[:, :2]
    return jnp.sum(apart**2, -1) - (CIRCLES[:, 2] + ARM) ** 2


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    N = 24 if given.quick else 80
    t = jnp.arange(N + 1) / N
    x = jnp.zeros((N + 1, 6)).at[:, 0].set(5 * t).at[:, 1].set(0.5 + 0.5 * jnp.sin(jnp.pi * t))
    start = {"x": x, "u": jnp.full((N + 1, 2), GRAVITY / 2)}
    bounds = {"x": None, "u": 0.0}, {"x": None, "u": THRUST}
    result = bh.sqp(cost, motion, start, 1, inequalities=clear, bounds=bounds)
    x = np.asarray(result.x["x"])
    room = np.linalg.norm(x[:, None, :2] - CIRCLES[:, :2], axis=-1) - CIRCLES[:, 2]
    print(
        f"{result.status} in {result.steps} steps; cost {float(result.value):.6f}; closest circle {room.min():.6f} away"
    )

    figure, ax = axes(1, 8, 3.6)
    for a, b, r in CIRCLES:
        ax.add_patch(Circle((a, b), r, color="0.8"))
    ax.plot(x[:, 0], x[:, 1], color="tab:blue", linewidth=1)
    for k in range(0, N + 1, max(N // 20, 1)):
        c, s = ARM * np.cos(x[k, 2]), ARM * np.sin(x[k, 2])
        ax.plot([x[k, 0] - c, x[k, 0] + c], [x[k, 1] - s, x[k, 1] + s], color="tab:red", linewidth=2)
    ax.set(aspect="equal", title=f"{N + 1} stages of 8 numbers, {result.steps} steps")
    save(figure, given.out / "quadrotor.png")


if __name__ == "__main__":
    main()
