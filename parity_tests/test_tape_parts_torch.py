"""Tapes with fewer operations than were written down: what was done before, and sums of zeros with a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bandhess_torch.framework.recorder import Recorder
from bandhess_torch.framework.tape import tape_of

N = 12


def padded(a: Tensor, **options: Any) -> Tensor:
    return torch.nn.functional.pad(a, (1, 1), **options)


def changed_before_the_sum(x: Tensor) -> Tensor:
    a, b = x[1:-1] * 2, x.exp()
    p = padded(a)
    a.mul_(3)
    return b + p + padded(a)


def read_twice(x: Tensor) -> Tensor:
    p = padded(x[1:-1] ** 2)
    return (x.exp() + p) * p.exp()


def into_itself(x: Tensor) -> Tensor:
    a = x * 2
    a += torch.nn.functional.pad(a[:-1], (1, 0))
    return a + torch.nn.functional.pad(a[1:], (0, 1))


def twice_but_changed(x: Tensor) -> Tensor:
    a, b = x.sin(), x.sin()
    b.mul_(2)
    return a + b + x.sin()


def with_its_transpose(x: Tensor) -> Tensor:
    m = (x[:9] * 2).reshape(3, 3)
    return m + m.mT


def scattered(x: Tensor) -> Tensor:
    """Three parts into one sum, some of them over one another."""
    return padded(x[2:]) + (x.cos() + padded(x[:-2] * x[2:])) + torch.nn.functional.pad(x[5:], (2, 3))


SHORTER: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "a part that is changed before the sum": (changed_before_the_sum, 7),
    "zeros with a part that are read again": (read_twice, 7),
    "a part of what is added to": (into_itself, 6),
    "one of two, changed": (twice_but_changed, 5),
    "a matrix and its transpose": (with_its_transpose, 2),
    "padding by another number": (lambda x: x.exp() + padded(x[1:-1], value=3.0), 3),
    "parts over one another": (scattered, 5),
    "a number less a tensor": (lambda x: 3 - x.exp(), 3),
}


@pytest.mark.parametrize("name", SHORTER)
def test_shorter_tapes_give_the_same(name: str) -> None:
    fun, most = SHORTER[name]
    x = torch.linspace(0.3, 2.0, N, dtype=torch.float64)
    with Recorder() as recorder:
        found = fun(x)
    tape = tape_of(recorder, [x], [found])
    assert tape is not None
    assert len(tape.run) <= most
    for other in (x.flip(0), x**2 - 1):
        assert torch.equal(tape(other)[0], fun(other))


def test_columns_of_fixed_tensors_are_copied() -> None:
    """Others are read where they are, and may change."""
    table, x = torch.arange(3.0 * N, dtype=torch.float64).reshape(N, 3), torch.linspace(0.3, 2.0, N).double()
    with Recorder() as recorder:
        found = x * table[:, 1]
    calls = list(recorder.calls)
    live = tape_of(recorder, [x], [found])
    recorder.calls = calls
    copied = tape_of(recorder, [x], [found], fixed=[table])
    assert live is not None
    assert copied is not None
    before = x * table[:, 1]
    table.mul_(2)
    assert torch.equal(copied(x)[0], before)
    assert torch.equal(live(x)[0], 2 * before)
