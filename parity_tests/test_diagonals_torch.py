"""Diagonals carried through the gradient's graph: one operation at a time. PyTorch alone: JAX's are in
test_diagonals.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from carrying_torch import BUDGET, C, N, assert_carried, carried, coefficients, gram
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.grids import sizes
from bandhess_torch.extraction.diagonals import Program, translator, walk
from bandhess_torch.extraction.diagonals.coefficients import form

aten = torch.ops.aten


def mixed(g: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """(N,) -> (N,): every entry of g(v), few as they are, with a weight of its own in the last of the result."""

    def product(v: Tensor) -> Tensor:
        flat = g(v).reshape(1, -1)
        return (flat @ coefficients((flat.shape[1], N), 1))[0]

    return product


def in_place(v: Tensor) -> Tensor:
    a, b = v * 1, torch.sub(v[1:], v[:-1], alpha=3)
    a.add_(v, alpha=2).sub_(C * v).mul_(C).div_(coefficients((N,), 2))
    b.masked_fill_(C[1:] > 0, 0)
    return torch.cat([aten.div_.Scalar(aten.mul_.Scalar(a, 3), 7), b])


# One rule at a time: each maps (12,) to at most 32 numbers.
RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "add, sub": lambda v: torch.add(v[3:], v[:-3], alpha=-2) - 3 * (v[2:-1] - v[0]) + torch.zeros(2, 9).double(),
    "neg, mul, div": lambda v: (-v * C / coefficients((N,)) * C[3] / C[4] / 3)[1:] * coefficients((2, 1)),
    "mul, div of scalars": lambda v: aten.div.Scalar(aten.mul.Scalar(v * C, 5), 3) + v / torch.tensor(7),
    "integers and truth": lambda v: v * (C > 0) + v * (C > -9) / torch.arange(3, 15) + (v * torch.arange(12)) / 3,
    "backward": lambda v: (
        aten.tanh_backward(v, C) + 2 * aten.sigmoid_backward(v, C) - aten.threshold_backward(3 * v, C, 0.7)
    ),
    "where": lambda v: torch.where(C > 0, v, 0) / 3 - torch.where(C[:2, None] > 0, v[3], v * C),
    "where of two": lambda v: torch.where(C[1:] > 0, v[1:], 3 * v[:-1]) + torch.where(C[1:] < 1, 0.0, v[0]) * 0.1,
    "masked_fill": lambda v: v.masked_fill(C > 0, 0) / 3 + v,
    "zeros_like, clone": lambda v: torch.zeros_like(v) + v.clone() + v.detach() + aten.alias.default(2 * v),
    "expand": lambda v: v[:3].reshape(3, 1).expand(2, -1, 4) * coefficients((2, 3, 4)),
    "permute": lambda v: v.reshape(2, 3, 2).permute(-1, 0, 1) * coefficients((2, 2, 3)),
    "transpose": lambda v: v.reshape(2, 3, 2).transpose(-1, -3).flatten() + v.t() + v.reshape(4, 3).t().reshape(-1),
    "slice": lambda v: torch.cat([v[-5:-1:3], v[10:99], v[7:3], v.reshape(3, 4)[::2, 1:-1].flatten(), v[::5]]),
    "slice of gaps": lambda v: aten.slice_backward(v[:7], (22,), 0, 1, 22, 3)[2::2] * coefficients((10,)),
    "select": lambda v: v.reshape(3, 4)[-1] * 2 + v.reshape(3, 4)[:, 1][0] + v[-1],
    "flip": lambda v: v.reshape(3, 4).flip(0, -1) - v.reshape(3, 4).flip(-1) * coefficients((3, 4)),
    "squeeze": lambda v: v.reshape(1, 12, 1).squeeze(-1)[:, 1:].squeeze() - v[:1].reshape(1, 1, 1).squeeze((0, -1)),
    "unsqueeze": lambda v: v[:5].unsqueeze(-1).unsqueeze(0) + v[5:9].unsqueeze(-2),
    "slice_backward": lambda v: aten.slice_backward(v.reshape(3, 4), (3, 9), -1, -8, 2**62, 2),
    "select_backward": lambda v: aten.select_backward(v[:4], (3, 4), 0, -2) - aten.select_backward(v[:3], (3, 4), 1, 3),
    "strides that do not divide": lambda v: aten.slice_backward(v[:5], (12,), 0, 1, 11, 2) + C * v,
    "pad": lambda v: pad(v.reshape(3, 4), (2, -1, -1, 3)) + pad(v[:1].reshape(1, 1), (0, 4, 2, 2)),
    "empty": lambda v: pad(v[3:3].unsqueeze(1).expand(0, 2), (0, 0, 1, 2)) + v[:2],
    "cat": lambda v: torch.cat([v[7:], torch.zeros(2), torch.zeros(0), v[4:5], 2 * v[::2], v[:0]], -1),
    "stack": lambda v: torch.stack([v[2:], torch.zeros(10), 2 * v[:-2]], -1),
    "roll": lambda v: torch.cat([v.roll(3), v.reshape(3, 4).roll((1, -1), (0, -1)).reshape(-1), v.roll(-1, 0)[:5]]),
    "unfold": lambda v: v.unfold(-1, 4, 3) * coefficients((3, 4)) + v.reshape(4, 3).unfold(0, 2, 2).sum((0, 1)).sum(),
    "unfold_backward": lambda v: aten.unfold_backward(v.reshape(3, 4), (12,), -1, 4, 3) * C,
    "unbind": lambda v: (lambda a, b, c: a - 2 * b.flip(0) + 3 * c)(*v.reshape(4, 3).unbind(-1)),
    "sum": lambda v: v.reshape(2, 3, 2).sum((0, -1), True) * coefficients((3, 2)) + v.sum() - v[2].expand(2, 4).sum(1),
    "sum of all": lambda v: (v * C).sum() + v.sum(()) + v.sum(0, True),
    "mm": lambda v: (v.reshape(4, 3)[1:, :2] @ coefficients((2, 3))) + coefficients((3, 4)) @ v.reshape(4, 3),
    "mm of many": lambda v: torch.cat([v[3].expand(1, 10), (C[3] * v[4]).expand(2, 10)]) @ coefficients((10, 3)),
    "mm of masks": lambda v: torch.where(C[0] < 9, v[3], 0).expand(2, 10) @ coefficients((10, 3)),
    "bmm": lambda v: torch.bmm(coefficients((2, 4, 3)), v.reshape(2, 3, 2)) @ coefficients((2, 2, 2)),
    "reshape": lambda v: pad(v.reshape(4, 3), (0, 1, 1, 0)).reshape(2, -1, 1, 10)[..., 1:].reshape(9, 2),
    "reshape across rows": lambda v: v.reshape(6, 2).T.reshape(4, 3) * coefficients((4, 3)) + v.view(4, -1),
    "0-d": lambda v: torch.stack([v[3] - 2 * v[5], (v[4] * C[3]) / C[5], v[2] * torch.tensor(2), v[6].reshape(1)[0]]),
    "in place": in_place,
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    assert_carried(mixed(RULES[name]), N)


def test_every_rule_has_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    class Recorded(dict):
        def get(self, func: Any, default: Any = None) -> Any:
            asked.add(func)
            return super().get(func, default)

    monkeypatch.setattr(walk, "OPERATIONS", Recorded(walk.OPERATIONS))
    for g in RULES.values():
        assert carried(mixed(g), C, N) is not None
    # What only the engine asks for, or another version of torch.
    others = {aten.is_same_size.default, aten.t.default, aten.reshape.default, aten.div.Scalar}
    assert translator.TRANSLATIONS.keys() == asked | others


def test_the_definition() -> None:
    """value[i] = sum of part[i] v[o + strides . i] over the parts, entry by entry."""
    v = torch.as_tensor(coefficients((N,), 3))

    def program(v: Tensor) -> Tensor:  # every other row from the back; (2, 3), padded with gaps
        grid = coefficients((4, 3), 2) * v.reshape(4, 3)
        return pad(grid.flip(0)[::2] / 3 + 2 * grid[:2], (1, 2)).unsqueeze(1)

    assert_carried(lambda v: 2 * v + pad(3 * v[1:] - v[:-1] / 4, (1, 0)), N)  # no arrays
    out, expected = program(walk.start(Program(program, C.dtype, C.device), N, BUDGET)).value, program(v)
    got = torch.zeros(out.shape, dtype=C.dtype)
    assert got.shape == expected.shape
    for (o, grid), (scale, array) in out.parts.items():
        ones = torch.ones(sizes(grid)) if array is None else form(array)
        for where in np.ndindex(*ones.shape):
            i = tuple(start + step * k for (start, _, step), k in zip(grid, where, strict=True))
            at = o + sum(stride * k for stride, k in zip(out.strides, i, strict=True))
            assert 0 <= at < N
            got[i] += scale * ones[where] * v[at]
    np.testing.assert_allclose(got, expected, rtol=1e-13)


# Of (100,): too long to be taken apart entry by entry, so that grids stay grids.
LONG: dict[str, Callable[[Tensor], Tensor]] = {
    "gaps": lambda x: aten.slice_backward(x[1::4], (99,), 0, 1, 99, 4)[3:98:6],
    "gaps, reversed": lambda x: aten.slice_backward(x[::2], (103,), 0, 2, 102, 2).flip(0) * coefficients((103,)),
    "crop": lambda x: pad(2 * x, (5, -3)) + pad(x, (0, 2)),
    "stages": lambda x: x.view(50, 2)[1:] @ coefficients((2, 2)) - x.view(50, 2)[:-1].T.flip(0).T,
    "windows": lambda x: x.unfold(0, 4, 2) @ coefficients((4, 3)),
    "steps": lambda x: torch.stack([x[1::3] * x[::3][:33], x[2::3]], 1) @ coefficients((2, 2)),
}


@pytest.mark.parametrize("name", LONG)
def test_long_rule(name: str) -> None:
    assert_carried(gram(LONG[name], 100), 100)
