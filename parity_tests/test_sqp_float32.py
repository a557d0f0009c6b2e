"""`sqp` on float32: functions and results in float32, the compiled engine's state and linear algebra in float64."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from control_problems import PROBLEMS, Control
from interior_driver import Engine, banded
from interior_problems import problem

from bandhess_common.kernels.interior import VALUES, Layout

pytestmark = pytest.mark.usefixtures("compiled_kernels")

SIZES = {"yao": 100, "steering": 20, "rocket": 50, "glider": 100, "camshape": 50}
"""Of problems whose condensed matrix, rounded to float32, holds a hundredth of H."""


ROSENBROCK = problem(
    lambda x: (
        (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2,
        [2 * (x[0] - 1) - 40 * x[0] * (x[1] - x[0] ** 2), 20 * (x[1] - x[0] ** 2)],
        [[2 - 40 * x[1] + 120 * x[0] ** 2, -40 * x[0]], [-40 * x[0], 20]],
    ),
    lambda x: ([x @ x - 1.5], np.array([2 * x]), [2 * np.eye(2)]),
    [-0.7, 0.3],
    m=1,
)


def as_users(backend: Backend) -> AbstractContextManager:
    """float32 is what JAX has by default, and then no program holds anything of float64."""
    return jax.enable_x64(False) if backend.name == "jax" else nullcontext()


def solve(backend: Backend, p: Control, dtype: str, **options: Any) -> Any:
    array = lambda a: backend.array(np.array(np.broadcast_to(a, p.start.shape), dtype))  # noqa: E731
    bounds = array(p.lower), array(p.upper)
    return backend.package.sqp(
        p.cost, p.constraints, array(p.start), p.bandwidth, inequalities=p.inequalities, bounds=bounds, **options
    )


def made(name: str, backend: Backend, dtype: str) -> Control:
    return PROBLEMS[name](backend.xp, lambda a: backend.array(np.array(a, dtype)), SIZES[name])


@pytest.fixture(scope="module", params=SIZES)
def known(request: pytest.FixtureRequest) -> tuple[str, float]:
    """A problem, and its value in float64."""
    torch_backend = BACKENDS["torch"]
    result = solve(torch_backend, made(request.param, torch_backend, "float64"), "float64")
    assert result.success
    return request.param, float(result.value)


def test_ill_conditioned_problems(known: tuple[str, float], backend: Backend) -> None:
    """The glider takes 93 to 265 steps, as its N and rounding have it."""
    name, value = known
    with as_users(backend):
        result = solve(backend, made(name, backend, "float32"), "float32", tol=1e-5, max_steps=400)
        status = backend.package.Status
        assert result.status in (status.CONVERGED, status.PRECISION_FLOOR)
        np.testing.assert_allclose(float(result.value), value, rtol=2e-4)
        assert float(result.constraint_norm) < 2e-4


def test_results_and_warm_starts(backend: Backend) -> None:
    """Everything that a result holds is of float32, and it starts where it ended."""
    with as_users(backend):
        p = made("camshape", backend, "float32")
        end = solve(backend, p, "float32", history=True)
        assert end.success
        reals = [leaf for leaf in backend.leaves(end) if backend.is_array(leaf)]
        assert len(reals) == 18
        assert {str(leaf.dtype).removeprefix("torch.") for leaf in reals} == {"float32"}
        again = solve(backend, p, "float32", history=True, start=end)
        assert again.success
        assert again.steps <= 1


def test_no_tolerance_is_too_small(backend: Backend) -> None:
    """What lies below the functions' rounding ends as such, after about twenty steps more."""
    with as_users(backend):
        end = solve(backend, made("camshape", backend, "float32"), "float32", history=True, tol=1e-7)
        assert end.status == backend.package.Status.PRECISION_FLOOR
        assert end.steps < 80


def test_lanes(backend: Backend) -> None:
    """Three states of an odd number of doubles, beside each other: each lane is its own solve."""
    xp = backend.xp
    assert Layout(5, 3, 3).size % 2

    def least(a: Any) -> Any:
        return backend.package.sqp(
            lambda x, a: xp.sum((x - a) ** 4) + xp.sum(x[1:] * x[:-1]), lambda x, _: x[:2] * x[1:3] - 1, 0 * a + 1, 2,
            args=(a,), inequalities=lambda x, _: 2 - x[:1],
        )[:2]  # fmt: skip

    with as_users(backend):
        starts = backend.array(np.arange(15, dtype="float32").reshape(3, 5) / 8)
        x, value = backend.vmap(least)(starts)
        for i in range(3):
            alone = least(starts[i])
            np.testing.assert_allclose(backend.numpy(x[i]), backend.numpy(alone[0]), rtol=1e-6)
            np.testing.assert_allclose(float(value[i]), float(alone[1]), rtol=1e-6)


class Placed(Engine):
    """An engine whose words begin `offset` words behind where doubles may lie, and which drives itself."""

    def __init__(self, offset: int = 0) -> None:
        super().__init__(2, 1, 1, 2, "float32")
        count = 2 * self.layout.size
        self.state = np.zeros(count + 2, np.int32)[offset : offset + count].view(np.float64)
        zeros, free = np.zeros(2), np.full(2, np.inf)
        vectors = [-free, free, zeros, ROSENBROCK.x0, zeros[:1], zeros, zeros]
        self.start(vectors, np.zeros(1, np.int32), [1e-4, 100, 0, 0])

    def turn(self) -> None:
        x = self.vector("x_request")
        if self.register("request") == VALUES:
            return self.trial(*ROSENBROCK.values(x))
        f, h, g, W, J = ROSENBROCK.derivatives(x, self.register("sigma"), self.vector("y_request"))
        return self.begin(f, h, g, J, banded(W, 2))


def test_words_need_no_alignment() -> None:
    one, other = Placed(0), Placed(1)
    assert one.state.flags.aligned
    assert not other.state.flags.aligned
    while one.register("request"):
        one.turn()
        other.turn()
        np.testing.assert_array_equal(one.state, other.state)
    assert one.register("status") == 0
    for a, b in zip(one.solution(), other.solution(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_functions_are_asked_at() -> None:
    """Points are float32 numbers to the last bit, and so is what the engine goes on from."""
    engine, trials = Placed(), 0
    while engine.register("request"):
        trials += engine.register("request") == VALUES
        for name in ("x_request", "x"):
            x = engine.vector(name)
            np.testing.assert_array_equal(x, x.astype("float32"))
        engine.turn()
    assert trials > 3
    x = engine.vector("x")
    np.testing.assert_allclose(x @ x, 1.5, rtol=1e-5)
    np.testing.assert_array_equal(engine.solution()[0], x)
