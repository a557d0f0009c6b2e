"""Least time: a cart with bounded force goes a distance, from rest to rest, and the final time is free.

The step length is one number that all stages share. The known answer is full force ahead for the first half and full
force back for the second, 2 sqrt(distance) in all.

python examples/minimum_time.py [--framework torch] [--distance 4]
"""

from __future__ import annotations

import argparse
import math
from types import ModuleType
from typing import Any


def problem(xp: ModuleType, distance: float) -> tuple:
    """Objective and constraints; stages `(T, 3)` hold (position, speed) after the step, and the force; h its length."""

    def total_time(x: Any) -> Any:
        return len(x["stages"]) * x["h"]

    def motion(x: Any) -> tuple:
        z, h = x["stages"], x["h"]
        before = xp.concatenate([xp.zeros_like(z[:1, :2]), z[:-1, :2]])
        position, speed, force = z[:, 0], z[:, 1], z[:, 2]
        move = position - before[:, 0] - h * before[:, 1] - h**2 * force / 2
        return move, speed - before[:, 1] - h * force, z[-1, :2] - xp.asarray([distance, 0.0])

    return total_time, motion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", choices=["jax", "torch"], default="jax")
    parser.add_argument("--distance", type=float, default=4.0)
    parser.add_argument("--stages", type=int, default=40)
    options = parser.parse_args()
    if options.framework == "jax":
        import jax
        import jax.numpy as xp

        import bandhess_jax as bh

        jax.config.update("jax_enable_x64", True)
        array = xp.asarray
    else:
        import torch as xp

        import bandhess_torch as bh

        xp.set_default_dtype(xp.float64)
        array = xp.tensor
    T, distance = options.stages, options.distance
    time, motion = problem(xp, distance)
    stages = array([[distance * (k + 1) / T, 1.0, 0.0] for k in range(T)])
    start = {"stages": stages, "h": array(distance / T)}
    limit = array([math.inf, math.inf, 1.0])
    bounds = {"stages": -limit, "h": 1e-3}, {"stages": limit, "h": None}
    result = bh.sqp(time, motion, start, 1, bounds=bounds, stage_axes={"stages": 0, "h": None})
    expected = 2 * math.sqrt(distance)
    print(
        f"{result.status.name} in {result.steps} steps: {float(result.value):.9f} s; 2 sqrt(distance) = {expected:.9f}"
    )
    print(f"{'time':>8} {'position':>10} {'speed':>8} {'force':>8}")
    for k, (position, speed, force) in enumerate(result.x["stages"].tolist()):
        clock = (k + 1) * float(result.x["h"])
        if (k + 1) % max(T // 10, 1) == 0:
            print(f"{clock:8.3f} {position:10.4f} {speed:8.4f} {force:8.4f} {'*':>{20 + round(18 * speed / expected)}}")


if __name__ == "__main__":
    main()
