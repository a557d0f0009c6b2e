"""What PyTorch's diagonals leave to probing, and what must not be left to rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from carrying_torch import C, N, carried, coefficients
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.diagonals import values

aten = torch.ops.aten


def test_saturated_units_round_as_torch_has_it() -> None:
    ones, out = torch.ones(N, dtype=C.dtype), torch.tanh(7 + C)
    ab = carried(lambda v: aten.tanh_backward(v, out), C, 1)
    np.testing.assert_array_equal(ab, aten.tanh_backward(ones, out)[None])
    ab = carried(lambda v: aten.sigmoid_backward(v, out), C, 1)
    np.testing.assert_array_equal(ab, aten.sigmoid_backward(ones, out)[None])


def test_what_is_no_product_or_not_seen() -> None:
    buffer = C.clone()

    def scratch(v: Tensor) -> Tensor:
        out = v * buffer
        buffer.mul_(2)
        return out + v * buffer

    def through_a_view(v: Tensor) -> Tensor:
        v = v * 1
        v[1:].mul_(2)
        return v

    programs = [scratch, through_a_view]
    programs += [lambda v: v * v, lambda v: 1 / v, lambda v: torch.where(v > 0, v, 2 * v), lambda v: v.float()]
    programs += [lambda v: C, lambda v: v.masked_fill(C > 0, 3.0), lambda v: pad(v[1:], (1, 0), value=1.0)]
    programs += [lambda v: torch.sum(v, dtype=torch.float32) * C, lambda v: v / 0]
    for program in programs:
        assert carried(program, C, N) is None


VIEWS: list[Callable[[Tensor], Any]] = [
    lambda v: v[1:], lambda v: v[0, :1], lambda v: v.expand(2, 2, 6), lambda v: v.permute(1, 0), lambda v: v.t(),
    lambda v: v.transpose(0, 1), lambda v: v.squeeze(), lambda v: v.squeeze(0), lambda v: v.squeeze((0, 1)),
    lambda v: v.unsqueeze(0), lambda v: v.unbind(), lambda v: v.unfold(1, 2, 1), lambda v: v.view(-1),
    lambda v: v.reshape(-1), lambda v: v.detach(), aten.alias.default,
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_written_under_a_view(view: Callable[[Tensor], Any]) -> None:
    def program(v: Tensor, copied: bool) -> Tensor:
        v = v.reshape(2, 6) * 1
        view(v.clone() if copied else v)
        return v.mul_(2).reshape(-1)

    assert carried(lambda v: program(v, True), C, N) is not None
    assert carried(lambda v: program(v, False), C, N) is None


def test_axes_too_long_to_be_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over all of v is n diagonals: unrolled where it is short, and no program of many thousands of parts."""
    for n in (values.SHORT, values.SHORT + 1, 500):
        c = coefficients((n,))
        ab = carried(lambda v, c=c: c * torch.sum(c * v), c, n)
        assert (ab is None) == (n > values.SHORT)
    pieces, apart = [], values.entries
    monkeypatch.setattr(values, "entries", lambda *args: (pieces.append(1) or each for each in apart(*args)))
    c = coefficients((32**3,))
    assert carried(lambda v: torch.sum(v.reshape(32, 32, 32)) * c, c, 1) is None
    assert 0 < len(pieces) < 2 * values.LIMIT
    assert carried(lambda v: c * v.reshape(32, 32, 32).permute(2, 1, 0).reshape(-1), c, 1) is None
    assert len(pieces) < 4 * values.LIMIT
