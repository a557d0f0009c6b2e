"""SQP: reference trajectories, bounds and inequalities, honest ends, derivatives of the solution, transforms."""

import functools
import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from trajectories import (
    CART_OPTIMA,
    PENDULUM_OPTIMA,
    Yard,
    cart_cost,
    cart_dynamics,
    cart_start,
    pendulum_cost,
    pendulum_dynamics,
    pendulum_start,
    shortest_time,
    shortest_time_start,
    yard_constraints,
    yard_cost,
    yard_inequalities,
)

import bandhess_jax
import bandhess_torch

EPS = np.finfo("float64").eps
TOL = EPS**0.5  # the default
HERE = np.array([0.5, 0.7, 0.9, 1.1, 1.3, 1.5])

CALLS: list = []


def counted(fun: Any) -> Any:
    def noted(*args: Any) -> Any:
        CALLS.append(None)
        return fun(*args)

    return noted


# One function object per backend and problem, so that every test with it runs the program compiled first.
PENDULUM = {name: (pendulum_cost(b.xp), pendulum_dynamics(b.xp)) for name, b in BACKENDS.items()}
CART = {name: (cart_cost(b.xp), cart_dynamics(b.xp)) for name, b in BACKENDS.items()}
YARD = {name: (counted(yard_cost(b.xp)), counted(yard_constraints(b.xp))) for name, b in BACKENDS.items()}


def largest(backend: Backend, tree: Any) -> float:
    return max((float(np.abs(backend.numpy(leaf)).max(initial=0)) for leaf in backend.leaves(tree)), default=0.0)


# --- Reference trajectories ------------------------------------------------------------------------------------------

NONE = np.inf
# Optima with bounds: IPOPT 3.14 through CasADi, tol = 1e-12, no relaxation of the bounds, from the same starts.
TRAJECTORIES = {
    "C1 100": ("pendulum", 100, (NONE, NONE, NONE), PENDULUM_OPTIMA[100]),
    "C1 300": ("pendulum", 300, None, PENDULUM_OPTIMA[300]),
    "C1 1000": ("pendulum", 1000, None, PENDULUM_OPTIMA[1000]),
    "C1 100, |u| <= 5": ("pendulum", 100, (5, NONE, NONE), 18.106338248990),
    "C2 100": ("cart", 100, (NONE, NONE, NONE, NONE, NONE), CART_OPTIMA[100]),
    "C2 1000": ("cart", 1000, None, CART_OPTIMA[1000]),
    "C2 100, |u| <= 20, |q1| <= 1.5": ("cart", 100, (1.5, NONE, NONE, NONE, 20), 58.896710155904),
    "C2 100, |u| <= 10": ("cart", 100, (NONE, NONE, NONE, NONE, 10), 62.353049704746),
}


@functools.cache
def solve(case: str, name: str) -> Any:
    kind, size, limits, _ = TRAJECTORIES[case]
    backend = BACKENDS[name]
    funs, start = (PENDULUM, pendulum_start) if kind == "pendulum" else (CART, cart_start)
    limit = None if limits is None else np.array(limits, float)
    bounds = None if limits is None else (backend.array(-limit), backend.array(limit))
    return backend.package.sqp(*funs[name], backend.array(start(size)), 1, bounds=bounds)


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_reference_optimum(backend: Backend, case: str) -> None:
    kind, _, limits, optimum = TRAJECTORIES[case]
    result = solve(case, backend.name)
    assert result.status == backend.package.Status.CONVERGED
    assert result.steps <= 30
    np.testing.assert_allclose(float(result.value), optimum, rtol=1e-8)
    # What is reported is what is there.
    cost, constraints = (PENDULUM if kind == "pendulum" else CART)[backend.name]
    np.testing.assert_allclose(float(cost(result.x)), float(result.value), rtol=8 * EPS)
    violation = largest(backend, constraints(result.x))
    assert violation <= 1e-9
    np.testing.assert_allclose(float(result.constraint_norm), violation, rtol=1e-6, atol=1e-14)
    if limits is None:
        assert result.bound_multipliers is None
    else:
        limit = np.array(limits, float)
        assert (np.abs(backend.numpy(result.x)) <= limit).all()
        for multiplier in map(backend.numpy, result.bound_multipliers):
            assert multiplier.shape == result.x.shape
            assert (multiplier >= 0).all()
            assert (multiplier[:, np.isinf(limit)] == 0).all()


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_backends_take_the_same_steps(case: str) -> None:
    by_jax, by_torch = solve(case, "jax"), solve(case, "torch")
    assert by_jax.steps == by_torch.steps
    np.testing.assert_allclose(float(by_jax.value), float(by_torch.value), rtol=1e-10)
    for part in (0, 1):
        np.testing.assert_allclose(by_jax.multipliers[part], by_torch.multipliers[part], rtol=1e-5, atol=1e-7)


def test_free_final_time(backend: Backend) -> None:
    """A step length per stage, tied to the next: a double integrator's least time, 2 sqrt(distance), bang-bang."""
    T, distance = 20, 4.0
    time, dynamics = shortest_time(backend.xp, distance)
    limit = np.array([NONE, NONE, 1, NONE])
    lower = np.array([-NONE, -NONE, -1, 1e-3])
    result = backend.package.sqp(
        time, dynamics, backend.array(shortest_time_start(T, distance)), 1,
        bounds=(backend.array(lower), backend.array(limit)),
    )  # fmt: skip
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 2 * distance**0.5, rtol=1e-8)
    u = backend.numpy(result.x)[:, 2]
    np.testing.assert_allclose(u, np.repeat([1.0, -1.0], T // 2), atol=1e-5)


# --- Honest ends -----------------------------------------------------------------------------------------------------

ENDS = {
    "linear": (Yard(), "CONVERGED"),
    "curved": (Yard(link=0.5, product=1, spring=1, quartic=1), "CONVERGED"),
    "indefinite": (Yard(curvature=-0.5, product=1, spring=0.2, quartic=1), "CONVERGED"),
    "capped": (Yard(tilt=-1, cap=0.9), "CONVERGED"),
    "capped and curved": (Yard(tilt=-2, product=1, spring=0.1, cap=0.7), "CONVERGED"),
    "a constraint twice": (Yard(again=1, pin=0), "RANK_DEFICIENT"),
    "a curved constraint twice": (Yard(again=1, pin=0, product=1, quartic=1), "RANK_DEFICIENT"),
    "contradiction": (Yard(again=1, pin=0.5), "INFEASIBLE"),
    "no point under the cap": (Yard(level=4, cap=1), "INFEASIBLE"),
    "falling plane": (Yard(tilt=1, curvature=0, squeeze=0), "UNBOUNDED"),
    "concave": (Yard(curvature=-1, squeeze=0), "UNBOUNDED"),
    "NaN at the start": (Yard(tilt=np.nan), "NONFINITE"),
    "infinity at the start": (Yard(tilt=np.inf), "NONFINITE"),
    "NaN on the way": (Yard(tilt=1, curvature=0, sheer=0.1, level=-2), "NONFINITE"),
    "coupling outside the band": (Yard(curvature=5, far=1), "BAND_TOO_NARROW"),
    "constraint outside the band": (Yard(stretch=1), "BAND_TOO_NARROW"),
    "coupling that shows later": (Yard(far_later=1, squeeze=0), "BAND_TOO_NARROW"),
}


def in_yard(backend: Backend, c: Yard, x: np.ndarray = HERE, **options: Any) -> Any:
    args = (backend.array(c.array()),)
    cost, constraints = YARD[backend.name]
    return backend.package.sqp(
        cost, constraints, backend.array(x), 1, args=args, inequalities=yard_inequalities, **options
    )


@pytest.mark.parametrize("end", ENDS)
def test_ends(backend: Backend, end: str) -> None:
    c, status = ENDS[end]
    x = np.zeros(6) if end == "coupling that shows later" else HERE
    result = in_yard(backend, c, x)
    assert result.status == backend.package.Status[status]
    assert isinstance(result.status, backend.package.Status)
    assert type(result.steps) is int
    if "start" in end or "outside" in end:
        assert result.steps == 0
    else:
        assert np.isfinite(backend.numpy(result.x)).all()
    if status == "INFEASIBLE":
        assert float(result.constraint_norm) > 0.1
    if status in ("CONVERGED", "RANK_DEFICIENT"):
        assert float(result.constraint_norm) <= 1e-9
    assert result.steps <= 200


@functools.cache
def lagrangian_derivatives(name: str) -> Any:
    """Gradient and dense Hessian of L, by the framework's own derivatives."""
    backend, (cost, constraints) = BACKENDS[name], YARD[name]

    def lagrangian(x: Any, c: Any, y: Any, z: Any) -> Any:
        parts = constraints(x, c)
        weighted = y["fourth"] * parts["fourth"] + backend.xp.sum(y["pairs"] * parts["pairs"])
        return cost(x, c) + weighted - backend.xp.sum(z * yard_inequalities(x, c))

    return backend.jit(lambda *args: (backend.grad(lagrangian)(*args), backend.dense_hessian(lagrangian)(*args)))


@pytest.mark.parametrize("end", [end for end, (_, status) in ENDS.items() if status == "CONVERGED"])
def test_converged_means_optimal(backend: Backend, end: str) -> None:
    """The first-order conditions, and the second-order ones, dense."""
    c, _ = ENDS[end]
    result = in_yard(backend, c)
    x, z = backend.numpy(result.x), backend.numpy(result.inequality_multipliers)
    gradient, H = map(
        backend.numpy,
        lagrangian_derivatives(backend.name)(
            result.x, backend.array(c.array()), result.multipliers, result.inequality_multipliers
        ),
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    np.testing.assert_allclose(np.abs(gradient).max(), float(result.grad_norm), rtol=1e-3, atol=1e-14)
    slack = c.cap - c.squeeze * x
    assert (z >= 0).all()
    assert (slack >= -1e-9).all()
    assert (z * slack).max() <= 1e-8
    assert ("capped" in end) == (z.max() > 1e-3)

    a, b = x[0::2], x[1::2]
    J = np.zeros((4, 6))
    for i in range(3):
        J[i, 2 * i : 2 * i + 2] = c.link + c.product * b[i], c.link + c.product * a[i]
    J[3, :2] = 1, -2
    tight = np.vstack([J, np.eye(6)[slack < 1e-6]])
    _, sizes, V = np.linalg.svd(tight)
    null = V[(sizes > 1e-10).sum() :].T
    assert (np.linalg.eigvalsh(null.T @ H @ null) >= -TOL).all()


def test_bounds_as_inequalities(backend: Backend) -> None:
    """x <= 0.9 as a bound and as a function: the same optimum and the same multipliers."""
    c = ENDS["capped"][0]
    by_function = in_yard(backend, c)
    args = (backend.array(c.array()),)
    bounded = backend.package.sqp(*YARD[backend.name], backend.array(HERE), 1, args=args, bounds=(None, c.cap))
    assert bounded.status == backend.package.Status.CONVERGED
    assert bounded.inequality_multipliers is by_function.bound_multipliers is None
    np.testing.assert_allclose(float(bounded.value), float(by_function.value), rtol=1e-8)
    expected = backend.numpy(by_function.inequality_multipliers)
    np.testing.assert_allclose(backend.numpy(bounded.bound_multipliers[1]), expected, atol=1e-6)
    np.testing.assert_array_equal(bounded.bound_multipliers[0], np.zeros(6))


def test_float32(backend: Backend) -> None:
    c = ENDS["curved"][0]
    result = backend.package.sqp(
        *YARD[backend.name], backend.array(HERE, "float32"), 1, args=(backend.array(c.array(), "float32"),),
        inequalities=yard_inequalities,
    )  # fmt: skip
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    for part in (result.x, result.value, result.grad_norm, result.constraint_norm, *result.multipliers.values()):
        assert part.dtype == backend.dtype("float32")
    np.testing.assert_allclose(float(result.value), float(in_yard(backend, c).value), rtol=1e-4)
    assert float(result.constraint_norm) <= 3e-5


def test_linear_constraints_in_closed_form(backend: Backend) -> None:
    """min |x|^2 / 2 with J x = b: x = J^T (J J^T)^-1 b, in one step."""
    result = in_yard(backend, Yard())
    J = np.zeros((4, 6))
    J[0, :2] = 1, -2
    for i in range(3):
        J[i + 1, 2 * i : 2 * i + 2] = 1
    y = np.linalg.solve(J @ J.T, [0.25, 1, 1, 1])
    np.testing.assert_allclose(backend.numpy(result.x), J.T @ y, atol=1e-7)
    np.testing.assert_allclose(backend.numpy(result.multipliers["pairs"]), -y[1:], atol=1e-7)
    np.testing.assert_allclose(float(result.multipliers["fourth"]), -y[0], atol=1e-7)


def test_max_steps_and_tolerance(backend: Backend) -> None:
    result = in_yard(backend, ENDS["curved"][0], max_steps=2, tol=1e-2)
    assert (result.status, result.steps) == (backend.package.Status.MAX_STEPS, 2)
    loose = in_yard(backend, ENDS["linear"][0], x=backend.numpy(in_yard(backend, Yard()).x), max_steps=2, tol=1e-2)
    assert loose.status == backend.package.Status.CONVERGED


def test_fixed_and_one_sided_bounds(backend: Backend) -> None:
    """No constraints: sum (x - 3)^2, entry by entry the nearest allowed value, in a ragged tree."""
    start = {"q": backend.array(np.zeros((3, 2))), "u": backend.array(np.zeros(2))}
    lower = {"q": backend.array([[-NONE, 5], [1, 2], [2, -NONE]]), "u": None}
    upper = {"q": backend.array([[2, NONE], [1, 2], [NONE, NONE]]), "u": 2.5}
    result = backend.package.sqp(
        lambda x: backend.xp.sum((x["q"] - 3) ** 2) + backend.xp.sum((x["u"] - 3) ** 2), None, start, 0,
        bounds=(lower, upper),
    )  # fmt: skip
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x["q"]), [[2, 5], [1, 2], [3, 3]], atol=1e-4)
    np.testing.assert_array_equal(backend.numpy(result.x["q"])[1], [1, 2])
    np.testing.assert_allclose(backend.numpy(result.x["u"]), [2.5, 2.5], atol=1e-6)
    np.testing.assert_allclose(backend.numpy(result.bound_multipliers[1]["u"]), [1, 1], atol=1e-5)
    assert result.multipliers == ()


def test_no_variables(backend: Backend) -> None:
    empty = backend.array(np.zeros((0, 2)))
    result = backend.package.sqp(lambda x: backend.xp.sum(x**2), lambda x: x[:, 0], empty, 1)
    assert (result.status, result.steps, float(result.value)) == (backend.package.Status.CONVERGED, 0, 0.0)
    contradiction = backend.package.sqp(
        lambda x: backend.xp.sum(x**2), lambda x: backend.xp.sum(x) + 1, empty, 1, bounds=(0, 1)
    )
    assert contradiction.status == backend.package.Status.INFEASIBLE


def test_warm_start_callback_and_verbose(backend: Backend, capsys: pytest.CaptureFixture) -> None:
    """From a solution and its multipliers, a slightly other problem takes fewer steps than from afar; seen by a call
    and a line at the start and after every step."""
    infos: list = []
    c = ENDS["curved"][0]
    cold, other = in_yard(backend, c), c._replace(level=1.01)
    result = in_yard(
        backend, other, backend.numpy(cold.x), multipliers=cold.multipliers, callback=infos.append, verbose=True
    )
    assert result.status == backend.package.Status.CONVERGED
    assert 0 < result.steps < in_yard(backend, other).steps
    assert [int(info.step) for info in infos] == list(range(result.steps + 1))
    assert float(infos[-1].value) == float(result.value)
    assert float(infos[-1].grad_norm) == float(result.grad_norm)
    assert all(0 < float(info.radius) <= 1 for info in infos[1:])
    assert len(capsys.readouterr().out.splitlines()) == result.steps + 2


def test_history(backend: Backend) -> None:
    """Against what a callback sees, against steps in closed form, and under a cap that cuts them."""
    infos: list = []
    result = in_yard(backend, ENDS["capped and curved"][0], callback=infos.append, history=True, max_steps=50)
    rows = {name: backend.numpy(row) for name, row in result.history._asdict().items()}
    assert list(rows) == ["value", "grad_norm", "constraint_norm", "step", "fraction", "shift", "barrier"]
    assert all(row.shape == (result.steps + 1,) for row in rows.values())
    for name, seen in (("value", "value"), ("grad_norm", "grad_norm"), ("shift", "shift"), ("fraction", "radius")):
        np.testing.assert_array_equal(rows[name], [float(getattr(info, seen)) for info in infos])
    last = rows["value"][-1], rows["grad_norm"][-1], rows["constraint_norm"][-1]
    assert last == (float(result.value), float(result.grad_norm), float(result.constraint_norm))
    start = YARD[backend.name][1](backend.array(HERE), backend.array(ENDS["capped and curved"][0].array()))
    beyond = HERE.max() - ENDS["capped and curved"][0].cap
    np.testing.assert_allclose(rows["constraint_norm"][0], max(largest(backend, start), beyond), rtol=8 * EPS)
    assert rows["step"][0] == rows["fraction"][0] == rows["shift"][0] == 0
    assert (rows["step"][1:] > 0).all()
    assert (rows["fraction"][1:] > 0).all()
    assert (rows["fraction"][1:] <= 1).all()
    assert rows["fraction"][1:].min() < 1
    assert rows["barrier"][0] == 0.1
    assert (np.diff(rows["barrier"]) <= 0).all()
    assert 0 < rows["barrier"][-1] < 1e-8

    straight = backend.package.sqp(
        *YARD[backend.name], backend.array(HERE), 1, args=(backend.array(Yard().array()),), history=True, max_steps=50
    )
    way, moved = straight.history, backend.numpy(straight.x) - HERE
    np.testing.assert_allclose(backend.numpy(way.step)[:2], [0, np.linalg.norm(moved)], rtol=1e-7)
    np.testing.assert_array_equal(way.fraction, [0, *[1] * straight.steps])
    np.testing.assert_array_equal(way.barrier, np.zeros(straight.steps + 1))
    assert in_yard(backend, Yard()).history is None


@pytest.mark.parametrize("end", ["NaN at the start", "coupling outside the band"])
def test_history_of_an_end_at_the_start(backend: Backend, end: str) -> None:
    result = in_yard(backend, ENDS[end][0], history=True, max_steps=50)
    assert result.status.name == ENDS[end][1]
    assert result.steps == 0
    for row, expected in zip(result.history[:3], (result.value, result.grad_norm, result.constraint_norm), strict=True):
        assert row.shape == (1,)
        if end != "NaN at the start":
            assert float(row[0]) == float(expected)
    assert float(result.history.step[0]) == float(result.history.fraction[0]) == 0


def test_history_under_vmap() -> None:
    """Room for max_steps, and NaN beyond each lane's end."""
    backend, names = BACKENDS["jax"], ("curved", "capped and curved", "NaN at the start")
    options = {"history": True, "max_steps": 50}
    cs = jnp.asarray([ENDS[name][0].array() for name in names])
    cost, constraints = YARD["jax"]

    @jax.jit
    @jax.vmap
    def batch(c: Any) -> Any:
        return backend.package.sqp(
            cost, constraints, jnp.asarray(HERE), 1, args=(c,), inequalities=yard_inequalities, **options
        )

    lanes = batch(cs)
    for i, name in enumerate(names[:2]):
        steps = int(lanes.steps[i])
        alone = in_yard(backend, ENDS[name][0], **options)
        assert alone.steps == steps
        for rows, short in zip(lanes.history, alone.history, strict=True):
            assert rows.shape == (3, 51)
            np.testing.assert_allclose(rows[i, : steps + 1], short, rtol=1e-4, atol=1e-7)
            assert np.isnan(rows[i, steps + 1 :]).all()
    assert np.isnan(lanes.history.value[2]).all()


def test_time_limit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second whenever it is read."""
    c = ENDS["capped and curved"][0]
    free = in_yard(backend, c, history=True, max_steps=50)
    module = {"jax": bandhess_jax.framework.clock, "torch": bandhess_torch.optimise.sqp.primal_dual}[backend.name]
    clock = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    ample = in_yard(backend, c, history=True, max_steps=50, max_seconds=np.inf)
    np.testing.assert_array_equal(ample.x, free.x)
    assert ample[1:5] == free[1:5]

    short = in_yard(backend, c, history=True, max_steps=50, max_seconds=3)
    assert short.status == backend.package.Status.TIME_LIMIT
    assert 0 < short.steps < free.steps
    assert float(short.value) == float(short.history.value[-1]) == float(free.history.value[short.steps])
    cost = YARD[backend.name][0](short.x, backend.array(c.array()))
    np.testing.assert_allclose(float(cost), float(short.value), rtol=8 * EPS)


def test_time_is_the_hosts() -> None:
    def given(s: Any) -> Any:
        c = s * jnp.asarray(Yard().array())
        return BACKENDS["jax"].package.sqp(*YARD["jax"], jnp.asarray(HERE), 1, args=(c,), max_seconds=1).value

    def closed(s: Any) -> Any:
        return BACKENDS["jax"].package.sqp(lambda x: jnp.sum(s * x**2), None, jnp.asarray(HERE), 0, max_seconds=1).value

    forward = lambda s: jax.jvp(closed, (s,), (1.0,))  # noqa: E731
    for attempt in (jax.jit(given), jax.grad(given), jax.jit(closed), jax.grad(closed), forward):
        with pytest.raises(ValueError, match=r"call sqp outside jit, vmap and grad"):
            attempt(2.0)


def test_detected_bandwidth(backend: Backend) -> None:
    assert in_yard(backend, ENDS["curved"][0]).steps == backend.package.sqp(
        *YARD[backend.name], backend.array(HERE), None, args=(backend.array(ENDS["curved"][0].array()),),
        inequalities=yard_inequalities,
    ).steps  # fmt: skip


# --- How the solution depends on the arguments -----------------------------------------------------------------------

WEIGHTS = np.array([1.0, -2, 3, 0.5, -1, 2])


@functools.cache
def outcome(name: str) -> Any:
    """weights . x + scale |multipliers of the pairs|^2, as a function of (coefficients, weights, scale)."""
    backend = BACKENDS[name]

    def of(c: Any, weights: Any, scale: Any) -> Any:
        start = backend.array(HERE)
        result = backend.package.sqp(*YARD[name], start, 1, args=(c,), inequalities=yard_inequalities)
        return backend.xp.sum(weights * result.x) + scale * backend.xp.sum(result.multipliers["pairs"] ** 2)

    return of


GRADIENTS: dict = {}  # jitted gradients, one per function


def gradient(backend: Backend, fun: Any, c: np.ndarray, *rest: Any) -> np.ndarray:
    rest = tuple(map(backend.array, rest))
    if backend.name == "jax":
        return np.asarray(GRADIENTS.setdefault(fun, jax.jit(jax.grad(fun)))(jnp.asarray(c), *rest))
    argument = torch.tensor(c, requires_grad=True)
    return torch.autograd.grad(fun(argument, *rest), argument)[0].numpy()


def unrolled(backend: Backend, c: Any, x: Any, y: Any) -> Any:
    """x by five Newton steps on the dense KKT system without inequalities, to be differentiated through."""
    xp, (cost, constraints) = backend.xp, YARD[backend.name]
    jacobian = jax.jacfwd if backend.name == "jax" else torch.func.jacrev
    slope = jax.grad if backend.name == "jax" else torch.func.grad

    def conditions(v: Any) -> Any:
        def flat(x: Any) -> Any:
            parts = constraints(x, c)
            return xp.concatenate([parts["fourth"].reshape(1), parts["pairs"]])

        force = slope(lambda x: cost(x, c) + xp.sum(v[6:] * flat(x)))(v[:6])
        return xp.concatenate([force, flat(v[:6])])

    v = xp.concatenate([x, y["fourth"].reshape(1), y["pairs"]])
    for _ in range(5):
        v = v - xp.linalg.solve(jacobian(conditions)(v), conditions(v))
    return v


def test_derivative_of_the_solution(backend: Backend) -> None:
    """With respect to every coefficient: against central differences and against unrolled Newton steps."""
    c = ENDS["curved"][0].array()
    by_sqp, solution = outcome(backend.name), in_yard(backend, ENDS["curved"][0])

    def by_unrolling(c: Any, weights: Any, scale: Any) -> Any:
        v = unrolled(backend, c, solution.x, solution.multipliers)
        return backend.xp.sum(weights * v[:6]) + scale * backend.xp.sum(v[7:] ** 2)

    found = gradient(backend, by_sqp, c, WEIGHTS, 1.0)
    expected = gradient(backend, by_unrolling, c, WEIGHTS, 1.0)
    keep = [0, 1, 2, 3, 6, 7, 8, 10]  # far, sheer, again, stretch, cap and squeeze are switches, or not felt
    np.testing.assert_allclose(found[keep], expected[keep], rtol=1e-5, atol=1e-6)
    assert np.abs(found[keep]).min() > 1e-3
    for i in keep:
        step = np.zeros_like(c)
        step[i] = 1e-4
        ahead, behind = (float(by_sqp(backend.array(c + s), backend.array(WEIGHTS), 1.0)) for s in (step, -step))
        np.testing.assert_allclose(found[i], (ahead - behind) / 2e-4, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("end", ["curved", "capped and curved"])
def test_second_derivative_of_the_solution(backend: Backend, end: str) -> None:
    """The gradient's derivative along one direction, against its central difference."""
    c, fun = ENDS[end][0].array(), outcome(backend.name)
    direction = np.zeros_like(c)
    direction[[0, 1, 2, 3, 6, 7, 8, 10]] = 1, -2, 0.5, 1, 0.3, -1, 2, 0.7
    if backend.name == "jax":
        found = directional(backend.array(c), backend.array(direction), backend.array(WEIGHTS), 1.0)
    else:
        argument = torch.tensor(c, requires_grad=True)
        (first,) = torch.autograd.grad(fun(argument, backend.array(WEIGHTS), 1.0), argument, create_graph=True)
        (found,) = torch.autograd.grad(first @ backend.array(direction), argument)
    ahead, behind = (gradient(backend, fun, c + s * direction, WEIGHTS, 1.0) for s in (1e-4, -1e-4))
    expected = (ahead - behind) / 2e-4
    keep = np.flatnonzero(direction)
    assert np.abs(expected[keep]).max() > 0.1
    np.testing.assert_allclose(backend.numpy(found)[keep], expected[keep], rtol=1e-3, atol=1e-4)


@jax.jit
def directional(c: Any, direction: Any, *rest: Any) -> Any:
    return jax.jvp(lambda c: jax.grad(outcome("jax"))(c, *rest), (c,), (direction,))[1]


def test_derivative_under_an_active_cap(backend: Backend) -> None:
    """Entries at the cap follow it one to one; NaN where there is no solution to differentiate."""
    c = ENDS["capped and curved"][0]
    assert float(in_yard(backend, c).x[5]) > c.cap - 1e-6
    last = np.eye(6)[5]
    found = gradient(backend, outcome(backend.name), c.array(), last, 0.0)
    np.testing.assert_allclose(found[12], 1, atol=1e-4)
    np.testing.assert_allclose(found[:12], 0, atol=1e-4)
    assert np.isnan(gradient(backend, outcome(backend.name), ENDS["contradiction"][0].array(), last, 0.0)).any()


# --- Transforms ------------------------------------------------------------------------------------------------------


def test_vmap_keeps_lanes_apart() -> None:
    """Lanes of every end in one jitted batch: each as if it were alone."""
    backend = BACKENDS["jax"]
    cost, constraints = YARD["jax"]

    @jax.jit
    @jax.vmap
    def batch(x0: Any, c: Any) -> Any:
        return backend.package.sqp(cost, constraints, x0, 1, args=(c,), inequalities=yard_inequalities)

    coefficients = jnp.asarray([c.array() for c, _ in ENDS.values()])
    starts = [np.zeros(6) if "later" in end else HERE for end in ENDS]
    results = batch(jnp.asarray(starts), coefficients)
    assert results.status.dtype == results.steps.dtype == np.int32
    for lane, (end, (c, status)) in enumerate(ENDS.items()):
        alone = in_yard(backend, c)
        assert int(results.status[lane]) == backend.package.Status[status], end
        if status == "CONVERGED":
            assert int(results.steps[lane]) == alone.steps
            np.testing.assert_allclose(results.x[lane], alone.x, rtol=0, atol=1e-9)


def test_no_retrace() -> None:
    """A second call with the same functions and new arrays does not trace them again."""
    backend = BACKENDS["jax"]
    in_yard(backend, Yard())
    before = len(CALLS)
    assert in_yard(backend, Yard(level=1.2)).status == backend.package.Status.CONVERGED
    assert len(CALLS) == before > 0


def test_bounds_known_inside_jit() -> None:
    """Bounds that jit does not trace are checked there, too."""

    def trace(lower: Any, upper: Any) -> Any:
        args, bounds = (jnp.asarray(Yard().array()),), (jnp.full(6, lower), jnp.full(6, upper))
        solve = lambda x: BACKENDS["jax"].package.sqp(*YARD["jax"], x, 1, args=args, bounds=bounds).x  # noqa: E731
        return jax.eval_shape(solve, jnp.asarray(HERE))

    assert trace(0.0, 2.0).shape == (6,)
    with pytest.raises(ValueError, match="lower <= upper"):
        trace(2.0, 0.0)


# --- Arguments -------------------------------------------------------------------------------------------------------

WRONG = {
    "args": ({"args": 3.0}, TypeError, "args must be a tuple"),
    "tol": ({"tol": 0}, ValueError, "tol must be positive"),
    "max_steps": ({"max_steps": -1}, ValueError, "max_steps"),
    "max_seconds": ({"max_seconds": 0}, ValueError, "max_seconds must be positive"),
    "bounds": ({"bounds": 3.0}, TypeError, "pair"),
    "bounds crossed": ({"bounds": (1.0, 0.0)}, ValueError, "lower <= upper"),
    "bounds of NaN": ({"bounds": (np.nan, 0.0)}, ValueError, "lower <= upper"),
    "inequalities": ({"inequalities": 3}, TypeError, "inequalities must be a function"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(backend: Backend, wrong: str) -> None:
    options, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        backend.package.sqp(lambda x: backend.xp.sum(x**2), lambda x: x[1:] - x[:-1], backend.array(HERE), 1, **options)


def test_wrong_structure(backend: Backend) -> None:
    def call(constraints: Any = lambda x: x[1:], x0: Any = HERE, **options: Any) -> None:
        backend.package.sqp(lambda x: backend.xp.sum(x**2), constraints, backend.array(x0), 1, **options)

    with pytest.raises(ValueError, match="multipliers must have the structure"):
        call(multipliers=backend.array(np.zeros(4)))
    with pytest.raises(ValueError, match="does not fit"):
        call(bounds=(backend.array(np.zeros(4)), None))
    with pytest.raises(TypeError, match="constraints must return real floating"):
        call(constraints=lambda x: x > 0)
    with pytest.raises(TypeError, match="constraints must be a function"):
        call(constraints=3)
    with pytest.raises(TypeError, match="x0 must have a real floating dtype"):
        call(x0=np.arange(6))
    with pytest.raises(ValueError, match="x0"):
        call(x0=np.array(1.0))


def test_result_fields(backend: Backend) -> None:
    assert backend.package.SQPResult._fields == (
        "x", "value", "grad_norm", "steps", "status", "multipliers", "constraint_norm", "history",
        "bound_multipliers", "inequality_multipliers",
    )  # fmt: skip
