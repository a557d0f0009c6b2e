"""A product v -> H v -> the band of H: the one core of extraction, and `from_matvec`, which is it for any operator."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.checks import as_chunk_size, as_index, check_exact, check_ring
from bandhess_common.options import ChunkSize, ProbingName

from ..band.stages import Layout
from ..band.storage import clear_beyond_stages
from ..band.structures import Bordered, Cyclic, shifted
from ..framework.autograd import Joined, Pullback, nodes, user_defined
from ..framework.kernels import settle_heap
from ..framework.transforms import eager
from .diagonals import Program, carry
from .probing.direct import Direct
from .probing.protocol import PROBINGS, Probing, as_probing, collect, make_probes
from .probing.ring import Ring

LONG = 2**13  # entries, from where on diagonals are tried
ROOM = 2**26  # numbers, at most, in as many of the function's largest tensors as the band has rows
PARTS = 6000  # of diagonals, that all operations give together, at most
MANY = 1000  # nodes of a graph that are too many for it


class Extraction(NamedTuple):
    """What decides the extraction's program, checked."""

    bandwidth: int
    probing: Probing
    chunk_size: ChunkSize

    @classmethod
    def of(cls, bandwidth: int, probing: ProbingName | Probing, chunk_size: ChunkSize) -> Extraction:
        return cls(as_index(bandwidth, "bandwidth"), as_probing(probing), as_chunk_size(chunk_size))

    @property
    def key(self) -> Hashable:
        """Equal where the program is the same. A user's own probing may do something else next time."""
        return self if any(self.probing == each for each in PROBINGS.values()) else object()

    def fit(self, layout: Layout) -> Extraction:
        """Itself, or ValueError where a ring is too short for a band."""
        if layout.periodic:
            check_ring(layout.T, layout.d, self.bandwidth)
            check_exact(self.probing == Direct())
        return self

    def batches(self, count: int, layout: Layout, matvec: Any) -> list[range]:
        """The colours of each batched call. "auto": so many that a batch stays in cache (some 2^19 numbers on a CPU),
        where batching saves the calls' overhead; past that it only moves more memory."""
        if self.chunk_size == "auto":
            size = max(layout.n, 1)
            if size * count > 2**15 and isinstance(matvec, Pullback) and matvec.grad.requires_grad:
                size = max(size, matvec.largest())  # a function may hold more than its argument
            chunk = max(1, (2**19 if layout.device.type == "cpu" else 2**26) // size)
        else:
            chunk = count if self.chunk_size is None else int(self.chunk_size)
        parts = -(-count // chunk)
        return [range(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def _finished(ab: Tensor, layout: Layout, k: int, near: int) -> Any:
    if layout.periodic:
        return Cyclic(ab)
    if near < k:
        ab = torch.nn.functional.pad(ab, (0, 0, 0, (k - near) * layout.d))
    return shifted(ab, layout.dummies()) if layout.ragged else ab


def by_diagonals(product: Pullback, rows: int, closed: bool = False) -> Tensor | None:
    """The band without probes, where the graph allows it and it is worth it: by what was measured on CPUs, an
    operation on diagonals costs the interpreter 10 us and its arithmetic a part of what it costs a batch."""
    x, grad = product.x, product.grad
    if product.attached or len(x) < LONG or x.device.type != "cpu" or not grad.requires_grad:
        return None
    if torch.is_anomaly_enabled():  # it looks into every number, which diagonals do not have
        return None
    graph = [node for node, _ in islice(nodes(grad.grad_fn), MANY)]
    if len(graph) == MANY or any(map(user_defined, graph)):  # a user's backward may do with numbers what is not seen
        return None
    if product.largest() * rows > ROOM:
        return None
    return carry(Program(product, x.dtype, x.device), len(x), rows, PARTS, closed)


def _batched(matvec: Callable[[Tensor], Tensor], probes: Tensor) -> Tensor:
    if isinstance(matvec, Pullback):
        return matvec(probes)
    return torch.func.vmap(matvec)(probes.contiguous())  # unshared: it might be written to


def multiply(matvec: Callable[[Tensor], Tensor], probes: Tensor) -> Tensor:
    """H times each of the probes `(m, n)`: at once, or one after the other where torch knows no batches of what the
    function does (writing into strided clones, looking at values, as anomaly detection does at all of them)."""
    if len(probes) == 1:
        return matvec(probes[0])[None]
    if not (isinstance(matvec, Pullback) and torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled()):
        with suppress(RuntimeError):  # one of another cause comes again below
            return _batched(matvec, probes)
    # Copies: a product may write to its probe, and reuse the memory of its result.
    return torch.stack([matvec(v.clone()).clone() for v in probes])


def extract_noted(matvec: Callable[[Tensor], Tensor], layout: Layout, options: Extraction) -> Any:
    """The band of `matvec`, a symmetric operator on the ravelled vector, closed or with a border as the layout has it;
    `(ab, *notes)` if the probing adds some."""
    if any(layout.shared):
        return _with_border(matvec, layout, options)
    T, d, k = layout.T, layout.d, options.bandwidth
    if layout.n == 0:
        return _finished(torch.zeros(((k + 1) * d, 0), dtype=layout.dtype, device=layout.device), layout, 0, 0)
    settle_heap()
    near = min(k, T - 1)  # blocks further off than T - 1 stages do not exist
    probing = Ring() if layout.periodic else options.probing
    exact = getattr(probing, "exact_entries", False) and not isinstance(options.chunk_size, int)
    if exact and isinstance(matvec, Pullback):
        ab = by_diagonals(matvec, (near + 1) * d, layout.periodic)
        if ab is not None:
            return _finished(clear_beyond_stages(ab, d), layout, k, near)
    like = torch.empty((), dtype=layout.dtype, device=layout.device)
    count = probing.count(T, d, near)
    found = collect(probing, T, d, near)
    for colours in options.batches(count, layout, matvec):
        found.add(colours, multiply(matvec, make_probes(probing, colours, T, d, near, like)))
    ab, notes = found.band()
    ab = _finished(ab, layout, k, near)
    return (ab, *notes) if notes else ab


def _with_border(matvec: Callable[[Tensor], Tensor], layout: Layout, options: Extraction) -> Any:
    """The stages' own band, from products that leave the shared variables where they are; H's columns for these, one
    product each, give the border and the corner."""
    m, p = layout.T * layout.d, layout.p
    inner = lambda v: matvec(torch.nn.functional.pad(v, (0, p)))[..., :m]  # noqa: E731
    on_stages = matvec.first if isinstance(matvec, Joined) else inner
    out = extract_noted(on_stages, layout.stages, options)
    band, notes = (out[0], out[1:]) if type(out) is tuple else (out, ())
    units = torch.nn.functional.pad(torch.eye(p, dtype=layout.dtype, device=layout.device), (m, 0))
    parts = options.batches(p, layout, matvec) if p else []
    columns = torch.cat([multiply(matvec, units[part.start : part.stop]) for part in parts]) if p else units
    corner = columns[:, m:].tril()
    H = Bordered(band, columns[:, :m].contiguous(), corner + corner.tril(-1).mT)
    return (H, *notes) if notes else H


def extract(matvec: Callable[[Tensor], Tensor], layout: Layout, options: Extraction) -> Any:
    """The band or structure alone, for those who have no use for notes."""
    out = extract_noted(matvec, layout, options)
    return out[0] if type(out) is tuple else out


@eager
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
      matvec: the operator: takes and returns a tree of the structure of `like`.
      like: a tensor or tree of tensors that gives structure, shapes, dtype and device.
      bandwidth: k >= 0, in stages: stage t couples to stages t - k .. t + k.
      probing: which probes, and how the band is read off them: "direct", "substitution", "fourier", "random", or
        an object: `Direct()`, `Substitution()`, `Fourier()`, `Random(...)`, or your own with the same methods.
      chunk_size: probes multiplied at a time: an int bounds the memory to that many products (1 never vmaps; it
        is always probes then), None takes all in one batched call, "auto" as many as fit the cache. A product that
        vmap does not take is formed for one probe after the other.
      stage_axes: 0 for leaves with a stage axis, None for leaves of any shape that all stages share (a final time,
        masses, coefficients): a prefix tree of them, as `torch.func.vmap`'s in_dims.
      periodic: stage t meets t - k .. t + k modulo T: a closed curve. T > 2k.

    Returns: `ab` `((k + 1) d, T d)` in lower band storage, for T stages of d scalars; `(k + 1, n)` for a vector.
      Dummy variables of ragged leaves have a unit diagonal. With periodic a `Cyclic` of such a band; with p shared
      scalars `Bordered(band, border, corner)`.

    Raises: TypeError or ValueError for a wrong argument.

    Cost: products: (2k + 1) d for "direct", (k + 1) d for "substitution", 2 (k + 1) d - 1 for "fourier", twice those of
    "direct" for "random"; never more than T d for the first two. Each shared scalar takes one more; a ring takes
    ceil(T / floor(T / (2k + 1))) d.

    >>> times = lambda v: torch.nn.functional.conv1d(v[None], torch.tensor([[[1.0, 4, 1]]]), padding=1)[0]
    >>> from_matvec(times, torch.zeros(4), 1)
    tensor([[4., 4., 4., 4.],
            [1., 1., 1., 0.]])
    """
    layout = Layout.of(like, "like", stage_axes, periodic)
    extraction = Extraction.of(bandwidth, probing, chunk_size).fit(layout)
    return extract_noted(lambda v: layout.ravel(matvec(layout.unravel(v))), layout, extraction)
