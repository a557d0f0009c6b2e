"""Programs that XLA's CPU compiler fuses well: dear values computed once, sums of shifted arrays shifted once.

XLA fuses elementwise work into every consumer and computes it there again, once for each place that reads it: the
gradient of a windowed objective evaluates each sine many times over, and every product its inner sums. Reverse mode
also leaves a sum of zero-padded arrays for every slice of an argument. `tidy` evaluates a function's program with

    equal equations evaluated once,
    pad(a) + pad(b) = pad(a + b) where both pad alike, and
    values that are dear and read more than once held in memory.

Such a value leaves a `lax.cond` whose predicate is true but not known to the compiler: XLA fuses across nothing else
(it drops `lax.optimization_barrier` on CPU before it fuses). On other platforms the predicate is a constant, and the
conditional disappears. Programs with side effects are evaluated as they stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

# What an elementwise operation costs, in multiplications, roughly; what is not listed is never computed twice.
_OPERATIONS = {
    0: "slice pad reshape broadcast_in_dim transpose squeeze concatenate rev copy iota convert_element_type real imag",
    1: "add add_any sub mul neg abs sign square max min clamp select_n complex conj integer_pow floor ceil round "
    "eq ne lt le gt ge and or not xor is_finite",
    4: "div rem sqrt rsqrt",
    16: "exp exp2 log log1p expm1 tanh logistic sin cos tan asin acos atan sinh cosh asinh acosh atanh atan2 pow cbrt "
    "erf erfc erf_inv lgamma digamma",
}
_COSTS = {name: cost for cost, names in _OPERATIONS.items() for name in names.split()}
_DEAR = 16  # multiplications an entry saved by holding a value
_SMALL = 8  # entries: smaller arrays are never worth it


class _Shifted:
    """A sum of zero-padded arrays, not yet formed: padding configuration -> array."""

    def __init__(self, parts: dict[tuple, Array]) -> None:
        self.parts = parts
        self.formed: Array | None = None

    def form(self) -> Array:
        if self.formed is None:
            padded = [lax.pad(part, jnp.zeros((), part.dtype), config) for config, part in self.parts.items()]
            self.formed = sum(padded[1:], padded[0])
        return self.formed

    def __add__(self, other: _Shifted) -> _Shifted:
        parts = dict(self.parts)
        for config, part in other.parts.items():
            parts[config] = parts[config] + part if config in parts else part
        return _Shifted(parts)


def _form(value: Any) -> Any:
    return value.form() if isinstance(value, _Shifted) else value


def is_constant(value: Any) -> bool:
    if isinstance(value, (jax.core.Tracer, _Shifted)) or jnp.ndim(value):
        return False
    return not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) if hasattr(value, "dtype") else True


def _key(equation: Any, operands: Sequence[Any]) -> Any:
    """Equal for equations that compute the same; None where that can't be told."""
    names = tuple((str(v), str(jnp.result_type(v))) if is_constant(v) else id(v) for v in operands)
    key = (equation.primitive, names, tuple(sorted(equation.params.items(), key=lambda item: item[0])))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The equation's results. Scalar constants stay constants, so that a padding value is seen to be zero."""
    params = equation.primitive.get_bind_params(equation.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # a pair in older versions of JAX
    scalar = all(getattr(variable.aval, "shape", None) == () for variable in equation.outvars)
    constant = scalar and equation.primitive.name in _COSTS and all(map(is_constant, operands))
    with jax.ensure_compile_time_eval() if constant else equation.ctx.manager:
        results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any], seen: dict[Any, tuple]) -> list[Any]:
    """The program's results, jitted functions inlined, by the rules for equal equations and for padded sums."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, args, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in closed.jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name, key = equation.primitive.name, _key(equation, operands)
        if key is not None and key in seen:
            results = seen[key][0]
        elif name in ("pjit", "jit"):
            results = _evaluate(equation.params["jaxpr"], operands, seen)
        elif name == "pad" and is_constant(operands[1]) and not np.asarray(operands[1]):
            config = tuple(tuple(map(int, sides)) for sides in equation.params["padding_config"])
            results = [_Shifted({config: _form(operands[0])})]
        elif name in ("add", "add_any") and all(isinstance(operand, _Shifted) for operand in operands):
            results = [operands[0] + operands[1]]
        else:
            results = bind(equation, [_form(operand) for operand in operands])
        if key is not None:
            seen[key] = results, operands  # the operands stay alive, and with them their ids
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in closed.jaxpr.outvars]


def needed(jaxpr: Jaxpr, targets: Sequence[Any], held: Container[Any]) -> list[JaxprEqn]:
    """The equations that the targets need, in their order, where the values held are at hand."""
    wanted = {atom for atom in targets if not isinstance(atom, Literal) and atom not in held}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            equations.append(equation)
            wanted.update(a for a in equation.invars if not isinstance(a, Literal) and a not in held)
    return equations[::-1]


class _Plan:
    """Which values of a flat program to hold, and after which others: level 0 needs none, level 1 those of 0, ..."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.jaxpr = jaxpr
        outputs = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
        readers = Counter(atom for e in jaxpr.eqns for atom in e.invars if not isinstance(atom, Literal))
        readers.update(outputs)
        cost: dict[Any, int] = {}
        level: dict[Any, int] = {}
        self.levels: list[list[Any]] = []
        for equation in jaxpr.eqns:
            inputs = [atom for atom in equation.invars if not isinstance(atom, Literal)]
            here = max((level.get(atom, 0) for atom in inputs), default=0)
            spent = None
            if equation.primitive.name in _COSTS:
                spent = _COSTS[equation.primitive.name] + sum(cost.get(atom, 0) for atom in inputs)
            for variable in equation.outvars:
                level[variable], cost[variable] = here, spent or 0
                size = getattr(variable.aval, "size", 0)
                if spent and size >= _SMALL and (readers[variable] - 1) * spent >= _DEAR:
                    self.levels += [[] for _ in range(here + 1 - len(self.levels))]
                    self.levels[here].append(variable)
                    level[variable], cost[variable] = here + 1, 0

    def form(self, targets: Sequence[Any], held: dict[Any, Any]) -> list[Any]:
        """The targets from the values held, by the equations that they need."""
        values = dict(held)
        read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]  # noqa: E731
        for equation in needed(self.jaxpr, targets, held):
            values |= zip(equation.outvars, bind(equation, list(map(read, equation.invars))), strict=True)
        return list(map(read, targets))


def _true(arrays: Sequence[Array]) -> Array:
    """True, which XLA's CPU compiler does not find out, unless it finds out the values of the larger arrays."""
    real = [a for a in arrays if a.size and jnp.issubdtype(a.dtype, jnp.floating)]
    largest = sorted(real, key=lambda a: a.size)[-8:]
    first = sum((lax.stop_gradient(a.reshape(-1)[0].astype(jnp.float32)) for a in largest), jnp.float32(0))
    return _is_number_or_nan(first)


@jax.custom_batching.custom_vmap
def _is_number_or_nan(first: Array) -> Array:
    return lax.platform_dependent(
        first, cpu=lambda first: (first <= jnp.inf) | (first != first), default=lambda _: jnp.bool_(True)
    )


@_is_number_or_nan.def_vmap
def _one_for_the_batch(size: int, batched: list[bool], first: Array) -> tuple[Array, bool]:
    # A conditional whose predicate is batched would be a select, which holds nothing.
    return _is_number_or_nan(first[0]) if size else jnp.bool_(True), False


def _hold(true: Array, form: Callable[[], list[Any]], avals: Sequence[Any]) -> list[Any]:
    """What `form` gives, formed in memory."""
    return lax.cond(true, form, lambda: [jnp.zeros(aval.shape, aval.dtype) for aval in avals])


def hold(fun: Callable[[Array], Any], x: Array) -> Any:
    """`fun(x)`, a pytree of arrays, formed in memory: fused into nothing that reads it."""
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(x)
    form = jaxpr_as_fun(closed)
    return jax.tree.unflatten(jax.tree.structure(shape), _hold(_true([x]), lambda: form(x), closed.out_avals))


def flattened(fun: Callable[..., Any], *like: Any) -> tuple[ClosedJaxpr | None, Any]:
    """The program of `fun`, jitted functions inlined and equal equations evaluated once, and the shapes that it
    returns. None for one with effects."""
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*like)
    if closed.effects:
        return None, shape
    return jax.make_jaxpr(lambda *args: list(map(_form, _evaluate(closed, args, {}))))(*like), shape


def tidy(fun: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """`fun`, of arrays like those given, returning a pytree of arrays: the same values, evaluated as the file says."""
    flat, shape = flattened(fun, *like)
    return fun if flat is None else arranged(flat, shape)


def arranged(flat: ClosedJaxpr, shape: Any) -> Callable[..., Any]:
    """A flat program as a function that returns a pytree like `shape`, with what is dear held."""
    plan = _Plan(flat.jaxpr)

    def tidied(*args: Array) -> Any:
        held: dict[Any, Any] = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
        held |= zip(flat.jaxpr.invars, args, strict=True)
        if plan.levels:
            true = _true([a for a in held.values() if isinstance(a, jax.core.Tracer)])
        for variables in plan.levels:
            form = partial(plan.form, variables, held)
            held |= zip(variables, _hold(true, form, [v.aval for v in variables]), strict=True)
        return jax.tree.unflatten(jax.tree.structure(shape), plan.form(flat.jaxpr.outvars, held))

    return tidied
