"""Optimisers where there is nothing to choose: what they say, and what derivatives of that are."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import Backend

PRICE = 3.0
OFF = 0.5  # by so much the constraint is violated
SIDES: dict[str, dict[str, Any]] = {"equality alone": {}, "bounds": {"bounds": (0, 1)}}


def sqp_of(backend: Backend, price: Any, off: Any, **options: Any) -> Any:
    """f = price, c = off and g = 1 - off, whatever x is."""
    return backend.package.sqp(
        lambda x, price, off: backend.xp.sum(x**2) + price,
        lambda x, price, off: backend.xp.sum(x) + off,
        backend.array(np.zeros((0, 2))),
        1,
        args=(price, off),
        inequalities=lambda x, price, off: 1 - off - backend.xp.sum(x),
        **options,
    )


def newton_of(backend: Backend, price: Any) -> Any:
    """f = log(price)."""
    x = backend.array(np.zeros((0, 2)))
    return backend.package.newton(lambda x, price: backend.xp.sum(x**2) + backend.xp.log(price), x, 1, args=(price,))


def slopes(backend: Backend, fun: Any, at: float) -> np.ndarray:
    """In reverse and in forward mode."""
    point, tangent = backend.array(at), backend.array(1.0)
    return np.array([float(backend.grad(fun)(point)), float(backend.jvp(fun, (point,), (tangent,))[1])])


ENDS = {0.0: "CONVERGED", OFF: "INFEASIBLE", 2.0: "INFEASIBLE", np.inf: "NONFINITE"}  # by how far it is off


@pytest.mark.parametrize("sides", SIDES)
def test_what_sqp_says(backend: Backend, sides: str) -> None:
    p, options = backend.package, SIDES[sides]
    for off, status in ENDS.items():
        result = sqp_of(backend, backend.array(PRICE), backend.array(off), history=True, **options)
        assert (result.status, result.steps, float(result.value)) == (p.Status[status], 0, PRICE)
        assert float(result.constraint_norm) == max(off, off - 1)
        assert float(result.history.constraint_norm[0]) == off
        assert (result.bound_multipliers is None) == (not options)
        assert (backend.numpy(result.multipliers) == 0).all()
        assert ("NaN" in result.message) == (status != "CONVERGED")


@pytest.mark.parametrize("sides", SIDES)
def test_derivatives_of_sqp(backend: Backend, sides: str) -> None:
    """By the price, which the value reads, and by off, which it does not, but the problem does; in both modes."""

    def slopes_of(field: str, by: int) -> tuple:
        def found(at: Any, price: Any, off: Any) -> Any:
            result = sqp_of(backend, *((at, off) if by == 0 else (price, at)), **SIDES[sides])
            return backend.xp.sum(getattr(result, field))

        def forward(at: Any, *both: Any) -> Any:
            return backend.jvp(lambda at: found(at, *both), (at,), (backend.array(1.0),))[1]

        return backend.jit(backend.grad(found)), backend.jit(forward)

    slopes = {(field, by): slopes_of(field, by) for field, by in [("value", 0), ("value", 1), ("multipliers", 1)]}
    slopes["constraint_norm", 1] = slopes_of("constraint_norm", 1)
    for off, status in ENDS.items():
        both = backend.array(PRICE), backend.array(off)
        for (field, by), modes in slopes.items():
            known = 0.0 if field == "constraint_norm" else float(by == 0) if status == "CONVERGED" else np.nan
            known = np.nan if field == "multipliers" else known  # any other would do as well
            if off < np.inf or (field, by) != ("value", 1):
                np.testing.assert_array_equal([float(mode(both[by], *both)) for mode in modes], known)


@pytest.mark.parametrize(("price", "status"), [(PRICE, "CONVERGED"), (0.0, "NONFINITE"), (-1.0, "NONFINITE")])
def test_newton(backend: Backend, price: float, status: str) -> None:
    result = newton_of(backend, backend.array(price))
    assert (result.status, result.steps) == (backend.package.Status[status], 0)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(float(result.value), np.log(price), rtol=1e-15)
    expected = 1 / price if status == "CONVERGED" else np.nan
    np.testing.assert_allclose(slopes(backend, lambda price: newton_of(backend, price).value, price), expected)


def test_root(backend: Backend) -> None:
    y = backend.array(np.zeros((0, 2)))
    result = backend.package.root(lambda y: 2 * y, y, 0, 0)
    assert (result.status, result.steps, float(result.residual_norm)) == (backend.package.Status.CONVERGED, 0, 0.0)


def test_lanes(backend: Backend) -> None:
    """A lane that has no solution is NaN, and leaves the others alone."""
    p = backend.package
    offs = backend.array(np.array([0.0, OFF, 0.0]))
    of = lambda price, off: sqp_of(backend, price, off).value  # noqa: E731
    found = backend.vmap(lambda off: sqp_of(backend, backend.array(PRICE), off).status)(offs)
    np.testing.assert_array_equal(backend.numpy(found), [p.Status.CONVERGED, p.Status.INFEASIBLE, p.Status.CONVERGED])
    grads = backend.vmap(lambda off: backend.grad(lambda price: of(price, off))(backend.array(PRICE)))(offs)
    np.testing.assert_array_equal(backend.numpy(grads), [1, np.nan, 1])
    prices = backend.array(np.array([PRICE, 0.0]))
    found = backend.vmap(backend.grad(lambda price: newton_of(backend, price).value))(prices)
    np.testing.assert_allclose(backend.numpy(found), [1 / PRICE, np.nan])


def test_neither_variables_nor_constraints(backend: Backend) -> None:
    empty = backend.array(np.zeros((0, 2)))
    result = backend.package.sqp(lambda x: backend.xp.sum(x**2), lambda x: x[:, 0], empty, 1)
    assert (result.status, result.steps, float(result.value)) == (backend.package.Status.CONVERGED, 0, 0.0)
    assert backend.numpy(result.multipliers).shape == (0,)


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_one_reverse_pass_over_all(backend: Backend, off: float) -> None:
    """What has no derivative leaves that of the rest as it is."""

    def found(p: Any) -> Any:
        result = sqp_of(backend, p[0], p[1])
        return backend.xp.stack([result.value, backend.xp.sum(result.multipliers), p[0] * p[1]])

    reverse = jax.jit(jax.jacrev(found)) if backend.name == "jax" else torch.func.jacrev(found)
    value, multipliers, other = backend.numpy(reverse(backend.array([PRICE, off])))
    np.testing.assert_array_equal(value, [1, 0] if off == 0 else [np.nan] * 2)
    assert np.isnan(multipliers[1])
    np.testing.assert_array_equal(other, [off, PRICE])
