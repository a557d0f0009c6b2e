"""Tapes that stay with the user's function: the same numbers as without, whatever changed between two solves."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import bandhess_torch as bh
from bandhess_torch.framework import kept
from bandhess_torch.framework.tape import Tape

START = torch.linspace(0, 1, 60, dtype=torch.float64).reshape(20, 3)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    kept._programs.clear()
    yield
    kept._programs.clear()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Every tape, as often as it was run."""
    found: list[Tape] = []
    call = Tape.__call__

    def counted(self: Tape, *inputs: Tensor) -> list:
        found.append(self)
        return call(self, *inputs)

    monkeypatch.setattr(Tape, "__call__", counted)
    return found


def swing(z: Tensor, *args: Tensor) -> Tensor:
    u, angle, rate = z.unbind(1)
    before = torch.cat([torch.zeros_like(z[:1]), z[:-1]])
    a, r = before[:, 1], before[:, 2]
    return torch.cat([angle - a - 0.2 * rate, rate - r - 0.2 * (u - 9.81 * torch.sin(a)), angle[-1:] - 3.0, rate[-1:]])


def by_newton(fun: Callable, *args: Any) -> Any:
    return bh.newton(fun, START, 1, args=args, history=True)


def by_sqp(fun: Callable, *args: Any) -> Any:
    return bh.sqp(fun, swing, START, 1, args=args, bounds=(-9.0, 9.0), history=True)


@pytest.fixture(params=[by_newton, by_sqp])
def solve(request: pytest.FixtureRequest) -> Callable:
    return request.param


def assert_same(found: Any, other: Any) -> None:
    """To the last bit, with all steps."""
    torch.testing.assert_close([found.x, *found.history], [other.x, *other.history], rtol=0, atol=0, equal_nan=True)


def afresh(solve: Callable, *args: Any) -> Any:
    kept._programs.clear()
    return solve(*args)


def cost(z: Tensor, weight: Any = 1.0) -> Tensor:
    return (weight * z[:, 0] ** 2).sum() + ((z - 1) ** 4).sum() + ((z[1:] - z[:-1] ** 2) ** 2).sum()


def test_later_solves_go_by_tapes_alone_and_take_the_same_way(solve: Callable, runs: list) -> None:
    first = solve(cost)
    for _ in range(2):
        assert_same(solve(cost), first)
    written = {*runs}
    runs.clear()
    assert_same(solve(cost), first)
    assert {*runs} <= written
    assert len(runs) > first.steps


def test_partials_and_bound_methods_are_known_by_what_they_call(solve: Callable, runs: list) -> None:
    class Model:
        def cost(self, z: Tensor) -> Tensor:
            return cost(z)

    model = Model()
    for make in (lambda: functools.partial(cost, weight=2.0), lambda: model.cost):
        for _ in range(3):
            solve(make())
        written = {*runs}
        runs.clear()
        solve(make())
        assert runs
        assert {*runs} <= written


WEIGHT, BUFFER = [1.0], torch.ones(20, dtype=torch.float64)


def by_list(z: Tensor) -> Tensor:
    return cost(z, WEIGHT[0])


def by_buffer(z: Tensor) -> Tensor:
    return cost(z, BUFFER)


def by_branch(z: Tensor) -> Tensor:
    return cost(z) if WEIGHT[0] == 1 else cost(z, 2.0)


def by_attachment(z: Tensor) -> Tensor:
    """The same values, but for the graph."""
    with torch.set_grad_enabled(WEIGHT[0] == 1):
        more = (z[:, 0] ** 2).sum()
    return cost(z) + more


def by_hook(z: Tensor) -> Tensor:
    z = z * 1.0
    if z.requires_grad:
        z.register_hook(lambda g: WEIGHT[0] * g)
    return cost(z)


class Own(torch.autograd.Function):
    """The identity, whose backward is what it wants."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return WEIGHT[0] * g


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a number": by_list,
    "a buffer, in place": by_buffer,
    "a branch": by_branch,
    "what is differentiated": by_attachment,
    "a hook": by_hook,
    "a user's backward": lambda z: cost(Own.apply(z)),
    "random numbers": lambda z: cost(z, 1 + 0 * torch.rand(1, dtype=z.dtype)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("solve", [by_newton, by_sqp])
def test_what_changes_between_two_solves_is_seen(solve: Callable, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start z[:, 0] is about 0 in its first stage, and the value of the cost says little of its weight."""
    fun = CHANGES[name]
    try:
        for _ in range(3):
            solve(fun)
        WEIGHT[0] = 2.0
        BUFFER.mul_(2)
        for _ in range(3):
            found = solve(fun)
        assert_same(found, afresh(solve, fun))
    finally:
        WEIGHT[0] = 1.0
        BUFFER.fill_(1)


def test_equal_values_do_not_hide_another_function(solve: Callable) -> None:
    """f and all of its gradient are the same at the start, whatever the weight; the Hessian is not."""
    start = torch.zeros(20, 3, dtype=torch.float64)
    weight = [1.0]

    def fun(z: Tensor) -> Tensor:
        return weight[0] * (z**2).sum() + (z[:, 2] ** 4).sum()

    first = []
    for weight[0] in (1.0, 1.0, 1.0, 5.0):
        first = [bh.sqp(fun, swing, start, 1, history=True)]
    assert_same(*first, afresh(lambda: bh.sqp(fun, swing, start, 1, history=True)))


def test_args_and_parameters_are_inputs(solve: Callable, runs: list) -> None:
    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(20, dtype=torch.float64))

        def forward(self, z: Tensor, more: Tensor) -> Tensor:
            return cost(z, self.weight.exp() * more)

    model = Weighted()
    for i in range(4):
        more = torch.full((), 1.0 + i, dtype=torch.float64)
        with torch.no_grad():
            model.weight += 0.1
        before = {*runs}
        found = solve(model, more)
    assert {*runs} == before
    assert_same(found, afresh(solve, model, more))


def test_an_argument_by_another_name_is_no_input(solve: Callable) -> None:
    """The closure holds what was the argument once."""
    known = torch.full((), 2.0, dtype=torch.float64)

    def fun(z: Tensor, weight: Tensor) -> Tensor:
        return cost(z, weight * known)

    for _ in range(3):
        solve(fun, known)
    other = torch.full((), 3.0, dtype=torch.float64)
    assert_same(solve(fun, other), afresh(solve, fun, other))


def test_solves_within_one_another(solve: Callable) -> None:
    """A callback solves the same problem meanwhile."""
    x0, outer = START + 0.1, []

    def inner(info: Any) -> None:
        if info.step in (1, 3):
            bh.newton(cost, x0, 1)
            bh.sqp(cost, swing, x0, 1)

    for callback in (None, None, None, inner):
        if solve is by_newton:
            outer.append(bh.newton(cost, START, 1, history=True, callback=callback))
        else:
            outer.append(bh.sqp(cost, swing, START, 1, history=True, callback=callback))
    assert_same(outer[0], outer[-1])


def test_a_function_that_never_stays_the_same_is_left_alone(solve: Callable, runs: list) -> None:
    weight = [0.0]

    def fun(z: Tensor) -> Tensor:
        return cost(z, weight[0])

    for _ in range(8):
        weight[0] += 1
        runs.clear()
        found = solve(fun)
    assert len({*runs}) <= 1  # by the number of steps, as in a first solve
    assert_same(found, afresh(solve, fun))


def test_programs_die_with_the_function(solve: Callable) -> None:
    def fun(z: Tensor) -> Tensor:
        return cost(z)

    for _ in range(3):
        solve(fun)
    assert len(kept._programs) == 1
    gone = weakref.ref(fun)
    del fun
    gc.collect()
    assert gone() is None
    assert not kept._programs


def test_autocast_and_modes_keep_nothing(solve: Callable, runs: list) -> None:
    first = solve(cost)
    solve(cost)
    runs.clear()
    with torch.autocast("cpu"):
        for _ in range(2):
            solve(cost)
    one = {*runs}
    with torch.device("cpu"):
        solve(cost)
    runs.clear()
    assert_same(solve(cost), first)
    assert not one & {*runs}


def test_large_tapes_are_not_kept(solve: Callable, runs: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor written for later solves."""
    fun = functools.wraps(cost)(lambda z: cost(z))
    solve(fun), solve(fun)
    (program,) = kept._programs[fun].values()
    own = sum(tape.nbytes for tape in program.tapes.values() if tape is not None)
    assert own > START.nbytes
    for most, stay in ((own, True), (own - 1, False)):
        monkeypatch.setattr(kept, "BYTES", most)
        found = solve(fun)
        assert bool(program.tapes) is stay
    runs.clear()
    assert_same(solve(fun), found)
    assert not program.tapes
    assert len(set(map(id, runs))) <= 1
