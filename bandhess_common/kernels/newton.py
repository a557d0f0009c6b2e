"""What the kernels of the trust-region method take and show, as newton/state.h has it; `library.load` compares these.

A state is three arrays: numbers, of which the first are for callers, vectors `(VECTORS, n)`, and the band of H.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import stopping, trust_region

_HEAD = "request products wants_band status steps value grad_norm fresh size shift radius ratio"
HEAD = tuple(_HEAD.split())
"""The first of the numbers; `request` is one of those that the interior point makes (interior.py)."""

NUMBERS = 64
VECTORS = 11
BEST = 0  # the vector that is the best point

SCALINGS = ("none", "diagonal", "given")


class Settings(NamedTuple):
    """What comes with a start."""

    near: float
    hard: float
    grow: float
    tries: float
    enough: float
    refinements: float
    accept: float
    good: float
    creep: float
    unsure: float
    lost: float
    scaling: float  # its place in SCALINGS
    given: float  # the band is the user's
    checked: float  # the band is to be checked


def settings(scaling: str, given: bool, checked: bool) -> Settings:
    """With the constants of both engines."""
    t, s = trust_region, stopping
    search = t.NEAR, t.HARD, t.GROW, t.TRIES, t.ENOUGH, t.REFINEMENTS
    ends = s.ACCEPT, s.GOOD, s.CREEP, s.UNSURE, s.LOST
    return Settings(*map(float, (*search, *ends, SCALINGS.index(scaling), given, checked)))


def lines() -> list[str]:
    """The lists as c_api.cc has them."""
    return [" ".join(["newton head:", *HEAD]), " ".join(["newton settings:", *Settings._fields])]
