"""Programs that XLA's CPU compiler fuses well: dear values computed once.

XLA fuses elementwise work into every consumer and computes it there again, once for each place that reads it: the
gradient of a windowed objective evaluates each sine many times over, and every product its inner sums. `tidy` flattens
a function's program (`programs.py`) and *materialises* the values that are dear and read more than once: it has them
formed in memory.

Such a value leaves a `lax.cond` whose predicate is true but not known to the compiler: XLA fuses across nothing else
(it drops `lax.optimization_barrier` on CPU before it fuses). On other platforms the predicate is a constant, and the
conditional disappears. Programs with side effects are evaluated as they stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .programs import COSTS, bind, flattened, is_literal, needed

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr  # which brings pallas with it

_DEAR = 16  # multiplications an entry saved by forming a value once
_SMALL = 8  # entries: smaller arrays are never worth it


class _Plan:
    """Which values of a flat program to materialise, and after which others: level 0 needs none, level 1 those of 0."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.jaxpr = jaxpr
        outputs = {atom for atom in jaxpr.outvars if not is_literal(atom)}
        readers = Counter(atom for e in jaxpr.eqns for atom in e.invars if not is_literal(atom))
        readers.update(outputs)
        cost: dict[Any, int] = {}
        level: dict[Any, int] = {}
        self.levels: list[list[Any]] = []
        for equation in jaxpr.eqns:
            inputs = [atom for atom in equation.invars if not is_literal(atom)]
            here = max((level.get(atom, 0) for atom in inputs), default=0)
            spent = None
            if equation.primitive.name in COSTS:
                spent = COSTS[equation.primitive.name] + sum(cost.get(atom, 0) for atom in inputs)
            for variable in equation.outvars:
                level[variable], cost[variable] = here, spent or 0
                size = getattr(variable.aval, "size", 0)
                if spent and size >= _SMALL and (readers[variable] - 1) * spent >= _DEAR:
                    self.levels += [[] for _ in range(here + 1 - len(self.levels))]
                    self.levels[here].append(variable)
                    level[variable], cost[variable] = here + 1, 0

    def evaluate(self, targets: Sequence[Any], known: dict[Any, Any]) -> list[Any]:
        """The targets from the values known, by the equations that they need."""
        values = dict(known)
        read = lambda atom: atom.val if is_literal(atom) else values[atom]  # noqa: E731
        for equation in needed(self.jaxpr, targets, known):
            values |= zip(equation.outvars, bind(equation, list(map(read, equation.invars))), strict=True)
        return list(map(read, targets))


def _true(arrays: Sequence[Array]) -> Array:
    """True, which XLA's CPU compiler does not find out, unless it finds out the values of the larger arrays."""
    real = [a for a in arrays if a.size and jnp.issubdtype(a.dtype, jnp.floating)]
    largest = sorted(real, key=lambda a: a.size)[-8:]
    first = sum((lax.stop_gradient(a[(0,) * a.ndim].astype(jnp.float32)) for a in largest), jnp.float32(0))
    return _is_number_or_nan(first)


@jax.custom_batching.custom_vmap
def _is_number_or_nan(first: Array) -> Array:
    return lax.platform_dependent(
        first, cpu=lambda first: (first <= jnp.inf) | (first != first), default=lambda _: jnp.bool_(True)
    )


@_is_number_or_nan.def_vmap
def _one_for_the_batch(size: int, batched: list[bool], first: Array) -> tuple[Array, bool]:
    # A conditional whose predicate is batched would be a select, which keeps nothing in memory.
    return _is_number_or_nan(first[0]) if size else jnp.bool_(True), False


def _materialise(true: Array, form: Callable[[], list[Any]], avals: Sequence[Any]) -> list[Any]:
    """What `form` gives, formed in memory."""
    return lax.cond(true, form, lambda: [jnp.zeros(aval.shape, aval.dtype) for aval in avals])


def materialise(fun: Callable[[Array], Any], x: Array) -> Any:
    """`fun(x)`, a pytree of arrays, formed in memory: fused into nothing that reads it.

    x is floating and not a constant: from an integer XLA finds out that the predicate is true.
    """
    assert jnp.issubdtype(x.dtype, jnp.floating)
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(x)
    from jax.extend.core import jaxpr_as_fun  # which brings pallas with it: a tenth of a second

    form = jaxpr_as_fun(closed)
    return jax.tree.unflatten(jax.tree.structure(shape), _materialise(_true([x]), lambda: form(x), closed.out_avals))


def tidy(fun: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """`fun`, of arrays like those given, returning a pytree of arrays: the same values, evaluated as the file says."""
    flat, shape = flattened(fun, *like)
    return fun if flat is None else arranged(flat, shape)


def arranged(flat: ClosedJaxpr, shape: Any) -> Callable[..., Any]:
    """A flat program as a function that returns a pytree like `shape`, with what is dear materialised."""
    plan = _Plan(flat.jaxpr)

    def tidied(*args: Array) -> Any:
        known: dict[Any, Any] = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
        known |= zip(flat.jaxpr.invars, args, strict=True)
        if plan.levels:
            true = _true([a for a in known.values() if isinstance(a, jax.core.Tracer)])
        for variables in plan.levels:
            form = partial(plan.evaluate, variables, known)
            known |= zip(variables, _materialise(true, form, [v.aval for v in variables]), strict=True)
        return jax.tree.unflatten(jax.tree.structure(shape), plan.evaluate(flat.jaxpr.outvars, known))

    return tidied
