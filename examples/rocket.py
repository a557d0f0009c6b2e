"""A rocket reaches its orbit's height and speed in the least time, by steering alone (COPS 3, particle steering).

The final time is free: a step length that all stages share. Theory says that the tangent of the best steering angle is
linear in time; nothing in the problem says so, and the picture shows it.

python examples/rocket.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh

THRUST, HEIGHT, SPEED = 100.0, 5.0, 45.0
AXES = {"x": 0, "angle": 0, "h": None}


def duration(z: dict) -> jax.Array:
    """z holds x, `(N + 1, 4)`: place (2) and velocity (2), the angle `(N + 1,)`, and the step length h."""
    return (len(z["x"]) - 1) * z["h"]


def motion(z: dict) -> tuple:
    x, h = z["x"], z["h"]
    push = THRUST * jnp.stack([jnp.cos(z["angle"]), jnp.sin(z["angle"])], 1)
    slope = jnp.concatenate([x[:, 2:], push], 1)
    return x[1:] - x[:-1] - h / 2 * (slope[:-1] + slope[1:]), x[0], x[-1, 1:] - jnp.array([HEIGHT, SPEED, 0.0])


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    N = 30 if given.quick else 200
    r = jnp.arange(N + 1) / N
    zero = jnp.zeros(N + 1)
    start = {"x": jnp.stack([zero, HEIGHT * r, SPEED * r, zero], 1), "angle": zero, "h": jnp.asarray(1 / N)}
    side = jnp.pi / 2
    bounds = {"x": None, "angle": -side, "h": 0.0}, {"x": None, "angle": side, "h": None}
    result = bh.sqp(duration, motion, start, 1, bounds=bounds, stage_axes=AXES)
    print(f"{result.status} in {result.steps} steps: {float(result.value):.7f}")

    x, angle = np.asarray(result.x["x"]), np.asarray(result.x["angle"])
    clock = np.arange(N + 1) * float(result.x["h"])
    figure, (left, right) = axes(2, 8, 3.4)
    left.plot(x[:, 0], x[:, 1], color="tab:blue")
    left.set(title="the way up", xlabel="along", ylabel="height")
    right.plot(clock[1:-1], np.tan(angle)[1:-1], color="tab:red")
    right.set(title="tangent of the steering angle", xlabel="time")
    save(figure, given.out / "rocket.png")


if __name__ == "__main__":
    main()
