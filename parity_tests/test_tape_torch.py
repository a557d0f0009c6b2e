"""Computations run again from what was written down of them: the same numbers, or none where that is not sure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bandhess_torch as bh
from bandhess_common.kernels import why_not
from bandhess_torch.framework import kept, recorder
from bandhess_torch.framework.recorder import Recorder
from bandhess_torch.framework.tape import Tape, same, tape_of
from bandhess_torch.optimise.newton import point
from bandhess_torch.optimise.sqp import evaluations

N = 12
X, OTHER = torch.linspace(0.3, 2.0, N, dtype=torch.float64), torch.linspace(2.0, -1.0, N, dtype=torch.float64) ** 2 / 3
WEIGHT = torch.nn.Parameter(torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4))


def derivatives(fun: Callable[[Tensor], Tensor]) -> Callable[[Tensor], list[Tensor]]:
    """Value, gradient, and products with the Hessian, in a batch: all that optimisers ask of autograd."""

    def of(x: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = fun(x)
            (grad,) = torch.autograd.grad(value, x, create_graph=True)
            probes = torch.eye(N, dtype=x.dtype)[:3] + 1
            (products,) = torch.autograd.grad(grad, x, probes, is_grads_batched=True, retain_graph=True)
        return [value.detach(), grad.detach(), products]

    return of


def taped(compute: Callable[[Tensor], list[Tensor]], x: Tensor = X) -> Tape | None:
    x = x.clone()
    with Recorder() as calls:
        found = compute(x)
    return tape_of(calls, [x], found)


def written_into(x: Tensor) -> Tensor:
    y = torch.zeros(N + 2, dtype=x.dtype)
    y[0] = 3.0
    y[-1] = 1.0
    y = y + torch.nn.functional.pad(x, (1, 1))
    z = x.clone()
    z[1:3] *= x[4:6]
    return (y[1:] * y[:-1] ** 3).sum() + z.exp().sum()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "slices": lambda x: ((x[1:] - x[:-1] ** 2) ** 2).sum() + torch.sin(x[::3]).sum() ** 3,
    "columns": lambda x: sum((a.cos() * b).sum() for a, b in zip(x.reshape(4, 3).unbind(1), x.split(4), strict=True)),
    "joined": lambda x: torch.cat([x[:1] * 2, torch.stack([x, x**2]).T.reshape(-1), x.flip(0)]).tanh().sum() ** 2,
    "written into": written_into,
    "cases": lambda x: torch.where(x > 1, x**3, x.sqrt()).sum() + x.clamp(max=1.5).square().sum() + x.relu().sum() ** 3,
    "matrices": lambda x: (WEIGHT @ x.reshape(4, 3)).sigmoid().sum() + torch.einsum("i,ij,j", x[:4], WEIGHT, x[4:8]),
    "gathered": lambda x: (x[torch.arange(N).roll(1)] * x**2).sum() + x.index_select(0, torch.arange(2)).exp().sum(),
    "a mean and a norm": lambda x: x.mean() ** 3 + (x**2).cumsum(0).log().sum() + torch.linalg.vector_norm(x),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elsewhere_it_gives_the_same_to_the_last_bit(name: str) -> None:
    compute = derivatives(FUNCTIONS[name])
    tape = taped(compute)
    assert tape is not None
    for x in (OTHER, X, OTHER + 1):
        assert same(tape(x), compute(x))


def test_results_are_the_caller_s_own() -> None:
    tape = taped(derivatives(FUNCTIONS["slices"]))
    first = tape(OTHER)
    kept = [part.clone() for part in first]
    tape(X)
    assert same(first, kept)


@pytest.mark.skipif(bool(why_not()), reason="the loops are the kernels'")
def test_memory_is_used_again_and_what_is_not_wanted_left_out() -> None:
    def long(x: Tensor) -> list[Tensor]:
        unwanted = x.exp()
        for _ in range(100):
            x, unwanted = x * 1.01 + 0.1, unwanted.sin()
        return [x]

    tape = taped(long)
    assert sum(len(loop.alive) for loop in tape.run) == 200  # type: ignore[attr-defined]
    assert tape.nbytes <= 4 * X.nbytes


BUFFER = torch.zeros(N, dtype=torch.float64)
NORM = torch.nn.BatchNorm1d(1, dtype=torch.float64)


class Foreign(torch.autograd.Function):
    """The square, by NumPy, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g * ctx.saved_tensors[0]


def in_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.square(x.detach().numpy()))


UNSAFE: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x * x[0].item(),
    "a branch": lambda x: x * 2 if x.sum() > 0 else x * 3,
    "all of it": lambda x: x * (3.0 if torch.equal(x, X) else 2.0),
    "numbers": lambda x: x * x.tolist()[0],
    "numpy": in_numpy,
    "a foreign function": Foreign.apply,
    "a list of scalars": lambda x: x * torch.tensor([x[0], *[1.0] * (N - 1)], dtype=x.dtype),
    "a mask": lambda x: x[x > 1],
    "positions": lambda x: x[torch.nonzero(x > 1)[:, 0]],
    "a write to a mask": lambda x: x.clone().index_put_((x > 1,), x[:1]),
    "random numbers": lambda x: x * torch.rand(N, dtype=x.dtype),
    "noise of its shape": lambda x: x + torch.randn_like(x),
    "dropout": lambda x: torch.nn.functional.dropout(x),
    "a buffer": lambda x: BUFFER.copy_(x) * 2,
    "a count": lambda x: x * 2 + 0 * BUFFER.add_(1),
    "running means": lambda x: NORM(x[:, None])[:, 0],
    "its argument": lambda x: x.mul_(1.0),
    "another shape in place": lambda x: (x * 1).unsqueeze_(0),
    "complex numbers": lambda x: torch.view_as_real(torch.complex(x, x * 2) ** 2),
    "a kernel": lambda x: bh.cho_solve(torch.ones(1, N, dtype=x.dtype), x),
    "an operation of several results": lambda x: torch.linalg.qr(x.reshape(4, 3))[1],
}


@pytest.mark.parametrize("name", UNSAFE)
def test_no_tape_is_made_where_it_could_be_wrong(name: str) -> None:
    assert taped(lambda x: [UNSAFE[name](x)]) is None
    assert taped(lambda x: [x * 2]) is not None


def test_a_recording_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "ROOM", 4 * 8 * N)
    assert taped(lambda x: [x.sin() + x.cos() + 1]) is not None
    assert taped(lambda x: [x.sin() + x.cos() + x.exp()]) is None


def test_constants_written_to_later_are_not_mistaken() -> None:
    def of(x: Tensor) -> list[Tensor]:
        y = torch.zeros(N, dtype=x.dtype)
        y[0] = 7.0
        y[1:] += x[1:]
        return [y]

    assert taped(of) is None


# --- In the optimisers ------------------------------------------------------------------------------------------------


def valley(x: Tensor) -> Tensor:
    return 1 + torch.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2)


def swing(z: Tensor) -> Tensor:
    u, angle, rate = z.unbind(1)
    before = torch.cat([torch.zeros_like(z[:1]), z[:-1]])
    a, r = before[:, 1], before[:, 2]
    return torch.cat([angle - a - 0.2 * rate, rate - r - 0.2 * (u - 9.81 * torch.sin(a)), angle[-1:] - 3.0, rate[-1:]])


def by_newton(fun: Callable = valley, **options: Any) -> Any:
    return bh.newton(fun, torch.linspace(0, 1, 40, dtype=torch.float64), 1, **options)


def by_sqp(fun: Callable = lambda z: (z[:, 0] ** 2).sum(), **options: Any) -> Any:
    return bh.sqp(fun, swing, torch.ones(20, 3, dtype=torch.float64), 1, bounds=(-9.0, 9.0), **options)


@pytest.fixture(params=["newton", "sqp"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable, Any, str]:
    """Taped from the third point on; nothing is known of its functions."""
    kept._programs.clear()
    found = (by_newton, point, "VISIT") if request.param == "newton" else (by_sqp, evaluations, "STEP")
    monkeypatch.setattr(*found[1:], 3)
    return found


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list:
    """How many times each tape was run, one entry a tape."""
    runs: list = []
    make, call = Tape.__init__, Tape.__call__

    def made(self: Tape, *args: Any) -> None:
        make(self, *args)
        self.index = len(runs)  # type: ignore[attr-defined]
        runs.append(0)

    def counted(self: Tape, *inputs: Tensor) -> list:
        runs[self.index] += 1  # type: ignore[attr-defined]
        return call(self, *inputs)

    monkeypatch.setattr(Tape, "__init__", made)
    monkeypatch.setattr(Tape, "__call__", counted)
    return runs


def test_a_solve_takes_the_same_way(solver: tuple, tapes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    solve, module, when = solver
    found = solve(history=True)
    assert found.success
    assert len(tapes) == 1
    assert tapes[0] > found.steps / 2
    monkeypatch.setattr(module, when, -1)  # never
    kept._programs.clear()
    other = solve(history=True)
    assert len(tapes) == 1
    torch.testing.assert_close([found.x, *found.history], [other.x, *other.history], rtol=0, atol=0, equal_nan=True)


def test_a_function_that_changes_on_the_way_is_seen(
    solver: tuple, tapes: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, module, when = solver
    weight = [3.0]

    def fun(x: Tensor) -> Tensor:
        return valley(x.reshape(-1)) + weight[0] * ((x - 2) ** 2).sum()

    def change(info: Any) -> None:
        if info.step == 3:
            weight[0] = 1.0

    first = solve(fun, callback=change, history=True)
    assert len(tapes) == 1
    assert first.steps > 4
    weight[0] = 3.0
    monkeypatch.setattr(module, when, -1)
    kept._programs.clear()
    second = solve(fun, callback=change, history=True)
    torch.testing.assert_close(first.x, second.x, rtol=0, atol=0)


def test_functions_are_called_as_often(solver: tuple, tapes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sqp as without a tape; newton spares the call for derivatives, but where it checks the band at the end, and
    makes one for the guard."""
    solve, module, when = solver
    calls = [0, 0]

    def counted(x: Tensor) -> Tensor:
        calls[len(tapes)] += 1
        return 0.1 * (x**4).sum() + ((x - 2) ** 2).sum()

    taped_steps = solve(counted).steps
    assert len(tapes) == 1
    several, calls[:] = sum(calls), [0, 0]
    monkeypatch.setattr(module, when, -1)
    kept._programs.clear()
    tapes.clear()
    assert solve(counted).steps == taped_steps
    assert several == calls[0] - (taped_steps - 4 if module is point else 0)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomalies_are_looked_for_in_every_step(solver: tuple, tapes: list) -> None:
    with torch.autograd.set_detect_anomaly(True):
        solver[0](max_steps=4)
    assert not tapes
