"""The functions and their derivatives at the points that the engine asks for: by autograd at first, then by tapes.

Autograd takes about three quarters of a step for what is not arithmetic. So the derivatives are written down once
(`framework/tape.py`): after some steps, for that takes as long as a few of them, or at the begin, where the functions
come again (`framework/kept.py`). The functions themselves are still called, once for each point, and what they return
must be what the tape says, to the last bit: else they do not do the same each time, and autograd takes over again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...framework.guard import guard_of
from ...framework.kept import Program
from ...framework.recorder import Recorder, recordable
from ...framework.tape import same
from .derivatives import (
    Beside,
    Derivatives,
    Functions,
    Plan,
    Prepared,
    Recorded,
    Terms,
    checked,
    derivatives,
    gradient_of,
    prepare,
    record,
    terms,
)
from .rows import windows

# At which step derivatives are written down, which costs what six to nine steps by the tape save. A cold start takes
# ten to a hundred steps, a warm one, as in control loops, about four.
STEP, LATE = 3, 14


class User(NamedTuple):
    """What the functions of a problem, x -> f, h, are made of."""

    functions: Functions
    parts: list[Callable]  # the user's own
    held: list[Tensor]  # which these take beside x


class Evaluations:
    """Of the user's functions."""

    def __init__(self, user: User, plan: Plan, program: Program, warm: bool) -> None:
        self.functions, self.held, self.plan, self.program = user.functions, user.held, plan, program
        self.first = LATE if warm else STEP
        self.steps = 0
        self.recorder: Recorder | None = None  # of the last values

    def _recorded(self, x: Tensor, write: bool) -> tuple[Recorded, Recorder | None]:
        """The functions at x, in a recorder that may go on, if these are to be written down."""
        recorder = Recorder() if write else None
        with recorder or nullcontext():
            at = record(self.functions, x)
        if recorder is not None:
            self.program.guard_by(guard_of(recorder, [at.x, *self.held], at[1:]))
        return at, recorder

    def _by_tape(self, name: str, at: Recorded, *more: Tensor) -> list | None:
        """What a tape says beside f and h, if it has these right."""
        tape = self.program.tapes.get(name)
        if tape is None:
            return None
        f, h, *found = tape(at.x, *more)
        if same((f, h), at[1:]):
            return found
        self._forget()
        return None

    def _forget(self) -> None:
        self.program.forget()
        self.plan.batches.clear()

    def _write(self, name: str, recorder: Recorder | None, inputs: Sequence[Tensor], found: Sequence) -> None:
        if recorder is not None:
            self.program.write(name, recorder, inputs, found, self.held, [self.plan.probes, self.plan.start_probes])

    def starts(self, points: Sequence[Tensor]) -> list[Prepared]:
        """Two points at which no Hessian is wanted."""
        known = self.program.check(self.functions, points[0], self.held)
        if known is not None and self.program.guard is None:
            self.plan.batches.clear()
        return [self._start(points[0], known), self._start(points[1], None)]

    def _start(self, x: Tensor, known: Sequence[Tensor] | None) -> Prepared:
        """known: f and h at x."""
        if self.program.tapes.get("start") is not None:
            at = self._values(x) if known is None else Recorded(x, *known)
            found = self._by_tape("start", at)
            if found is not None:
                return Prepared(at, partial(self._gradient, at), self._beside(x), *found)
        at, recorder = self._recorded(x, self.program.writes("start"))
        with recorder or nullcontext():
            start = prepare(at, self.plan)
        self._write("start", recorder, [at.x], [at.f.detach(), at.h.detach(), start.of_windows, start.of_probes])
        return start

    def _beside(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> (0, J v), for the rare case that it is asked for."""
        return lambda v: Beside(record(self.functions, x))(v)

    def place(self, first: Tensor) -> None:
        """The windows of the rows, which the steps' tape rests on."""
        if self.plan.place(first) and self.program.tapes.pop("step", None) is not None:
            self.program.misses += 1

    def _gradient(self, at: Recorded, sigma: Tensor, y: Tensor) -> Tensor:
        """Where a tape gave the products at the start."""
        found = self._by_tape("gradient", at, sigma, y)
        if found is not None:
            return found[0]
        at, recorder = self._recorded(at.x, self.program.writes("gradient"))
        with recorder or nullcontext():
            grad = gradient_of(at, sigma, y)
        self._write("gradient", recorder, [at.x, sigma, y], [at.f.detach(), at.h.detach(), grad])
        return grad

    def _values(self, x: Tensor) -> Recorded:
        with torch.no_grad():
            return Recorded(x, *self.functions(x))

    def values(self, x: Tensor) -> Recorded:
        if self.program.tapes.get("step") is not None:
            return self._values(x)
        now = self.steps + 1 == self.first and "step" not in self.program.tapes and recordable()
        at, self.recorder = self._recorded(x, now or self.program.writes("step"))
        return at

    def derivatives(self, at: Recorded, sigma: float, y: Tensor) -> Derivatives:
        """at is what `values` gave last."""
        self.steps += 1
        weight = y.new_full((), sigma)
        if self.program.tapes.get("step") is not None:
            found = self._by_tape("step", at, weight, y)
            if found is not None:
                return checked(Terms(*at[1:], *found), self._product(at.x, weight, y), self.plan)
        recorder, self.recorder = self.recorder, None
        write = self.program.writes("step")
        if not at.x.requires_grad or (write and recorder is None):
            at, recorder = self._recorded(at.x, write)
        if recorder is None:
            return derivatives(at, sigma, y, self.plan)
        with recorder:
            these, product = terms(at, weight, y, self.plan)
        self._write("step", recorder, [at.x, weight, y], these)
        return checked(these, product, self.plan)

    def derivatives_anew(self, x: Tensor, sigma: float, y: Tensor, first: Tensor) -> tuple[Derivatives, Tensor]:
        """Where a row reaches outside: with windows that hold what is seen of the rows here, too, and these."""
        first = torch.minimum(first, windows([self._start(x, None).of_windows], self.plan.layout, self.plan.k))
        self.place(first)
        return self.derivatives(self.values(x), sigma, y), first

    def _product(self, x: Tensor, weight: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> (W v, J v), for the rare case that it is asked for."""
        return lambda v: terms(record(self.functions, x), weight, y, self.plan)[1](v)
