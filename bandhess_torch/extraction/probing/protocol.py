"""Probing: which vectors to multiply by, and how to read the band off the products.

A probing is a small frozen object. For T stages of d scalars and bandwidth k (k < T, in stages):

    count(T, d, k)                  number of products
    probe(c, T, d, k, like)         probe vector c, `(T * d,)`, of the dtype and device of the tensor `like`
    keep(c, y, T, d, k)             what to store of product y = H probe(c): any tensor, the same shape for every c
    decode(kept, T, d, k)           the band `((k + 1) * d, T * d)` from the stacked `keep`s, leading axis `count`

`keep` runs beside its product, so that a bounded `chunk_size` bounds the memory of the decoding, too.
Unused cells need no care: they are cleared after `decode`.

A probing whose `decode` gives H's entries as they stand may declare `exact_entries = True`: where a graph's diagonals
can be carried (`extraction/diagonals`), they then serve for it, and no product is formed.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bandhess_common.options import ProbingName

from ...band.storage import clear_unused
from .direct import Cells, Direct, one_of_every
from .fourier import Fourier
from .random import Random
from .substitution import Substitution


@runtime_checkable
class Probing(Protocol):
    """What every probing provides; the file explains the four methods.

    >>> isinstance(Direct(), Probing)
    True
    """

    def count(self, T: int, d: int, k: int) -> int: ...
    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor: ...
    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor: ...
    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor: ...


# Whose methods are known, and done faster. By the class itself: a subclass may do otherwise.
PERIODIC = {Direct, Substitution}  # probe c is 1 at every `count`-th entry from c on
IN_PLACE = {Direct}  # a product's entries go into the band as they stand


def make_probes(probing: Any, colours: range, T: int, d: int, k: int, like: Tensor) -> Tensor:
    """The probes of a range of colours, `(len(colours), T * d)`, not to be written to."""
    if type(probing) in PERIODIC:
        return one_of_every(probing.count(T, d, k), colours, T * d, like)
    return torch.stack([probing.probe(c, T, d, k, like) for c in colours])


class Kept:
    """The products of one extraction, a range of colours after the other, and the band they make."""

    def __init__(self, probing: Probing, T: int, d: int, k: int) -> None:
        self.probing, self.sizes = probing, (T, d, k)
        self.kept: list[Tensor] = []

    def add(self, colours: range, Y: Tensor) -> None:
        """The products Y `(len(colours), n)`."""
        # A copy: the next product may reuse the memory of this one.
        self.kept.append(torch.stack([self.probing.keep(c, y, *self.sizes) for c, y in zip(colours, Y, strict=True)]))

    def band(self) -> tuple[Tensor, tuple]:
        """The band, and the probing's notes."""
        T, d, k = self.sizes
        kept = self.kept[0] if len(self.kept) == 1 else torch.cat(self.kept)
        decoded = self.probing.decode(kept, T, d, k)
        ab, notes = (decoded[0], decoded[1:]) if isinstance(decoded, tuple) else (decoded, ())
        if tuple(ab.shape) != ((k + 1) * d, T * d):
            raise ValueError(
                f"{type(self.probing).__name__}.decode must return the band, shape {((k + 1) * d, T * d)}, or a tuple "
                f"that starts with it, got shape {tuple(ab.shape)}"
            )
        return ab if getattr(self.probing, "closed", False) else clear_unused(ab), notes


def collect(probing: Probing, T: int, d: int, k: int) -> Kept | Cells:
    return Cells(T, d, k) if type(probing) in IN_PLACE else Kept(probing, T, d, k)


PROBINGS: dict[str, Probing] = {
    "direct": Direct(),
    "substitution": Substitution(),
    "fourier": Fourier(),
    "random": Random(),
}


def as_probing(probing: ProbingName | Probing) -> Probing:
    if isinstance(probing, str) and probing in PROBINGS:
        return PROBINGS[probing]
    if not isinstance(probing, str) and not isinstance(probing, type) and isinstance(probing, Probing):
        return probing
    raise ValueError(
        f"probing must be one of {sorted(PROBINGS)} or an object with count, probe, keep and decode, got {probing!r}"
    )
