"""The interior-point method by requests: compiled on CPUs, its state one tensor that the kernels change in place
(`bandhess_common/kernels/interior.py`); elsewhere the portable one, in tensor operations (`ops.py`)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from bandhess_common.interior_point import loop as portable_loop
from bandhess_common.interior_point import state as portable
from bandhess_common.interior_point.constants import constants_of_engine
from bandhess_common.interior_point.problem import problem as problem_of
from bandhess_common.interior_point.state import Solution
from bandhess_common.kernels import call
from bandhess_common.kernels.interior import FOR_CALLERS, Layout, words

from ...framework.kernels import served, view
from . import ops
from .derivatives import Derivatives

ESTIMATED, GIVEN, WARM = 0, 1, 2  # starts: multipliers estimated, y given, everything as a previous end left it


class Task(NamedTuple):
    """What the engine is told of a problem, flat: bounds, 1 on held variables, m equalities."""

    lower: Tensor
    upper: Tensor
    held: Tensor
    m: int
    rows: int  # of the band of W
    shared: int  # variables, the last
    tol: float
    max_steps: int
    alone: bool  # whether nobody asks for each iterate


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


assert Registers._fields == FOR_CALLERS


class Engine(Protocol):
    def registers(self) -> Registers: ...
    def asked(self) -> tuple[Tensor, Tensor]: ...
    def begin(self, found: Derivatives, first: Tensor) -> None: ...
    def trial(self, f: Tensor, h: Tensor) -> None: ...
    def solution(self) -> Solution: ...


class Compiled:
    """The compiled engine."""

    def __init__(self, task: Task, start: Start) -> None:
        n, r = len(start.x), len(start.y)
        self.layout, self.like = Layout(n, r, task.rows, task.shared), start.x.new_empty(0)
        name, count = words(str(start.x.dtype).removeprefix("torch."), self.layout.size)
        word = getattr(torch, name)
        self.state = start.x.new_empty(count, dtype=word)
        self.head = start.x.new_empty(self.layout.head)
        self.of_state, self.of_both = view(self.state), [view(self.state), view(self.head)]
        numbers = start.x.new_tensor([task.tol, task.max_steps, start.kind, float(start.mu), task.alone])
        fixed = torch.tensor(constants_of_engine(torch.finfo(start.x.dtype).eps), dtype=torch.float64).view(word)
        operands = [task.lower, task.upper, task.held, *start[1:5], numbers, fixed]
        operands = [t.contiguous() for t in operands]
        numbers_of = {"rows": task.rows, "m": task.m, "shared": task.shared}
        call("interior_start", [*map(view, operands), self.of_state], self.of_both, **numbers_of)

    def registers(self) -> Registers:
        return Registers(*self.head[: len(Registers._fields)].tolist())

    def asked(self) -> tuple[Tensor, Tensor]:
        """x and y of the request; tensors of their own, for the head changes."""
        (x, x_end), (y, y_end) = map(self.layout.request, ("x_request", "y_request"))
        return self.head[x:x_end].clone(), self.head[y:y_end].clone()

    def _ready(self, *tensors: Tensor) -> list[Tensor]:
        return [t if t.is_contiguous() else t.contiguous() for t in tensors]

    def begin(self, found: Derivatives, first: Tensor) -> None:
        narrow = self.like.new_tensor(found.narrow)
        kept = self._ready(*found[:3], first, *found[3:5], narrow)
        call("interior_begin", [self.of_state, *map(view, kept)], self.of_both, shared=self.layout.p)

    def trial(self, f: Tensor, h: Tensor) -> None:
        kept = self._ready(f, h)
        n, _, rows, p = self.layout
        call("interior_trial", [self.of_state, *map(view, kept)], self.of_both, n=n, rows=rows, shared=p)

    def solution(self) -> Solution:
        n, r, rows, p = self.layout
        found = Solution(*(self.like.new_empty(shape) for shape in ((n,), (r,), (n,), (n,), ())))
        call("interior_solution", [self.of_state], list(map(view, found)), n=n, r=r, rows=rows, shared=p)
        return found


class Portable:
    """The portable engine."""

    def __init__(self, task: Task, start: Start) -> None:
        limits = task.tol, task.max_steps
        first = torch.zeros(len(start.y), dtype=torch.int32, device=start.x.device)  # `begin` brings them
        self.problem = problem_of(
            cast(Any, ops), task.lower, task.upper, task.held, first, task.m, limits, task.rows, task.shared
        )
        kind, x, *given = start
        self.state = portable_loop.start(cast(Any, ops), self.problem, x, kind, portable.Solution(x, *given))

    def registers(self) -> Registers:
        s = self.state
        numbers = [s.status, s.request, s.sigma, s.steps, *s.report, s.fresh, s.narrow]
        return Registers(*map(float, numbers))

    def asked(self) -> tuple[Tensor, Tensor]:
        return self.state.x_request, self.state.y_request

    def begin(self, found: Derivatives, first: Tensor) -> None:
        narrow = torch.tensor(found.narrow, dtype=torch.int32, device=found.h.device)
        given = portable.Derivatives(*found[:5], narrow, first)
        self.state = portable_loop.begin(cast(Any, ops), self.problem, self.state, given)

    def trial(self, f: Tensor, h: Tensor) -> None:
        self.state = portable_loop.trial(cast(Any, ops), self.problem, self.state, portable.Values(f, h))

    def solution(self) -> Solution:
        return Solution(*(part.clone() for part in self.state.solution))


def engine_for(x: Tensor) -> type[Compiled | Portable]:
    """Which engine serves for tensors like x."""
    return Compiled if x.device.type == "cpu" and served(x.dtype) else Portable
