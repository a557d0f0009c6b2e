"""The loop of `sqp`: an engine asks for derivatives or values, and is told them. The method is the engine's
(`bandhess_common/interior_point` says which)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.kernels.interior import DERIVATIVES, DONE
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...extraction.objective import Objective
from ...extraction.products import Extraction
from ...framework.kept import Program, program_of
from .derivatives import Plan, Prepared, prepared_derivatives
from .engine import WARM, Engine, Registers, Solution, Start, Task, engine_for
from .evaluations import Evaluations, User
from .rows import windows


class Options(NamedTuple):
    objective: Objective
    extraction: Extraction
    tol: float
    max_steps: int
    max_seconds: float
    check_band: bool
    history: bool


class End(NamedTuple):
    solution: Solution
    status: Status
    steps: int
    value: float
    grad_norm: float
    violation: float
    outside: int  # where BAND_TOO_NARROW comes from: the first row outside, or -1 for the Hessian
    history: list[SQPHistory]


def minimise(options: Options, user: User, task: Task, start: Start, callback: Callable | None) -> End:
    layout, held = options.objective.layout, [(t.shape, t.dtype, t.requires_grad) for t in user.held]
    known = layout, options.extraction.key, options.check_band, tuple(held), len(start.y)
    with program_of(user.parts, "sqp", *known) as program:
        return _minimise(options, user, program, task, start, callback)


def _minimise(
    options: Options, user: User, program: Program, task: Task, start: Start, callback: Callable | None
) -> End:
    began = time.perf_counter()
    plan = program.common or Plan(options.objective.layout, options.extraction, options.check_band)
    evaluations, history = Evaluations(user, plan, program, start.kind == WARM), list[SQPHistory]()
    engine = engine_for(start.x)(task._replace(alone=task.alone and callback is None), start)
    prepared, first = _prepared(evaluations, engine)
    program.common, begins, outside = plan, 0, -1

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
            here = evaluations.values(x)
        if now.request != DERIVATIVES:
            engine.trial(here.f.detach(), here.h.detach())
            now = engine.registers()
            continue
        found = (
            evaluations.derivatives(here, now.sigma, y)
            if before is None
            else prepared_derivatives(before, now.sigma, y, plan)
        )
        if found.narrow > 1 and before is None:
            found, first = evaluations.derivatives_anew(x, now.sigma, y, first)
        begins, outside = begins + 1, found.outside
        engine.begin(found, first)
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


def _prepared(evaluations: Evaluations, engine: Engine) -> tuple[list[Prepared], Tensor]:
    """The two points at which the engine asks for derivatives first: beside the start, for scales, and there, for
    multipliers; and the rows' windows. What the rows touch is looked at in both, and no Hessian is wanted."""
    prepared, plan = evaluations.starts([engine.asked()[0], engine.solution().x]), evaluations.plan
    first = windows([each.of_windows for each in prepared], plan.layout, plan.k)
    evaluations.place(first)
    return prepared, first


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
