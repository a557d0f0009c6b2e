"""Minimise an objective from the command line, by Newton's method with its exact banded Hessian.

    python -m bandhess_jax chain.py:energy --x0 x0.npy --bandwidth 1 --out result.npz

where chain.py holds, for example,

    def energy(x):
        return ((x[1:] - x[:-1]) ** 2).sum() + (x[0] ** 4 - 1) ** 2 + x[-1] ** 2

and x0.npy was written by numpy.save: float32 or float64, of shape (n,), or (T, d, ...) for T stages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bandhess_common import command_line

from . import Status, band_error, hessian, newton


def prepare(dtype: np.dtype) -> None:
    if dtype == np.float64:
        jax.config.update("jax_enable_x64", True)


def minimise(
    fun: Callable, x0: np.ndarray, bandwidth: int, tol: float | None, max_steps: int, verbose: bool
) -> command_line.Outcome:
    end = newton(fun, jnp.asarray(x0), bandwidth, tol=tol, max_steps=max_steps, verbose=verbose)
    ab = hessian(fun, bandwidth)(end.x)
    error = float(band_error(fun)(ab, end.x)) if end.status == Status.BAND_TOO_NARROW else 0.0
    x, value, grad_norm, ab = map(np.asarray, (end.x, end.value, end.grad_norm, ab))
    return command_line.Outcome(x, value, grad_norm, int(end.steps), Status(int(end.status)), ab, error)


def main(argv: Sequence[str] | None = None) -> int:
    framework = command_line.Framework("JAX", f"python -m {__package__}", str(__doc__), prepare, minimise)
    return command_line.main(framework, argv)


if __name__ == "__main__":
    sys.exit(main())
