"""Newton's method: reference optima, honest ends, the same steps in both backends, transforms, arguments.

The derivatives of the solution are in `test_implicit.py`.
"""

import functools
import inspect
import itertools
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import torch
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    MINIMISATIONS,
    Landscape,
    Minimisation,
    landscape,
    landscape_derivatives,
    reals,
    steering_stages,
    window,
)

import bandhess_jax
import bandhess_torch

EPS = np.finfo("float64").eps
TOL = EPS**0.5  # the default
N = 6
HERE = np.array([0.5, -0.3, 0.8, 0.1, -0.6, 0.4])
HISTORIC = Landscape(curvature=-1, quartic=1, spring=1)

# One function object per backend, so that every test with it runs the program compiled first.
LANDSCAPE = {name: landscape(backend.xp) for name, backend in BACKENDS.items()}


def on_landscape(backend: Backend, x: np.ndarray, c: Landscape, **options: Any) -> Any:
    args = (backend.array(c.array()),)
    return backend.package.newton(LANDSCAPE[backend.name], backend.array(x), 1, args=args, **options)


@functools.cache
def minimise(problem: Minimisation, name: str) -> Any:
    backend = BACKENDS[name]
    return backend.package.newton(problem.objective(backend.xp), backend.array(problem.start), problem.bandwidth)


# --- Reference problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", MINIMISATIONS, ids=str)
def test_reference_optimum(backend: Backend, problem: Minimisation) -> None:
    result = minimise(problem, backend.name)
    fun = problem.objective(backend.xp)
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    assert abs(float(result.value) - problem.optimum) <= 1e-8 * max(1, abs(problem.optimum))
    # What is reported is what is there. (An entry of the gradient is a difference of much larger terms.)
    assert tuple(result.x.shape) == problem.start.shape
    scale = max(1, abs(problem.optimum))
    value, gradient = backend.jit(lambda x: (fun(x), backend.grad(fun)(x)))(result.x)
    np.testing.assert_allclose(float(value), float(result.value), rtol=0, atol=64 * EPS * scale)
    largest = np.abs(backend.numpy(gradient)).max()
    np.testing.assert_allclose(largest, float(result.grad_norm), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(("name", "limit"), [("path2d", 9), ("curly10", 16), ("genrose", 850)])
def test_few_steps(backend: Backend, name: str, limit: int) -> None:
    problem = next(problem for problem in MINIMISATIONS if problem.name == name)
    assert 0 < minimise(problem, backend.name).steps <= limit


@pytest.mark.parametrize("problem", MINIMISATIONS, ids=str)
def test_backends_take_the_same_steps(problem: Minimisation) -> None:
    """To the step on short runs; along GENROSE's valley, rounding adds up over several hundred of them."""
    by_jax, by_torch = minimise(problem, "jax"), minimise(problem, "torch")
    if max(by_jax.steps, by_torch.steps) < 50:
        assert by_jax.steps == by_torch.steps
    else:
        assert abs(by_jax.steps - by_torch.steps) <= 0.05 * max(by_jax.steps, by_torch.steps)
    assert by_jax.status == by_torch.status
    np.testing.assert_allclose(float(by_jax.value), float(by_torch.value), rtol=1e-8, atol=1e-8)


def test_ragged_tree(backend: Backend) -> None:
    """{"q": (T, 3), "u": (T - 1, 2)}: to the minimiser, in the structure of the start, with scales given like it."""
    problem = steering_stages(7, ragged=True)
    fun, args = problem.objective(backend.xp), tuple(map(backend.array, problem.args))
    x0 = backend.tree_map(lambda leaf: backend.array(leaf), problem.x)
    scale = backend.tree_map(lambda leaf: 3 + backend.xp.abs(leaf), x0)
    result = backend.package.newton(fun, x0, 1, args=args, scale=scale)
    assert result.status == backend.package.Status.CONVERGED
    assert {key: tuple(leaf.shape) for key, leaf in result.x.items()} == {k: v.shape for k, v in problem.x.items()}
    # 0.5 |r|^2 + sum u^4 / 4 + q^2 / 2 >= 0, with equality at the origin alone.
    assert 0 <= float(result.value) <= 1e-8
    gradient = backend.leaves(backend.jit(backend.grad(fun))(result.x, *args))
    largest = max(np.abs(backend.numpy(leaf)).max() for leaf in gradient)
    np.testing.assert_allclose(largest, float(result.grad_norm), rtol=1e-6, atol=1e-15)


def test_float32(backend: Backend) -> None:
    x0 = backend.array(np.full(50, 2.0), "float32")
    result = backend.package.newton(
        lambda x: backend.xp.sum((x - 1) ** 4) + backend.xp.sum((x[1:] - x[:-1]) ** 2), x0, 1
    )
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    for part in (result.x, result.value, result.grad_norm):
        assert part.dtype == backend.dtype("float32")
    assert 0 <= float(result.value) <= 50 * np.finfo("float32").eps ** 0.5


# --- Honest ends -----------------------------------------------------------------------------------------------------

ENDS = {
    "convex": (Landscape(curvature=1, spring=2), HERE, "CONVERGED"),
    "quartic": (Landscape(quartic=1, spring=1), HERE, "CONVERGED"),
    "at the minimum": (Landscape(curvature=1, spring=2), np.zeros(N), "CONVERGED"),
    "flat": (Landscape(), HERE, "CONVERGED"),
    "falling plane": (Landscape(tilt=1), HERE, "UNBOUNDED"),
    "concave": (Landscape(curvature=-1), HERE, "UNBOUNDED"),
    "concave, from its maximum": (Landscape(curvature=-1), np.zeros(N), "UNBOUNDED"),
    "falling quartic": (Landscape(quartic=-1, spring=1), HERE, "UNBOUNDED"),
    "NaN at the start": (Landscape(tilt=math.nan, curvature=1), HERE, "NONFINITE"),
    "infinity at the start": (Landscape(tilt=math.inf, curvature=1), HERE, "NONFINITE"),
    "coupling outside the band": (Landscape(curvature=5, far=1), HERE, "BAND_TOO_NARROW"),
    "coupling that shows later": (Landscape(tilt=-1, curvature=1, far_later=1), np.zeros(N), "BAND_TOO_NARROW"),
    "kinks": (Landscape(curvature=0.5, spring=1, kink=1), HERE, "STALLED"),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends(backend: Backend, end: str) -> None:
    c, x0, status = ENDS[end]
    result = on_landscape(backend, x0, c)
    assert result.status == backend.package.Status[status]
    assert isinstance(result.status, backend.package.Status)
    assert type(result.steps) is int
    if status in ("NONFINITE", "BAND_TOO_NARROW") and end != "coupling that shows later":
        assert result.steps == 0
        np.testing.assert_array_equal(result.x, x0)


@pytest.mark.parametrize(("roundings", "status"), [(15, "STALLED"), (15 * 2**20, "MAX_STEPS")])
def test_creeping_is_no_progress(backend: Backend, roundings: int, status: str) -> None:
    """A valley whose floor is a kink: every step crosses it and falls by a third or two of its promise, so that neither
    does the radius grow nor a step fail. Steps of some roundings are an end; those a million times as long are not."""
    x0 = np.array([1 - roundings * np.finfo("float64").eps, 0])
    result = backend.package.newton(lambda x: backend.xp.abs(x[0] - 1) - x[1], backend.array(x0), 0, max_steps=100)
    assert result.status == backend.package.Status[status]
    assert 0 < float(result.x[1]) < 1e4 * roundings * np.finfo("float64").eps


@pytest.mark.parametrize("end", ["convex", "falling plane", "kinks"])
def test_the_value_never_rises(backend: Backend, end: str) -> None:
    c, x0, _ = ENDS[end]
    result = on_landscape(backend, x0, c)
    start = float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))
    assert float(result.value) < start


@pytest.mark.parametrize("spring", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "start",
    [
        np.zeros(N),
        np.array([1.0, 0, 0, 0, 0, 0]),
        np.full(N, 1e-9),
        np.array([1.0, 1, 1, -1, -1, -1]),
        np.array([2.0, 0, 0, 0, 0, 0]),  # without springs, the gradient has no part in what curves downwards
    ],
    ids=["maximum", "off the maximum", "near the maximum", "wells", "hard case"],
)
def test_double_well_is_left_at_its_top(backend: Backend, spring: float, start: np.ndarray) -> None:
    """x^4/4 - x^2/2 in every variable: x = 0 is a stationary maximum, and no end for a minimisation."""
    c = Landscape(curvature=-1, quartic=1, spring=spring)
    result = on_landscape(backend, start, c)
    assert result.status == backend.package.Status.CONVERGED
    gradient, hessian = landscape_derivatives(backend.numpy(result.x), c)
    assert np.abs(gradient).max() <= 1e-6
    assert np.linalg.eigvalsh(hessian)[0] >= -TOL * np.linalg.norm(hessian, 2)
    assert float(result.value) < -0.1


def test_saddle_is_left(backend: Backend) -> None:
    """Gradient zero and curvature of both signs at the start: minus in the rigid motion, plus in all others."""
    c = Landscape(curvature=-0.01, quartic=1, spring=10)
    _, hessian = landscape_derivatives(np.zeros(N), c)
    low, second = np.linalg.eigvalsh(hessian)[:2]
    assert low < 0 < second
    result = on_landscape(backend, np.zeros(N), c)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(np.abs(backend.numpy(result.x)), 0.1, rtol=0, atol=1e-6)


def test_a_small_saddle_is_no_minimum(backend: Backend) -> None:
    """Curvatures of 1e-20 and -1e-20 count in float32, too, though their squares do not."""
    start = backend.array(np.array([1.0, 0.0]), "float32")
    result = backend.package.newton(lambda x: 1e-20 * (x[0] ** 2 - x[1] ** 2 + x[1] ** 4), start, 0)
    assert result.status != backend.package.Status.CONVERGED or abs(float(result.x[1])) > 0.5


WAY: list = []  # one callback for all examples below, so that they share a program


def note(info: Any) -> None:
    WAY.append(float(info.grad_norm))


@given(
    tilt=st.sampled_from([0.0, 0.3, -1.0]),
    curvature=st.sampled_from([-2.0, -0.5, 0.0, 1.0]),
    spring=st.sampled_from([-0.5, 0.0, 0.3, 5.0]),
    size=st.sampled_from([1e-6, 0.5, 4.0]),
    seed=st.integers(0, 99),
)
def test_converged_means_a_minimum(
    backend: Backend, tilt: float, curvature: float, spring: float, size: float, seed: int
) -> None:
    """The stopping formula of the docstring, and second-order honesty, on landscapes that have a minimum."""
    c = Landscape(tilt, curvature, quartic=1, spring=spring)
    WAY.clear()
    result = on_landscape(backend, size * reals(N, seed), c, callback=note)
    assert result.status == backend.package.Status.CONVERGED
    x = backend.numpy(result.x)
    gradient, hessian = landscape_derivatives(x, c)
    np.testing.assert_allclose(float(result.grad_norm), np.abs(gradient).max(), rtol=1e-6, atol=1e-14)
    rounding = 8 * EPS * (np.abs(hessian) @ np.abs(x)).max()
    assert np.abs(gradient).max() <= 1.001 * max(TOL * max(1, *WAY), rounding)
    assert np.linalg.eigvalsh(hessian)[0] >= -TOL * np.abs(hessian).sum(1).max()


@pytest.mark.parametrize("max_steps", [0, 2])
def test_max_steps(backend: Backend, max_steps: int) -> None:
    result = on_landscape(backend, 4 * HERE, Landscape(quartic=1, spring=1), max_steps=max_steps)
    assert result.status == backend.package.Status.MAX_STEPS
    assert result.steps == max_steps


def test_unchecked_band(backend: Backend) -> None:
    c, x0, _ = ENDS["coupling outside the band"]
    result = on_landscape(backend, x0, c, check_band=False)
    assert result.status != backend.package.Status.BAND_TOO_NARROW
    assert float(result.value) < float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))


def test_domain_with_a_border(backend: Backend) -> None:
    """Trial points where f is NaN (log of a negative number) are turned down, not fallen for."""

    def fun(x):
        return backend.xp.sum(x**2 / 2 - backend.xp.log(x)) + backend.xp.sum((x[1:] - x[:-1]) ** 2)

    result = backend.package.newton(fun, backend.array(10.0 ** np.linspace(-3, 1, N)), 1)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x), np.ones(N), rtol=0, atol=1e-7)


def test_minimum_outside_the_domain(backend: Backend) -> None:
    """f is NaN where x <= 0.5 somewhere, and falls towards there."""

    def fun(x):
        return backend.xp.sum(x**2) / 2 + 0 * backend.xp.sum(backend.xp.log(x - 0.5))

    result = backend.package.newton(fun, backend.array(np.full(3, 2.0)), 0)
    assert result.status == backend.package.Status.NONFINITE
    np.testing.assert_allclose(backend.numpy(result.x).min(), 0.5, rtol=1e-6)
    assert math.isfinite(float(result.value))


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 3)])
def test_small_sizes(backend: Backend, n: int, k: int) -> None:
    result = backend.package.newton(lambda x: backend.xp.sum((x - 3) ** 2), backend.array(np.zeros(n)), k)
    assert result.status == backend.package.Status.CONVERGED
    assert float(result.grad_norm) <= TOL
    np.testing.assert_allclose(backend.numpy(result.x), np.full(n, 3.0), rtol=0, atol=1e-12)


def test_tolerance(backend: Backend) -> None:
    """A looser tolerance than the default takes fewer steps and leaves a larger gradient."""
    c = Landscape(quartic=1, spring=1)
    loose, tight = on_landscape(backend, 4 * HERE, c, tol=1e-2), on_landscape(backend, 4 * HERE, c)
    assert loose.status == tight.status == backend.package.Status.CONVERGED
    assert loose.steps < tight.steps
    assert float(tight.grad_norm) < float(loose.grad_norm)


# --- Scales, Hessians, time ------------------------------------------------------------------------------------------


def test_scale(backend: Backend) -> None:
    """In x / scale the problem is the plain landscape: the same steps to the same point, to the last bit."""
    sizes = 2.0 ** np.array([0, 10, -7, 3, -12, 5])
    c = Landscape(tilt=0.1, curvature=-1, quartic=1, spring=0.5)
    args = (backend.array(c.array()), backend.array(sizes))
    plain = on_landscape(backend, 4 * HERE, c)

    def fun(x, c, sizes):
        return LANDSCAPE[backend.name](x / sizes, c)

    def solve(scale):
        return backend.package.newton(fun, backend.array(4 * HERE * sizes), 1, args=args, scale=scale)

    given = solve(backend.array(sizes * 0.75))  # 0.75 is rounded up
    np.testing.assert_array_equal(backend.numpy(given.x), backend.numpy(plain.x) * sizes)
    assert (given.steps, float(given.value), given.status) == (plain.steps, float(plain.value), plain.status)
    gradient = landscape_derivatives(backend.numpy(plain.x), c)[0]
    np.testing.assert_allclose(float(given.grad_norm), np.abs(gradient / sizes).max(), rtol=1e-3, atol=1e-12)
    unscaled, diagonal = solve(None), solve("diagonal")
    assert unscaled.steps > 2 * given.steps
    assert diagonal.steps <= 2 * given.steps
    assert diagonal.status == backend.package.Status.CONVERGED


def test_hessians(backend: Backend) -> None:
    """Least squares by J^T J, by the same band given as a function, and by the exact Hessian: one minimiser."""
    xp, package = backend.xp, backend.package

    def residuals(x, target):
        return {"valley": 10 * (x[1:] - x[:-1] ** 2), "pull": (x - target)[:, None]}

    def fun(x, target):
        r = residuals(x, target)
        return (xp.sum(r["valley"] ** 2) + xp.sum(r["pull"] ** 2)) / 2

    def band(x, target):
        return package.gauss_newton(residuals, 1)(x, target)

    x0, target = backend.array(HERE), backend.array(np.linspace(1, 2, N))
    squares = package.newton(residuals, x0, 1, args=(target,), hessian="gauss_newton")
    given = package.newton(fun, x0, 1, args=(target,), hessian=band)
    exact = package.newton(fun, x0, 1, args=(target,))

    def flat(x):
        return np.concatenate([10 * (x[1:] - x[:-1] ** 2), x - np.linspace(1, 2, N)])

    known = scipy.optimize.least_squares(flat, HERE, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    for result in (squares, given, exact):
        assert result.status in (package.Status.CONVERGED, package.Status.PRECISION_FLOOR)
        np.testing.assert_allclose(backend.numpy(result.x), known.x, rtol=0, atol=1e-5)
        np.testing.assert_allclose(float(result.value), known.cost, rtol=1e-9)
    assert squares.steps == given.steps > exact.steps
    with pytest.raises(ValueError, match=r"hessian must return a lower band of shape \(2, 6\).*got \(1, 6\)"):
        package.newton(fun, x0, 1, args=(target,), hessian=lambda x, target: band(x, target)[:1])


def test_too_narrow_for_the_residuals(backend: Backend) -> None:
    result = backend.package.newton(
        lambda x: x[2:] - x[:-2] ** 2, backend.array(HERE), 1, hessian="gauss_newton", max_steps=5
    )
    assert result.status == backend.package.Status.BAND_TOO_NARROW


def test_time_limit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second whenever it is read."""
    c, x0 = Landscape(curvature=-1, quartic=1, spring=1), 4 * HERE
    free = on_landscape(backend, x0, c)
    module = {"jax": bandhess_jax.framework.clock, "torch": bandhess_torch.optimise.newton.trust_region}[backend.name]
    clock = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    ample = on_landscape(backend, x0, c, max_seconds=1e6)
    np.testing.assert_array_equal(ample.x, free.x)
    assert ample[1:5] == free[1:5]

    short = on_landscape(backend, x0, c, max_seconds=4)
    assert short.status == backend.package.Status.TIME_LIMIT
    assert 0 < short.steps < free.steps
    start, here = (float(LANDSCAPE[backend.name](x, backend.array(c.array()))) for x in (backend.array(x0), short.x))
    np.testing.assert_allclose(here, float(short.value), rtol=8 * EPS)
    assert here < start


# --- What is reported ------------------------------------------------------------------------------------------------


def test_result_fields(backend: Backend) -> None:
    assert backend.package.NewtonResult._fields == ("x", "value", "grad_norm", "steps", "status", "history")
    codes = ["CONVERGED", "PRECISION_FLOOR", "MAX_STEPS", "STALLED", "NONFINITE", "BAND_TOO_NARROW", "INFEASIBLE",
             "RANK_DEFICIENT", "UNBOUNDED", "TIME_LIMIT"]  # fmt: skip
    assert [(status.name, int(status)) for status in backend.package.Status] == [(c, i) for i, c in enumerate(codes)]


def test_callback_and_verbose(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    """At x0 and after every accepted step: a call with the values along the way, and a line that says the same."""
    infos: list = []
    x0, c = 4 * HERE, Landscape(curvature=-1, quartic=1, spring=1)
    result = on_landscape(backend, x0, c, callback=infos.append, verbose=True)
    assert result.steps == on_landscape(backend, x0, c).steps > 3  # looking on changes nothing
    assert [int(info.step) for info in infos] == list(range(result.steps + 1))
    assert all(isinstance(info, backend.package.StepInfo) for info in infos)
    values = [float(info.value) for info in infos]
    start = float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))
    np.testing.assert_allclose(values[0], start, rtol=8 * EPS)
    assert values[-1] == float(result.value)
    assert float(infos[-1].grad_norm) == float(result.grad_norm)
    assert np.all(np.diff(values) <= TOL * np.abs(values[:-1]))  # the last polish may rise by rounding
    assert all(float(info.radius) > 0 and float(info.shift) >= 0 for info in infos)

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["step", "f", "|grad|"]
    assert [int(line.split()[0]) for line in lines] == list(range(result.steps + 1))
    np.testing.assert_allclose([float(line.split()[1]) for line in lines], values, rtol=1e-11)


def test_history(backend: Backend) -> None:
    """Against what a callback sees; and on a quadratic, where everything is known."""
    infos: list = []
    result = on_landscape(backend, 4 * HERE, HISTORIC, callback=infos.append, history=True, max_steps=50)
    rows = {name: backend.numpy(row) for name, row in result.history._asdict().items()}
    assert all(row.shape == (result.steps + 1,) for row in rows.values())
    for name in ("value", "grad_norm", "shift", "radius"):
        np.testing.assert_array_equal(rows[name], [float(getattr(info, name)) for info in infos])
    assert np.isnan(rows["ratio"][0])
    assert rows["step"][0] == 0
    assert np.all(rows["ratio"][1:-1] >= 0.25)  # the bound of acceptance; the last may be rounding
    assert np.all(rows["step"][1:] > 0)
    assert np.any(rows["shift"] > 0)
    assert result.history._fields == ("value", "grad_norm", "step", "shift", "radius", "ratio")

    quadratic = Landscape(curvature=1, spring=2)
    result = on_landscape(backend, HERE, quadratic, callback=infos.append, history=True, max_steps=50)
    gradient, hessian = landscape_derivatives(HERE, quadratic)
    expected = ([HERE @ hessian @ HERE / 2, 0], [np.abs(gradient).max(), 0], [0, np.linalg.norm(HERE)], [0, 0])
    for row, numbers in zip(result.history, expected, strict=False):
        np.testing.assert_allclose(backend.numpy(row), numbers, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(float(result.history.ratio[1]), 1, rtol=1e-12)
    assert on_landscape(backend, HERE, quadratic).history is None


def test_silent_by_default(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    on_landscape(backend, HERE, Landscape(curvature=1))
    assert capsys.readouterr().out == ""


def test_evaluations(backend: Backend) -> None:
    """On a quadratic: derivatives at both ends, a value per trial, and at most one more for the band check."""
    calls: list = []
    fun = backend.tapped(lambda x: backend.xp.sum((x[1:] - 2 * x[:-1]) ** 2) + backend.xp.sum(x**2), calls)
    result = backend.package.newton(fun, backend.array(HERE), 1)
    backend.settle()
    assert (result.status, result.steps) == (backend.package.Status.CONVERGED, 1)
    assert 3 <= len(calls) <= 4


def test_no_dense_matrix(backend: Backend) -> None:
    n, w = 1009, 3
    x0 = backend.array(reals(n, 0))
    fun = window(w)(backend.xp)
    largest = backend.largest_array(lambda x: backend.package.newton(fun, x, w, max_steps=2).x, x0)
    assert n < largest <= (2 * w + 1) * (n + 2 * (2 * w + 1))


# --- Transforms ------------------------------------------------------------------------------------------------------


def test_jit() -> None:
    backend = BACKENDS["jax"]

    @jax.jit
    def solve(x0, c):
        return backend.package.newton(LANDSCAPE["jax"], x0, 1, args=(c,))

    for end in ("convex", "concave", "NaN at the start"):
        c, x0, status = ENDS[end]
        result = solve(jnp.asarray(x0), jnp.asarray(c.array()))
        assert int(result.status) == backend.package.Status[status]
        assert result.status.dtype == result.steps.dtype == np.int32
        np.testing.assert_array_equal(result.x, on_landscape(backend, x0, c).x)


def test_reports_under_jit(capsys: pytest.CaptureFixture) -> None:
    """A callback and the table work under jit; the history has room for max_steps, and NaN beyond the end."""
    backend, infos = BACKENDS["jax"], []
    options = {"history": True, "max_steps": 50}
    x0, c = jnp.asarray(4 * HERE), jnp.asarray(HISTORIC.array())
    watched = jax.jit(
        lambda x0: backend.package.newton(
            LANDSCAPE["jax"], x0, 1, args=(c,), callback=infos.append, verbose=True, **options
        )
    )(x0)
    jax.effects_barrier()
    alone = on_landscape(backend, 4 * HERE, HISTORIC, history=True, max_steps=50)
    assert [int(info.step) for info in infos] == list(range(alone.steps + 1))
    assert len(capsys.readouterr().out.splitlines()) == alone.steps + 2
    for row, short in zip(watched.history, alone.history, strict=True):
        assert row.shape == (51,)
        np.testing.assert_array_equal(row[: alone.steps + 1], short)
        assert np.isnan(row[alone.steps + 1 :]).all()


def test_vmap_keeps_lanes_apart() -> None:
    """Lanes of every end in one batch: each as if it were alone."""
    backend = BACKENDS["jax"]
    starts = jnp.asarray([x0 for _, x0, _ in ENDS.values()])
    coefficients = jnp.asarray([c.array() for c, _, _ in ENDS.values()])
    batch = jax.vmap(lambda x0, c: backend.package.newton(LANDSCAPE["jax"], x0, 1, args=(c,)))
    result = batch(starts, coefficients)
    for lane, (end, (c, x0, status)) in enumerate(ENDS.items()):
        assert backend.package.Status(int(result.status[lane])).name == status, end
        alone = on_landscape(backend, x0, c)
        if status == "CONVERGED":
            assert int(result.steps[lane]) == alone.steps
            np.testing.assert_allclose(result.x[lane], alone.x, rtol=0, atol=1e-7)


def test_torch_vmap() -> None:
    """One lane after the other, with a status each."""
    backend, ends = BACKENDS["torch"], ["convex", "falling plane", "NaN at the start"]
    starts = torch.stack([backend.array(ENDS[end][1]) for end in ends])
    coefficients = torch.stack([backend.array(ENDS[end][0].array()) for end in ends])
    solve = torch.func.vmap(lambda x0, c: backend.package.newton(LANDSCAPE["torch"], x0, 1, args=(c,))[:5])
    batch = backend.package.NewtonResult(*solve(starts, coefficients))
    for lane, end in enumerate(ends):
        c, x0, status = ENDS[end]
        alone = on_landscape(backend, x0, c)
        np.testing.assert_array_equal(batch.x[lane], alone.x)
        assert backend.package.Status(int(batch.status[lane])).name == status
        assert int(batch.steps[lane]) == alone.steps


def test_new_arguments_do_not_retrace() -> None:
    traces: list = []
    package = BACKENDS["jax"].package

    def fun(x, target):
        traces.append(None)
        return jnp.sum((x - target) ** 2) + jnp.sum((x[1:] - x[:-1]) ** 2)

    for seed in range(3):
        target = jnp.full(5, float(seed))
        result = package.newton(fun, jnp.asarray(reals(5, seed)), 1, args=(target,))
        np.testing.assert_allclose(result.x, target, rtol=0, atol=1e-12)
    assert len(traces) == 1


def test_torch_leaves_autograd_alone() -> None:
    """A start that requires grad, a module's parameter say, gives a plain result; grad mode stays as it was."""
    x0 = torch.tensor(HERE, requires_grad=True)
    c = torch.tensor(Landscape(curvature=1).array())
    result = BACKENDS["torch"].package.newton(LANDSCAPE["torch"], x0, 1, args=(c,))
    assert result.status == BACKENDS["torch"].package.Status.CONVERGED
    assert not result.x.requires_grad
    assert not result.value.requires_grad
    assert torch.is_grad_enabled()
    assert x0.grad is None
    np.testing.assert_array_equal(x0.detach(), HERE)


# --- Arguments -------------------------------------------------------------------------------------------------------


def test_arguments(backend: Backend) -> None:
    """Trees, floats, ints and strings in `args`."""

    def fun(x, tree, order, kind, factor):
        assert (order, kind) == (1, "chain")
        return factor * backend.xp.sum((x - tree["target"]) ** 2) + 0 * backend.xp.sum(x[order:] * x[:-order])

    target = backend.array(reals(4, 0))
    args = ({"target": target}, 1, "chain", 2.5)
    result = backend.package.newton(fun, backend.array(np.zeros(4)), 1, args=args)
    np.testing.assert_allclose(backend.numpy(result.x), reals(4, 0), rtol=0, atol=1e-12)


def test_defaults(backend: Backend) -> None:
    defaults = {name: p.default for name, p in inspect.signature(backend.package.newton).parameters.items()}
    assert (defaults["args"], defaults["callback"], defaults["verbose"]) == ((), None, False)


def test_bad_input(backend: Backend) -> None:
    x0 = backend.array(HERE)

    def call(fun=lambda x: backend.xp.sum(x**2), x0=x0, bandwidth=1, **options):
        return lambda: backend.package.newton(fun, x0, bandwidth, **options)

    bad = [
        (TypeError, "fun must be a function, got NoneType", call(None)),
        (TypeError, "args must be a tuple, got list", call(args=[1.0])),
        (TypeError, r"args must be a tuple.*args=\(value,\)", call(args=x0)),
        (ValueError, r"tol must be .*positive.*got 0", call(tol=0)),
        (ValueError, r"tol must be .*positive.*got -1", call(tol=-1.0)),
        (ValueError, r"tol must be .*positive.*got nan", call(tol=math.nan)),
        (ValueError, r"max_seconds must be .*positive.*got 0", call(max_seconds=0)),
        (ValueError, "hessian must be .*got 'newton'", call(hessian="newton")),
        (ValueError, "hessian must be .*got None", call(hessian=None)),
        (ValueError, "scale must be None, .*got 'auto'", call(scale="auto")),
        (ValueError, "scale must be positive", call(scale=0 * x0)),
        (ValueError, r"scale must have the structure of x0.*\(6,\).*\(5,\)", call(scale=x0[1:])),
        (TypeError, "scale must be a", call(scale=2.0)),
        (ValueError, "max_steps must be an int >= 0, got -1", call(max_steps=-1)),
        (TypeError, "max_steps must be an int >= 0, got 1.5", call(max_steps=1.5)),
        (ValueError, "bandwidth must be an int >= 0, got -1", call(bandwidth=-1)),
        (TypeError, "bandwidth must be an int >= 0, got 1.0", call(bandwidth=1.0)),
        (ValueError, "probing must be one of", call(probing="none")),
        (ValueError, "chunk_size must be an int >= 1", call(chunk_size=0)),
        (TypeError, r"fun must return a real scalar.*\(6,\)", call(lambda x: x**2)),
        (TypeError, "fun must return a scalar", call(lambda x: None)),
        (TypeError, "x0 must have a real floating dtype, got .*int64", call(x0=backend.array(np.arange(6)))),
        (TypeError, "x0 must have a real floating dtype, got .*complex", call(x0=backend.array(HERE * 1j))),
        (TypeError, "x0 must be a", call(x0=[0.0, 1.0])),
        (ValueError, "every leaf of x0 needs a leading stage axis", call(x0=backend.array(1.0))),
        (ValueError, "leaves of x0 must share a leading", call(x0=[x0, x0[:2]])),
        (TypeError, "leaves of x0 must share one dtype", call(x0=[x0, backend.array(HERE, "float32")])),
    ]
    for error, message, attempt in bad:
        with pytest.raises(error, match=message):
            attempt()


def test_time_is_the_hosts() -> None:
    x0 = jnp.asarray(HERE)

    def given(s):
        return bandhess_jax.newton(LANDSCAPE["jax"], x0, 1, args=(s * HISTORIC.array(),), max_seconds=1).value

    def closed(s):
        return bandhess_jax.newton(lambda x: jnp.sum(s * x**2), x0, 0, max_seconds=1).value

    for attempt in (jax.jit(given), jax.grad(given), jax.jit(closed)):
        with pytest.raises(ValueError, match=r"max_seconds needs the host.*outside jit, vmap and grad"):
            attempt(2.0)
