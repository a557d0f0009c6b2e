"""Derivatives of what `sqp` and `newton` find where parts are missing: no constraints at all, or a Hessian that is
singular, where the value alone has one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import Backend

P = np.array([0.7, 1.2])


def both_modes(backend: Backend, fun: Any, p: np.ndarray) -> list[np.ndarray]:
    modes = (jax.jacfwd, jax.jacrev) if backend.name == "jax" else (torch.func.jacfwd, torch.func.jacrev)
    return [backend.numpy(mode(fun)(backend.array(p))) for mode in modes]


def test_no_constraints(backend: Backend) -> None:
    """min sum (x - p0)^2 + (x2 - p1)^2: every x is p0 but x2, between p0 and p1, and x0, at its bound p1."""

    def solution(p: Any) -> Any:
        low = backend.xp.stack([p[1], *(p[1] * 0 - 9,) * 3])
        fun = lambda x, p: ((x - p[0]) ** 2).sum() + (x[2] - p[1]) ** 2  # noqa: E731
        result = backend.package.sqp(fun, None, backend.array(np.zeros(4)), 0, args=(p,), bounds=(low, None), tol=1e-12)
        return backend.xp.concatenate([result.x, result.value[None], result.bound_multipliers[0]])

    gap = P[1] - P[0]
    expected = np.zeros((9, 2))
    expected[:4] = [[0, 1], [1, 0], [0.5, 0.5], [1, 0]]
    expected[4] = [-3 * gap, 3 * gap]  # of the value, gap^2 + gap^2 / 2
    expected[5] = [-2, 2]
    for found in both_modes(backend, solution, P):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_value_beside_what_has_no_derivative(backend: Backend) -> None:
    """x0 and x1 are determined in their sum alone, and x has no derivative; in one reverse pass with it the value has
    that of (p0 - p1)^2."""

    def both(p: Any) -> Any:
        fun = lambda x, p: (x[0] + x[1] - p[0]) ** 2 + (x[2] - p[1]) ** 2  # noqa: E731
        start = backend.array([0.3, 0.1, 0.0])
        result = backend.package.sqp(fun, lambda x, p: x[2:] - p[:1], start, 1, args=(p,))
        return backend.xp.concatenate([result.value[None], result.x])

    for found in both_modes(backend, both, P):
        np.testing.assert_allclose(found[0], [2 * (P[0] - P[1]), 2 * (P[1] - P[0])], rtol=1e-6)
        assert np.isnan(found[1:3]).any()


@pytest.mark.parametrize("solver", ["newton", "sqp"])
def test_a_singular_hessian(backend: Backend, solver: str) -> None:
    """x0 and x1 are determined in their sum alone. The value (p0 - p1)^2 / 2 has a derivative nevertheless."""

    def fun(x: Any, p: Any) -> Any:
        return (x[0] + x[1] - p[0]) ** 2 + (x[1] + x[0] - p[1]) ** 2 + (x[2] - p[0] * p[1]) ** 4

    def value(p: Any) -> Any:
        start, package = backend.array([0.3, 0.1, P.prod()]), backend.package
        if solver == "newton":
            return package.newton(fun, start, 1, args=(p,)).value
        return package.sqp(fun, None, start, 1, args=(p,)).value

    gap = P[0] - P[1]
    for found in both_modes(backend, value, P):
        np.testing.assert_allclose(found, [gap, -gap], rtol=1e-6)
