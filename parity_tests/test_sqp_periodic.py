"""Closed curves under constraints: against SciPy, in both backends, with an odd and an even number of stages."""

from typing import Any

import numpy as np
import pytest
from backends import Backend
from scipy.optimize import minimize


def track(T: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a closed track, and its normals."""
    angle = 2 * np.pi * np.arange(T) / T
    radius = 3 + 0.8 * np.cos(3 * angle)
    middle = np.stack([1.5 * radius * np.cos(angle), radius * np.sin(angle)], 1)
    along = np.roll(middle, -1, 0) - np.roll(middle, 1, 0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    return middle, normal / np.linalg.norm(normal, axis=1)[:, None]


def bends(xp: Any, points: Any) -> Any:
    return xp.sum((xp.roll(points, -1, 0) - 2 * points + xp.roll(points, 1, 0)) ** 2)


@pytest.mark.parametrize("T", [24, 25])
def test_race_line(backend: Backend, T: int) -> None:
    """The line of least curvature within the track's width, as SciPy finds it; the width holds around the seam."""
    middle, normal = track(T)
    package, xp = backend.package, backend.xp
    here, across = backend.array(middle), backend.array(normal)
    fun = lambda e: bends(xp, here + e[:, None] * across)  # noqa: E731
    start = backend.array(np.zeros(T))
    end = package.sqp(fun, None, start, 2, bounds=(-0.4, 0.4), periodic=True)
    assert end.status == package.Status.CONVERGED
    dense = minimize(
        lambda e: bends(np, middle + e[:, None] * normal), np.zeros(T), bounds=[(-0.4, 0.4)] * T, tol=1e-14
    )
    np.testing.assert_allclose(float(end.value), dense.fun, rtol=1e-6)
    assert end.x.shape == (T,)
    assert float(abs(end.x).max()) <= 0.4
    if T % 2:
        narrow = package.sqp(fun, None, start, 2, bounds=(-0.4, 0.4))
        assert narrow.status == package.Status.BAND_TOO_NARROW
        assert "periodic=True" in narrow.message


@pytest.mark.parametrize("T", [7, 8])
def test_closed_loop_of_points(backend: Backend, T: int) -> None:
    """Equally long links around a ring, and one point held: rows that join the last stage to the first, with their
    multipliers in the user's order, from which the gradient of the Lagrangian is formed again."""
    package, xp = backend.package, backend.xp
    angle = 2 * np.pi * np.arange(T) / T
    start = {"p": backend.array(np.stack([np.cos(angle), np.sin(angle)], 1))}

    def fun(x: dict) -> Any:
        return xp.sum(x["p"][:, 1]) + 0.1 * xp.sum((x["p"][:, 0] - 0.3) ** 2)

    def constraints(x: dict) -> dict:
        links = xp.roll(x["p"], -1, 0) - x["p"]
        return {"length": xp.sum(links**2, 1) - 0.4, "held": x["p"][0] - start["p"][0]}

    end = package.sqp(fun, constraints, start, 1, periodic=True)
    assert end.status == package.Status.CONVERGED
    assert float(end.constraint_norm) < 1e-8
    assert tuple(end.multipliers["length"].shape) == (T,)

    def lagrangian(x: dict) -> Any:
        c = constraints(x)
        return fun(x) + xp.sum(c["length"] * end.multipliers["length"]) + xp.sum(c["held"] * end.multipliers["held"])

    np.testing.assert_allclose(backend.numpy(backend.grad(lagrangian)(end.x)["p"]), 0, atol=1e-6)
    again = package.sqp(fun, constraints, start, 1, periodic=True, start=end)
    assert again.status == package.Status.CONVERGED
    assert again.steps <= 1
