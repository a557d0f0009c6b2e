"""Second derivatives of every rule in PyTorch, in all four orders of the modes: they agree, and differences agree.

Forward mode over forward mode is the order in which PyTorch itself drops what a rule's operands carry.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev

import bandhess_torch as bh

B = torch.arange(1.0, 5.0, dtype=torch.float64)
ZERO = torch.zeros(1, dtype=torch.float64)


def band(t: Tensor) -> Tensor:
    return torch.stack([4 + t * B, torch.cat([t * t * torch.ones_like(B[1:]), ZERO])])


def general(t: Tensor) -> Tensor:
    ones = torch.ones_like(B[1:])
    return torch.stack([torch.cat([ZERO, t * ones]), 4 + t * t * B, torch.cat([t**3 * ones, ZERO])])


def cost(x: Tensor, t: Tensor) -> Tensor:
    return ((x - t**3) ** 4 / 4 + (x - t) ** 2).sum() + ((x[1:] - x[:-1]) ** 2).sum()


RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "solve": lambda t: bh.solve(band(t), B).sum(),
    "refined": lambda t: bh.solve(band(t), B, refine=2).sum(),
    "cholesky": lambda t: bh.cholesky(band(t)).sum(),
    "factor": lambda t: bh.factor(band(t)).solve(B).sum(),
    "logdet": lambda t: bh.factor(band(t)).logdet(),
    "triangular": lambda t: bh.solve_triangular(bh.cholesky(band(t)), B).sum(),
    "ldl": lambda t: bh.ldl(band(t)).sum(),
    "inverse": lambda t: bh.inverse_band(bh.cholesky(band(t))).sum(),
    "general": lambda t: bh.scipy.solve_banded((1, 1), general(t), B).sum(),
    "newton": lambda t: bh.newton(cost, torch.zeros_like(B), 1, args=(t,)).x.sum(),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_second_derivatives(name: str) -> None:
    f, t, h = RULES[name], torch.tensor(0.7, dtype=torch.float64), 1e-4
    expected = (f(t + h) - 2 * f(t) + f(t - h)) / h**2
    assert abs(float(expected)) > 0.1
    for outer in (jacfwd, jacrev):
        for inner in (jacfwd, jacrev):
            np.testing.assert_allclose(outer(inner(f))(t), expected, rtol=1e-5)


def test_third_derivatives() -> None:
    f, t = RULES["solve"], torch.tensor(0.7, dtype=torch.float64)
    expected = jacrev(jacrev(jacrev(f)))(t)
    np.testing.assert_allclose(jacfwd(jacfwd(jacfwd(f)))(t), expected, rtol=1e-9)
