"""Derivatives of `sqp`'s solution, whatever depends on the argument: both modes, against finite differences.

One problem, whose cost, equalities, inequalities and bounds each depend on p where a switch says so. The switches are
arguments, so that all cases share a program; what JAX's transposition thinks of a part that depends on nothing at all
shows when it is traced, and needs no compilation.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend

P = np.array([0.7, 0.4])
PARTS = ("cost", "equalities", "inequalities", "bounds")
CASES = list(itertools.product((0.0, 1.0), repeat=4))
START = np.zeros(6)


@functools.cache
def functions(name: str) -> tuple:
    """One set of functions per backend, so that the tests share programs. The second row is a thousand times smaller
    than the first."""
    xp = BACKENDS[name].xp

    def cost(x: Any, p: Any, q: Any, r: Any) -> Any:
        return ((x - p[0]) ** 4).sum() / 4 + ((x - p[1]) ** 2).sum() / 2 + ((x[1:] - x[:-1]) ** 2).sum()

    def equalities(x: Any, p: Any, q: Any, r: Any) -> Any:
        return xp.stack([x[0] + x[1] ** 2 - q[0], 1e-3 * (x[2] * x[3] - q[1])])

    def inequalities(x: Any, p: Any, q: Any, r: Any) -> Any:
        return {"active": x[4:5] - 3 * r[1], "inactive": 9 * r[0] - x[:1]}

    return cost, equalities, inequalities


def bounds(backend: Backend, p: Any) -> tuple[Any, Any]:
    """x[2] is fixed, x[5] at its upper bound, x[3] far from either."""
    xp, number = backend.xp, backend.array
    fixed, inf = 1 + p[:1], np.inf
    lower = xp.concatenate([number([-inf, -inf]), fixed, number([-5.0, -inf, -inf])])
    return lower, xp.concatenate([number([inf, inf]), fixed, number([5.0, inf]), p[1:] / 2])


def solve(backend: Backend, parts: tuple) -> Any:
    """To the last digits, so that differences of solutions are derivatives; parts: p for the cost, ..., the bounds."""
    *args, last = parts
    cost, equalities, inequalities = functions(backend.name)
    return backend.package.sqp(
        cost, equalities, backend.array(START), 1, args=tuple(args), inequalities=inequalities,
        bounds=bounds(backend, last), tol=1e-13, max_steps=60,
    )  # fmt: skip


def outcome(backend: Backend, parts: tuple) -> Any:
    """All that has derivatives, in one vector."""
    result = solve(backend, parts)
    inequalities = [result.inequality_multipliers[name] for name in ("active", "inactive")]
    return backend.xp.concatenate(
        [result.x, result.value[None], result.multipliers, *inequalities, *result.bound_multipliers]
    )


def switched(backend: Backend, p: Any, switches: Any) -> Any:
    base = backend.array(P)
    return outcome(backend, tuple(base + switches[i] * (p - base) for i in range(4)))


@functools.cache
def derivatives(name: str) -> tuple:
    """(outcome, its Jacobian in forward mode, in reverse mode), functions of p and switches."""
    backend = BACKENDS[name]
    fun = functools.partial(switched, backend)
    transforms = (jax.jacfwd, jax.jacrev) if name == "jax" else (torch.func.jacfwd, torch.func.jacrev)
    return tuple(backend.jit(f) for f in (fun, *(transform(fun) for transform in transforms)))


def test_the_problem_is_what_it_says(backend: Backend) -> None:
    result = solve(backend, (backend.array(P),) * 4)
    assert result.status == backend.package.Status.CONVERGED
    x = backend.numpy(result.x)
    np.testing.assert_allclose(x[[2, 4, 5]], [1.7, 1.2, 0.2], rtol=1e-12)
    np.testing.assert_allclose([x[0] + x[1] ** 2, x[2] * x[3]], P, rtol=1e-12)
    assert result.inequality_multipliers["active"][0] > 0.1
    assert result.bound_multipliers[1][5] > 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(itertools.compress(PARTS, case)) or "nothing")
def test_against_finite_differences(backend: Backend, case: tuple) -> None:
    fun, *modes = derivatives(backend.name)
    switches, h = backend.array(case), 1e-5
    ends = [[backend.numpy(fun(backend.array(P + s * h * e), switches)) for s in (1, -1)] for e in np.eye(2)]
    expected = np.stack([(ahead - behind) / (2 * h) for ahead, behind in ends], -1)
    forward, reverse = (backend.numpy(mode(backend.array(P), switches)) for mode in modes)
    np.testing.assert_allclose(forward, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-9)
    assert (np.abs(expected).max() > 0.1) == any(case)


@pytest.mark.parametrize("part", range(4), ids=PARTS)
def test_one_part_alone_transposes(part: int) -> None:
    """Where the others depend on nothing: first derivatives in reverse mode, and second ones."""
    backend = BACKENDS["jax"]

    def alone(p: Any) -> Any:
        return outcome(backend, tuple(p if i == part else jnp.asarray(P) for i in range(4))).sum()

    assert jax.eval_shape(jax.grad(alone), jnp.asarray(P)).shape == (2,)
    assert jax.eval_shape(jax.hessian(alone), jnp.asarray(P)).shape == (2, 2)


def test_torch_vmap_and_nested_forward_mode() -> None:
    """Lanes are those solved alone, and all orders of the modes give one second derivative."""
    backend = BACKENDS["torch"]
    batch = backend.array(np.stack([P, 1.1 * P]))
    lanes = torch.func.vmap(lambda p: solve(backend, (p,) * 4)[:6])(batch)
    for i, p in enumerate(batch):
        alone = solve(backend, (p,) * 4)
        for together, apart in zip(lanes, alone[:6], strict=True):
            np.testing.assert_array_equal(together[i], apart)

    def total(p: Any) -> Any:
        return solve(backend, (p,) * 4).x.sum()

    by_forward_twice = torch.func.jacfwd(torch.func.jacfwd(total))(batch[0])
    by_forward_over_reverse = torch.func.hessian(total)(batch[0])
    by_reverse_over_reverse = torch.func.jacrev(torch.func.grad(total))(batch[0])
    np.testing.assert_allclose(by_forward_over_reverse, by_reverse_over_reverse, rtol=1e-8)
    np.testing.assert_allclose(by_forward_twice, by_reverse_over_reverse, rtol=1e-8)
    slopes = [torch.func.grad(total)(batch[0] + s * 1e-5 * backend.array([1.0, 0.0])) for s in (1, -1)]
    np.testing.assert_allclose(by_forward_over_reverse[0], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-5, atol=1e-6)
