"""Reading programs (jaxprs): one flat list of equations, what each needs, and how it is evaluated again.

`flattened` inlines jitted functions and evaluates

    equal equations once,
    pad(a) + pad(b) as pad(a + b) where both pad alike (reverse mode leaves one for every slice of an argument),
    several ways to pad one vector, summed, as slices of one pad(a), and
    a slice of such a sum of vectors as the sum of the slices: what lies outside is not formed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn  # which brings pallas with it

# What an elementwise operation costs, in multiplications, roughly; what is not listed is never computed twice.
OPERATIONS = {
    0: "slice pad reshape broadcast_in_dim transpose squeeze concatenate rev copy iota convert_element_type real imag",
    1: "add add_any sub mul neg abs sign square max min clamp select_n complex conj integer_pow floor ceil round "
    "eq ne lt le gt ge and or not xor is_finite",
    4: "div rem sqrt rsqrt",
    16: "exp exp2 log log1p expm1 tanh logistic sin cos tan asin acos atan sinh cosh asinh acosh atanh atan2 pow cbrt "
    "erf erfc erf_inv lgamma digamma",
}
COSTS = {name: cost for cost, names in OPERATIONS.items() for name in names.split()}

# Of constants: JAX compiles a program for each, 20 milliseconds.
BY_NUMPY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative}


MANY = 3  # paddings of one vector, from which on it is padded once


def _padded(part: Array, config: tuple) -> Array:
    return lax.pad(part, jnp.zeros((), part.dtype), config)


class _PaddedSum:
    """A sum of zero-padded arrays, not yet formed: padding configuration -> array."""

    def __init__(self, parts: dict[tuple, Array]) -> None:
        self.parts = parts
        self.formed: Array | None = None
        self.wide: dict[tuple, Array] = {}  # those that are cut

    def form(self) -> Array:
        if self.formed is None:
            terms = [self._term(config, part) for config, part in self.parts.items()]
            self.formed = sum(terms[1:], terms[0])
        return self.formed

    def _term(self, config: tuple, part: Array) -> Array:
        """A part, padded. A vector that is padded in many ways, as in a sum over windows, is padded once, and cut: XLA
        fuses many cuts into a sum, but not many paddings. Where devices may share the entries, none may move."""
        if len(config) != 1 or jax.device_count() > 1:
            return _padded(part, config)
        ((low, high, gap),) = config
        ways = [way for (way,), same in self.parts.items() if same is part and way[2] == gap]
        if len(ways) < MANY:
            return _padded(part, config)
        before, behind = (max(way[side] for way in ways) for side in (0, 1))
        if (id(part), gap) not in self.wide:
            self.wide[id(part), gap] = _padded(part, ((before, behind, gap),))
        whole = self.wide[id(part), gap]
        return lax.slice(whole, (before - low,), (whole.shape[0] - (behind - high),))

    def cut(self, start: int, stop: int) -> _PaddedSum | Array:
        """Entries [start, stop) of a vector."""
        parts: dict[tuple, Array] = {}
        for ((low, _, gap),), part in self.parts.items():
            end = low + part.shape[0] + gap * max(part.shape[0] - 1, 0)
            if low < stop and start < end:
                parts[((low - start, stop - end, gap),)] = part
        first = next(iter(self.parts.values()))
        return _PaddedSum(parts) if parts else jnp.zeros(stop - start, first.dtype)

    def __add__(self, other: _PaddedSum) -> _PaddedSum:
        parts = dict(self.parts)
        for config, part in other.parts.items():
            parts[config] = parts[config] + part if config in parts else part
        return _PaddedSum(parts)


def _form(value: Any) -> Any:
    return value.form() if isinstance(value, _PaddedSum) else value


def is_constant(value: Any) -> bool:
    """A scalar whose value is known now."""
    if isinstance(value, (jax.core.Tracer, _PaddedSum)) or jnp.ndim(value):
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


def _are_real(operands: Sequence[Any]) -> bool:
    dtype = np.asarray(operands[0]).dtype
    return jnp.issubdtype(dtype, jnp.floating) and all(np.asarray(a).dtype == dtype for a in operands)


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The equation's results. Scalar constants stay constants, so that a padding value is seen to be zero."""
    params = equation.primitive.get_bind_params(equation.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # a pair in older versions of JAX
    scalar = all(getattr(variable.aval, "shape", None) == () for variable in equation.outvars)
    constant = scalar and equation.primitive.name in COSTS and all(map(is_constant, operands))
    if constant and equation.primitive.name in BY_NUMPY and _are_real(operands):
        with np.errstate(all="ignore"):
            return [BY_NUMPY[equation.primitive.name](*map(np.asarray, operands))]
    with jax.ensure_compile_time_eval() if constant else equation.ctx.manager:
        results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def _is_cut(params: Any) -> bool:
    return len(params["start_indices"]) == 1 and params["strides"] in (None, (1,))


def is_literal(atom: Any) -> bool:
    """Whether an input of an equation is a constant, a `jax.extend.core.Literal`, and no variable."""
    return hasattr(atom, "val")


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any], seen: dict[Any, tuple]) -> list[Any]:
    """The program's results, jitted functions inlined, by the rules for equal equations and for padded sums."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, args, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if is_literal(atom) else values[atom]

    for equation in closed.jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name, key = equation.primitive.name, _key(equation, operands)
        if key is not None and key in seen:
            results = seen[key][0]
        elif name in ("pjit", "jit"):
            results = _evaluate(equation.params["jaxpr"], operands, seen)
        elif name == "pad" and is_constant(operands[1]) and not np.asarray(operands[1]):
            config = tuple(tuple(map(int, sides)) for sides in equation.params["padding_config"])
            results = [_PaddedSum({config: _form(operands[0])})]
        elif name in ("add", "add_any") and all(isinstance(operand, _PaddedSum) for operand in operands):
            results = [operands[0] + operands[1]]
        elif name == "slice" and isinstance(operands[0], _PaddedSum) and _is_cut(equation.params):
            (start,), (stop,) = equation.params["start_indices"], equation.params["limit_indices"]
            results = [operands[0].cut(int(start), int(stop))]
        else:
            results = bind(equation, [_form(operand) for operand in operands])
        if key is not None:
            seen[key] = results, operands  # the operands stay alive, and with them their ids
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in closed.jaxpr.outvars]


def needed(jaxpr: Jaxpr, targets: Sequence[Any], known: Container[Any]) -> list[JaxprEqn]:
    """The equations that the targets need, in their order, where the known values are at hand."""
    wanted = {atom for atom in targets if not is_literal(atom) and atom not in known}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            equations.append(equation)
            wanted.update(a for a in equation.invars if not is_literal(a) and a not in known)
    return equations[::-1]


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations, those of inner programs included, each after the one that holds it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(value, "eqns"):  # a Jaxpr in jax.checkpoint
                inner: Any = value
                yield from equations(getattr(inner, "jaxpr", inner))


def flattened(fun: Callable[..., Any], *like: Any) -> tuple[ClosedJaxpr | None, Any]:
    """The program of `fun`, jitted functions inlined and equal equations evaluated once, and the shapes that it
    returns. None for one with effects."""
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*like)
    if closed.effects:
        return None, shape
    return jax.make_jaxpr(lambda *args: list(map(_form, _evaluate(closed, args, {}))))(*like), shape
