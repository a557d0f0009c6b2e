"""A pendulum swings up with the least torque: multiple shooting, one Runge-Kutta step a stage.

python examples/pendulum.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save_movie

import bandhess_jax as bh

SECONDS, GRAVITY = 4.0, 9.81


def cost(z: dict) -> jax.Array:
    """z holds x, `(T + 1, 2)`, angle and rate, and u, `(T,)`, the torque between them."""
    return SECONDS / len(z["u"]) / 2 * jnp.sum(z["u"] ** 2)


def rate(x: jax.Array, u: jax.Array) -> jax.Array:
    return jnp.stack([x[:, 1], u - GRAVITY * jnp.sin(x[:, 0])], 1)


def motion(z: dict) -> tuple:
    """What must vanish: the gaps between a step's end and the next state, and those at both ends."""
    x, u = z["x"][:-1], z["u"]
    h = SECONDS / len(u)
    a = rate(x, u)
    b = rate(x + h / 2 * a, u)
    c = rate(x + h / 2 * b, u)
    d = rate(x + h * c, u)
    upright = jnp.array([jnp.pi, 0.0])
    return z["x"][1:] - x - h / 6 * (a + 2 * b + 2 * c + d), z["x"][0], z["x"][-1] - upright


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    T = 20 if given.quick else 100
    turn = jnp.pi * jnp.arange(T + 1) / T
    start = {"x": jnp.stack([turn, jnp.full(T + 1, jnp.pi / SECONDS)], 1), "u": jnp.zeros(T)}
    result = bh.sqp(cost, motion, start, 1)
    print(f"{result.status} in {result.steps} steps; cost {float(result.value):.8f}; {result.message}")

    angle, torque = np.asarray(result.x["x"][:, 0]), np.asarray(result.x["u"])
    clock = SECONDS * np.arange(T) / T
    figure, (left, right) = axes(2, 7, 3)
    (rod,) = left.plot([], [], "o-", color="tab:blue", linewidth=3, markersize=9)
    left.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", title="pendulum")
    right.plot(clock, torque, color="0.7")
    (done,) = right.plot([], [], color="tab:red")
    right.set(title="torque", xlabel="seconds")
    frames = 3 if given.quick else 40

    def draw(k: int) -> None:
        now = round(k * (T - 1) / (frames - 1))
        rod.set_data([0, np.sin(angle[now])], [0, -np.cos(angle[now])])
        done.set_data(clock[: now + 1], torque[: now + 1])

    save_movie(figure, draw, frames, SECONDS, given.out / "pendulum.gif")


if __name__ == "__main__":
    main()
