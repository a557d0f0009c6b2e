"""Probing: which vectors to multiply by, and how to read the band off the products.

A probing is a small frozen object. For T stages of d scalars and bandwidth k (k < T, in stages):

    count(T, d, k)                  number of products
    probe(c, T, d, k, dtype)        probe vector c, `(T * d,)`, made in-graph (a constant of size n would be embedded
                                    in the program and folded at compile time); c is a traced int
    keep(c, y, T, d, k)             what to store of product y = H probe(c): any array, the same shape for every c
    decode(kept, T, d, k)           the band `((k + 1) * d, T * d)` from the stacked `keep`s, leading axis `count`

`keep` runs beside its product, so that a bounded `chunk_size` bounds the memory of the decoding, too.
Unused cells need no care: they are cleared after `decode`.

A probing whose `decode` gives H's entries as they stand may declare `exact_entries = True`: where a program's diagonals
can be carried (`extraction/diagonals`), they then serve for it, and no product is formed.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jax import Array

from bandhess_common.options import ProbingName

from .direct import Direct
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
    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array: ...
    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array: ...
    def decode(self, kept: Array, T: int, d: int, k: int) -> Array: ...


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
