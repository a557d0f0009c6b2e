"""A cart swings its pole up and moves a metre (Kelly 2017): trapezoidal collocation, with a bound on the force.

python examples/cart_pole.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save_movie

import bandhess_jax as bh

SECONDS, GRAVITY, CART, POLE, LENGTH, DISTANCE, FORCE = 2.0, 9.81, 1.0, 0.3, 0.5, 1.0, 12.0


def cost(z: dict) -> jax.Array:
    """z holds x, `(N + 1, 4)`: place, angle and their rates, and u, `(N + 1,)`, the force."""
    u = z["u"]
    return SECONDS / (len(u) - 1) / 2 * jnp.sum(u[:-1] ** 2 + u[1:] ** 2)


def rate(x: jax.Array, u: jax.Array) -> jax.Array:
    s, c, turn = jnp.sin(x[:, 1]), jnp.cos(x[:, 1]), x[:, 3]
    mass = CART + POLE * s**2
    push = (LENGTH * POLE * s * turn**2 + u + POLE * GRAVITY * c * s) / mass
    spin = -(LENGTH * POLE * c * s * turn**2 + u * c + (CART + POLE) * GRAVITY * s) / (LENGTH * mass)
    return jnp.stack([x[:, 2], turn, push, spin], 1)


def motion(z: dict) -> tuple:
    x, slope = z["x"], rate(z["x"], z["u"])
    h = SECONDS / (len(x) - 1)
    goal = jnp.array([DISTANCE, jnp.pi, 0.0, 0.0])
    return x[1:] - x[:-1] - h / 2 * (slope[:-1] + slope[1:]), x[0], x[-1] - goal


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    N = 20 if given.quick else 100
    t, zero = jnp.arange(N + 1) / N, jnp.zeros(N + 1)
    start = {"x": jnp.stack([DISTANCE * t, jnp.pi * t, zero, zero], 1), "u": zero}
    limits = {"x": None, "u": FORCE}
    result = bh.sqp(cost, motion, start, 1, bounds=({"x": None, "u": -FORCE}, limits))
    x, force = np.asarray(result.x["x"]), np.asarray(result.x["u"])
    print(
        f"{result.status} in {result.steps} steps; cost {float(result.value):.6f}; largest force {abs(force).max():.6f}"
    )

    clock = SECONDS * np.arange(N + 1) / N
    figure, (left, right) = axes(2, 8, 3)
    (cart,) = left.plot([], [], "s", color="0.3", markersize=16)
    (rod,) = left.plot([], [], "o-", color="tab:blue", linewidth=3, markevery=[1])
    left.set(xlim=(-1, 1.6), ylim=(-0.7, 0.7), aspect="equal", title="cart and pole")
    right.plot(clock, force, color="0.7")
    right.axhline(FORCE, color="k", linewidth=0.7, linestyle=":")
    right.axhline(-FORCE, color="k", linewidth=0.7, linestyle=":")
    (done,) = right.plot([], [], color="tab:red")
    right.set(title="force, and its bound", xlabel="seconds")
    frames = 3 if given.quick else 40

    def draw(k: int) -> None:
        now = round(k * N / (frames - 1))
        place, angle = x[now, :2]
        cart.set_data([place], [0])
        rod.set_data([place, place + LENGTH * np.sin(angle)], [0, -LENGTH * np.cos(angle)])
        done.set_data(clock[: now + 1], force[: now + 1])

    save_movie(figure, draw, frames, 2 * SECONDS, given.out / "cart_pole.gif")


if __name__ == "__main__":
    main()
