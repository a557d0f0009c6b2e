"""A tape's arithmetic by the compiled loop: what PyTorch's operations give, to the last bit, wherever memory lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bandhess_common.kernels import OPERATIONS, why_not
from bandhess_torch.framework import arithmetic
from bandhess_torch.framework.arithmetic import WIDE, Loop, compiled

pytestmark = pytest.mark.skipif(bool(why_not()), reason="no compiled kernels")
aten = torch.ops.aten
ROWS = 3
TWO: list[Callable] = [torch.add, torch.sub, torch.mul, torch.div]


def after(run: list[Callable], memory: list[Tensor]) -> list[Tensor]:
    """What the memory holds when all is done; it is left as it was."""
    before = [t.clone() for t in memory]
    for operation in run:
        operation()
    found = [t.clone() for t in memory]
    for t, old in zip(memory, before, strict=True):
        t.copy_(old)
    return found


def check(run: list[Callable], memory: list[Tensor]) -> list[Callable]:
    expected, mine = after(run, memory), compiled(run, memory)
    for found, wanted in zip(after(mine, memory), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    return mine


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_operation(dtype: torch.dtype) -> None:
    """On numbers beside each other, columns, rows and numbers that are repeated, scalars, and in place."""
    new = partial(numbers, dtype=dtype)
    x, y, column, row, single, o = new(5, 70), new(5, 70, seed=1), new(5, 70, 2)[..., 1], new(70), new(5, 1), new(5, 70)
    x[0, :4] = torch.tensor([np.nan, np.inf, -0.0, 1e-40], dtype=dtype)
    others: list[Any] = [y, column, row, single, new(), 0.1, 0.0, -0.0, 3, column.T.contiguous().T]
    run: list[Callable] = [partial(f, x, b, out=new(5, 70)) for f in TWO for b in others]
    run += [partial(f, a, y, out=new(5, 70)) for f in TWO for a in others if isinstance(a, Tensor)]
    run += [partial(f, column, out=new(5, 70)) for f in (torch.neg, torch.abs)]
    run += [partial(torch.pow, x, k, out=new(5, 70)) for k in (0, 1, 2, 2.0, 0.0)]
    run += [partial(o.add_, y), partial(o.mul_, 0.3), partial(aten.sub_.Tensor, o, o), o[:, 3:5].zero_]
    run += [partial(column.copy_, y), partial(o[1].div_, row), partial(o.T.add_, y.T), partial(new().add_, 1)]
    memory = [t for each in run for t in [getattr(each, "keywords", {}).get("out")] if t is not None]
    mine = check(run, [*memory, o, column])
    assert not set(map(id, mine)) & set(map(id, run)), "an operation was left to PyTorch"
    done = [word for loop in mine if isinstance(loop, Loop) for word in loop.words[:, 0]]
    assert {OPERATIONS[word] for word in done} == set(OPERATIONS)


class Programs:
    """Random operations on views of a few memories, which are used again for other shapes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.memory = [numbers(ROWS * 110, seed=seed + i) for i in range(12)]

    def view(self, shape: tuple, place: int) -> Tensor:
        flat, n = self.memory[place], shape[-1]
        start = int(self.rng.integers(3)) if self.rng.random() < 0.5 else 0
        if len(shape) == 1:
            step = int(self.rng.integers(1, 3))
            return flat[start : start + step * n : step]
        apart = 101 if self.rng.random() < 0.8 else n + int(self.rng.integers(4))
        return flat.as_strided(shape, (apart, 1), start)

    def operation(self) -> Callable:
        """Of two operands that are elsewhere than the result, or one that is the result."""
        n = int(self.rng.choice([WIDE, WIDE + 1, 100]))
        shape = (ROWS, n) if self.rng.random() < 0.7 else (n,)
        places = self.rng.permutation(12)
        out, a, b = self.view(shape, places[0]), self.view(shape, places[1]), self.view(shape, places[2])
        b = [b, b, self.view((n,), places[2]), out][self.rng.integers(4)]
        kind = self.rng.random()
        if kind < 0.1:
            return partial(torch.sin, a, out=out)
        if kind < 0.2:
            return partial(out.copy_, a)
        if kind < 0.3:
            return partial(torch.sum, self.view((ROWS, n), places[1]), 0, out=self.view((n,), places[0]))
        return partial([torch.add, torch.sub, torch.mul][self.rng.integers(3)], a, b, out=out)


@pytest.mark.parametrize("seed", range(12))
def test_programs_on_shared_memory(seed: int) -> None:
    programs = Programs(seed)
    run = [programs.operation() for _ in range(120)]
    assert len(check(run, programs.memory)) < 110


def test_rows_that_meet_the_memory_of_others() -> None:
    """The rows of y lie across those of x, whose memory they take over: one after the other they would spoil them."""
    flat, n = numbers(ROWS * 110), 100
    x, y, out = flat.as_strided((ROWS, n), (n, 1)), flat.as_strided((ROWS, n + 1), (n + 1, 1)), numbers(ROWS, n + 1)
    z = numbers(ROWS, n)
    run: list[Callable] = [partial(torch.add, x, 1.0, out=z), partial(torch.mul, out, 2.0, out=y)]
    assert len(check(run, [flat, z, out])) == 2
    assert len(check([partial(torch.add, x, 1.0, out=z), partial(torch.mul, z, z, out=x)], [flat, z])) == 1


def test_single_rows_go_before_where_nothing_depends_on_it() -> None:
    x, y, row, o = numbers(ROWS, 100), numbers(ROWS, 100, seed=1), numbers(100), numbers(ROWS, 100, seed=2)
    apart: list[Callable] = [partial(torch.add, x, y, out=o), partial(row.mul_, 2.0), partial(o.mul_, row)]
    assert len(check(apart, [x, y, row, o])) == 2
    tied: list[Callable] = [partial(torch.mul, x, row, out=o), partial(row.mul_, 2.0), partial(o.mul_, row)]
    assert len(check(tied, [x, y, row, o])) == 3
    aside: list[Callable] = [partial(torch.add, x, y, out=o), partial(torch.sin, row, out=row), partial(o.mul_, 3.0)]
    assert len(check(aside, [x, y, row, o])) == 2


def test_tensors_from_elsewhere() -> None:
    """They may change between runs, and move in memory."""
    x, out, table = numbers(50), numbers(50), numbers(50, 2, seed=3) + 0  # in memory of PyTorch's
    run = compiled([partial(torch.mul, x, table[:, 1], out=out)], [x, out])
    for _ in range(2):
        after(run, [])
        np.testing.assert_array_equal(out.numpy(), (x * table[:, 1]).numpy())
        table.mul_(-2)
        table.untyped_storage().resize_(2**16)


def test_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    x, whole, halves = numbers(50), torch.arange(50), numbers(50).half()
    stays: list[Callable] = [
        partial(torch.add, x, x, alpha=2, out=numbers(50)),
        partial(torch.div, x, 2.0, rounding_mode="floor", out=numbers(50)),
        partial(torch.mul, x, whole, out=numbers(50)),
        partial(torch.mul, whole, 2, out=whole),
        partial(halves.copy_, x),
        partial(numbers(50).copy_, halves),
        partial(torch.pow, x, 3, out=numbers(50)),
        partial(torch.mul, x, True, out=numbers(50)),
        partial(torch.add, numbers(arithmetic.LONG), 1.0, out=numbers(arithmetic.LONG)),
        partial(numbers(2, 3, 4, 5)[:, :2, :3, :4].add_, 1.0),
    ]
    assert compiled(stays, []) == stays
    plain: list[Callable] = [partial(torch.mul, x, 2.0, out=numbers(50))]
    assert compiled(plain, []) != plain
    monkeypatch.setattr(arithmetic, "served", lambda dtype: False)
    assert compiled(plain, []) == plain
