"""Objectives that are `torch.nn.Module`s, or methods of one: solutions depend on their parameters."""

import numpy as np
import pytest
import torch
from torch import Tensor

import bandhess_torch as bh

N = 12


def array(*shape: int, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape))


def cost(x: Tensor, p: Tensor | float = 1.0) -> Tensor:
    return ((x[1:] - p * x[:-1]) ** 2).sum() + (x**4).sum() - (p * x).sum()


X = array(N)


class Spline(torch.nn.Module):
    """An objective with parameters, one of them in a module of its own, one that needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.target = torch.nn.Parameter(array(N, seed=3))
        self.inner = torch.nn.Linear(1, 1, dtype=torch.float64)
        self.fixed = torch.nn.Parameter(array(N, seed=4), requires_grad=False)

    def forward(self, x: Tensor, p: Tensor | float = 1.0) -> Tensor:
        return cost(x, p) + ((x - self.target) ** 2 * self.inner.weight.exp()).sum() + (self.fixed * x).sum()

    def energy(self, x: Tensor, p: Tensor | float = 1.0) -> Tensor:
        return self(x, p)

    def below(self, x: Tensor, p: Tensor | float = 1.0) -> Tensor:
        return x[:2] - self.target[:2]


def explicit(x: Tensor, p: Tensor, target: Tensor, weight: Tensor, fixed: Tensor) -> Tensor:
    return cost(x, p) + ((x - target) ** 2 * weight.exp()).sum() + (fixed * x).sum()


@pytest.mark.parametrize("method", ["forward", "energy"])
def test_a_minimiser_depends_on_its_module_s_parameters(method: str) -> None:
    """As on the same tensors in args; a gradient flows to p as well, and none where none is wanted."""
    torch.manual_seed(0)
    module = Spline()
    p = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    fun = module if method == "forward" else module.energy
    wanted = (module.target, module.inner.weight, p)
    result = bh.newton(fun, X, 1, args=(p,))
    args = (p, module.target, module.inner.weight, module.fixed)
    expected = bh.newton(explicit, X, 1, args=args)
    assert result.status == bh.Status.CONVERGED
    weights = array(N, seed=5)
    for found, known in ((result.x @ weights, expected.x @ weights), (result.value, expected.value)):
        gradients = (torch.autograd.grad(value, wanted, retain_graph=True) for value in (found, known))
        torch.testing.assert_close(*gradients)
    assert module.fixed.grad is None
    module.requires_grad_(False)
    assert not bh.newton(fun, X, 1).x.requires_grad


def test_of_a_module_s_residuals() -> None:
    """hessian="gauss_newton", and a hessian of the user's own, which sees the arguments alone."""
    module = Spline()
    own = bh.newton(module, X, 1, args=(1.2,), hessian=lambda x, p: bh.hessian(module, 1)(x, p))
    exact = bh.newton(module, X, 1, args=(1.2,))
    residuals = torch.nn.Module()
    residuals.target = torch.nn.Parameter(array(N, seed=6))
    residuals.forward = lambda x: [x[1:] - x[:-1], x - residuals.target]
    fit = bh.newton(residuals, X, 1, hessian="gauss_newton")
    gradients = []
    for result, parameter in ((own, module.target), (exact, module.target), (fit, residuals.target)):
        assert result.status == bh.Status.CONVERGED
        gradients += torch.autograd.grad(result.x.sum(), parameter)
        assert gradients[-1].abs().min() > 0
    torch.testing.assert_close(*gradients[:2])


def test_sqp_of_modules() -> None:
    """The objective's, the constraints' and the inequalities'."""
    module, other = Spline(), Spline()
    result = bh.sqp(module, other.below, X, 1)
    plain = bh.sqp(
        lambda x, target, bound: explicit(x, torch.tensor(1.0), target, module.inner.weight, module.fixed),
        lambda x, target, bound: x[:2] - bound[:2],
        X,
        1,
        args=(module.target, other.target),
    )
    assert result.status == bh.Status.CONVERGED
    wanted = (module.target, other.target)
    weights = array(N, seed=5)
    found = torch.autograd.grad(result.x @ weights, wanted)
    torch.testing.assert_close(found, torch.autograd.grad(plain.x @ weights, wanted))
    assert all(part.abs().max() > 0 for part in found)
