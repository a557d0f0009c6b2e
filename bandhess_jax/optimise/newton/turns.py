"""The loop of `newton` in the hands of another, turn by turn: what `bandhess_jax.optimistix` is made of.

turns = Turns.of(y, bandwidth, tol, check_band, probing, chunk_size)
state = turns.start(y)
while state.open:
    state = turns.take(fun, state)
y, status = turns.place(state), state.status
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from bandhess_common.options import ProbingName

from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from .point import Options
from .solve import Problem, User, advance, functions_of, method_of
from .state import ENDLESS, limits_of


class Turns(NamedTuple):
    """Hashable: it holds shapes and options alone, and may be made anew for every turn."""

    problem: Problem
    tol: float

    @classmethod
    def of(
        cls,
        y: Any,
        bandwidth: int,
        tol: float | None,
        check_band: bool,
        probing: ProbingName | Probing,
        chunk_size: ChunkSize,
    ) -> Turns:
        """For trees like y; the other arguments are those of `newton`, checked here but for tol."""
        objective = Objective.of(lambda y: y, 0, False, (y,), "y0")
        layout = objective.layout
        extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (y, ()))
        tol = float(jnp.finfo(layout.dtype).eps) ** 0.5 if tol is None else tol
        width = (extraction.bandwidth + 1) * layout.d
        options = Options(layout, width, "none", bool(check_band), 0, False)
        return cls(Problem(objective, extraction, "exact", options), tol)

    def _limits(self) -> Array:
        """To count the steps is the loop's owner's matter."""
        return jnp.asarray(limits_of(self.tol, ENDLESS, self.problem.objective.layout.dtype))

    def start(self, y: Any) -> Any:
        """At y, where nothing is known yet."""
        options, layout = self.problem.options, self.problem.objective.layout
        return method_of(options).initial(options, layout.ravel(y), self._limits(), None)

    def take(self, fun: Callable[[Any], Any], state: Any) -> Any:
        """The next turn: a step is tried, refined or turned down, or the end checked; by kernels, steps are tried until
        one serves. Once `state.open` is False,
        `state.status` is a `Status` and nothing changes any more."""
        user = User(fun, (), "exact", None, (), self._limits())
        options, x = self.problem.options, state.best
        functions, _, consts, given = functions_of(self.problem, user, x)
        turn = method_of(options).turns(options, functions(consts, given), None, None, x)
        return advance(turn, state, state.turns + 1)

    def place(self, state: Any) -> Any:
        """The best point so far, in the structure of y."""
        return self.problem.objective.layout.unravel(state.best)
