"""Between `scipy.optimize.minimize` and `newton`: options one way, an `OptimizeResult` the other."""

from __future__ import annotations

import warnings
from typing import Any

DERIVATIVES = ("jac", "hess", "hessp")
RENAMED = {"maxiter": "max_steps", "disp": "verbose"}
INSTEAD = {
    "bounds": "{package}.sqp takes bounds=",
    "constraints": "{package}.sqp takes constraints",
    "callback": "give the method one, newton(bandwidth, callback=...), which is called with a StepInfo",
}


def check_minimize(package: str, options: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options of a call of `newton`: the method's, and over them those that `minimize` was given."""
    for name, instead in INSTEAD.items():
        value = given.pop(name, None)
        if value is not None and not (name == "constraints" and value in ((), [], {})):
            raise ValueError(f"{name} is not for this method: {instead.format(package=package)}")
    for name in DERIVATIVES:
        if given.pop(name, None) is not None:
            warnings.warn(f"{name} is not used: derivatives are automatic here", RuntimeWarning, stacklevel=5)
    return options | {RENAMED.get(name, name): value for name, value in given.items() if value is not None}


def optimize_result(result: Any, x: Any, value: float, grad_norm: float) -> Any:
    """SciPy's names for what `newton` found."""
    from scipy.optimize import OptimizeResult  # a tenth of a second

    found = OptimizeResult(
        x=x,
        fun=value,
        grad_norm=grad_norm,
        nit=result.steps,
        status=int(result.status),
        success=result.success,
        message=result.message,
    )
    if result.history is not None:
        found.history = result.history
    return found
