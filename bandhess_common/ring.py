"""How stages are coloured around a ring, where the last meets the first: in arcs of two lengths."""

from __future__ import annotations

from typing import NamedTuple


class Arcs(NamedTuple):
    """T stages as m = floor(T / (2k + 1)) arcs, the first of them one stage longer where m does not divide T.

    T = 11, k = 1: arcs of 4, 4 and 3 stages; a stage's colour is its place in its arc, so that stages of one colour are
    2k + 1 apart at least, around the ring, too.
    """

    colours: int  # stages in a longer arc
    longer: int  # arcs of that length
    shorter: int  # arcs one stage shorter

    @classmethod
    def of(cls, T: int, k: int) -> Arcs:
        arcs = max(T // (2 * k + 1), 1)
        longer = T % arcs
        return cls(-(-T // arcs), longer, arcs - longer) if longer else cls(-(-T // arcs), arcs, 0)

    def colour(self, t: int) -> int:
        first = self.longer * self.colours
        return t % self.colours if t < first else (t - first) % (self.colours - 1)
