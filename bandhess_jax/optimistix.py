"""Newton's method with banded Hessians as a minimiser of optimistix.

    solution = optimistix.minimise(fn, BandedNewton(bandwidth=1), y0, args)

Derivatives of the solution are optimistix': its default adjoint forms a dense Hessian; a banded one comes from

    adjoint=optimistix.ImplicitAdjoint(linear_solver=bandhess_jax.lineax.BandedCholesky(bandwidth))
    tags=frozenset({lineax.positive_semidefinite_tag})

optimistix comes with the extra `optimistix`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optimistix as optx
from jax import Array

from bandhess_common.checks import as_positive
from bandhess_common.options import ProbingName
from bandhess_common.status import Status

from .extraction.probing.protocol import Probing
from .extraction.products import ChunkSize
from .optimise.newton.turns import Turns

__all__ = ["BandedNewton"]

RESULTS = {
    Status.MAX_STEPS: optx.RESULTS.nonlinear_max_steps_reached,
    Status.STALLED: optx.RESULTS.nonlinear_divergence,
    Status.UNBOUNDED: optx.RESULTS.nonlinear_divergence,
    Status.BAND_TOO_NARROW: optx.RESULTS.nonlinear_divergence,
    Status.NONFINITE: optx.RESULTS.nonfinite,
}
"""What optimistix calls an end; CONVERGED and PRECISION_FLOOR are its success. `solution.stats["status"]` has the
`Status` itself."""


class BandedNewton(optx.AbstractMinimiser):
    """`bandhess_jax.newton` for `optimistix.minimise`: its trust region, stopping formula and check of the band.

    A step of optimistix is a turn of the trust region: a trial of a step, accepted or not, so `max_steps` bounds
    factorisations rather than accepted steps (where compiled kernels serve, trials until a step is accepted).
    `solution.stats` has `status` (a `Status`, as an array), `grad_norm` and `accepted_steps`. With throw=False, a wrong
    bandwidth shows there.

    >>> import jax.numpy as jnp, optimistix
    >>> from bandhess_jax.optimistix import BandedNewton
    >>> fun = lambda y, shift: ((y[1:] - y[:-1]) ** 2).sum() + jnp.cosh(y - shift).sum()
    >>> optimistix.minimise(fun, BandedNewton(1), jnp.zeros(4), jnp.float32(1)).value.round(decimals=3)
    Array([1., 1., 1., 1.], dtype=float32)
    """

    rtol: float
    atol: float
    norm: Callable
    bandwidth: int
    tol: float | None
    probing: ProbingName | Probing
    chunk_size: ChunkSize
    check_band: bool

    def __init__(
        self,
        bandwidth: int,
        *,
        tol: float | None = None,
        check_band: bool = True,
        probing: ProbingName | Probing = "direct",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        """
        Args:
          bandwidth: of the Hessian, in stages; y is an array or tree of stages.
          tol: relative tolerance, by default sqrt(eps).
          check_band: spend two products on finding entries outside the band.
          probing: as in `bandhess_jax.hessian`.
          chunk_size: likewise.
        """
        self.bandwidth, self.check_band, self.probing, self.chunk_size = bandwidth, check_band, probing, chunk_size
        self.tol = None if tol is None else as_positive(tol, "tol")
        self.rtol, self.atol, self.norm = self.tol or 0.0, 0.0, optx.max_norm

    def _turns(self, y: Any) -> Turns:
        return Turns.of(y, self.bandwidth, self.tol, self.check_band, self.probing, self.chunk_size)

    def init(
        self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: frozenset[object]
    ) -> Any:
        return self._turns(y).start(y)

    def step(
        self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: frozenset[object]
    ) -> tuple[Any, Any, Any]:
        turns = self._turns(y)
        state = turns.take(lambda y: fn(y, args)[0], state)
        y = turns.place(state)
        return y, state, fn(y, args)[1]

    def terminate(
        self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: frozenset[object]
    ) -> tuple[Array, optx.RESULTS]:
        result: Any = optx.RESULTS.successful
        for status, name in RESULTS.items():
            result = optx.RESULTS.where(~state.open & (state.status == status), name, result)
        return ~state.open, result

    def postprocess(
        self,
        fn: Any,
        y: Any,
        aux: Any,
        args: Any,
        options: Any,
        state: Any,
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> tuple[Any, Any, dict[str, Any]]:
        status = jnp.where(state.open, jnp.int32(Status.MAX_STEPS), state.status).astype(int)  # as `newton` gives it
        return y, aux, {"status": status, "grad_norm": state.grad_norm, "accepted_steps": state.steps.astype(int)}
