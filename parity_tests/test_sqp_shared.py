"""`sqp` with variables that all stages share: against SciPy on dense functions, and against one copy a stage."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, Backend
from free_time import PROBLEMS, arguments
from scipy.optimize import minimize

T = 7
AXES = {"q": 0, "time": None, "u": 0, "weights": None}
START = {"q": np.linspace(0, 1, T), "time": np.array(1.5), "u": np.full(T - 1, 0.2), "weights": np.ones((2, 1))}
ARGS = np.array([1.3, 0.4, 0.25])


def cost(xp: Any) -> Any:
    def fun(z: dict, a: Any) -> Any:
        rough = xp.sum((z["q"] - a[0] * z["weights"][0, 0]) ** 2) + a[1] * xp.sum((z["u"] - 0.2) ** 4)
        return z["time"] + z["time"] * xp.sum(z["u"] ** 2) + rough + xp.sum((z["weights"] - 1) ** 2) * z["time"] ** 2

    return fun


def motion(xp: Any) -> Any:
    """A slide through a medium: what moves is the last weight, over a shared time."""

    def constraints(z: dict, a: Any) -> list:
        step = z["time"] / (T - 1)
        gaps = z["q"][1:] - z["q"][:-1] - step * z["weights"][1, 0] * xp.sin(z["u"] + a[2])
        return [z["q"][:1], {"motion": gaps}, z["q"][-1:] - 1]

    return constraints


def inequalities(z: dict, a: Any) -> Any:
    return 1 - z["u"] + 0.1 * z["weights"][0, 0]


def bounds(array: Any) -> tuple:
    lower = {"q": None, "time": 0.3, "u": -0.1, "weights": array(np.array([[0.9], [0.95]]))}
    upper = {"q": 1.1, "time": 4.0, "u": None, "weights": array(np.array([[np.inf], [0.95]]))}
    return lower, upper


# One function object per backend, so that every test with it runs the program compiled first.
FUNCTIONS = {name: (cost(b.xp), motion(b.xp)) for name, b in BACKENDS.items()}


def slide(backend: Backend, args: Any = None, x0: Any = None, **options: Any) -> Any:
    fun, constraints = FUNCTIONS[backend.name]
    start = {name: backend.array(leaf) for name, leaf in START.items()} if x0 is None else x0
    args = backend.array(ARGS) if args is None else args
    given = {"inequalities": inequalities, "bounds": bounds(backend.array), "stage_axes": AXES} | options
    return backend.package.sqp(fun, constraints, start, 1, args=(args,), **given)


def flat(tree: dict) -> np.ndarray:
    return np.concatenate([np.ravel(tree[name]) for name in sorted(tree)])


@cache
def dense(name: str) -> Any:
    """The same by SciPy, in NumPy, with differences for derivatives."""
    shapes = {key: START[key].shape for key in sorted(START)}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]

    def tree(v: np.ndarray) -> dict:
        return {k: part.reshape(shapes[k]) for k, part in zip(shapes, np.split(v, ends), strict=True)}

    fun, constraints = cost(np), motion(np)
    lower, upper = bounds(np.asarray)
    sides = [
        flat({k: np.broadcast_to(none if side[k] is None else side[k], shapes[k]) for k in shapes})
        for side, none in ((lower, -np.inf), (upper, np.inf))
    ]

    def rows(v: np.ndarray) -> np.ndarray:
        first, middle, last = constraints(tree(v), ARGS)
        return np.concatenate([first, middle["motion"], last])

    return minimize(
        lambda v: fun(tree(v), ARGS), flat(START), method="SLSQP", bounds=list(zip(*sides, strict=True)),
        constraints=[{"type": "eq", "fun": rows}, {"type": "ineq", "fun": lambda v: inequalities(tree(v), ARGS)}],
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip


def test_solution_and_multipliers(backend: Backend) -> None:
    """At SciPy's point; the gradient of the Lagrangian vanishes, formed again from what the result holds; and its own
    solution is left where it is."""
    r, oracle = slide(backend), dense("slide")
    package = backend.package
    assert r.status == package.Status.CONVERGED
    np.testing.assert_allclose(float(r.value), oracle.fun, rtol=1e-7)
    x = {name: backend.numpy(leaf) for name, leaf in r.x.items()}
    np.testing.assert_allclose(flat(x), oracle.x, atol=2e-4)
    assert x["weights"].shape == (2, 1)
    assert x["time"].shape == ()
    assert x["weights"][1, 0] == 0.95
    fun, constraints = FUNCTIONS[backend.name]
    args = backend.array(ARGS)

    def lagrangian(z: dict) -> Any:
        first, middle, last = constraints(z, args)
        y_first, y_middle, y_last = r.multipliers
        total = fun(z, args) + (y_first * first).sum() + (y_middle["motion"] * middle["motion"]).sum()
        total = total + (y_last * last).sum() - (r.inequality_multipliers * inequalities(z, args)).sum()
        for sign, side in ((-1, r.bound_multipliers[0]), (1, r.bound_multipliers[1])):
            total = total + sum((sign * side[name] * z[name]).sum() for name in z)
        return total

    left = backend.grad(lagrangian)(r.x)
    for name, leaf in left.items():
        gap = np.abs(backend.numpy(leaf))
        assert gap[0].max() < 1e-6 if name == "weights" else gap.max() < 1e-6  # the other weight is fixed
    again = slide(backend, start=r)
    assert again.steps <= 1
    np.testing.assert_allclose(float(again.value), float(r.value), rtol=1e-8)


def test_derivatives(backend: Backend) -> None:
    """Of the value and of a shared variable in the functions' argument, against differences of solutions."""

    def outcome(a: Any) -> Any:
        r = slide(backend, a)
        return r.value + 2 * r.x["time"] + r.x["weights"][0, 0]

    gradient = backend.numpy(backend.grad(outcome)(backend.array(ARGS)))
    e = 1e-5
    for i, step in enumerate(e * np.eye(3)):
        up, down = (float(outcome(backend.array(ARGS + s))) for s in (step, -step))
        np.testing.assert_allclose(gradient[i], (up - down) / (2 * e), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PROBLEMS)
def test_free_time(backend: Backend, name: str) -> None:
    """One step length for all stages ends where IPOPT does with one a stage (test_sqp_control.py)."""
    make, N = PROBLEMS[name]
    problem = make(backend.xp, N)
    args, options = arguments(problem, backend.xp, backend.array, True)
    end = backend.package.sqp(*args, **options)
    assert end.status == backend.package.Status.CONVERGED
    assert float(end.constraint_norm) < 1e-8
    np.testing.assert_allclose(float(end.value), problem.optimum[N], rtol=1e-6)
    assert end.x["h"].shape == ()


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_step_length_is_as_good_as_one_a_stage(name: str) -> None:
    """In PyTorch, which compiles nothing."""
    torch = BACKENDS["torch"]
    problem = PROBLEMS[name][0](torch.xp, 40)
    given = (arguments(problem, torch.xp, torch.array, shared) for shared in (True, False))
    one, many = (torch.package.sqp(*args, **options) for args, options in given)
    np.testing.assert_allclose(float(one.value), float(many.value), rtol=1e-7)
    np.testing.assert_allclose(float(one.x["h"]), torch.numpy(many.x["h"]), rtol=1e-5)


def test_what_is_not_local_is_found(backend: Backend) -> None:
    """A coupling outside the band is told beside shared variables, and not taken for theirs."""
    xp, package = backend.xp, backend.package
    z = {"x": backend.array(np.linspace(0.5, 1, 9)), "s": backend.array(np.array([0.7, 0.9]))}
    axes = {"x": 0, "s": None}

    def fun(z: dict, far: Any) -> Any:
        total = xp.sum(z["x"])
        own = xp.sum(z["x"] ** 2) + 0.2 * z["s"][0] * total + xp.sum(z["s"] ** 2)
        return own + (z["s"][1] - total) ** 2 * far[0]

    def constraints(z: dict, far: Any) -> Any:
        return {"links": z["x"][1:] * z["s"][1] - z["x"][:-1] - 0.1, "far": z["x"][:1] - far[1] * z["x"][-1:] - 0.4}

    def call(*far: float) -> Any:
        return package.sqp(fun, constraints, z, 1, args=(backend.array(np.array(far)),), stage_axes=axes)

    assert call(0.0, 0.0).status == package.Status.CONVERGED
    assert call(1.0, 0.0).status == package.Status.BAND_TOO_NARROW
    wide = call(0.0, 1.0)
    assert wide.status == package.Status.BAND_TOO_NARROW
    assert "far" in wide.message


def lap(xp: Any) -> tuple[Any, Any]:
    """A ring of points as far from the middle as a shared radius, and equal links between them."""

    def fun(z: dict) -> Any:
        return (z["r"] - 2) ** 2 + 0.1 * xp.sum((z["p"][:, 0] ** 2 + z["p"][:, 1] ** 2 - z["r"] ** 2) ** 2)

    def constraints(z: dict) -> dict:
        links = xp.roll(z["p"], -1, 0) - z["p"]
        return {"length": xp.sum(links**2, 1) - 0.5, "held": z["p"][:1, 1]}

    return fun, constraints


@pytest.mark.parametrize("T", [9, 10])
def test_a_closed_lap_of_unknown_size(backend: Backend, T: int) -> None:
    """As SciPy finds it on dense functions; and its own solution is left where it is."""
    angle = 2 * np.pi * np.arange(T) / T
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    fun, constraints = lap(backend.xp)
    start = {"p": backend.array(points), "r": backend.array(np.array(0.9))}
    axes = {"p": 0, "r": None}
    end = backend.package.sqp(fun, constraints, start, 1, periodic=True, stage_axes=axes)
    assert end.status == backend.package.Status.CONVERGED

    tree = lambda v: {"p": v[:-1].reshape(T, 2), "r": v[-1]}  # noqa: E731
    dense_fun, dense_constraints = lap(np)
    dense = minimize(
        lambda v: dense_fun(tree(v)), np.append(points.ravel(), 0.9), method="SLSQP", options={"ftol": 1e-14},
        constraints=[{"type": "eq", "fun": lambda v: np.concatenate(list(dense_constraints(tree(v)).values()))}],
    )  # fmt: skip
    np.testing.assert_allclose(float(end.value), dense.fun, rtol=1e-7)
    np.testing.assert_allclose(float(end.x["r"]), dense.x[-1], rtol=1e-5)
    assert abs(backend.numpy(constraints(end.x)["length"])).max() < 1e-8
    again = backend.package.sqp(fun, constraints, end.x, 1, periodic=True, stage_axes=axes, start=end)
    assert again.steps <= 1


def test_shared_variables_alone_are_refused(backend: Backend) -> None:
    z = {"x": backend.array(np.zeros((0, 2))), "s": backend.array(np.ones(2))}
    with pytest.raises(ValueError, match="shared"):
        backend.package.sqp(lambda z: (z["s"] ** 2).sum(), None, z, 1, stage_axes={"x": 0, "s": None})
