"""JAX's loops in pieces: a state that is handed over between them is the same afterwards."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bandhess_jax as bj
from bandhess_jax.framework import jit
from bandhess_jax.framework.packing import LONG, nothing, pack, unpack


class Leaves(NamedTuple):
    matrix: Any
    long: Any
    truth: Any
    count: Any
    absent: Any
    number: Any


def leaves(seed: int) -> Leaves:
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(2, 3)), rng.normal(size=(2, LONG // 2)), bool(seed), 5 + seed
    return Leaves(*map(jnp.asarray, parts), None, jnp.asarray(rng.normal()))


def test_packing_is_undone() -> None:
    state, start = leaves(1), leaves(0)
    packed = pack(state)
    assert [part.size for part in jax.tree.leaves(packed)] == [LONG, 7, 3]
    for found, expected in ((unpack(packed, start), state), (unpack(nothing(packed), start), start)):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def rosenbrock(x: Any) -> Any:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2) + (x[0] - 1) ** 2


@pytest.mark.parametrize("n", [40, LONG + 1])
@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_many_pieces_are_one_loop(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn each: as in few pieces, and, but for rounding (one program is compiled otherwise), as in none."""
    x0 = jnp.asarray(np.sin(1.7 * np.arange(n)))
    if name == "newton":
        call = lambda x: bj.newton(rosenbrock, x, 1, history=True, max_steps=100)  # noqa: E731
    else:
        call = lambda x: bj.sqp(rosenbrock, lambda x: x[:1] - 0.9, x, 1, history=True, max_steps=100)  # noqa: E731
    expected, whole = call(x0), jax.jit(call)(x0)
    monkeypatch.setattr("bandhess_jax.framework.clock.FIRST", 1)
    monkeypatch.setattr("bandhess_jax.framework.clock.PIECE", 0)
    found = call(x0)
    assert found.steps == expected.steps
    assert found.status == expected.status == int(whole.status)
    np.testing.assert_allclose(whole.history.value[:5], expected.history.value[:5], rtol=1e-9)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(found.history.value, expected.history.value[: found.steps + 1], rtol=1e-6, atol=1e-9)


def test_detection_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `bandwidth=None` compiles is found again by the user's functions."""
    counts = []
    compiled = jit.Program.__call__

    def counted(self: Any, *args: Any, **more: Any) -> Any:
        out = compiled(self, *args, **more)
        counts.append(bool(self.entry.traced))
        return out

    monkeypatch.setattr(jit.Program, "__call__", counted)
    residuals, fun, held = lambda x: x[1:] - x[:-1] ** 2, lambda x: jnp.sum(x**2), lambda x: x[1:] - x[:-1] ** 2 / 9
    x = jnp.linspace(0.5, 1, 6)
    for call in (
        lambda: bj.newton(residuals, x, None, hessian="gauss_newton"),
        lambda: bj.sqp(fun, held, x, None),
    ):
        call()
        assert any(counts)
        counts.clear()
        call()
        assert counts
        assert not any(counts)
        counts.clear()
