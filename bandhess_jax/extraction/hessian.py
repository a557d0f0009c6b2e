"""Band extraction: objective -> products (or diagonals) -> band. `from_matvec` is the one core; the others bring their
own product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from ..band.stages import Layout
from ..band.storage import as_index, clear_unused
from ..band.structures import shifted
from ..framework.fusion import arranged, flattened, hold, tidy
from ..framework.jit import jit_call
from .diagonals import carry
from .probing.direct import Direct, within_blocks
from .probing.protocol import Probing, as_probing

ChunkSize = int | str | None


class Extraction(NamedTuple):
    """What decides the extraction's program, checked. Hashable."""

    bandwidth: int
    probing: Probing
    chunk_size: ChunkSize

    @classmethod
    def of(cls, bandwidth: int, probing: str | Probing, chunk_size: ChunkSize) -> Extraction:
        if chunk_size is not None and chunk_size != "auto":
            try:
                chunk_size = as_index(chunk_size, "chunk_size", least=1)
            except TypeError:
                raise TypeError(f'chunk_size must be an int >= 1, None or "auto", got {chunk_size!r}') from None
        return cls(as_index(bandwidth, "bandwidth"), as_probing(probing), chunk_size)

    def resolve(self, n: int, operands: Any) -> Extraction:
        """With "auto" made a number where the platform alone decides, which is not on a CPU (`_all_at_once`).

        Elsewhere it is as many probes as fit 2^26 numbers.
        """
        if self.chunk_size != "auto":
            return self
        arrays = [leaf for leaf in jax.tree.leaves(operands) if isinstance(leaf, jax.Array)]
        concrete = [leaf for leaf in arrays if not isinstance(leaf, jax.core.Tracer)]
        platform = next(iter(concrete[0].devices())).platform if concrete else jax.default_backend()
        return self if platform == "cpu" else self._replace(chunk_size=max(1, 2**26 // max(n, 1)))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda value: isinstance(value, (ClosedJaxpr, Jaxpr))):
            if isinstance(value, (ClosedJaxpr, Jaxpr)):  # a Jaxpr in jax.checkpoint
                yield from _equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def _all_at_once(product: Callable[[Array], Array], probes: Array, n: int) -> bool:
    """Whether a CPU takes all probes in one batch or one at a time, by what was measured (benchmarks/extraction.py).

    In one batch where they are many, for a loop's turns take microseconds, or a product is long enough for two
    threads to share (2^13 numbers), as long as the widest value of the batch fits the cache (2^20 numbers). Where a
    product itself is a loop of many turns, those are shared by many probes, whatever fits the memory (2^26 numbers). A
    product on the host, or of a foreign function, may not know batches.
    """
    equations = list(_equations(jax.make_jaxpr(product)(probes[0]).jaxpr))
    widest = max((getattr(variable.aval, "size", 0) for e in equations for variable in e.outvars), default=0)
    if any(e.primitive.name.endswith("callback") or e.params.get("vmap_method", "") is None for e in equations):
        return False
    if any(e.primitive.name in ("scan", "while") for e in equations):
        return len(probes) >= 8 and len(probes) * widest <= 2**26
    return (len(probes) >= 8 or n >= 2**13) and len(probes) * max(widest, n) <= 2**20


def _finished(ab: Array, layout: Layout, k: int, near: int) -> Array:
    ab = clear_unused(ab)
    if near < k:
        ab = jnp.pad(ab, ((0, (k - near) * layout.d), (0, 0)))
    return shifted(ab, layout.dummies()) if layout.ragged else ab


def extract_noted(matvec: Callable[[Array], Array], layout: Layout, options: Extraction) -> Any:
    """The band of `matvec`, a symmetric operator on the ravelled vector; `(ab, *notes)` if the probing adds some."""
    T, d, k = layout.T, layout.d, options.bandwidth
    if layout.n == 0:
        return jnp.zeros(((k + 1) * d, 0), layout.dtype)
    near = min(k, T - 1)  # blocks further off than T - 1 stages do not exist
    probing, chunk = options.probing, options.chunk_size
    flat, shape = flattened(matvec, jax.ShapeDtypeStruct((layout.n,), layout.dtype))
    if flat is not None and type(probing) is Direct:
        # An operation costs half a millisecond of compilation, and on short vectors more than its arithmetic.
        longest = min(4000, 3 * layout.n // 2)
        ab = carry(flat, layout.n, (near + 1) * d, longest)
        if ab is not None:
            return _finished(within_blocks(ab, d), layout, k, near)
    matvec = matvec if flat is None else arranged(flat, shape)

    def product(c: Array) -> Array:
        y = matvec(probing.probe(c, T, d, near, layout.dtype))
        return probing.keep(c, y, T, d, near)

    probes = jnp.arange(probing.count(T, d, near))
    if chunk == "auto":
        chunk = None if _all_at_once(product, probes, layout.n) else 1
    if chunk is None or (isinstance(chunk, int) and 1 < len(probes) <= chunk):
        kept = jax.vmap(product)(probes)
    elif chunk == 1:
        # Held, or XLA's CPU compiler makes the product part of the loop's write to memory, which takes one thread.
        kept = lax.map(lambda c: hold(product, c), probes)
    else:
        assert isinstance(chunk, int)
        kept = lax.map(product, probes, batch_size=chunk)
    decoded = probing.decode(kept, T, d, near)
    ab, notes = (decoded[0], decoded[1:]) if isinstance(decoded, tuple) else (decoded, ())
    if ab.shape != ((near + 1) * d, layout.n):
        raise ValueError(
            f"{type(probing).__name__}.decode must return the band, shape {((near + 1) * d, layout.n)}, or a tuple "
            f"that starts with it, got shape {ab.shape}"
        )
    ab = _finished(ab, layout, k, near)
    return (ab, *notes) if notes else ab


def extract(matvec: Callable[[Array], Array], layout: Layout, options: Extraction) -> Array:
    """The band alone, for those who have no use for notes."""
    out = extract_noted(matvec, layout, options)
    return out[0] if isinstance(out, tuple) else out


def _from_matvec(options: tuple[Layout, Extraction], matvec: Callable, _: Any) -> Array:
    layout, extraction = options
    return extract_noted(lambda v: layout.ravel(matvec(layout.unravel(v))), layout, extraction)


def from_matvec(
    matvec: Callable[[Any], Any],
    like: Any,
    bandwidth: int,
    *,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Array:
    """The band of any symmetric banded linear operator.

    Args:
      matvec: the operator: takes and returns a tree of the structure of `like`.
      like: an array or tree of arrays that gives structure, shapes, dtype and device (or `jax.ShapeDtypeStruct`s).
      bandwidth: k >= 0, in stages: stage t couples to stages t - k .. t + k.
      probing: which probes, and how the band is read off them: "direct", "substitution", "fourier", "random", or
        an object: `Direct()`, `Substitution()`, `Fourier()`, `Random(...)`, or your own with their methods.
      chunk_size: probes multiplied at a time: an int bounds the memory to that many products (1 never vmaps, so host
        callbacks work), None takes all in one batched call, "auto" decides by the platform.

    Returns: `ab` `((k + 1) d, T d)` in lower band storage, for T stages of d scalars; `(k + 1, n)` for a vector.
      Dummy variables of ragged leaves have a unit diagonal.

    Raises: TypeError or ValueError for a wrong argument.

    Cost: products: (2k + 1) d for "direct", (k + 1) d for "substitution", 2 (k + 1) d - 1 for "fourier", twice those of
    "direct" for "random"; never more than T d for the first two. "direct" forms none where diagonals can be
    carried through the program instead (`extraction/diagonals/walk.py`).
    """
    layout = Layout.of(like, "like")
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout.n, (like, matvec))
    return jit_call(_from_matvec, (layout, extraction), matvec, like)  # like: the program runs where it lives


class Objective(NamedTuple):
    """Which argument of a function is differentiated, and its layout. Hashable."""

    layout: Layout
    argnums: int
    has_aux: bool

    @classmethod
    def of(cls, fun: Callable, argnums: int, has_aux: bool, args: tuple, name: str | None = None) -> Objective:
        if not callable(fun):
            raise TypeError(f"fun must be a function, got {type(fun).__name__}")
        if not -len(args) <= argnums < len(args):
            raise ValueError(f"argument {argnums} (argnums) must be given by position; got {len(args)} positional ones")
        argnums %= len(args)
        return cls(Layout.of(args[argnums], name or f"argument {argnums}"), argnums, bool(has_aux))

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Array], tuple[Array, Any]], Array]:
        """`(flat -> (value, aux), flat)`; the dummies of ragged leaves have zero gradient by construction."""

        def flat_fun(flat: Array) -> tuple[Array, Any]:
            out = fun(*args[: self.argnums], self.layout.unravel(flat), *args[self.argnums + 1 :], **kwargs)
            if self.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (value, aux) with has_aux=True, got {type(out).__name__}")
                value, aux = out
            else:
                value, aux = out, None
            if not hasattr(value, "shape") and not isinstance(value, (float, int)):
                raise TypeError(f"fun must return a scalar array, got {type(value).__name__}; has_aux=True for a pair")
            if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise TypeError(
                    f"fun must return a real scalar (shape ()), got shape {jnp.shape(value)} and dtype "
                    f"{jnp.result_type(value)}; sum its terms, for example with jnp.sum"
                )
            return jnp.asarray(value), aux

        return flat_fun, self.layout.ravel(args[self.argnums])


def check_argnums(argnums: int) -> int:
    try:
        return as_index(argnums, "argnums", least=-(2**31))
    except TypeError:
        raise TypeError(f"argnums must be one int, got {argnums!r}; ravel several arguments into one pytree") from None


def linearize_gradient(flat_fun: Callable, flat: Array) -> tuple[Array, Callable[[Array], Array], tuple]:
    """`(grad, product, (value, aux))`, the function evaluated once.

    Linearised here, outside the loop over probes: that loop then holds the linear part alone, and evaluates nothing
    of the function (its transcendental functions above all) again for each probe.
    """

    def gradient(flat: Array) -> tuple[Array, tuple]:
        out, grad = jax.value_and_grad(flat_fun, has_aux=True)(flat)
        return grad, out

    grad, product, out = tidy(lambda flat: jax.linearize(gradient, flat, has_aux=True), flat)(flat)
    return grad, product, out


def _value_grad_hessian(options: tuple[Objective, Extraction], fun: Callable, args: tuple, kwargs: dict) -> tuple:
    objective, extraction = options
    flat_fun, flat = objective.bind(fun, args, kwargs)
    grad, product, (value, aux) = linearize_gradient(flat_fun, flat)
    ab = extract_noted(product, objective.layout, extraction)
    return (value, aux) if objective.has_aux else value, objective.layout.unravel(grad), ab


def value_grad_hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., tuple]:
    """A function of `fun`'s arguments that returns `(value, grad, ab)`, with `fun` evaluated once.

    Args:
      fun: real scalar function of an array or tree of stages, pure and traceable. It is compiled, keyed by its
        identity: calls with the same `fun` and arrays of the same shapes do not retrace, and what `fun` reads from
        outside is read once. Python ints, strings and functions among the arguments are static (a new value
        compiles anew), arrays and Python floats are traced.
      bandwidth: k >= 0, in stages; `band_error` tells whether it is wide enough.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(value, aux)`, aux a pytree of arrays.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `(value, grad, ab)`, or `((value, aux), grad, ab)` with has_aux: grad in the
      argument's structure, ab `((k + 1) d, T d)` as `hessian` gives it.

    Cost: one linearised gradient, then (2k + 1) d products with its linear part, or one pass of its diagonals where it
    consists of slices, paddings, sums and products with coefficients (`extraction/diagonals`): up to five times faster.
    """
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def value_grad_hessian_fun(*args: Any, **kwargs: Any) -> tuple:
        objective = Objective.of(fun, argnums, has_aux, args)
        options = (objective, extraction.resolve(objective.layout.n, args))
        return jit_call(_value_grad_hessian, options, fun, args, kwargs)

    return value_grad_hessian_fun


def hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Any]:
    """A function of `fun`'s arguments that returns the band of the Hessian, as `jax.hessian` returns all of it.

    Arguments as in `value_grad_hessian`. Returns a function giving `ab` (or `(ab, aux)` with has_aux): `ab[r, j]` is
    `H[j + r, j]`, shape `(k + 1, n)` for a vector, `((k + 1) d, T d)` for T stages of d scalars. An entry of H further
    than k stages from the diagonal is lost, or added to a wrong cell: check a doubtful bandwidth with `band_error`.

    Cost: at most (2k + 1) d Hessian-vector products. Composes with `jit`, `vmap`, `grad`.
    """
    pieces = value_grad_hessian(
        fun, bandwidth, argnums=argnums, has_aux=has_aux, probing=probing, chunk_size=chunk_size
    )

    def hessian_fun(*args: Any, **kwargs: Any) -> Any:
        value, _, ab = pieces(*args, **kwargs)
        return (ab, value[1]) if has_aux else ab

    return hessian_fun


def linearize_residuals(residuals: Callable[[Array], Any], flat: Array) -> tuple[Any, Callable, Callable]:
    """`(r, forward, backward)`: the residuals, v -> J v, and u -> J^T u (the real part of J^H u where r is complex)."""

    def checked(flat: Array) -> Any:
        out = residuals(flat)
        leaves = jax.tree.leaves(out)
        if not leaves or not all(hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.inexact) for a in leaves):
            kinds = [str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves]
            raise TypeError(f"residuals must return a floating array or a pytree of them, got leaves of types {kinds}")
        return out

    r, forward = jax.linearize(checked, flat)
    transpose = jax.linear_transpose(forward, flat)
    return r, forward, lambda u: transpose(jax.tree.map(jnp.conj, u))[0]


def _gauss_newton(options: tuple[Objective, Extraction], residuals: Callable, args: tuple, kwargs: dict) -> Array:
    objective, extraction = options
    layout = objective.layout

    def flat_residuals(flat: Array) -> Any:
        return residuals(*args[: objective.argnums], layout.unravel(flat), *args[objective.argnums + 1 :], **kwargs)

    _, forward, backward = linearize_residuals(flat_residuals, layout.ravel(args[objective.argnums]))
    return extract_noted(lambda v: backward(forward(v)), layout, extraction)


def gauss_newton(
    residuals: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Array]:
    """A function of `residuals`' arguments that returns the band of J^T J, for the objective 0.5 |residuals|^2.

    Args:
      residuals: function that returns a floating array of any shape, or a pytree of them (complex: J^H J).
      bandwidth: of J^T J, in stages: residuals that couple stages t .. t + k give k.
      argnums: the one argument to differentiate.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `ab`, shaped as `hessian`'s: positive semidefinite up to rounding.

    Cost: one linearisation, then a forward and a transposed product per probe. A `jax.custom_vjp` inside raises
    TypeError, as it has no forward derivative.
    """
    if not callable(residuals):
        raise TypeError(f"residuals must be a function, got {type(residuals).__name__}")
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def gauss_newton_fun(*args: Any, **kwargs: Any) -> Array:
        objective = Objective.of(residuals, argnums, False, args)
        options = (objective, extraction.resolve(objective.layout.n, args))
        try:
            return jit_call(_gauss_newton, options, residuals, args, kwargs)
        except TypeError as error:  # JAX raises it late, when the program is lowered
            if "custom_vjp" not in str(error):
                raise
            raise TypeError(
                "gauss_newton needs the residuals' forward derivative, which jax.custom_vjp functions do not have; "
                "give them a jax.custom_jvp rule instead, or use hessian on 0.5 * sum(residuals**2)"
            ) from error

    return gauss_newton_fun
