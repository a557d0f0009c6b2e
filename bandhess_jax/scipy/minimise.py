"""`scipy.optimize.minimize(fun, x0, method=newton(bandwidth))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from bandhess_common.minimise import check_minimize, optimize_result

from ..optimise.newton import api


def newton(bandwidth: int | None, **options: Any) -> Callable:
    """A `method` for `scipy.optimize.minimize`: Newton's method with exact banded Hessians.

    Args:
      bandwidth: of the Hessian; None detects it.
      **options: those of `bandhess_jax.newton`. `minimize` adds its `tol` and its `options`, in which `maxiter` is
        `max_steps` and `disp` is `verbose`.

    Returns: a function for `method=`. `fun` is called with JAX arrays, of JAX's default float type (double only where
      jax_enable_x64 is set), and must be traceable. `minimize` then returns an `OptimizeResult` with `x` (NumPy),
      `fun`, `grad_norm`, `nit`, `status`, `success`, `message`, and `history` if asked for.

    Raises: ValueError for bounds, constraints and callbacks of SciPy's kind; what to use instead is in its text. Warns
      (RuntimeWarning) of derivatives that are given and not needed.

    >>> import jax.numpy as jnp, numpy as np, scipy.optimize, bandhess_jax
    >>> fun = lambda x: jnp.sum((x[1:] - x[:-1]) ** 2) + jnp.sum((x - 1.0) ** 2)
    >>> scipy.optimize.minimize(fun, np.zeros(5), method=bandhess_jax.scipy.newton(1)).success
    True
    """

    def method(fun: Callable, x0: Any, args: tuple = (), **given: Any) -> Any:
        chosen = check_minimize("bandhess_jax", options, given)
        result = api.newton(fun, jnp.asarray(x0, float), bandwidth, args=args, **chosen)
        return optimize_result(result, np.asarray(result.x), float(result.value), float(result.grad_norm))

    return method
