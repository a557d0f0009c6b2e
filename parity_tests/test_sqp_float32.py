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
from interior_problems import chain

from bandhess_common.kernels.interior import Layout

pytestmark = pytest.mark.usefixtures("compiled_kernels")

SIZES = {"yao": 100, "steering": 20, "rocket": 50, "glider": 40, "camshape": 50}
"""Of problems whose condensed matrix, rounded to float32, holds a hundredth of H."""


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
    name, value = known
    with as_users(backend):
        result = solve(backend, made(name, backend, "float32"), "float32", tol=1e-5, max_steps=200)
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
        reals = [leaf for leaf in backend.leaves(end._replace(message=None)) if backend.is_array(leaf)]
        assert len(reals) == 15
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
    """Three states of an odd number of doubles, beside each other: each lane is its own solve to the last bit."""
    xp = backend.xp
    assert Layout(5, 3, 2).size % 2

    def least(a: Any) -> Any:
        return backend.package.sqp(
            lambda x: xp.sum((x - a) ** 4) + xp.sum(x[1:] * x[:-1]), lambda x: x[:2] * x[1:3] - 1, 0 * a + 1, 1,
            inequalities=lambda x: 2 - x[:1],
        )[:2]  # fmt: skip

    with as_users(backend):
        starts = backend.array(np.arange(15, dtype="float32").reshape(3, 5) / 8)
        x, value = backend.vmap(least)(starts)
        for i in range(3):
            alone = least(starts[i])
            np.testing.assert_allclose(backend.numpy(x[i]), backend.numpy(alone[0]), rtol=1e-6)
            np.testing.assert_allclose(float(value[i]), float(alone[1]), rtol=1e-6)


class Placed(Engine):
    """An engine whose words begin `offset` words behind where doubles may lie."""

    def __init__(self, offset: int, *sizes: int) -> None:
        super().__init__(*sizes, "float32")
        count = 2 * self.layout.size
        self.state = np.zeros(count + 2, np.int32)[offset : offset + count].view(np.float64)


def test_words_need_no_alignment() -> None:
    p = chain(6, 2.0)
    n, zeros = len(p.x0), np.zeros
    _, h, _, _, J = p.derivatives(np.asarray(p.x0, float), 1.0, zeros(100))
    engines = [Placed(offset, n, len(h), p.m, n) for offset in (0, 1)]
    assert [bool(engine.state.flags.aligned) for engine in engines] == [True, False]
    spread = lambda a: np.broadcast_to(np.asarray(a, float), (n,))  # noqa: E731
    for engine in engines:
        vectors = [spread(p.lower), spread(p.upper), zeros(n), p.x0, zeros(len(h)), zeros(n), zeros(n)]
        engine.start(vectors, zeros(len(h), np.int32), [1e-4, 100, 0, 0])
        for _ in range(4):
            x = engine.vector("x_request")
            f, h, g, W, J = p.derivatives(x, engine.register("sigma"), engine.vector("y_request"))
            engine.begin(f, h, g, J, banded(W, n))
        engine.trial(*p.values(engine.vector("x_request")))
    one, other = engines
    assert one.register("steps") > 0
    np.testing.assert_array_equal(one.state, other.state)
    for a, b in zip(one.solution(), other.solution(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_functions_are_asked_at() -> None:
    """Points are float32 numbers to the last bit, and so is what the engine goes on from."""
    p = chain(6, 2.0)
    n = len(p.x0)
    _, h, _, _, _ = p.derivatives(np.asarray(p.x0, float), 1.0, np.zeros(100))
    engine = Engine(n, len(h), p.m, n, "float32")
    spread = lambda a: np.broadcast_to(np.asarray(a, float), (n,))  # noqa: E731
    vectors = [spread(p.lower), spread(p.upper), np.zeros(n), p.x0, np.zeros(len(h)), np.zeros(n), np.zeros(n)]
    engine.start(vectors, np.zeros(len(h), np.int32), [1e-4, 100, 0, 0])
    trials = 0
    while engine.register("request"):
        x = engine.vector("x_request")
        np.testing.assert_array_equal(x, x.astype("float32"))
        if engine.register("request") == 1:
            f, h, g, W, J = p.derivatives(x, engine.register("sigma"), engine.vector("y_request"))
            engine.begin(f, h, g, J, banded(W, n))
            at = engine.vector("x")
            np.testing.assert_array_equal(at, at.astype("float32"))
        else:
            engine.trial(*p.values(x))
            trials += 1
    assert trials > 3
    assert engine.register("status") == 0
