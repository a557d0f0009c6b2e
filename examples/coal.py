"""When did coal mining become safer? A smooth rate with its uncertainty, and the smoothness from the data.

Counts y ~ Poisson(exp(x)) of a log-rate x with a second-difference prior of weight w. Laplace's approximation gives the
marginal likelihood of w, log p(y | w) = -f(x) + (n - 2) / 2 log w - log det H / 2 + const at the most probable x. It
is differentiable through `newton`, `hessian` and `cholesky`, so that a gradient method finds w.

python examples/coal.py --out gallery_out
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gallery import axes, options, save
from problems import DISASTERS, YEARS, smooth_counts
from scipy.optimize import minimize

import bandhess_jax as bh

rate_energy = smooth_counts(jnp)


def smooth(log_weight: jax.Array, counts: jax.Array) -> tuple:
    """The most probable log-rate, and the factor of its Hessian."""
    start = jnp.full(len(counts), jnp.log(jnp.mean(counts)))
    result = bh.newton(rate_energy, start, 2, args=(counts, jnp.exp(log_weight)))
    H = bh.hessian(rate_energy, 2)(result.x, counts, jnp.exp(log_weight))
    return result, bh.cholesky(H)


@jax.jit
@jax.value_and_grad
def surprise(log_weight: jax.Array, counts: jax.Array) -> jax.Array:
    """-log p(counts | weight), but for a constant."""
    result, cb = smooth(log_weight, counts)
    return result.value - (len(counts) - 2) / 2 * log_weight + bh.logdet(cb) / 2


def main() -> None:
    given = options(__doc__)
    jax.config.update("jax_enable_x64", True)
    counts = jnp.asarray(DISASTERS)

    def objective(theta: np.ndarray) -> tuple:
        value, slope = surprise(theta[0], counts)
        return float(value), np.array([float(slope)])

    fit = minimize(
        objective, [np.log(3000.0)], jac=True, method="L-BFGS-B", options={"maxiter": 2 if given.quick else 50}
    )
    log_weight = fit.x[0]
    print(f"weight {np.exp(log_weight):.1f} after {fit.nfev} evaluations of the marginal likelihood and its derivative")

    result, cb = smooth(log_weight, counts)
    rate, deviation = np.asarray(result.x), np.sqrt(np.asarray(bh.inverse_band(cb)[0]))
    print(f"{'year':>6}{'rate':>8}{'2.5%':>8}{'97.5%':>8}")
    for i in range(0, len(YEARS), 20):
        print(f"{YEARS[i]:6d}" + "".join(f"{np.exp(rate[i] + z * deviation[i]):8.2f}" for z in (0, -1.96, 1.96)))

    figure, ax = axes(1, 8, 3.6)
    ax.bar(YEARS, DISASTERS, color="0.85", width=0.9, label="disasters in the year")
    low, high = np.exp(rate - 1.96 * deviation), np.exp(rate + 1.96 * deviation)
    ax.fill_between(YEARS, low, high, color="tab:blue", alpha=0.25, label="95 per cent, from the inverse band")
    ax.plot(YEARS, np.exp(rate), color="tab:blue", linewidth=2, label="rate")
    ax.set(title=f"Coal-mining disasters; weight {np.exp(log_weight):.0f} by marginal likelihood", xlabel="year")
    ax.legend()
    save(figure, given.out / "coal.png")


if __name__ == "__main__":
    main()
