"""SQP under transforms, and its arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from sqp_cases import CALLS, ENDS, HERE, YARD, in_yard
from trajectories import Yard, yard_inequalities

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
    assert results.status.dtype == results.steps.dtype == jnp.asarray(1).dtype  # as Python's
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


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_refused(backend: Backend, name: str) -> None:
    """It is too coarse for the method's tolerances."""
    x0 = backend.xp.zeros(4, dtype=getattr(backend.xp, name))
    with pytest.raises(TypeError, match=rf"take[s]? float32 and float64, got (torch\.)?{name}"):
        backend.package.sqp(lambda x: backend.xp.sum(x**2), lambda x: x[1:] - x[:-1], x0, 1)


def test_one_function_as_constraint_and_as_inequality(backend: Backend) -> None:
    """What is kept of a problem is not taken for another one of the same functions."""
    x0 = backend.array(np.zeros(4))
    fun, first = lambda x: backend.xp.sum((x - 1) ** 2), lambda x: x[:1] - 0.5
    equal = backend.package.sqp(fun, first, x0, 1)
    above = backend.package.sqp(fun, None, x0, 1, inequalities=first)
    again = backend.package.sqp(fun, first, x0, 1)
    for result, x in ((equal, 0.5), (above, 1.0), (again, 0.5)):
        assert result.status == backend.package.Status.CONVERGED
        np.testing.assert_allclose(float(result.x[0]), x, atol=1e-7)
