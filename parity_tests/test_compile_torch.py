"""Under `torch.compile` every public function gives a compiled caller what it gives otherwise, and its gradients too.

What cannot become part of a graph (LAPACK's pointers, loops over values) cuts the caller's graph: not with
`fullgraph=True`, for which test_graphs_torch has what can.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import bandhess_torch as bh

# The compiler asks non-leaf tensors for it, and hides the warning in a way that turning warnings into errors undoes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("untimed_guards"),
]


def array(*shape: int, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape))


N = 6
AB = torch.stack([array(N) + 4, array(N, seed=1), array(N, seed=2)])
B = array(N, seed=3)
GENERAL = torch.stack([array(N, seed=4), array(N, seed=5) + 4, array(N, seed=6)])


def cost(x: Tensor, p: Tensor | float = 1.0) -> Tensor:
    return ((x[1:] - p * x[:-1]) ** 2).sum() + (x**4).sum() - (p * x).sum()


def residuals(x: Tensor) -> Tensor:
    return 4 * x + x**3 - torch.cat([x[1:], x[:1] * 0]) - torch.cat([x[:1] * 0, x[:-1]])


def complex_band(ab: Tensor) -> Tensor:
    return torch.complex(ab, torch.cat([torch.zeros_like(ab[:1]), ab[1:] / 2]))


# Functions of one tensor, differentiable unless listed below; each calls one public function of the library.
CASES: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "matvec": (lambda ab: bh.matvec(ab, B), AB),
    "to_dense": (bh.to_dense, AB),
    "from_dense": (lambda h: bh.from_dense(h, 2), bh.to_dense(AB)),
    "to_sparse": (lambda ab: bh.to_sparse(ab).values(), AB),
    "ravel_stages": (lambda x: bh.ravel_stages({"q": x, "u": x[:-1]})[0], B),
    "cholesky": (bh.cholesky, AB),
    "cholesky_ex": (lambda ab: bh.cholesky_ex(ab)[0], AB),
    "cho_solve": (lambda cb: bh.cho_solve(cb, B), AB),
    "solve_triangular": (lambda cb: bh.solve_triangular(cb, B, transpose=True), AB),
    "solve": (lambda ab: bh.solve(ab, B), AB),
    "solve, refined": (lambda ab: bh.solve(ab, B, refine=2), AB),
    "factor": (lambda ab: bh.factor(ab).solve(B) * bh.factor(ab).logdet(), AB),
    "logdet": (bh.logdet, AB),
    "inverse_band": (bh.inverse_band, AB),
    "ldl": (bh.ldl, AB),
    "ldl_solve": (lambda ldb: bh.ldl_solve(ldb, B), AB),
    "inertia": (lambda ab: torch.stack(bh.inertia(bh.ldl(ab))), AB),
    "rcond": (lambda cb: bh.rcond(cb, AB), AB),
    "from_diagonals": (lambda d: bh.from_diagonals(d, d[1:]), B),
    "from_blocks": (
        lambda x: bh.from_blocks(torch.stack([x[:4].reshape(2, 2)] * 3), x[:8].reshape(2, 2, 2)),
        AB[0:2].ravel(),
    ),
    "from_sparse": (lambda ab: bh.from_sparse(bh.to_sparse(ab)), AB),
    "marginal_variances": (lambda ab: bh.marginal_variances(bh.factor(ab)), AB),
    "quadratic_variances": (lambda ab: bh.quadratic_variances(bh.factor(ab), B.reshape(3, 1, 2)), AB),
    "lu_factor": (lambda ab: bh.lu_solve(bh.lu_factor(ab, 1, 1), B), GENERAL),
    "lu_solve": (lambda b: bh.lu_solve(bh.lu_factor(GENERAL, 1, 1), b), B),
    "slogdet": (lambda ab: bh.slogdet(bh.lu_factor(ab, 1, 1))[1], GENERAL),
    "jacobian": (lambda x: bh.jacobian(residuals, 1, 1)(x), B),
    "jacobian_error": (lambda x: bh.jacobian_error(residuals, 1, 1)(torch.ones(3, N, dtype=x.dtype), x), B),
    "root": (lambda p: bh.root(lambda x, p: residuals(x) - p, B, 1, 1, args=(p,)).x, B.mean()),
    "hessian": (lambda x: bh.hessian(cost, 1)(x), B),
    "value_grad_hessian": (lambda x: bh.value_grad_hessian(cost, 1)(x), B),
    "gauss_newton": (lambda x: bh.gauss_newton(lambda x: x[1:] ** 2 - x[:-1], 1)(x), B),
    "from_matvec": (lambda ab: bh.from_matvec(lambda v: bh.matvec(ab, v), B, 2), AB),
    "band_error": (lambda x: bh.band_error(cost)(torch.ones(2, N, dtype=x.dtype), x), B),
    "detect_bandwidth": (lambda x: torch.tensor(bh.detect_bandwidth(cost)(x)), B),
    "reorder_bandwidth": (lambda x: torch.as_tensor(bh.reorder_bandwidth(cost)(x)[0]), B),
    "newton": (lambda p: bh.newton(cost, B, 1, args=(p,))[:2], B.mean()),
    "sqp": (lambda p: bh.sqp(cost, lambda x, p: x[:2] - p, B, 1, args=(p,)).x, B.mean()),
    "scipy.solveh_banded": (lambda ab: bh.scipy.solveh_banded(ab, B, lower=True), AB),
    "scipy.solveh_banded, complex": (
        lambda ab: torch.view_as_real(bh.scipy.solveh_banded(complex_band(ab), complex_band(B[None])[0], lower=True)),
        AB,
    ),
    "scipy.cholesky_banded": (lambda ab: bh.scipy.cholesky_banded(ab, lower=True), AB),
    "scipy.cho_solve_banded": (lambda cb: bh.scipy.cho_solve_banded((cb, True), B), AB),
    "scipy.solve_banded": (lambda ab: bh.scipy.solve_banded((1, 1), ab, B), GENERAL),
    "scipy.solve_cyclic_banded": (lambda ab: bh.scipy.solve_cyclic_banded((1, 1), ab, B), GENERAL),
    "scipy.eig_banded": (lambda ab: bh.scipy.eig_banded(ab, True, select="i", select_range=(1, 2))[0], AB),
    "scipy.eigvals_banded": (lambda ab: bh.scipy.eigvals_banded(ab, True), AB),
    "scipy.eigh_tridiagonal": (lambda d: bh.scipy.eigh_tridiagonal(d, d[1:], select="v", select_range=(0, 2))[0], B),
    "scipy.eigvalsh_tridiagonal": (lambda d: bh.scipy.eigvalsh_tridiagonal(d, d[1:]), B),
}
# The last: torch's compiler reads no code in which a sparse tensor with a gradient stands.
NO_GRADIENT = {
    "inertia",
    "rcond",
    "detect_bandwidth",
    "reorder_bandwidth",
    "to_sparse",
    "from_sparse",
    "jacobian_error",
}
NO_TRANSFORM = {"sqp"}  # of torch.func's: autograd alone


def weighed(value: Any) -> Any:
    return sum(
        (leaf.cos() * torch.arange(1, leaf.numel() + 1, dtype=leaf.dtype).reshape(leaf.shape)).sum()
        for leaf in tree_leaves(value)
    )


def compiled(fun: Callable) -> Callable:
    return torch.compile(fun, backend="aot_eager")


def same(found: Any, expected: Any) -> None:
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(one.detach(), other)


# Of torch's own making: it cannot trace its constructors of sparse tensors, says so once, and leaves them alone.
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace the builtin")
@pytest.mark.parametrize("name", CASES)
def test_compiled_caller(name: str) -> None:
    """Values, then gradients taken outside and inside the compiled caller, by autograd and by torch.func."""
    torch.compiler.reset()
    case, x = CASES[name]
    if name in NO_GRADIENT:
        same(compiled(lambda x: case(x))(x), case(x))
        return

    def around(x: Tensor) -> tuple[Any, Tensor]:
        """A compiled caller's own operations stand around the call."""
        value = case(x * 1)
        return value, weighed(value)

    def inside(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(around(x)[1], x)[0]

    leaf = x.clone().requires_grad_()
    value, weight = compiled(around)(leaf)
    same(value, case(x))
    found = [torch.autograd.grad(weight, leaf)[0], compiled(inside)(x)]
    if name not in NO_TRANSFORM:
        found.append(compiled(torch.func.grad(lambda x: around(x)[1]))(x))
    for gradient in found:
        torch.testing.assert_close(gradient, inside(x))


FIRST = """
import torch, bandhess_torch as bh
from torch.utils._pytree import tree_leaves
x, ab = torch.ones(4), torch.tensor([[4.0] * 4, [1.0] * 3 + [0.0]])
cost = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 2) ** 2).sum()
newton = lambda x: bh.newton(cost, x, 1).x
cases = [(bh.solve, (ab, x)), (bh.cholesky, (ab,)), (bh.factor, (ab,)), (bh.hessian(cost, 1), (x,)), (newton, (x,))]
found = [torch.compile(fun, backend="eager")(*args) for fun, args in cases]
for (fun, args), result in zip(cases, found, strict=True):
    assert all(map(torch.equal, tree_leaves(result), tree_leaves(fun(*args)))), fun
"""


def test_compiled_themselves_and_called_first() -> None:
    """`torch.compile(bandhess_torch.solve)`, in a process where nothing has run before."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_the_caller_itself_is_compiled() -> None:
    """Its own operations become graphs, before and after the call."""
    graphs: list[int] = []

    def backend(graph: Any, _: Any) -> Callable:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    fun = torch.compile(lambda ab: bh.ldl(ab * 2).sin().exp().sum(), backend=backend)
    torch.testing.assert_close(fun(AB), bh.ldl(AB * 2).sin().exp().sum())
    assert len(graphs) == 2


def test_many_shapes_and_functions_stay_right() -> None:
    """More of them than torch compiles variants of one function for."""
    torch.compiler.reset()
    solve, factor = compiled(lambda ab, b: bh.solve(ab, b) + 1), compiled(lambda ab, b: bh.factor(ab).solve(b))
    for n in range(3, 15):
        for dtype in (torch.float32, torch.float64):
            ab, b = AB[:2].repeat(1, 3)[:, :n].to(dtype), B.repeat(3)[:n].to(dtype)
            torch.testing.assert_close(solve(ab, b), bh.solve(ab, b) + 1)
            torch.testing.assert_close(factor(ab, b), bh.solve(ab, b))


def test_every_public_function_is_here() -> None:
    functions = {name for name in bh.__all__ if callable(getattr(bh, name)) and not isinstance(getattr(bh, name), type)}
    functions |= {f"scipy.{name}" for name in bh.scipy.__all__ if name not in ("LinAlgError", "newton")}  # a factory
    functions.remove("cpu_kernels")  # it takes no tensor
    assert functions == {name.split(",")[0] for name in CASES}
