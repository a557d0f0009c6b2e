"""What a function reads from outside is noticed when it changes, and programs do not pile up. JAX alone compiles."""

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandhess_jax import hessian, newton
from bandhess_jax.framework.contents import SHORT, describe

N = 6
START = np.zeros(N)
LEVEL: Any = 1.0


def by_newton(fun: Callable) -> float:
    return round(float(newton(fun, START, 0).x[0]), 6)


def test_arrays_changed_in_place() -> None:
    y = np.ones(N)

    def fun(z: Any) -> Any:
        return jnp.sum((z - y) ** 2)

    assert by_newton(fun) == 1
    y[:] = 5
    assert by_newton(fun) == 5


def test_hessian_of_arrays_changed_in_place() -> None:
    y = np.ones(N)
    band = hessian(lambda z: jnp.sum(y * z**2), 0)
    assert band(START)[0, 0] == 2
    y[:] = 5
    assert band(START)[0, 0] == 10


def test_rebound_globals() -> None:
    global LEVEL

    def fun(z: Any) -> Any:
        return jnp.sum((z - LEVEL) ** 2)

    for LEVEL in (1.0, 5.0, jnp.full(N, 2.0), np.full(N, 3.0)):
        assert by_newton(fun) == np.ravel(LEVEL)[0]


class Problem:
    def __init__(self, data: Any) -> None:
        self.data = data

    def energy(self, z: Any) -> Any:
        return jnp.sum((z - self.data) ** 2)


def test_bound_methods() -> None:
    p = Problem(3)
    assert by_newton(p.energy) == 3
    p.data = 5
    assert by_newton(p.energy) == 5
    gone = weakref.ref(p)
    del p
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", [float, lambda i: np.full(N, float(i))], ids=["float", "array"])
def test_fresh_partials_share_one_program(kind: Callable) -> None:
    traces: list = []

    def fun(level: Any, z: Any) -> Any:
        traces.append(None)
        return jnp.sum((z - level) ** 2)

    for i in range(50):
        assert by_newton(functools.partial(fun, kind(i))) == i
    assert len(traces) == 1


def test_partials_whose_values_are_needed() -> None:
    def fun(level: float, z: Any) -> Any:
        return jnp.sum((z - (level if level > 2 else -level)) ** 2)

    assert [by_newton(functools.partial(fun, float(i))) for i in range(5)] == [0, -1, -2, 3, 4]


def test_fresh_jitted_functions_share_one_program() -> None:
    traces: list = []

    def fun(z: Any) -> Any:
        traces.append(None)
        return jnp.sum((z - 2) ** 2)

    assert all(by_newton(jax.jit(fun)) == 2 for _ in range(50))
    assert len(traces) == 1


@pytest.mark.parametrize("size", [10, SHORT // 8 + 1, SHORT + 5])
def test_every_entry_counts(size: int) -> None:
    """One entry changed, or two exchanged, anywhere: another key."""
    a = np.random.default_rng(0).normal(size=size)
    fun = lambda: a  # noqa: E731
    before = describe(fun).reads
    assert describe(fun).reads == before
    for i in (0, size // 2, size - 1):
        old = a[i]
        a[i] = np.nextafter(old, 9)
        assert describe(fun).reads != before
        a[i] = old
    a[[0, -1]] = a[[-1, 0]]
    assert describe(fun).reads != before
