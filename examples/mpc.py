"""Model predictive control: a pendulum with a weak motor is held upright against pushes, 20 plans a second.

Every plan starts from the one before (`start=`), with the state that was measured in `args`: nothing compiles again.

python examples/mpc.py --out gallery_out
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh

STEP, GRAVITY, TORQUE = 0.05, 9.81, 4.0


def cost(z: dict, state: jax.Array) -> jax.Array:
    """z holds x, `(T + 1, 2)`, angle from upright and rate, and u, `(T,)`."""
    return jnp.sum(z["x"] ** 2) + 0.01 * jnp.sum(z["u"] ** 2) + 10 * jnp.sum(z["x"][-1] ** 2)


def after(x: jax.Array, u: jax.Array) -> jax.Array:
    """One step of Runge and Kutta's second order, for states `(..., 2)`."""

    def rate(x: jax.Array) -> jax.Array:
        return jnp.stack([x[..., 1], u + GRAVITY * jnp.sin(x[..., 0])], -1)

    return x + STEP * rate(x + STEP / 2 * rate(x))


def motion(z: dict, state: jax.Array) -> tuple:
    return z["x"][1:] - after(z["x"][:-1], z["u"]), z["x"][0] - state


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    T, turns = (10, 4) if given.quick else (30, 120)
    rng = np.random.default_rng(0)
    state = jnp.array([0.3, 0.0])
    nothing = {"x": jnp.zeros((T + 1, 2)), "u": jnp.zeros(T)}
    bounds = {"x": None, "u": -TORQUE}, {"x": None, "u": TORQUE}
    plan, rows = None, []
    for _ in range(turns):
        began = time.perf_counter()
        plan = bh.sqp(cost, motion, nothing, 1, args=(state,), bounds=bounds, start=plan)
        seconds = time.perf_counter() - began
        if plan.status not in (bh.Status.CONVERGED, bh.Status.PRECISION_FLOOR):
            raise RuntimeError(f"{plan.status}: {plan.message}")
        torque = float(plan.x["u"][0])
        rows.append([*np.asarray(state), torque, plan.steps, 1e3 * seconds])
        push = 0.4 * rng.normal() * (rng.random() < 0.2)
        state = after(state, plan.x["u"][0]) + jnp.array([0.0, push])

    way = np.array(rows)
    cold = bh.sqp(cost, motion, nothing, 1, args=(state,), bounds=bounds)
    steps, milliseconds = np.median(way[:, 3:], axis=0)
    print(f"{turns} plans over {T} stages: {steps:.0f} steps and {milliseconds:.1f} ms each (medians)")
    print(f"A plan that starts anew takes {cold.steps} steps.")
    clock = STEP * np.arange(turns)
    figure, (left, right) = axes(2, 8, 3.2)
    left.plot(clock, way[:, 0], color="tab:blue")
    left.set(title="angle from upright", xlabel="seconds")
    right.step(clock, way[:, 2], color="tab:red", where="post")
    right.axhline(TORQUE, color="k", linestyle=":", linewidth=0.7)
    right.axhline(-TORQUE, color="k", linestyle=":", linewidth=0.7)
    right.set(title="torque, and its bound", xlabel="seconds")
    save(figure, given.out / "mpc.png")


if __name__ == "__main__":
    main()
