"""A control loop: `sqp` a tick, from the one before, against solves from the last plan's x alone, and from scratch.

python benchmarks/control_loop.py

The pendulum of parity_tests/test_sqp_control_loop.py: 30 stages of 0.1 s, |u| <= 6, a hundred ticks of a swing-up with
a plant that is a little off the plan. `start=` takes x, slacks, multipliers and barrier of the plan before, a stage on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from _common import machine, table

sys.path.append(str(Path(__file__).parent.parent / "parity_tests"))
from backends import BACKENDS, Backend
from test_sqp_control_loop import PARAMETERS, T, plan, shifted

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)
TICKS = 100


def loop(backend: Backend, how: str) -> tuple[list[int], list[float]]:
    """Steps and milliseconds of each tick."""
    p, state = backend.array(PARAMETERS), backend.array([0.3, 0.0])
    result, steps, took = plan(backend, state, p), [], []
    for tick in range(TICKS):
        off = 1e-3 * np.array([np.sin(1.7 * tick), np.cos(2.3 * tick)]) * (tick < 80)
        state = result.x[0, 1:] + backend.array(off)
        before = shifted(backend, result)
        options: dict[str, Any] = {"start": before} if how == "start=" else {}
        x0 = before.x if how == "x alone" else None
        began = time.perf_counter()
        result = plan(backend, state, p, x0, **options)
        float(result.value)
        took.append(1e3 * (time.perf_counter() - began))
        steps.append(int(result.steps))
        assert result.status == backend.package.Status.CONVERGED, (tick, result.status)
    return steps, took


def main() -> None:
    print(f"{machine('jax', 'torch')}; float64, {TICKS} ticks of {T} stages\n", flush=True)
    rows = []
    for name, backend in BACKENDS.items():
        for how in ("start=", "x alone", "scratch"):
            loop(backend, how)  # compiles
            steps, took = loop(backend, how)
            rows.append([name, how, max(steps), float(np.mean(steps)), float(np.median(took)), max(took)])
    table(["", "each tick from", "steps at most", "mean", "ms a tick, median", "at most"], rows)


if __name__ == "__main__":
    main()
