"""The functions and their derivatives at the points that the engine asks for: by autograd at first, then by a tape.

Autograd takes about three quarters of a step for what is not arithmetic. So the derivatives are written down once
(`framework/tape.py`), after some steps, for that takes as long as a few of them. The functions themselves are still
called, once for each point, and what they return must be what the tape says, to the last bit: else they do not do the
same each time, and autograd takes over again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from ...framework.recorder import Recorder, recordable
from ...framework.tape import Tape, same, tape_of
from .derivatives import Derivatives, Functions, Plan, Recorded, Terms, checked, derivatives, record, terms

# At which step derivatives are written down, which costs what six to nine steps by the tape save. A cold start takes
# ten to a hundred steps, a warm one, as in control loops, about four.
STEP, LATE = 3, 14


class Evaluations:
    """Of the functions of a problem, x -> f, h."""

    def __init__(self, functions: Functions, plan: Plan, warm: bool) -> None:
        self.functions, self.plan, self.first = functions, plan, LATE if warm else STEP
        self.steps = 0
        self.tape: Tape | None = None
        self.recorder: Recorder | None = None  # of the last values

    def values(self, x: Tensor) -> Recorded:
        if self.tape is not None:
            with torch.no_grad():
                return Recorded(x, *self.functions(x))
        self.recorder = Recorder() if self.steps + 1 == self.first and recordable() else None
        with self.recorder or nullcontext():
            return record(self.functions, x)

    def derivatives(self, at: Recorded, sigma: float, y: Tensor) -> Derivatives:
        """at is what `values` gave last."""
        self.steps += 1
        weight = y.new_full((), sigma)
        if self.tape is not None:
            found = Terms(*self.tape(at.x, weight, y))
            if same(found[:2], at[1:]):
                return checked(found, self._product(at.x, weight, y), self.plan)
            self.tape, at = None, record(self.functions, at.x)
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return derivatives(at, sigma, y, self.plan)
        with recorder:
            found, product = terms(at, weight, y, self.plan)
        self.tape = tape_of(recorder, [at.x, weight, y], found)
        return checked(found, product, self.plan)

    def _product(self, x: Tensor, weight: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> (W v, J v), for the rare case that it is asked for."""
        return lambda v: terms(record(self.functions, x), weight, y, self.plan)[1](v)
