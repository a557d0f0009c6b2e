"""Parts of newton's portable loop in JAX: a point's facts, and a turn of refinement."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from newton_facts import naive, problem
from oracles import unstore

from bandhess_jax.optimise.newton import point, refinement
from bandhess_jax.optimise.newton.subproblem import Answer


def facts(ab: Any, g: Any, x: Any, p: Any, value: float = 1.5) -> point.Facts:
    arrays = [jnp.asarray(a) for a in (ab, g, x, p)]
    return point.Facts(*np.asarray(jax.jit(point.facts)(*arrays, jnp.asarray(value, arrays[0].dtype))))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "w"), [(1, 0), (3, 5), (67, 2), (530, 1)])  # 530: two blocks of rows
def test_facts(n: int, w: int, dtype: str) -> None:
    arrays = problem(n, w, dtype)
    found = facts(*arrays)
    np.testing.assert_allclose(found, naive(*arrays), rtol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("i", [0, 66, 69])  # within a block of 64, and in what is left of it
def test_facts_that_are_not_finite(i: int, bad: float) -> None:
    ab, g, x, p = problem(70, 2)
    g[i], ab[0, i] = bad, bad
    found = facts(ab, g, x, p)
    assert not found.finite
    np.testing.assert_equal(found.grad_norm, abs(bad))
    assert np.isnan(found.high)  # the radius is inf - inf


def definite(n: int) -> tuple[np.ndarray, np.ndarray]:
    ab, g, *_ = problem(n, 3)
    H = unstore(ab)
    return H + (1 - np.linalg.eigvalsh(H)[0]) * np.eye(n), g


def refined(H: np.ndarray, g: np.ndarray, radius: float, grow: bool, turns: int) -> tuple[np.ndarray, Answer, list]:
    """Conjugate gradients without a preconditioner."""
    work = refinement.begin(jnp.asarray(g))
    answer = jnp.stack(Answer(*map(jnp.asarray, (radius, *[0.0] * 8))))
    yes, grows, goes_on = jnp.bool_(True), jnp.bool_(grow), []
    advance = jax.jit(refinement.advance)
    for _ in range(turns):
        z = -work[1]
        work, answer, more = advance(work, jnp.asarray(g), z, H @ z, yes, grows, answer)
        goes_on.append(bool(more > 0))
    return np.asarray(work), Answer(*np.asarray(answer)), goes_on


def test_refinement_solves() -> None:
    n = 12
    H, g = definite(n)
    work, answer, goes_on = refined(H, g, 1e-3, True, n + 1)
    p = -np.linalg.solve(H, g)
    np.testing.assert_allclose(work[0], p, rtol=1e-9)
    np.testing.assert_allclose(work[1], 0, atol=1e-9)
    np.testing.assert_allclose([answer.slope, answer.predicted], [g @ p, -g @ p / 2], rtol=1e-9)
    np.testing.assert_allclose([answer.size, answer.radius], np.linalg.norm(p), rtol=0.1)  # the region grew
    assert goes_on[0]
    assert not goes_on[-1]


@pytest.mark.parametrize("sign", [1, -1])
def test_refinement_ends_at_the_radius(sign: int) -> None:
    """The first turn follows -g as far as the region goes; with negative curvature in any region."""
    H, g = definite(12)
    radius = 0.01 if sign > 0 else 30.0
    work, answer, goes_on = refined(sign * H, g, radius, False, 1)
    p = -radius * g / np.linalg.norm(g)
    np.testing.assert_allclose(work[0], p, rtol=1e-12)
    np.testing.assert_allclose(work[1], g + sign * H @ p, rtol=1e-9)
    np.testing.assert_allclose([answer.size, answer.radius], radius, rtol=1e-12)
    np.testing.assert_allclose(answer.predicted, -g @ p - sign * p @ H @ p / 2, rtol=1e-12)
    assert goes_on == [False]


def test_refinement_leaves_what_it_cannot_use() -> None:
    H, g = definite(12)
    work, answer, _ = refined(H, g, 1.0, True, 2)
    operands = jnp.asarray(work), jnp.asarray(g), jnp.asarray(g), jnp.asarray(H @ g)
    then, end, more = refinement.advance(*operands, jnp.bool_(False), jnp.bool_(True), jnp.stack(answer))
    np.testing.assert_array_equal(then[:2], work[:2])
    np.testing.assert_allclose(np.asarray(end), np.asarray(answer), rtol=1e-12)
    assert more == 0
