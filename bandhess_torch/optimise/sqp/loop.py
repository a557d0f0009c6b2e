"""The loop of `sqp`: an engine asks for derivatives or values, and is told them.

The method is the engine's (bandhess_common/interior_point says which). On CPUs it is compiled, and its state one
tensor that the kernels change in place; elsewhere the portable one serves, in tensor operations (`ops.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from bandhess_common.interior_point import loop as portable_loop
from bandhess_common.interior_point import state as portable
from bandhess_common.interior_point.constants import constants
from bandhess_common.kernels import call
from bandhess_common.kernels.interior import DERIVATIVES, DONE, REGISTERS, Layout
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...extraction.objective import Objective
from ...extraction.products import Extraction
from ...framework.kernels import served, view
from . import ops
from .derivatives import Derivatives, Functions, Plan, Prepared, derivatives, prepare, prepared_derivatives, record
from .rows import windows

ESTIMATED, GIVEN, WARM = 0, 1, 2  # starts: multipliers estimated, y given, everything as a previous end left it


class Options(NamedTuple):
    objective: Objective
    extraction: Extraction
    tol: float
    max_steps: int
    max_seconds: float
    check_band: bool
    history: bool


class Task(NamedTuple):
    """What the engine is told of a problem, flat: bounds, 1 on held variables, m equalities."""

    lower: Tensor
    upper: Tensor
    held: Tensor
    m: int
    rows: int  # of the band of W
    tol: float
    max_steps: int


class Start(NamedTuple):
    kind: int
    x: Tensor
    y: Tensor  # (r,) unscaled, L = f + y . h
    z_lower: Tensor
    z_upper: Tensor
    mu: Tensor


class Registers(NamedTuple):
    """What the engine says of itself."""

    status: float  # -1 while it runs
    request: float
    sigma: float
    steps: float
    value: float
    grad_norm: float
    violation: float
    step: float
    fraction: float
    shift: float
    mu: float
    gap: float
    fresh: float
    narrow: float


assert Registers._fields == REGISTERS[: len(Registers._fields)]


class Solution(NamedTuple):
    """The last iterate with finite derivatives; L = f + y . h - z_lower . (x - lower) - z_upper . (upper - x)."""

    x: Tensor
    y: Tensor
    z_lower: Tensor
    z_upper: Tensor
    mu: Tensor


class Engine(Protocol):
    def registers(self) -> Registers: ...
    def asked(self) -> tuple[Tensor, Tensor]: ...
    def begin(self, found: Derivatives) -> None: ...
    def trial(self, f: Tensor, h: Tensor) -> None: ...
    def solution(self) -> Solution: ...


class Compiled:
    """The compiled engine."""

    def __init__(self, task: Task, start: Start, first: Tensor) -> None:
        n, r = len(start.x), len(start.y)
        self.layout, self.like = Layout(n, r, task.rows), start.x.new_empty(0)
        self.state = start.x.new_empty(self.layout.size)
        self.of_state = view(self.state)
        self.places = [(at, at + count) for at, count in map(self.layout.place, ("x_request", "y_request"))]
        numbers = start.x.new_tensor([task.tol, task.max_steps, start.kind, float(start.mu)])
        fixed = start.x.new_tensor(constants(torch.finfo(start.x.dtype).eps))
        operands = [task.lower, task.upper, task.held, first, *start[1:5], numbers, fixed]
        operands = [t.contiguous() for t in operands]
        call("interior_start", list(map(view, operands)), [self.of_state], rows=task.rows, m=task.m)

    def registers(self) -> Registers:
        return Registers(*self.state[: len(Registers._fields)].tolist())

    def asked(self) -> tuple[Tensor, Tensor]:
        """x and y of the request; tensors of their own, for the state changes."""
        (x, x_end), (y, y_end) = self.places
        return self.state[x:x_end].clone(), self.state[y:y_end].clone()

    def _ready(self, *tensors: Tensor) -> list[Tensor]:
        return [t if t.is_contiguous() else t.contiguous() for t in tensors]

    def begin(self, found: Derivatives) -> None:
        narrow = self.like.new_tensor(found.narrow)
        kept = self._ready(*found[:5], narrow)
        call("interior_begin", [self.of_state, *map(view, kept)], [self.of_state])

    def trial(self, f: Tensor, h: Tensor) -> None:
        kept = self._ready(f, h)
        n, _, rows = self.layout
        call("interior_trial", [self.of_state, *map(view, kept)], [self.of_state], n=n, rows=rows)

    def solution(self) -> Solution:
        n, r, rows = self.layout
        found = Solution(*(self.like.new_empty(shape) for shape in ((n,), (r,), (n,), (n,), ())))
        call("interior_solution", [self.of_state], list(map(view, found)), n=n, r=r, rows=rows)
        return found


class Portable:
    """The portable engine."""

    def __init__(self, task: Task, start: Start, first: Tensor) -> None:
        limits = task.tol, task.max_steps
        self.problem = portable.problem(
            cast(Any, ops), task.lower, task.upper, task.held, first, task.m, limits, task.rows
        )
        kind, x, *given = start
        self.state = portable_loop.start(cast(Any, ops), self.problem, x, kind, portable.Solution(x, *given))

    def registers(self) -> Registers:
        s = self.state
        numbers = [s.status, s.request, s.sigma, s.steps, *s.report, s.fresh, s.narrow]
        return Registers(*map(float, numbers))

    def asked(self) -> tuple[Tensor, Tensor]:
        return self.state.x_request, self.state.y_request

    def begin(self, found: Derivatives) -> None:
        narrow = torch.tensor(found.narrow, dtype=torch.int32, device=found.h.device)
        given = portable.Derivatives(*found[:5], narrow)
        self.state = portable_loop.begin(cast(Any, ops), self.problem, self.state, given)

    def trial(self, f: Tensor, h: Tensor) -> None:
        self.state = portable_loop.trial(cast(Any, ops), self.problem, self.state, portable.Values(f, h))

    def solution(self) -> Solution:
        return Solution(*(part.clone() for part in self.state.solution))


class End(NamedTuple):
    solution: Solution
    status: Status
    steps: int
    value: float
    grad_norm: float
    violation: float
    outside: int  # where BAND_TOO_NARROW comes from: the first row outside, or -1 for the Hessian
    history: list[SQPHistory]


def minimise(options: Options, functions: Functions, task: Task, start: Start, callback: Callable | None) -> End:
    began = time.perf_counter()
    plan = Plan(options.objective.layout, options.extraction, options.check_band)
    kind = Compiled if start.x.device.type == "cpu" and served(start.x.dtype) else Portable
    engine, prepared = _prepared(kind, functions, task, start, plan)
    history: list[SQPHistory] = []
    begins, outside = 0, -1

    def note(now: Registers) -> None:
        history.append(SQPHistory(*now[4:8], *now[8:11]))
        if callback is not None:
            callback(StepInfo(int(now.steps), now.value, now.grad_norm, now.shift, now.fraction))

    now, status = engine.registers(), None
    here = prepared[1].at  # a step's derivatives are most often those of its last trial
    while now.request != DONE:
        x, y = engine.asked()
        before = prepared[begins] if begins < len(prepared) and torch.equal(x, prepared[begins].at.x) else None
        if before is not None:
            here = before.at
        elif not torch.equal(x, here.x):
            here = record(functions, x)
        if now.request != DERIVATIVES:
            engine.trial(here.f.detach(), here.h.detach())
            now = engine.registers()
            continue
        found = (
            derivatives(here, now.sigma, y, plan)
            if before is None
            else prepared_derivatives(before, now.sigma, y, plan)
        )
        begins, outside = begins + 1, found.outside
        engine.begin(found)
        now = engine.registers()
        if now.fresh:
            prepared.clear()  # and their graphs
            note(now)
            if now.request != DONE and time.perf_counter() - began >= options.max_seconds:
                status = Status.TIME_LIMIT
                break
    solution = engine.solution()
    if not history:  # it ended before the first linearisation
        now = _at_start(prepared[1], solution, task, plan, now)
        note(now)
    status = Status(int(now.status)) if status is None else status
    return End(solution, status, int(now.steps), now.value, now.grad_norm, now.violation, outside, history)


def _prepared(
    kind: type[Compiled | Portable], functions: Functions, task: Task, start: Start, plan: Plan
) -> tuple[Engine, list[Prepared]]:
    """The engine, and the two points at which it asks for derivatives first: beside the start, for scales, and there,
    for multipliers. What the rows touch is looked at in both, and no Hessian is wanted."""
    before = kind(task, start, torch.zeros(len(start.y), dtype=torch.int32, device=start.x.device))
    points = before.asked()[0], before.solution().x
    prepared = [prepare(record(functions, x), plan) for x in points]
    first = windows([each.of_windows for each in prepared], plan.layout, plan.k)
    plan.place(first)
    return kind(task, start, first), prepared


def _at_start(start: Prepared, solution: Solution, task: Task, plan: Plan, now: Registers) -> Registers:
    """What is known at the start, for a report."""
    x, y, *_ = solution
    found = prepared_derivatives(start, 1.0, y, plan)
    below = -found.h[task.m :]
    gaps = torch.cat([found.h[: task.m].abs(), below, task.lower - x, x - task.upper, x.new_zeros(1)])
    free = found.grad.where(task.held == 0, torch.zeros_like(x))
    return now._replace(
        value=float(found.value), grad_norm=float(free.abs().max()), violation=float(gaps.max()), step=0.0,
        fraction=0.0, shift=0.0,
    )  # fmt: skip
