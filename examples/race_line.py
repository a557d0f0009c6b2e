"""The line of least curvature around a closed track: a closed curve, within the track's width.

python examples/race_line.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh

WIDTH, CAR = 0.55, 0.1  # half of the track's, and of the car's


def track(stages: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle, `(stages, 2)`, at equal distances along it, and the unit normals there."""
    angle = np.linspace(0, 2 * np.pi, 4000)
    radius = 3 + 0.7 * np.cos(3 * angle) + 0.45 * np.sin(2 * angle)
    curve = np.stack([1.6 * radius * np.cos(angle), radius * np.sin(angle)], 1)
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    at = length[-1] * np.arange(stages) / stages
    middle = np.stack([np.interp(at, length, column) for column in curve.T], 1)
    along = np.roll(middle, -1, 0) - np.roll(middle, 1, 0)
    return middle, np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1)[:, None]


def bends(offset: jax.Array, middle: jax.Array, normal: jax.Array) -> jax.Array:
    """Second differences around the ring, squared: stage t meets t - 2 .. t + 2, the first ones the last."""
    line = middle + offset[:, None] * normal
    bend = jnp.roll(line, -1, 0) - 2 * line + jnp.roll(line, 1, 0)
    return len(offset) ** 3 * jnp.sum(bend**2) / 1e3


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    middle, normal = track(60 if given.quick else 400)
    room = WIDTH - CAR
    start = jnp.zeros(len(middle))
    result = bh.sqp(
        bends, None, start, 2, args=(jnp.asarray(middle), jnp.asarray(normal)), bounds=(-room, room), periodic=True
    )
    offset = np.asarray(result.x)
    print(
        f"{result.status} in {result.steps} steps; curvature {float(bends(start, middle, normal)):.3f} in the middle, "
        f"{float(result.value):.3f} on the line; at the edge in {np.mean(np.abs(offset) > room - 1e-3):.0%} of the lap"
    )

    closed = lambda curve: np.concatenate([curve, curve[:1]]).T  # noqa: E731
    figure, ax = axes(1, 7, 4.2)
    for side in (-WIDTH, WIDTH):
        ax.plot(*closed(middle + side * normal), color="0.6", linewidth=1)
    ax.plot(*closed(middle), color="0.7", linewidth=0.7, linestyle=":")
    ax.plot(*closed(middle + offset[:, None] * normal), color="tab:red", linewidth=1.5)
    ax.set(aspect="equal", title=f"{len(middle)} stages around a ring, {result.steps} steps")
    save(figure, given.out / "race_line.png")


if __name__ == "__main__":
    main()
