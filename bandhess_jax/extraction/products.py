"""A symmetric banded operator -> its band: the one core of every extraction, and `from_matvec`, its plainest use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.checks import as_chunk_size, as_index, check_exact, check_ring
from bandhess_common.options import ChunkSize, ProbingName

from ..band.stages import Layout
from ..band.storage import clear_beyond_stages, clear_unused
from ..band.structures import Bordered, Cyclic, shifted
from ..framework.fusion import arranged
from ..framework.jit import jit_call
from ..framework.programs import equations, flattened
from .diagonals import carry
from .probing.direct import Direct
from .probing.protocol import Probing, as_probing
from .probing.ring import Ring

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr  # which brings pallas with it


class Extraction(NamedTuple):
    """What decides the extraction's program, checked. Hashable."""

    bandwidth: int
    probing: Probing
    chunk_size: ChunkSize

    @classmethod
    def of(cls, bandwidth: int, probing: ProbingName | Probing, chunk_size: ChunkSize) -> Extraction:
        return cls(as_index(bandwidth, "bandwidth"), as_probing(probing), as_chunk_size(chunk_size))

    def resolve(self, layout: Layout, operands: Any) -> Extraction:
        """With "auto" made a number where the platform alone decides, which is not on a CPU (`_all_at_once`).

        Elsewhere it is as many probes as fit 2^26 numbers. Raises ValueError where a ring is too short for a band.
        """
        if layout.periodic:
            check_ring(layout.T, layout.d, self.bandwidth)
            check_exact(self.probing == Direct())
        if self.chunk_size != "auto":
            return self
        arrays = [leaf for leaf in jax.tree.leaves(operands) if isinstance(leaf, jax.Array)]
        concrete = [leaf for leaf in arrays if not isinstance(leaf, jax.core.Tracer)]
        platform = next(iter(concrete[0].devices())).platform if concrete else jax.default_backend()
        return self if platform == "cpu" else self._replace(chunk_size=max(1, 2**26 // max(layout.n, 1)))


def _all_at_once(product: Callable[[Array], Array], probes: Array, n: int) -> bool:
    """Whether a CPU takes all probes in one batch or one at a time, by what was measured (benchmarks/extraction.py).

    In one batch where they are many, for a loop's turns take microseconds, or a product is long enough for two
    threads to share (2^13 numbers), as long as the widest value of the batch fits the cache (2^20 numbers). Where a
    product itself is a loop of many turns, those are shared by many probes, whatever fits the memory (2^26 numbers). A
    product on the host, or of a foreign function, may not know batches.
    """
    parts = list(equations(jax.make_jaxpr(product)(probes[0]).jaxpr))
    widest = max((getattr(variable.aval, "size", 0) for e in parts for variable in e.outvars), default=0)
    if any(e.primitive.name.endswith("callback") or e.params.get("vmap_method", "") is None for e in parts):
        return False
    if any(e.primitive.name in ("scan", "while") for e in parts):
        return len(probes) >= 8 and len(probes) * widest <= 2**26
    return (len(probes) >= 8 or n >= 2**13) and len(probes) * max(widest, n) <= 2**20


def _complete(ab: Array, layout: Layout, k: int, near: int, trimmed: bool = False) -> Any:
    """The band of bandwidth k from one of bandwidth `near` whose unused cells and dummies are not yet in order."""
    if layout.periodic:
        return Cyclic(ab)  # which has neither
    ab = clear_unused(ab)
    if near < k and not trimmed:
        ab = jnp.pad(ab, ((0, (k - near) * layout.d), (0, 0)))
    return shifted(ab, layout.dummies()) if layout.ragged else ab


def _by_diagonals(
    flat: ClosedJaxpr, probing: Probing, layout: Layout, near: int, trimmed: bool = False
) -> Array | None:
    """The band without a product, where the probing lets diagonals serve and the program can be carried through."""
    if not getattr(probing, "exact_entries", False):
        return None
    # An operation costs half a millisecond of compilation, and on short vectors more than its arithmetic.
    longest = min(4000, 3 * layout.n // 2)
    rows = (near + 1) * layout.d
    ab = carry(flat, layout.n, rows, longest, layout.periodic, trimmed)
    return None if ab is None else clear_beyond_stages(ab, layout.d, rows)


def multiply(product: Callable[[Array], Any], count: int, chunk: ChunkSize, n: int) -> Any:
    """The products of probes 0 to count - 1 with an operator of n variables, stacked."""
    probes = jnp.arange(count)
    if chunk == "auto":
        chunk = None if _all_at_once(product, probes, n) else 1
    if chunk is None or (isinstance(chunk, int) and 1 < count <= chunk):
        return jax.vmap(product)(probes)
    assert isinstance(chunk, int)
    return lax.map(product, probes, batch_size=None if chunk == 1 else chunk)


def _by_probes(matvec: Callable[[Array], Any], options: Extraction, layout: Layout, near: int) -> tuple[Array, tuple]:
    """The band and the probing's notes, from products."""
    (_, probing, chunk), (T, d, n) = options, (layout.T, layout.d, layout.n)
    probing = Ring() if layout.periodic else probing

    def product(c: Array) -> Array:
        y = matvec(probing.probe(c, T, d, near, layout.dtype))
        return probing.keep(c, y, T, d, near)

    kept = multiply(product, probing.count(T, d, near), chunk, n)
    decoded = probing.decode(kept, T, d, near)
    ab, notes = (decoded[0], decoded[1:]) if isinstance(decoded, tuple) else (decoded, ())
    if ab.shape != ((near + 1) * d, n):
        raise ValueError(
            f"{type(probing).__name__}.decode must return the band, shape {((near + 1) * d, n)}, or a tuple "
            f"that starts with it, got shape {ab.shape}"
        )
    return ab, notes


def extract_noted(matvec: Callable[[Array], Array], layout: Layout, options: Extraction) -> Any:
    """The band of `matvec`, a symmetric operator on the ravelled vector, closed or with a border as the layout has it;
    `(ab, *notes)` if the probing adds some."""
    if any(layout.shared):
        return _with_border(matvec, layout, options)
    k = options.bandwidth
    if layout.n == 0:
        return _complete(jnp.zeros(((k + 1) * layout.d, 0), layout.dtype), layout, 0, 0)
    near = min(k, layout.T - 1)  # blocks further off than T - 1 stages do not exist
    flat, shape = flattened(matvec, jax.ShapeDtypeStruct((layout.n,), layout.dtype))
    ab = None if flat is None else _by_diagonals(flat, options.probing, layout, near)
    notes: tuple = ()
    if ab is None:
        ab, notes = _by_probes(matvec if flat is None else arranged(flat, shape), options, layout, near)
    ab = _complete(ab, layout, k, near)
    return (ab, *notes) if notes else ab


def _with_border(matvec: Callable[[Array], Array], layout: Layout, options: Extraction) -> Any:
    """The stages' own band, from products that leave the shared variables where they are; H's columns for these, one
    product each, give the border and the corner."""
    out = extract_noted(lambda v: of_stages(layout, matvec(with_shared(layout, v))), layout.stages, options)
    band, notes = (out[0], out[1:]) if type(out) is tuple else (out, ())
    columns = jnp.zeros((0, layout.n), layout.dtype)
    if layout.p:
        columns = multiply(lambda i: matvec(shared_unit(layout, i)), layout.p, options.chunk_size, layout.n)
    H = bordered(band, columns)
    return (H, *notes) if notes else H


def with_shared(layout: Layout, v: Array) -> Array:
    """v of the stages' variables, and zeros for the shared ones."""
    return jnp.concatenate([v, jnp.zeros(layout.p, v.dtype)]) if layout.p else v


def of_stages(layout: Layout, v: Array) -> Array:
    """v without the shared variables."""
    return lax.slice(v, (0,), (layout.n - layout.p,))


def shared_unit(layout: Layout, i: Array) -> Array:
    """1 for shared variable i alone."""
    return (jnp.arange(layout.n) == layout.n - layout.p + i).astype(layout.dtype)


def bordered(band: Any, columns: Array) -> Bordered:
    """H from its stages' band, and its columns `(p, n)` of the shared variables."""
    m = columns.shape[1] - len(columns)
    corner = jnp.tril(columns[:, m:])
    return Bordered(band, columns[:, :m], corner + jnp.tril(corner, -1).T)


def extract(matvec: Callable[[Array], Array], layout: Layout, options: Extraction) -> Any:
    """The band or structure alone, for those who have no use for notes."""
    out = extract_noted(matvec, layout, options)
    return out[0] if type(out) is tuple else out


class _Beside:
    """Direct probing of the first of two products, the second kept whole."""

    def count(self, T: int, d: int, k: int) -> int:
        return Direct().count(T, d, k)

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        return Direct().probe(c, T, d, k, dtype)

    def keep(self, c: Array, y: Any, T: int, d: int, k: int) -> Any:
        return Direct().keep(c, y[0], T, d, k), y[1]

    def decode(self, kept: Any, T: int, d: int, k: int) -> Any:
        return Direct().decode(kept[0], T, d, k), kept[1]


def extract_beside(
    push: Callable[[Array], tuple[Array, Array]], layout: Layout, options: Extraction
) -> tuple[Array, Array | None]:
    """The band of a symmetric operator, and the products of another one that came with it: `(colours, rows)`, colour c
    holding every column j = c modulo their number. push: `v -> (first operator times v, second one times v)`. None
    where the band was found without products, which then ends with the last diagonal that holds anything, or with other
    probes than those of direct probing."""
    k, like = options.bandwidth, jax.ShapeDtypeStruct((layout.n,), layout.dtype)
    near = min(k, layout.T - 1)
    flat, shape = flattened(push, like)
    if flat is None or options.probing != Direct():
        return extract(lambda v: push(v)[0], layout, options), None
    first = flattened(lambda v: push(v)[0], like)[0]
    ab, products = None if first is None else _by_diagonals(first, options.probing, layout, near, True), None
    if ab is None:
        ab, (products,) = _by_probes(arranged(flat, shape), options._replace(probing=_Beside()), layout, near)
    return _complete(ab, layout, k, near, len(ab) < (near + 1) * layout.d), products


def _from_matvec(options: tuple[Layout, Extraction], matvec: Callable, _: Any) -> Array:
    layout, extraction = options
    return extract_noted(lambda v: layout.ravel(matvec(layout.unravel(v))), layout, extraction)


def from_matvec(
    matvec: Callable[[Any], Any],
    like: Any,
    bandwidth: int,
    *,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Any:
    """The band of any symmetric banded linear operator.

    Args:
      matvec: the operator: takes and returns a tree of the structure of `like`. Changes of what it reads from outside
        are noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)` has the whole list).
      like: an array or tree of arrays that gives structure, shapes, dtype and device (or `jax.ShapeDtypeStruct`s).
      bandwidth: k >= 0, in stages: stage t couples to stages t - k .. t + k.
      probing: which probes, and how the band is read off them: "direct", "substitution", "fourier", "random", or
        an object: `Direct()`, `Substitution()`, `Fourier()`, `Random(...)`, or your own with their methods. Of stages
        split over devices, "substitution" and "random" gather the products, the others nothing.
      chunk_size: probes multiplied at a time: an int bounds the memory to that many products (1 never vmaps, so host
        callbacks work), None takes all in one batched call, "auto" decides by the platform.
      stage_axes: 0 for leaves with a stage axis, None for leaves of any shape that all stages share (a final time,
        masses, coefficients): a prefix tree of them, as `jax.vmap`'s in_axes.
      periodic: stage t meets t - k .. t + k modulo T: a closed curve. T > 2k.

    Returns: `ab` `((k + 1) d, T d)` in lower band storage, for T stages of d scalars; `(k + 1, n)` for a vector.
      Dummy variables of ragged leaves have a unit diagonal. With periodic a `Cyclic` of such a band; with p shared
      scalars `Bordered(band, border, corner)`.

    Raises: TypeError or ValueError for a wrong argument.

    Cost: products: (2k + 1) d for "direct", (k + 1) d for "substitution", 2 (k + 1) d - 1 for "fourier", twice those of
    "direct" for "random"; never more than T d for the first two. "direct" forms none where diagonals can be
    carried through the program instead (`extraction/diagonals`). Each shared scalar takes one more; a ring takes
    ceil(T / floor(T / (2k + 1))) d.

    >>> times = lambda v: jnp.convolve(v, jnp.array([1.0, 4, 1]), mode="same")
    >>> from_matvec(times, jnp.zeros(4), 1)
    Array([[4., 4., 4., 4.],
           [1., 1., 1., 0.]], dtype=float32)
    """
    layout = Layout.of(like, "like", stage_axes, periodic)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (like, matvec))
    return jit_call(_from_matvec, (layout, extraction), matvec, like)  # like: the program runs where it lives
