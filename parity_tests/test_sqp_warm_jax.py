"""`sqp` goes on where another call ended, says what to do about an end, and differentiates the value alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS
from sqp_cases import CALLS, ENDS, HERE, YARD, in_yard
from trajectories import Yard, yard_inequalities

from bandhess_common.status import Status
from bandhess_jax import sqp

JAX = BACKENDS["jax"]


@pytest.mark.parametrize("end", ["linear", "curved", "capped and curved"])
def test_start(end: str) -> None:
    """At its own solution one step at most, after a small change a few; another start does not retrace."""
    c = ENDS[end][0]
    cold = in_yard(JAX, c)
    before = len(CALLS)
    again = in_yard(JAX, c, start=cold)
    assert again.status == Status.CONVERGED
    assert again.steps <= 1
    near = in_yard(JAX, c._replace(level=c.level + 1e-3), start=cold)
    afar = in_yard(JAX, c._replace(level=c.level + 1e-3))
    assert len(CALLS) == before
    assert near.status == Status.CONVERGED
    assert near.steps < afar.steps or near.steps <= 2
    np.testing.assert_allclose(near.value, afar.value, rtol=1e-7)


def test_start_with_bounds() -> None:
    c = ENDS["capped"][0]
    call = lambda **more: sqp(  # noqa: E731
        *YARD["jax"], jnp.asarray(HERE), 1, args=(jnp.asarray(c.array()),), bounds=(-1.0, c.cap), **more
    )
    cold = call()
    again = call(start=cold)
    assert again.status == Status.CONVERGED
    assert again.steps <= 1
    np.testing.assert_allclose(again.bound_multipliers[1], cold.bound_multipliers[1], rtol=1e-3, atol=1e-6)


def test_wrong_starts() -> None:
    cold = in_yard(JAX, Yard())
    with pytest.raises(TypeError, match="start must be an SQPResult"):
        in_yard(JAX, Yard(), start=3)
    with pytest.raises(ValueError, match="not both"):
        in_yard(JAX, Yard(), start=cold, multipliers=cold.multipliers)
    with pytest.raises(ValueError, match=r"start\.x must be like x0"):
        in_yard(JAX, Yard(), start=cold._replace(x=jnp.zeros(4)))


def test_tolerance_and_limits_do_not_retrace() -> None:
    in_yard(JAX, Yard())
    before = len(CALLS)
    assert in_yard(JAX, Yard(), max_steps=1, tol=1e-3).steps <= 1
    in_yard(JAX, Yard(), multipliers=in_yard(JAX, Yard()).multipliers)
    assert len(CALLS) == before


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("linear", "converged"), ("contradiction", "cannot be met"), ("a constraint twice", "dependent"),
        ("coupling outside the band", "Hessian"), ("constraint outside the band", "constraints(x)"),
    ],
)  # fmt: skip
def test_message(end: str, words: str) -> None:
    result = in_yard(JAX, ENDS[end][0])
    assert words in result.message
    if result.status == Status.BAND_TOO_NARROW:
        assert "give a larger one" in result.message


def test_results_pass_through_transformations() -> None:
    """From a call outside into jit, vmap and scan, as `start` and as what a loop carries: a chain of calls outside."""
    levels = np.array([1e-3, 2e-3, 3e-3])
    problems = jnp.asarray([ENDS["capped and curved"][0]._replace(level=level).array() for level in levels])
    first = in_yard(JAX, ENDS["capped and curved"][0])
    assert first.message.startswith("converged")

    def tick(last: Any, c: Any) -> tuple:
        cost, constraints = YARD["jax"]
        result = sqp(cost, constraints, last.x, 1, args=(c,), inequalities=yard_inequalities, start=last)
        return result, (result.x, result.steps)

    chain, last = [], first
    for c in problems:
        last, seen = tick(last, c)
        chain.append(seen)
    end, (x, steps) = jax.jit(lambda first: jax.lax.scan(tick, first, problems))(first)
    np.testing.assert_allclose(x, [each for each, _ in chain], atol=1e-9)
    np.testing.assert_array_equal(steps, [each for _, each in chain])
    assert end.message == last.message
    lanes = jax.jit(jax.vmap(tick, (None, 0)))(first, problems)[0]
    assert lanes.message == "CONVERGED 3"
    np.testing.assert_allclose(lanes.x[0], chain[0][0], atol=1e-9)
    again = jax.jit(jax.vmap(tick))(lanes, problems)[0]
    assert np.asarray(again.steps).max() <= 1
    assert np.asarray(again.steps).shape == (3,)


def test_no_message_inside_jit() -> None:
    cost, constraints = YARD["jax"]
    args = (jnp.asarray(Yard().array()),)
    solve = lambda x: sqp(cost, constraints, x, 1, args=args, inequalities=yard_inequalities)  # noqa: E731
    assert jax.eval_shape(solve, jnp.asarray(HERE)).message is None


def test_value_of_a_solution_that_is_not_unique() -> None:
    """min (x0 + x1 - p)^2 + p x2, x2 = p: any x0 will do, and the value p^2 has a derivative."""

    def value(p: Any) -> Any:
        cost = lambda x, p: (x[0] + x[1] - p) ** 2 + p * x[2]  # noqa: E731
        result = sqp(cost, lambda x, p: x[2:] - p, jnp.array([1.0, 2.0, 0.5]), 1, args=(p,))
        return result.value

    p = jnp.float64(0.7)
    np.testing.assert_allclose(value(p), 0.49, rtol=1e-7)
    np.testing.assert_allclose(jax.grad(value)(p), 1.4, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(value, (p,), (jnp.float64(2),))[1], 2.8, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(value)))(jnp.array([0.7, -0.2])), [1.4, -0.4], rtol=1e-6)
