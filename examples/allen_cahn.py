"""The Allen-Cahn equation in one dimension: every implicit step is a minimisation, all of them one compiled scan.

u_t = eps^2 u_xx + u - u^3. The implicit Euler step from u minimises |v - u|^2 / 2 tau + E(v), E the free energy: steps
may be long, and E falls in each of them.

python examples/allen_cahn.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh

EPS, TAU = 0.01, 0.5


def free_energy(v: jax.Array) -> jax.Array:
    h = 1 / (len(v) - 1)
    return EPS**2 * jnp.sum((v[1:] - v[:-1]) ** 2) / (2 * h) + h * jnp.sum((v**2 - 1) ** 2) / 4


def step_energy(v: jax.Array, u: jax.Array) -> jax.Array:
    return jnp.sum((v - u) ** 2) / (2 * TAU * (len(v) - 1)) + free_energy(v)


def advance(u: jax.Array, _: None) -> tuple:
    result = bh.newton(step_energy, u, 1, args=(u,))
    return result.x, (result.x, result.status, free_energy(result.x))


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    n, turns = (50, 4) if given.quick else (500, 60)
    u = jnp.asarray(0.3 * np.random.default_rng(1).normal(size=n))
    _, (way, status, energy) = jax.jit(lambda u: jax.lax.scan(advance, u, length=turns))(u)
    # A step that begins at rest has nothing to gain but roundings: PRECISION_FLOOR says that.
    assert np.isin(np.asarray(status), [bh.Status.CONVERGED, bh.Status.PRECISION_FLOOR]).all(), status
    assert np.all(np.diff(np.asarray(energy)) <= 1e-12), energy
    print(f"{turns} implicit steps of {TAU}, {n} points each: free energy {energy[0]:.6f} to {energy[-1]:.6f}")

    figure, (left, right) = axes(2, 8, 3.4)
    image = left.imshow(np.asarray(way), aspect="auto", cmap="RdBu", vmin=-1, vmax=1, extent=(0, 1, turns * TAU, 0))
    left.set(title="u", xlabel="place", ylabel="time")
    figure.colorbar(image, ax=left)
    right.semilogy(TAU * np.arange(1, turns + 1), energy, color="tab:blue")
    right.set(title="free energy", xlabel="time")
    save(figure, given.out / "allen_cahn.png")


if __name__ == "__main__":
    main()
