"""The cubic smoothing spline with its smoothness by generalised cross-validation, equal to SciPy's.

Reinsch (1967): with g the spline's values at the knots and c its second derivatives at the inner ones, Q^T g = R c; the
minimum of |y - g|^2 + lam int g''^2 has g = y - lam Q c and (R + lam Q^T Q) c = Q^T y, a band of 3 rows. The trace that
cross-validation needs, n - tr A = lam tr((R + lam Q^T Q)^-1 Q^T Q), takes only the band of the inverse.

python examples/smoothing_spline.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save
from scipy.interpolate import CubicSpline, make_smoothing_spline
from scipy.optimize import minimize_scalar

import bandhess_jax as bh


def bend(g: jax.Array, h: jax.Array) -> jax.Array:
    """Q^T g: differences of the slopes."""
    slope = (g[1:] - g[:-1]) / h
    return slope[1:] - slope[:-1]


def spread(c: jax.Array, h: jax.Array) -> jax.Array:
    """Q c."""
    return jax.linear_transpose(lambda g: bend(g, h), jnp.zeros(len(c) + 2))(c)[0]


def roughness(c: jax.Array, h: jax.Array) -> jax.Array:
    """c^T R c / 2: half the integral of the square of a function that is linear between the knots."""
    full = jnp.pad(c, 1)
    return jnp.sum(h * (full[1:] ** 2 + full[1:] * full[:-1] + full[:-1] ** 2)) / 6


def squares(c: jax.Array, h: jax.Array) -> jax.Array:
    return jnp.sum(spread(c, h) ** 2) / 2


def smooth(lam: jax.Array, y: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The spline's values at the knots, and its score by cross-validation."""
    zero, n = jnp.zeros(len(y) - 2), len(y)
    R, S = bh.hessian(roughness, 2)(zero, h), bh.hessian(squares, 2)(zero, h)
    cb = bh.cholesky(R + lam * S)
    g = y - lam * spread(bh.cho_solve(cb, bend(y, h)), h)
    twice = jnp.array([1.0, 2.0, 2.0])[:, None]  # a cell below the diagonal stands for two entries
    rest = lam * jnp.sum(twice * bh.inverse_band(cb) * S)
    return g, n * jnp.sum((y - g) ** 2) / rest**2


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    n = 40 if given.quick else 200
    rng = np.random.default_rng(5)
    t = np.sort(rng.random(n))
    y = np.sin(12 * t**2) + 0.2 * rng.normal(size=n)
    h = jnp.asarray(np.diff(t))
    score = jax.jit(lambda log_lam: smooth(jnp.exp(log_lam), y, h)[1])
    best = minimize_scalar(lambda a: float(score(a)), bounds=(-25, 0), method="bounded", options={"xatol": 1e-8})
    lam = float(np.exp(best.x))
    g = np.asarray(smooth(lam, y, h)[0])
    peer = make_smoothing_spline(t, y)
    same = make_smoothing_spline(t, y, lam=lam)
    print(f"lam = {lam:.4e}; against SciPy's spline of this lam: {np.abs(g - same(t)).max():.1e}")
    print(f"against the spline whose lam SciPy finds by its own cross-validation: {np.abs(g - peer(t)).max():.1e}")
    np.testing.assert_allclose(g, same(t), rtol=0, atol=1e-7)

    figure, ax = axes(1, 8, 3.4)
    grid = np.linspace(t[0], t[-1], 400)
    ax.plot(t, y, ".", color="0.7")
    ax.plot(grid, CubicSpline(t, g, bc_type="natural")(grid), color="tab:blue", label=f"spline, lam = {lam:.1e} by GCV")
    ax.plot(grid, np.sin(12 * grid**2), color="k", linewidth=0.8, label="truth")
    ax.legend()
    save(figure, given.out / "smoothing_spline.png")


if __name__ == "__main__":
    main()
