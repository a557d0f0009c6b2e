"""`scipy.optimize.minimize(fun, x0, method=newton(bandwidth))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bandhess_common.minimise import check_minimize, optimize_result

from ..optimise.newton import api


def newton(bandwidth: int | None, **options: Any) -> Callable:
    """A `method` for `scipy.optimize.minimize`: Newton's method with exact banded Hessians.

    Args:
      bandwidth: of the Hessian; None detects it.
      **options: those of `bandhess_torch.newton`. `minimize` adds its `tol` and its `options`, in which `maxiter` is
        `max_steps` and `disp` is `verbose`.

    Returns: a function for `method=`. `fun` is called with tensors, float32 where x0 is, else float64. `minimize` then
      returns an `OptimizeResult` with `x` (NumPy), `fun`, `grad_norm`, `nit`, `status`, `success`, `message`, and
      `history` if asked for.

    Raises: ValueError for bounds, constraints and callbacks of SciPy's kind; what to use instead is in its text. Warns
      (RuntimeWarning) of derivatives that are given and not needed.

    >>> import numpy as np, scipy.optimize, bandhess_torch
    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 1.0) ** 2).sum()
    >>> scipy.optimize.minimize(fun, np.zeros(5), method=bandhess_torch.scipy.newton(1)).success
    True
    """

    def method(fun: Callable, x0: Any, args: tuple = (), **given: Any) -> Any:
        chosen = check_minimize("bandhess_torch", options, given)
        dtype = np.float32 if np.asarray(x0).dtype == np.float32 else np.float64
        result = api.newton(fun, torch.from_numpy(np.array(x0, dtype)), bandwidth, args=args, **chosen)
        return optimize_result(result, result.x.detach().numpy(), float(result.value), float(result.grad_norm))

    return method
