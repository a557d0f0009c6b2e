"""`torch.func.vmap` of functions with derivative rules: where nothing is differentiated the rule for vmap is called
directly, and gives what a loop gives; elsewhere everything goes through PyTorch's own dispatch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from matrices import positive_band
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.testing import assert_close

import bandhess_torch as bh
from bandhess_torch.framework import transforms

N, W, LANES = 7, 2, 3
BANDS = torch.as_tensor(np.stack([positive_band(N, W, seed) for seed in range(LANES)]))
SIDES = torch.as_tensor(np.random.default_rng(0).standard_normal((LANES, N)))
MANY = torch.as_tensor(np.random.default_rng(1).standard_normal((LANES, N, 2)))


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The functions whose rule was called directly."""
    called: list[str] = []
    original = transforms._in_lanes

    def noted(function: Any, operands: tuple) -> Any:
        called.append(function.__name__)
        return original(function, operands)

    monkeypatch.setattr(transforms, "_in_lanes", noted)
    yield called
    assert torch._C._functorch.peek_interpreter_stack() is None, "a level of vmap was left off, or on"


def looped(fun: Callable, dims: tuple, *operands: Tensor) -> Any:
    """vmap's definition."""
    found = [
        fun(*(t if d is None else t.select(d, i) for t, d in zip(operands, dims, strict=True))) for i in range(LANES)
    ]
    return torch.stack(found) if isinstance(found[0], Tensor) else tuple(map(torch.stack, zip(*found, strict=True)))


def banded(ab: Tensor, b: Tensor) -> Tensor:
    return bh.scipy.solve_banded((1, 1), torch.stack([ab[1], ab[0], ab[2]]), b)


FUNCTIONS: dict[str, tuple[Callable, tuple[Tensor, ...]]] = {
    "solve": (bh.solve, (BANDS, SIDES)),
    "solve, columns": (bh.solve, (BANDS, MANY)),
    "solve, refined": (lambda ab, b: bh.solve(ab, b, refine=2), (BANDS, SIDES)),
    "factor": (lambda ab, b: bh.factor(ab).solve(b), (BANDS, SIDES)),
    "cholesky": (bh.cholesky, (BANDS,)),
    "cholesky_ex": (bh.cholesky_ex, (BANDS,)),
    "ldl": (bh.ldl, (BANDS,)),
    "solve_triangular": (bh.solve_triangular, (BANDS, SIDES)),
    "solve_banded": (banded, (BANDS, SIDES)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_choice_of_lanes(name: str, direct: list[str]) -> None:
    fun, operands = FUNCTIONS[name]
    choices: list[tuple] = [(0,) * len(operands), (-1,) * len(operands)]
    if len(operands) == 2:
        choices += [(0, None), (None, 0), (1, 0)]
    for dims in choices:
        lying = [t[0] if d is None else t.movedim(0, d) for t, d in zip(operands, dims, strict=True)]
        assert_close(vmap(fun, dims)(*lying), looped(fun, dims, *lying))
    assert len(direct) >= len(choices)


def test_lanes_of_lanes(direct: list[str]) -> None:
    expected = torch.stack([torch.stack([bh.solve(ab, b) for b in SIDES]) for ab in BANDS])
    assert_close(vmap(vmap(bh.solve, (None, 0)), (0, None))(BANDS, SIDES), expected)
    assert_close(vmap(lambda b: vmap(lambda ab: bh.solve(ab, b))(BANDS), out_dims=1)(SIDES), expected)
    both = BANDS.expand(2, *BANDS.shape), SIDES.expand(2, *SIDES.shape)
    assert_close(vmap(vmap(bh.solve))(*both)[1], looped(bh.solve, (0, 0), BANDS, SIDES))
    outer = vmap(lambda ab, b: vmap(lambda _: bh.solve(ab, b))(torch.zeros(2)))(BANDS, SIDES)  # the inner lanes agree
    assert_close(outer[:, 1], looped(bh.solve, (0, 0), BANDS, SIDES))
    assert direct


@pytest.mark.parametrize("options", [{"chunk_size": 2}, {"randomness": "different"}, {"out_dims": 1}], ids=str)
def test_options_of_vmap(options: dict[str, Any], direct: list[str]) -> None:
    expected = looped(bh.solve, (0, 0), BANDS, SIDES)
    found = vmap(bh.solve, **options)(BANDS, SIDES)
    assert_close(found.movedim(options.get("out_dims", 0), 0), expected)
    assert direct


def quadratic(ab: Tensor, b: Tensor) -> Tensor:
    return b @ bh.solve(ab, b)


def test_derivatives_take_the_whole_way(direct: list[str]) -> None:
    """v^T H^-1 v has gradient 2 H^-1 v in v."""
    x = looped(bh.solve, (0, 0), BANDS, SIDES)
    assert_close(vmap(grad(quadratic, 1))(BANDS, SIDES), 2 * x)
    assert_close(grad(lambda b: vmap(quadratic)(BANDS, b).sum())(SIDES), 2 * x)
    assert_close(jvp(lambda b: vmap(quadratic)(BANDS, b), (SIDES,), (SIDES,))[1], 2 * (x * SIDES).sum(1))
    assert_close(
        vmap(lambda ab, b: jvp(lambda b: quadratic(ab, b), (b,), (b,))[1])(BANDS, SIDES), 2 * (x * SIDES).sum(1)
    )
    assert not direct


def test_what_autograd_records(direct: list[str]) -> None:
    """One operand that asks for its gradient is enough; without recording, none does."""
    for wanted in (0, 1):
        operands = [t.clone().requires_grad_(i == wanted) for i, t in enumerate((BANDS, SIDES))]
        for fun, given in ((vmap(bh.solve), operands), (vmap(vmap(bh.solve)), [t[None] for t in operands])):
            x = fun(*given).reshape(SIDES.shape)
            (found,) = torch.autograd.grad(x.sum(), operands[wanted])
            single = [t.detach().clone().requires_grad_(i == wanted) for i, t in enumerate(operands)]
            (expected,) = torch.autograd.grad(looped(bh.solve, (0, 0), *single).sum(), single[wanted])
            assert_close(found, expected)
    assert not direct
    with torch.no_grad():
        assert not vmap(bh.solve)(*operands).requires_grad
    assert direct


def test_a_compiled_caller(direct: list[str]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda ab, b: vmap(bh.solve)(ab * 1, b).sin(), backend="eager")
    assert_close(compiled(BANDS, SIDES), looped(bh.solve, (0, 0), BANDS, SIDES).sin())


def test_a_function_mode_sees_the_call(direct: list[str]) -> None:
    with torch.device("cpu"):  # which is such a mode
        found = vmap(bh.solve)(BANDS, SIDES)
    assert_close(found, looped(bh.solve, (0, 0), BANDS, SIDES))
    assert not direct


def test_errors_leave_the_levels_in_order(direct: list[str]) -> None:
    with pytest.raises(torch.linalg.LinAlgError, match=r"order 1 is not positive definite \(matrix 0 of the batch\)"):
        vmap(bh.solve)(-BANDS, SIDES)
    assert direct
    assert_close(vmap(operator.mul)(SIDES, SIDES), SIDES**2)


def test_where_torch_has_no_such_steps(direct: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_KNOWN", False)
    assert_close(vmap(bh.solve)(BANDS, SIDES), looped(bh.solve, (0, 0), BANDS, SIDES))
    assert not direct


@pytest.mark.parametrize("sides", [SIDES, MANY])
@pytest.mark.parametrize("outer", [(0, 0), (None, 0), (0, None)])
@pytest.mark.parametrize("inner", [(0, 0), (None, 0), (0, None)])
def test_levels_that_share(inner: tuple, outer: tuple, sides: Tensor) -> None:
    """Two levels, of which one or both have one matrix, or one right-hand side, for all lanes: as one by one."""
    given, expanded = [], []
    for t, into, out in zip((BANDS, sides), inner, outer, strict=True):
        one = (t if into == 0 else t[0])[None]
        one = one if out is None else torch.cat([one, 2 * one])
        given.append(one if out == 0 else one[0])
        expanded.append((one if into == 0 else one[:, None]).expand(2, LANES, *t.shape[1:]))
    x = vmap(vmap(bh.solve, inner), outer)(*given)
    for i, j in product(range(2), range(LANES)):
        assert_close(x[i, j], bh.solve(*(t[i, j].contiguous() for t in expanded)))
