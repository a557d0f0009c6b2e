"""A thousand paths, each among three bumps of its own: one `vmap` of `newton`.

python examples/thousand.py --out gallery_out
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh


def energy(p: jax.Array, bumps: jax.Array) -> jax.Array:
    """p `(T, 2)`, the points between (0, 0) and (1, 1); bumps `(3, 2)`, their centres."""
    ends = jnp.concatenate([jnp.zeros((1, 2)), p, jnp.ones((1, 2))])
    distance = jnp.sum((p[:, None] - bumps) ** 2, -1)
    length = len(p) / 2 * jnp.sum((ends[1:] - ends[:-1]) ** 2)
    return length + jnp.sum(jnp.exp(-distance / 0.02)) / len(p) * 10


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    count, T = (4, 10) if given.quick else (1000, 50)
    bumps = jnp.asarray(np.random.default_rng(7).uniform(0.15, 0.85, size=(count, 3, 2)))
    t = jnp.arange(1, T + 1)[:, None] / (T + 1)
    start = jnp.broadcast_to(t + jnp.array([-0.1, 0.1]) * jnp.sin(jnp.pi * t), (T, 2))
    solve = jax.jit(jax.vmap(lambda bumps: bh.newton(energy, start, 1, args=(bumps,))))
    result = jax.block_until_ready(solve(bumps))
    began = time.perf_counter()
    result = jax.block_until_ready(solve(bumps))
    seconds = time.perf_counter() - began
    names, counts = np.unique(np.asarray(result.status), return_counts=True)
    ends = ", ".join(f"{number} {bh.Status(int(each)).name}" for each, number in zip(names, counts, strict=True))
    print(f"{count} problems of {2 * T} variables: {ends}")
    print(
        f"{seconds:.3f} s together, {1e3 * seconds / count:.3f} ms a problem; {int(result.steps.max())} steps at most"
    )

    figure, ax = axes(1, 4, 3.8)
    for p in np.asarray(result.x):
        ax.plot(*np.vstack([[0, 0], p, [1, 1]]).T, color="tab:blue", alpha=0.05 if count > 100 else 0.8, linewidth=0.7)
    ax.set(aspect="equal", title=f"{count} paths")
    save(figure, given.out / "thousand.png")


if __name__ == "__main__":
    main()
