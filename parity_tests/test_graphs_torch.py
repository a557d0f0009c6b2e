"""`solve`, `cholesky`, `logdet`, `hessian` in one graph: torch.compile(fullgraph=True), torch.export, fake tensors."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import bandhess_torch as bh

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("untimed_guards"),
]

AB = torch.tensor([[4.0, 5, 6, 7, 8], [1, 1, 2, 1, 0], [1, -1, 1, 0, 0]], dtype=torch.float64)
B = torch.linspace(1, 2, 10, dtype=torch.float64).reshape(5, 2)
X = {"q": B.clone(), "u": B[:4] / 3}


def systems(ab: Tensor, b: Tensor) -> Tensor:
    """All that takes part in a graph, b a matrix and a vector."""
    cb, info = bh.cholesky_ex(ab)
    whole = bh.solve(ab, b).sin().sum() + bh.logdet(bh.cholesky(ab)) + bh.cho_solve(cb, b[:, 0]).cos().sum()
    return whole + bh.solve_triangular(cb, b).sin().sum() + bh.solve(ab, b[:, 1], refine=1).sum() + info


def cost(x: dict) -> Tensor:
    return ((x["q"][1:] - x["q"][:-1] - x["u"]) ** 2).sum() + (x["q"] ** 4).sum() + (x["u"] ** 4 + x["u"] ** 2).sum()


HESSIAN = bh.hessian(cost, 1)


def newton_step(q: Tensor, u: Tensor) -> Tensor:
    value, grad, ab = bh.value_grad_hessian(cost, 1)({"q": q, "u": u})
    return value * bh.solve(ab + HESSIAN({"q": q, "u": u}), bh.ravel_stages(grad)[0])


CASES: dict[str, tuple[Callable, tuple]] = {"systems": (systems, (AB, B)), "hessian": (newton_step, (X["q"], X["u"]))}
cases = pytest.mark.parametrize("name", CASES)


@cases
def test_compiled_in_one_graph(name: str) -> None:
    """Values and gradients."""
    torch.compiler.reset()
    fun, args = CASES[name]
    compiled = torch.compile(fun, fullgraph=True, backend="aot_eager")
    leaves = [a.clone().requires_grad_() for a in args]
    found, expected = compiled(*leaves), fun(*leaves)
    torch.testing.assert_close(found, expected)
    weights = torch.arange(1.0, 1 + expected.numel(), dtype=torch.float64).reshape(expected.shape)
    gradients = [torch.autograd.grad((y * weights).sum(), leaves) for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert min(g.abs().max() for g in gradients[1]) > 0


@cases
def test_exported(name: str) -> None:
    fun, args = CASES[name]

    class Module(torch.nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return fun(*args)

    program = torch.export.export(Module(), args, strict=False)
    called = {str(node.target) for node in program.graph.nodes}
    assert "bandhess.solve.default" in called
    other = [a * 1.25 for a in args]
    torch.testing.assert_close(program.module()(*other), fun(*other))


@cases
def test_shapes_alone(name: str) -> None:
    """In FakeTensorMode, which knows no values."""
    fun, args = CASES[name]
    expected = fun(*args)
    with FakeTensorMode() as mode:
        found = fun(*(mode.from_tensor(a) for a in args))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("op", ["cholesky", "solve", "substitute"])
def test_operators_are_what_they_say(op: str) -> None:
    """PyTorch's own check of schema, shapes and derivative registration."""
    args = {"cholesky": (AB, True), "solve": (AB, B, 0), "substitute": (bh.cholesky(AB), B, True)}[op]
    given = tuple(a.clone().requires_grad_() if isinstance(a, Tensor) else a for a in args)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.bandhess, op).default, given, test_utils=tests)


FIRST = """
import torch, bandhess_torch as bh
cost = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 2) ** 2).sum()
x = torch.zeros(4, dtype=torch.float64)

@torch.compile(backend="aot_eager")
def caller(x):
    free = bh.newton(cost, x * 1, 1)
    tied = bh.sqp(cost, lambda x: x[:1] - 1, x + free.value, 1)
    return free.x.sin() + tied.x.cos()

found = caller(x)
expected = bh.newton(cost, x, 1).x.sin() + bh.sqp(cost, lambda x: x[:1] - 1, x, 1).x.cos()
torch.testing.assert_close(found, expected)
"""


def test_optimisers_inside_a_compiled_caller_that_comes_first() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_factor_moves() -> None:
    factor = bh.factor(AB)
    single = factor.to(torch.float32)
    assert (single.ab.dtype, single.solve(B.float()).dtype, single.info.dtype) == (torch.float32,) * 2 + (torch.int32,)
    torch.testing.assert_close(single.solve(B.float()).double(), bh.solve(AB, B), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single.to("cpu", torch.float64).logdet(), factor.logdet(), rtol=1e-5, atol=1e-5)
    assert bool(single.ok)


def trajectory() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros_like(a)) for a in X.values()]


def test_the_optimizer() -> None:
    """From where H is indefinite to newton's minimum, at its rate."""
    params = trajectory()

    def fun(x: dict) -> Tensor:
        return cost(x) + (x["q"] - 1).cosh().sum() - 3 * (-((x["q"] + 0.1) ** 2)).exp().sum()

    optimizer = bh.optim.BandedNewton(params, 1)
    closure = lambda: fun({"q": params[0], "u": params[1]})  # noqa: E731
    losses = [float(optimizer.step(closure)) for _ in range(12)]
    expected = bh.newton(fun, dict(zip(X, (p.detach() for p in params), strict=True)), 1)
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert isinstance(optimizer, torch.optim.Optimizer)
    for p, known in zip(params, expected.x.values(), strict=True):
        torch.testing.assert_close(p.detach(), known, rtol=1e-7, atol=1e-7)
    assert optimizer.state[params[0]]["shift"] == 0


def test_the_optimizer_s_closure() -> None:
    params = trajectory()
    optimizer = bh.optim.BandedNewton(params, 1)

    def used() -> Any:
        loss = ((params[0] ** 4).sum() + (params[1] ** 4).sum()).exp()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="without calling backward"):
        optimizer.step(used)
    with pytest.raises(ValueError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(torch.linalg.LinAlgError, match="is it finite"):
        optimizer.step(lambda: (params[0] ** 2).sum() * torch.nan)
    concave = bh.optim.BandedNewton(params, 0)
    before = float(concave.step(lambda: -((params[0] - 1) ** 2).sum() + params[1].sum() * 0))
    assert concave.state[params[0]]["shift"] > 2
    assert float(-((params[0].detach() - 1) ** 2).sum()) < before
