"""Kalman smoothing: means, variances and likelihood by one banded solve, against other packages' recursions.

python benchmarks/kalman.py        with `pip install dynamax cuthbert` for the peers; a peer that is absent is left out
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import machine, medians, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))  # whose script has this name too
from kalman import Model, banded, simulate, target

PEERS = [name for name in ("dynamax", "cuthbert") if importlib.util.find_spec(name)]


def dynamax(model: Model, y: jax.Array) -> tuple:
    from dynamax.linear_gaussian_ssm.inference import lgssm_smoother, make_lgssm_params

    params = make_lgssm_params(jnp.zeros(4), model.first, model.F, model.Q, model.G, model.R)
    result = lgssm_smoother(params, y)
    variances = jnp.diagonal(result.smoothed_covariances, axis1=1, axis2=2)
    return result.smoothed_means, variances, result.marginal_loglik


def cuthbert(model: Model, y: jax.Array, parallel: bool = False) -> tuple:
    """Its first state has no data: the first step stays where it is."""
    import cuthbert as peer
    from cuthbert.gaussian import kalman

    T, zero = len(y), jnp.zeros(4)
    roots = [jnp.linalg.cholesky(S) for S in (model.Q, model.R, model.first)]
    first = (jnp.arange(T) == 0)[:, None, None]
    inputs = {"F": jnp.where(first, jnp.eye(4), model.F), "Q": jnp.where(first, 0.0, roots[0]), "y": y}

    def observed(now: Any) -> tuple:
        return jnp.asarray(model.G), jnp.zeros(2), roots[1], now["y"]

    def moved(now: Any) -> tuple:
        return now["F"], zero, now["Q"]

    begin = kalman.init_prepare(zero, roots[2])
    way = peer.filter(kalman.build_filter(zero, roots[2], moved, observed), inputs, begin, parallel=parallel)
    back = peer.smoother(kalman.build_smoother(get_dynamics_params=moved), way, inputs, parallel=parallel)
    variances = jnp.sum(back.chol_cov**2, -1)
    return back.mean[1:], variances[1:], way.log_normalizing_constant[-1]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print(f"{machine('jax', 'numpy', *PEERS)}; float64, four states, medians of 11\n")
    methods: dict[str, Callable] = {"bandhess_jax": banded}
    methods |= {name: globals()[name] for name in PEERS}
    rows = []
    for T in (1000, 10000, 100000):
        y = jnp.asarray(simulate(target(), T)[1])
        compiled = {name: jax.jit(partial(method, target())) for name, method in methods.items()}
        calls = {name: partial(lambda f, y: jax.block_until_ready(f(y)), f, y) for name, f in compiled.items()}
        results = {name: call() for name, call in calls.items()}
        for name in PEERS:
            scale = float(jnp.abs(results[name][0]).max())
            for a, b in zip(results[name], results["bandhess_jax"], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * scale)
        ms = medians(calls, 11)
        ratios = [each for name in PEERS for each in (ms[name], ms["bandhess_jax"] / ms[name])]
        rows.append([T, ms["bandhess_jax"], *ratios])
    peers = [each for name in PEERS for each in (f"{name} ms", f"/ {name}")]
    table(["T", "bandhess_jax ms", *peers], rows)


if __name__ == "__main__":
    main()
