"""The user's three functions, bounds and start, made one problem on flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...extraction.objective import Objective
from ..newton.implicit import close
from .constraints import Bounds, Outputs
from .engine import Box


class Data(NamedTuple):
    """All arrays that a problem depends on."""

    consts: list[Array]  # that its functions read
    others: list[Array]  # those of them that are not floating
    box: Bounds | None


class Problem(NamedTuple):
    """What is not an array, and the data. The user's functions were traced once, for all of their uses."""

    objective: Objective
    closed: Callable[[Array, list, list], tuple]
    equalities: Outputs
    inequalities: Outputs
    data: Data

    @classmethod
    def of(cls, objective: Objective, funs: tuple, x0: Any, bounds: Any, args: tuple) -> tuple[Problem, Array]:
        """With x0, flat."""
        fun, constraints, inequalities = funs
        layout = objective.layout
        flat_fun, flat = objective.bind(fun, (x0, *args), {})

        def functions(x: Array) -> tuple:
            tree = layout.unravel(x)
            value = flat_fun(x)[0].astype(layout.dtype)
            return value, *(() if f is None else f(tree, *args) for f in (constraints, inequalities))

        flat = lax.stop_gradient(flat)
        closed, consts, others = close(functions, flat)
        _, c, g = jax.eval_shape(closed, flat, consts, others)
        outputs = Outputs.of(c, "constraints", layout.dtype), Outputs.of(g, "inequalities", layout.dtype)
        box = None if bounds is None else Bounds.of(bounds, layout)
        return cls(objective, closed, *outputs, Data(consts, others, box)), flat

    def on(self, data: Data) -> Problem:
        """The same with other arrays."""
        return self._replace(data=data)

    def rows(self, x: Array) -> tuple[Array, Array]:
        """f, and h = (c, g)."""
        consts, others, box = self.data
        value, c, g = self.closed(x if box is None else box.fix(x), consts, others)
        return value, jnp.concatenate([self.equalities.ravel(c), self.inequalities.ravel(g)])

    def parts(self, x: Array) -> tuple[Array, Array, Array]:
        """f, c, and G: distances from bounds, where there are some, then inequalities."""
        value, h = self.rows(x)
        m, box = self.equalities.size, self.data.box
        return value, h[:m], h[m:] if box is None else jnp.concatenate([box.distances(box.fix(x)), h[m:]])

    @property
    def held(self) -> Array:
        """1 on dummies and fixed variables."""
        dummies, box = self.objective.layout.dummies(), self.data.box
        return dummies if box is None else jnp.maximum(dummies, box.fixed)

    @property
    def resting(self) -> Array:
        """Where held variables are."""
        box = self.data.box
        if box is None:
            return jnp.zeros(self.objective.layout.n, self.objective.layout.dtype)
        return jnp.where(box.fixed > 0, box.lower, 0)

    @property
    def active(self) -> Array:
        """The entries of G that bound."""
        every = jnp.ones(self.inequalities.size, bool)
        return every if self.data.box is None else jnp.concatenate([self.data.box.active, every])

    @property
    def sides(self) -> Box:
        """As the engine wants them."""
        box, resting = self.data.box, self.resting
        if box is None:
            held = self.objective.layout.dummies()
            lower, upper = (jnp.where(held > 0, 0, jnp.full_like(held, side)) for side in (-jnp.inf, jnp.inf))
            return Box(lower, upper, held)
        held = self.held
        return Box(jnp.where(held > 0, resting, box.lower), jnp.where(held > 0, resting, box.upper), held)

    def split(self, z: Array) -> tuple[Any, Array]:
        """Multipliers of G as those of the bounds, `(lower, upper)` like x, and those of the inequalities."""
        if self.data.box is None:
            return None, z
        layout = self.objective.layout
        n = layout.n
        return (layout.unravel(z[:n]), layout.unravel(z[n : 2 * n])), z[2 * n :]
