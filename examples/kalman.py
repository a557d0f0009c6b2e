"""Kalman smoothing as one banded solve, equal to the recursions of Rauch, Tung and Striebel in all that they give.

A target in the plane with four states a time step (place and velocity), of which noisy places are seen. The negative
log posterior of all states is quadratic, and its Hessian couples neighbouring times only: the mean is one `solve`, the
variances are row 0 of `inverse_band`, and the likelihood of the data needs `logdet`.

python examples/kalman.py --out gallery_out
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save

import bandhess_jax as bh


class Model(NamedTuple):
    """x[0] ~ N(0, first), x[t + 1] ~ N(F x[t], Q), y[t] ~ N(G x[t], R)."""

    F: np.ndarray
    Q: np.ndarray
    G: np.ndarray
    R: np.ndarray
    first: np.ndarray


def target(h: float = 0.1) -> Model:
    one, I = np.eye(4), np.eye(2)
    F = one + h * np.eye(4, k=2)
    F[2:, 2:] *= 1 - h / 5  # friction
    Q = 0.5 * np.block([[h**3 / 3 * I, h**2 / 2 * I], [h**2 / 2 * I, h * I]])
    return Model(F, Q, one[:2], 0.2 * I, one)


def simulate(model: Model, T: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States `(T, 4)` and what is seen of them, `(T, 2)`."""
    rng = np.random.default_rng(seed)
    x = np.zeros((T, 4))
    x[0] = rng.multivariate_normal(np.zeros(4), model.first)
    for t in range(1, T):
        x[t] = model.F @ x[t - 1] + rng.multivariate_normal(np.zeros(4), model.Q)
    return x, x @ model.G.T + rng.multivariate_normal(np.zeros(2), model.R, size=T)


def banded(model: Model, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means `(T, 4)`, variances `(T, 4)` and log p(y)."""
    weights = [jnp.linalg.inv(S) for S in (model.first, model.Q, model.R)]

    def misfit(x: jax.Array) -> jax.Array:  # -log p(x, y), without its constant
        parts = x[:1], x[1:] - x[:-1] @ model.F.T, y - x @ model.G.T
        return sum(jnp.sum((r @ W) * r) for r, W in zip(parts, weights, strict=True)) / 2

    _, slope, H = bh.value_grad_hessian(misfit, 1)(jnp.zeros((len(y), 4)))
    cb = bh.cholesky(H)
    mean = -bh.cho_solve(cb, slope.ravel()).reshape(-1, 4)
    T = len(y)
    sizes = (1, model.first), (T - 1, model.Q), (T, model.R)
    logdets = sum(count * jnp.linalg.slogdet(S)[1] for count, S in sizes)
    constant = (y.size * jnp.log(2 * jnp.pi) + logdets + bh.logdet(cb)) / 2
    return mean, bh.inverse_band(cb)[0].reshape(-1, 4), -misfit(mean) - constant


def recursions(model: Model, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The same by the filter and smoother of Rauch, Tung and Striebel (1965), in plain NumPy."""
    F, Q, G, R, P = model
    m, likelihood, filtered = np.zeros(4), 0.0, []
    for t, seen in enumerate(y):
        if t:
            m, P = F @ m, F @ P @ F.T + Q
        S, surprise = G @ P @ G.T + R, seen - G @ m
        gain = np.linalg.solve(S, G @ P).T
        likelihood -= (surprise @ np.linalg.solve(S, surprise) + np.linalg.slogdet(2 * np.pi * S)[1]) / 2
        m, P = m + gain @ surprise, P - gain @ S @ gain.T
        filtered.append((m, P))
    means, variances = [m], [np.diag(P)]
    for before, covariance in reversed(filtered[:-1]):
        ahead = F @ covariance @ F.T + Q
        gain = np.linalg.solve(ahead, F @ covariance).T
        m, P = before + gain @ (m - F @ before), covariance + gain @ (P - ahead) @ gain.T
        means.append(m)
        variances.append(np.diag(P))
    return np.array(means[::-1]), np.array(variances[::-1]), likelihood


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    model, T = target(), 60 if given.quick else 1000
    truth, y = simulate(model, T)
    mean, variance, likelihood = map(np.asarray, jax.jit(lambda y: banded(model, y))(y))
    other = recursions(model, y)
    print(f"{'':>18}{'banded':>16}{'recursions':>16}{'differ by':>12}")
    for name, a, b in (
        ("mean, last", mean[-1, 0], other[0][-1, 0]),
        ("variance, last", variance[-1, 0], other[1][-1, 0]),
    ):
        print(f"{name:>18}{a:16.10f}{b:16.10f}{abs(a - b):12.1e}")
    print(f"{'log-likelihood':>18}{likelihood:16.8f}{other[2]:16.8f}{abs(likelihood - other[2]):12.1e}")
    np.testing.assert_allclose(mean, other[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(variance, other[1], rtol=1e-8)
    np.testing.assert_allclose(likelihood, other[2], rtol=1e-9)
    print(f"All {T} means, variances and the likelihood agree.")

    figure, ax = axes(1, 7, 3.8)
    clock, deviation = 0.1 * np.arange(60), np.sqrt(variance[:60, 0])
    ax.plot(clock, y[:60, 0], ".", color="0.6", label="seen")
    ax.fill_between(clock, *(mean[:60, 0] + z * deviation for z in (-1.96, 1.96)), color="tab:blue", alpha=0.25)
    ax.plot(clock, mean[:60, 0], color="tab:blue", label="smoothed, with 95 per cent")
    ax.plot(clock, truth[:60, 0], color="k", linewidth=0.8, label="truth")
    ax.set(title=f"first coordinate of {T} times with 4 states each", xlabel="seconds (the first six)")
    ax.legend()
    save(figure, given.out / "kalman.png")


if __name__ == "__main__":
    main()
