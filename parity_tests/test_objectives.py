"""Any objective works: whatever a function is made of, its band is that of the dense Hessian, alike in both backends.

Every case is a pair of functions, one per framework, of the same mathematics; the dense Hessian is torch's, by
differentiating twice in reverse, so that the JAX bands are held against another framework altogether.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from oracles import reals, store

ROUNDING = 64
N = 6
X = reals(N, 0)
WEIGHT = np.arange(1.0, N + 1)
KERNEL = np.array([1.0, -3.0, 2.0])
LAYER = reals(6, 2).reshape(2, 3)


class Case(NamedTuple):
    jax: Callable
    torch: Callable
    bandwidth: int
    args: tuple = ()  # beside x


# --- Loops -----------------------------------------------------------------------------------------------------------


def scan_jax(x):
    def step(before, now):
        return now, jnp.sin(before) * now**2

    return jnp.sum(jax.lax.scan(step, x[0], x[1:])[1])


def scan_torch(x):
    total, before = 0.0, x[0]
    for now in x[1:]:
        total, before = total + torch.sin(before) * now**2, now
    return total


def fori_jax(x):
    """Indexed by the loop's counter, and through a table: the pattern is known at run time only."""
    order = jnp.arange(N)

    def step(i, total):
        return total + jnp.exp(x[order[i]]) * jax.lax.dynamic_slice(x, (i - 1,), (1,))[0]

    return jax.lax.fori_loop(1, N, step, 0.0)


def fori_torch(x):
    order, total = torch.arange(N), 0.0
    for i in range(1, N):
        total = total + torch.exp(x[order[i]]) * x.narrow(0, i - 1, 1)[0]
    return total


# --- Derivatives of the user's own -----------------------------------------------------------------------------------


@jax.custom_jvp
def twice_jax(x):
    return x**3


# Not the true derivative, but twice it: products must go by the rule.
twice_jax.defjvp(lambda primals, tangents: (twice_jax(*primals), 6 * primals[0] ** 2 * tangents[0]))


class TwiceTorch(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 6 * x**2 * cotangent


@jax.custom_vjp
def twice_backwards_jax(x):
    return x**3


twice_backwards_jax.defvjp(lambda x: (x**3, x), lambda x, cotangent: (6 * x**2 * cotangent,))


# --- Parts -----------------------------------------------------------------------------------------------------------


def inner_gradient_jax(x):
    return jnp.sum(jax.grad(lambda x: jnp.sum(x[1:] ** 2 * x[:-1] ** 2))(x) ** 2)


def inner_gradient_torch(x):
    return torch.sum(torch.func.grad(lambda x: torch.sum(x[1:] ** 2 * x[:-1] ** 2))(x) ** 2)


def written_jax(x):
    y = jnp.zeros(N + 1, x.dtype).at[1:].set(x).at[0].add(2 * x[1])
    return jnp.sum(y[1:] ** 2 * y[:-1] ** 2)


def written_torch(x):
    y = torch.zeros(N + 1, dtype=x.dtype)
    y[1:] = x
    y[0] += 2 * x[1]
    return torch.sum(y[1:] ** 2 * y[:-1] ** 2)


def branches(xp):
    """The side that is not taken is not finite."""

    def fun(x):
        safe = xp.where(x > 0, x, 1.0)
        return xp.sum(xp.where(x > 0, xp.log(safe), x**2)[1:] * x[:-1] ** 2)

    return fun


def complex_values(xp):
    def fun(x):
        z = xp.exp(1j * x[1:]) * (x[:-1] + 2j)
        return xp.sum(xp.real(z**3)) + xp.sum(xp.abs(z) ** 2)

    return fun


def matrices(xp, array):
    """Stages of two as rows: products with a matrix, and small determinants."""
    layer = array(LAYER)

    def fun(x):
        y = xp.tanh(x.reshape(-1, 2) @ layer)
        gram = xp.einsum("ti,tj->tij", y[:, :2], y[:, :2]) + array(np.eye(2))[None]
        return xp.sum((y[1:] - y[:-1]) ** 2) + xp.sum(xp.linalg.slogdet(gram)[1])

    return fun


def gathered(xp):
    return lambda x, index, power: xp.sum(x[index] ** power * x[index + 1])


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 3, dtype=torch.float64)
        self.last = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.first.weight.copy_(torch.from_numpy(LAYER.T))
            self.first.bias.copy_(torch.tensor([0.5, -0.5, 1.0]))
            self.last.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))

    def forward(self, pairs):
        return self.last(torch.tanh(self.first(pairs)))


NETWORK = Network()
PARAMETERS = {name: parameter.detach().numpy() for name, parameter in NETWORK.named_parameters()}


def network_jax(x, parameters):
    pairs = jnp.stack([x[1:], x[:-1]], 1)
    hidden = jnp.tanh(pairs @ parameters["first.weight"].T + parameters["first.bias"][None])
    return jnp.sum(hidden @ parameters["last.weight"].T)


def network_torch(x, parameters):
    return torch.sum(torch.func.functional_call(NETWORK, parameters, (torch.stack([x[1:], x[:-1]], 1),)))


CASES = {
    "scan": Case(scan_jax, scan_torch, 1),
    "fori_loop with dynamic indexing": Case(fori_jax, fori_torch, 1),
    "custom_jvp": Case(
        lambda x: jnp.sum(twice_jax(x[1:] - x[:-1])), lambda x: torch.sum(TwiceTorch.apply(x[1:] - x[:-1])), 1
    ),
    "custom_vjp": Case(
        lambda x: jnp.sum(twice_backwards_jax(x[1:] - x[:-1])),
        lambda x: torch.sum(TwiceTorch.apply(x[1:] - x[:-1])),
        1,
    ),
    "jit and vmap inside": Case(
        lambda x: jnp.sum(jax.jit(jax.vmap(lambda a, b: a**2 * jnp.sin(b)))(x[1:], x[:-1])),
        lambda x: torch.sum(torch.func.vmap(lambda a, b: a**2 * torch.sin(b))(x[1:], x[:-1])),
        1,
    ),
    "checkpoint": Case(
        lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.sin(x[1:] * x[:-1]))(x)),
        lambda x: torch.sum(torch.sin(x[1:] * x[:-1])),
        1,
    ),
    "gradient inside": Case(inner_gradient_jax, inner_gradient_torch, 2),
    "closure": Case(
        lambda x: jnp.sum(jnp.asarray(WEIGHT) * x**3), lambda x: torch.sum(torch.from_numpy(WEIGHT) * x**3), 0
    ),
    "written in place": Case(written_jax, written_torch, 1),
    "where": Case(branches(jnp), branches(torch), 1),
    "complex": Case(complex_values(jnp), complex_values(torch), 1),
    "convolution": Case(
        lambda x: jnp.sum(jnp.convolve(x, jnp.asarray(KERNEL)) ** 4),
        lambda x: torch.sum(
            torch.nn.functional.conv1d(x[None, None], torch.from_numpy(KERNEL[::-1].copy())[None, None], padding=2) ** 4
        ),
        2,
    ),
    "matrix products": Case(matrices(jnp, jnp.asarray), matrices(torch, torch.as_tensor), 3),
    "integers beside": Case(gathered(jnp), gathered(torch), 1, (np.array([4, 0, 2, 2]), 3)),
    "module": Case(network_jax, network_torch, 1, (PARAMETERS,)),
}


def arguments(backend: Backend, case: Case) -> tuple:
    return backend.tree_map(lambda a: backend.array(a) if isinstance(a, np.ndarray) else a, (X, *case.args))


MIXES = pytest.mark.promotes("complex numbers made of real ones")


@pytest.mark.parametrize("name", [pytest.param(name, marks=MIXES if name == "complex" else ()) for name in CASES])
def test_band_of_the_dense_hessian(backend: Backend, name: str) -> None:
    case = CASES[name]
    x, *args = arguments(BACKENDS["torch"], case)
    dense = torch.func.jacrev(torch.func.jacrev(case.torch))(x, *args).detach().numpy()
    expected = store(dense, case.bandwidth)
    assert not np.any(np.tril(dense, -case.bandwidth - 1)), "the case's own bandwidth is wrong"
    assert np.any(expected[case.bandwidth]), "the case's own bandwidth is wrong"

    fun = getattr(case, backend.name)
    x, *args = arguments(backend, case)
    ab = backend.numpy(backend.package.hessian(fun, case.bandwidth)(x, *args))
    np.testing.assert_allclose(ab, expected, rtol=0, atol=ROUNDING * np.finfo(float).eps * np.abs(expected).max())


def test_module_is_left_alone() -> None:
    """Parameters that require grad, as a module has them: the band carries their graph, and they get no gradient."""
    ab = BACKENDS["torch"].package.hessian(network_torch, 1)(torch.from_numpy(X), dict(NETWORK.named_parameters()))
    plain = BACKENDS["torch"].package.hessian(network_torch, 1)(
        torch.from_numpy(X), {name: parameter.detach() for name, parameter in NETWORK.named_parameters()}
    )
    np.testing.assert_array_equal(ab.detach(), plain)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in NETWORK.parameters())
    (gradient,) = torch.autograd.grad(ab.sum(), [NETWORK.last.weight])
    assert gradient.abs().sum() > 0


@pytest.mark.promotes("the function's types are mixed on purpose")
def test_sums_in_double(backend: Backend) -> None:
    """A float32 argument whose function computes in float64: the value is the function's, the band the argument's."""
    xp, double = backend.xp, backend.dtype("float64")

    def fun(x: Any) -> Any:
        y = x * backend.array(np.ones(3))
        return xp.sum(y[1:] ** 2 * y[:-1])

    value, grad, ab = backend.package.value_grad_hessian(fun, 1)(backend.array([1, 2, 3], "float32"))
    assert (value.dtype, grad.dtype, ab.dtype) == (double, backend.dtype("float32"), backend.dtype("float32"))
    np.testing.assert_array_equal(ab, [[0, 2, 4], [4, 6, 0]])
