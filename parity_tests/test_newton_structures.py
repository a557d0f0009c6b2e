"""Newton with shared variables and closed curves: standard problems, and models with known answers."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from backends import Backend
from oracles import reals
from scipy.interpolate import make_interp_spline
from scipy.optimize import approx_fprime

EPS = np.finfo("float64").eps
LAST = {"x": 0, "y": None}


def bdqrtic(xp: Any, t: dict) -> Any:
    x, y = t["x"], t["y"]
    z = xp.concatenate([x, xp.reshape(y, (1,))])
    fourth = z[:-4] ** 2 + 2 * z[1:-3] ** 2 + 3 * z[2:-2] ** 2 + 4 * z[3:-1] ** 2 + 5 * y**2
    return xp.sum((3 - 4 * z[:-4]) ** 2 + fourth**2)


def arwhead(xp: Any, t: dict) -> Any:
    return xp.sum((t["x"] ** 2 + t["y"] ** 2) ** 2 - 4 * t["x"] + 3)


def liarwhd(xp: Any, t: dict) -> Any:
    x, y = t["x"], t["y"]
    return xp.sum(4 * (x**2 - y) ** 2 + (x - 1) ** 2) + 4 * (y**2 - y) ** 2 + (y - 1) ** 2


def nondia(xp: Any, t: dict) -> Any:
    x, y = t["x"], t["y"]
    return (y - 1) ** 2 + 100 * xp.sum((y - x[:-1] ** 2) ** 2) + 100 * (y - y**2) ** 2 + 1e-9 * x[-1] ** 2


# CUTEst's arrowheads, the variable that meets all others last: value, start, bandwidth, optimum, n.
ARROWHEADS = {
    "BDQRTIC": (bdqrtic, 1.0, 3, 3983.8179, 1000),
    "ARWHEAD": (arwhead, 1.0, 0, 0.0, 1000),
    "LIARWHD": (liarwhd, 4.0, 0, 0.0, 1000),
    "NONDIA": (nondia, -1.0, 0, 0.0, 1000),
}


@pytest.mark.parametrize("name", ARROWHEADS)
def test_arrowheads(backend: Backend, name: str) -> None:
    fun, start, k, optimum, n = ARROWHEADS[name]
    x0 = {"x": backend.array(np.full(n - 1, start)), "y": backend.array(np.array(start))}
    end = backend.package.newton(lambda t: fun(backend.xp, t), x0, k, stage_axes=LAST)
    assert end.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    np.testing.assert_allclose(float(end.value), optimum, rtol=1e-7, atol=1e-8)
    assert end.steps <= 15
    assert tuple(end.x["y"].shape) == ()


def pendula(xp: Any, x: Any) -> Any:
    """A ring of coupled pendula, pushed."""
    push = 0.3 * xp.sum(x[::3])
    return 1.5 * xp.sum((xp.roll(x, -1) - x) ** 2) + xp.sum(xp.cos(x)) + push


def test_ring_of_pendula(backend: Backend) -> None:
    """From a maximum of the potential; the end is a minimum by its dense Hessian."""
    package, fun = backend.package, lambda x: pendula(backend.xp, x)
    end = package.newton(fun, backend.array(np.zeros(31)), 1, periodic=True)
    assert end.status == package.Status.CONVERGED
    dense = backend.numpy(backend.jit(backend.dense_hessian(fun))(end.x))
    assert np.linalg.eigvalsh(dense)[0] > 0
    gradient = approx_fprime(backend.numpy(end.x), lambda x: float(fun(backend.array(x))))
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    narrow = package.newton(fun, backend.array(np.zeros(31)), 1)
    assert narrow.status == package.Status.BAND_TOO_NARROW
    assert "periodic=True" in narrow.message
    assert package.newton(fun, backend.array(np.zeros(31)), None, periodic=True).steps == end.steps


def test_closed_lap_of_unknown_duration(backend: Backend) -> None:
    """A closed band with a border: the curve of least energy through a ring of marks, slower where the lap is long."""
    xp, package = backend.xp, backend.package
    angle = 2 * np.pi * np.arange(12) / 12
    marks = backend.array(np.stack([2 * np.cos(angle), np.sin(angle)], 1))

    def fun(t: dict) -> Any:
        p, h = t["p"], xp.exp(t["log_h"])
        return xp.sum((xp.roll(p, -1, 0) - p) ** 2) / h + 12 * h + 5 * xp.sum((p - marks) ** 2)

    x0, axes = {"p": marks, "log_h": backend.array(np.array(0.0))}, {"p": 0, "log_h": None}
    end = package.newton(fun, x0, 1, stage_axes=axes, periodic=True)
    assert end.status == package.Status.CONVERGED
    H = package.hessian(fun, 1, stage_axes=axes, periodic=True)(end.x)
    assert isinstance(H.band, package.Cyclic)
    assert np.linalg.eigvalsh(backend.numpy(backend.jit(package.to_dense)(H)))[0] > 0
    p = backend.numpy(end.x["p"])
    length = np.sum((np.roll(p, -1, 0) - p) ** 2)
    np.testing.assert_allclose(float(xp.exp(end.x["log_h"])), np.sqrt(length / 12), rtol=1e-7)


def test_saddle(backend: Backend) -> None:
    """The hard case: a stationary start, whose curvature is negative for the shared variable alone."""
    xp, package = backend.xp, backend.package
    fun = lambda t: xp.sum((t["x"] - t["y"]) ** 2) + (t["y"] ** 2 - 1) ** 2 - xp.sum(t["y"] * 0)  # noqa: E731
    x0 = {"x": backend.array(np.zeros(6)), "y": backend.array(np.array(0.0))}
    end = package.newton(fun, x0, 0, stage_axes=LAST)
    assert end.status == package.Status.CONVERGED
    np.testing.assert_allclose(abs(float(end.x["y"])), 1, rtol=1e-6)
    np.testing.assert_allclose(float(end.value), 0, atol=1e-12)


@cache
def mixed_model() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random walk, and regression on three columns: y = level + X beta + noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = np.cumsum(0.3 * rng.normal(size=50)) + X @ [1.0, -2.0, 0.5] + 0.5 * rng.normal(size=50)
    return X, y, np.array([0.3, 0.5])


def test_linear_mixed_model(backend: Backend) -> None:
    """Coefficients and their variances are those of dense generalised least squares, the rest H's dense inverse."""
    X, y, (step, noise) = mixed_model()
    xp, package, data = backend.xp, backend.package, backend.array(X)
    seen = backend.array(y)

    def fun(t: dict) -> Any:
        misfit = seen - t["level"] - data @ t["beta"]
        walk = xp.sum((t["level"][1:] - t["level"][:-1]) ** 2) + t["level"][0] ** 2
        return xp.sum(misfit**2) / (2 * noise**2) + walk / (2 * step**2)

    x0 = {"level": backend.array(np.zeros(50)), "beta": backend.array(np.zeros(3))}
    axes = {"level": 0, "beta": None}
    end = package.newton(fun, x0, 1, stage_axes=axes)
    assert end.status == package.Status.CONVERGED
    assert end.steps == 1
    i = np.arange(1, 51)
    V = step**2 * np.minimum(i[:, None], i) + noise**2 * np.eye(50)
    information = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(information, X.T @ np.linalg.solve(V, y))
    np.testing.assert_allclose(backend.numpy(end.x["beta"]), beta, rtol=1e-9)
    H = package.hessian(fun, 1, stage_axes=axes)(end.x)
    run = backend.jit(lambda H: (package.inverse_band(package.factor(H)), package.to_dense(H)))
    variances, dense_hessian = run(H)
    np.testing.assert_allclose(backend.numpy(variances.corner), np.linalg.inv(information), rtol=1e-9)
    dense = np.linalg.inv(backend.numpy(dense_hessian))
    np.testing.assert_allclose(backend.numpy(variances.band)[0], np.diag(dense)[:50], rtol=1e-9)
    np.testing.assert_allclose(backend.numpy(variances.border), dense[50:, :50], rtol=1e-9, atol=1e-12)


def test_epidemic_with_shared_rates(backend: Backend) -> None:
    """Susceptible and infected by Euler steps, as penalised equations; the rates that made the data come back."""
    xp, package, T, beta, gamma = backend.xp, backend.package, 40, 0.6, 0.25
    s, i = [0.99], [0.01]
    for _ in range(T - 1):
        new = beta * s[-1] * i[-1]
        s, i = [*s, s[-1] - new], [*i, i[-1] + new - gamma * i[-1]]
    seen = backend.array(np.array(i))

    def residuals(t: dict) -> Any:
        (s, i), rates = (t["s"], t["i"]), xp.exp(t["log_rates"])
        new = rates[0] * s[:-1] * i[:-1]
        return [s[1:] - s[:-1] + new, i[1:] - i[:-1] - new + rates[1] * i[:-1], 10 * (i - seen), s[:1] - 0.99]

    x0 = {"s": backend.array(np.full(T, 0.6)), "i": seen, "log_rates": backend.array(np.log([0.4, 0.4]))}
    axes = {"s": 0, "i": 0, "log_rates": None}
    end = package.newton(residuals, x0, 1, stage_axes=axes, hessian="gauss_newton")
    assert end.status in (package.Status.CONVERGED, package.Status.PRECISION_FLOOR)
    np.testing.assert_allclose(np.exp(backend.numpy(end.x["log_rates"])), [beta, gamma], rtol=1e-4)


def test_periodic_spline(backend: Backend) -> None:
    """In its interpolating limit a periodic smoothing spline is the interpolating one: the values between the knots."""
    xp, package, m, fine = backend.xp, backend.package, 8, 16
    n = m * fine
    knots = np.arange(m + 1) / m
    values = np.sin(2 * np.pi * knots) + 0.4 * np.cos(6 * np.pi * knots)
    seen = backend.array(values[:-1])

    def fun(x: Any) -> Any:
        bend = (xp.roll(x, -1) - 2 * x + xp.roll(x, 1)) * n**2
        return xp.sum(bend**2) / n + 1e10 * xp.sum((x[::fine] - seen) ** 2)

    end = package.newton(fun, backend.array(np.zeros(n)), 2, periodic=True)
    assert end.status in (package.Status.CONVERGED, package.Status.PRECISION_FLOOR)
    spline = make_interp_spline(knots, values, k=3, bc_type="periodic")
    np.testing.assert_allclose(backend.numpy(end.x), spline(np.arange(n) / n), atol=5e-3)


def test_options(backend: Backend) -> None:
    """A given Hessian, a scale, a history; what does not fit is refused with what was expected."""
    package, fun = backend.package, lambda t: arwhead(backend.xp, t)
    x0 = {"x": backend.array(np.ones(9)), "y": backend.array(np.array(1.0))}
    plain = package.newton(fun, x0, 0, stage_axes=LAST)
    own = package.hessian(fun, 0, stage_axes=LAST)
    given = package.newton(fun, x0, 0, stage_axes=LAST, hessian=own)
    assert (given.steps, given.status) == (plain.steps, plain.status)
    scaled = package.newton(fun, x0, 0, stage_axes=LAST, scale=x0, history=True)
    assert scaled.status == package.Status.CONVERGED
    assert len(scaled.history.value) == scaled.steps + 1
    with pytest.raises(ValueError, match=r"hessian's result must be Bordered\(\(1, 9\)"):
        package.newton(fun, x0, 0, stage_axes=LAST, hessian=lambda t: own(t).band)


def test_implicit_derivatives(backend: Backend) -> None:
    """Of x and of the value, with respect to an argument, in both modes, against finite differences."""
    xp, package = backend.xp, backend.package
    x0 = {"x": backend.array(reals(5, 1)), "y": backend.array(np.array(0.4))}

    def fun(t: dict, c: Any) -> Any:
        ring = xp.sum((xp.roll(t["x"], -1) - t["x"] * t["y"]) ** 2)
        return ring + arwhead(xp, t) / 4 + c[0] * t["y"] + c[1] * xp.sum(t["x"] ** 2)

    def solution(c: Any) -> Any:
        end = package.newton(fun, x0, 1, args=(c,), stage_axes=LAST, periodic=True, tol=1e-12)
        return end.x["y"] + 2 * end.x["x"][2] + 3 * end.value

    at, step = np.array([0.3, 0.2]), 1e-5
    found = backend.numpy(backend.grad(solution)(backend.array(at)))
    differences = [
        (float(solution(backend.array(at + e))) - float(solution(backend.array(at - e)))) / (2 * step)
        for e in step * np.eye(2)
    ]
    np.testing.assert_allclose(found, differences, rtol=1e-6)
    along = np.array([1.0, -2.0])
    pushed = backend.jvp(solution, (backend.array(at),), (backend.array(along),))[1]
    np.testing.assert_allclose(float(pushed), found @ along, rtol=1e-9)
