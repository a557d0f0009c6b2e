"""A bridge to IPOPT through cyipopt: exact derivatives in sparse form, as a second opinion on `sqp`'s answers.

    x, info = ipopt.problem(fun, constraints, x0, bandwidth, bounds=bounds).solve(tol=1e-8)

cyipopt comes with the extra `ipopt`, and needs IPOPT's libraries. `BandedProblem` is the `problem_obj` that
`cyipopt.Problem` takes, and works without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .band.stages import Layout
from .optimise.sqp.callbacks import Callbacks
from .optimise.sqp.derivatives import Derivatives

__all__ = ["BandedProblem", "problem"]


class BandedProblem:
    """A problem on flat vectors `(n,)` and constraints `(m,)`, equalities first, with the methods that cyipopt calls.

    x0, lb, ub: the start and the bounds of the variables; cl, cu: those of the constraints. Dummies of ragged leaves
    are variables fixed at 0. `unravel` makes a tree like x0 of a vector.

    >>> import jax.numpy as jnp, bandhess_jax.ipopt  # jax_enable_x64 is set
    >>> given = bandhess_jax.ipopt.problem(lambda x: (x**4).sum(), lambda x: x[:1] - 1, jnp.ones(3), 0)
    >>> given.hessianstructure()
    (array([0, 1, 2]), array([0, 1, 2]))
    >>> given.hessian(given.x0, [0.0], 1.0)
    array([12., 12., 12.])
    """

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._last: tuple[tuple, Derivatives] | None = None
        layout, equalities = callbacks.layout, callbacks.equalities
        self.n, self.m = layout.n, len(callbacks.first)
        self.x0, self.unravel = np.asarray(callbacks.x0), layout.unravel
        self.lb, self.ub = np.asarray(callbacks.lower), np.asarray(callbacks.upper)
        self.cl = np.zeros(self.m)
        self.cu = np.where(np.arange(self.m) < equalities, 0.0, np.inf)

    def _at(self, x: np.ndarray, sigma: float, y: np.ndarray) -> Derivatives:
        key = (x.tobytes(), float(sigma), y.tobytes())
        if self._last is None or self._last[0] != key:
            found = self._callbacks.derivatives(x, float(sigma), y)
            self._check(int(found.narrow))
            self._last = (key, found)
        return self._last[1]

    def _check(self, narrow: int) -> None:
        if narrow:
            where = f"row {narrow - 2} of the constraints" if narrow > 1 else "the Hessian of the Lagrangian"
            raise ValueError(
                f"{where} reaches outside the band of bandwidth {self._callbacks.bandwidth}: give a larger bandwidth"
            )

    def objective(self, x: np.ndarray) -> float:
        return float(self._callbacks.values(x)[0])

    def constraints(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._callbacks.values(x)[1])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._at(x, 1.0, np.zeros(self.m)).grad)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """The entries at `jacobianstructure()`."""
        return np.asarray(self._at(x, 1.0, np.zeros(self.m)).rows).ravel()

    def jacobianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        width = self._callbacks.width
        columns = np.asarray(self._callbacks.first)[:, None] + np.arange(width)
        return np.repeat(np.arange(self.m), width), columns.ravel()

    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """`(r, j)`: the cells of the band that stand for entries of the matrix."""
        d = self._callbacks.layout.d
        rows = (self._callbacks.bandwidth + 1) * d
        r, j = np.indices((rows, self.n))
        r, j = np.nonzero((r + j < self.n) & (r + j % d < rows))
        return r, j

    def hessianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the lower triangle."""
        r, j = self._cells()
        return r + j, j

    def hessian(self, x: np.ndarray, lagrange: np.ndarray, obj_factor: float) -> np.ndarray:
        """The entries of obj_factor f'' + sum lagrange_i h_i'' at `hessianstructure()`."""
        band = np.asarray(self._at(x, obj_factor, np.asarray(lagrange, float)).band)
        return band[self._cells()]

    def solve(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """`(x, info)` by IPOPT, x in x0's structure, info as cyipopt gives it; options are IPOPT's own."""
        try:
            import cyipopt
        except ImportError:
            raise ImportError('IPOPT needs cyipopt: pip install "bandhess[ipopt]", or conda install cyipopt') from None
        found = cyipopt.Problem(self.n, self.m, problem_obj=self, lb=self.lb, ub=self.ub, cl=self.cl, cu=self.cu)
        for name, value in options.items():
            found.add_option(name, value)
        x, info = found.solve(self.x0)
        return self.unravel(jnp.asarray(x)), info


def problem(
    fun: Callable,
    constraints: Callable | None,
    x0: Any,
    bandwidth: int,
    *,
    args: tuple = (),
    inequalities: Callable | None = None,
    bounds: tuple[Any, Any] | None = None,
) -> BandedProblem:
    """min fun(x) subject to constraints(x) = 0, inequalities(x) >= 0 and bounds, for IPOPT.

    Args: as those of `bandhess_jax.sqp`; x0 in float64. bandwidth is that of the Hessian of the Lagrangian, and each
      constraint touches stages within bandwidth + 1 successive ones.

    Returns: `BandedProblem`; `.solve(**options)` runs IPOPT on it.
    Raises: TypeError where x0 is not float64 (enable jax_enable_x64); ValueError, from the methods, where the Hessian
      or a constraint reaches outside the band.

    Cost: a set of derivatives takes the products of one banded Hessian and Jacobian, in one compiled program.

    >>> import jax.numpy as jnp, bandhess_jax.ipopt  # jax_enable_x64 is set
    >>> given = bandhess_jax.ipopt.problem(lambda x: (x**4).sum(), lambda x: x[:1] - 1, jnp.ones(3), 0)
    >>> given.n, given.m, given.objective(given.x0)
    (3, 1, 3.0)
    """
    dtype = Layout.of(x0, "x0").dtype
    if dtype != np.float64:
        raise TypeError(f"x0 must be float64 for IPOPT, got {dtype}; set jax_enable_x64")
    return BandedProblem(Callbacks.of((fun, constraints, inequalities), x0, bandwidth, bounds, args))
