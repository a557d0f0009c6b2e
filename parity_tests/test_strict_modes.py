"""A small part of each room under JAX's strict modes: nothing raises, and the values stay.

Strict promotion of dtypes and ranks is on for the whole suite (`conftest.py`).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bandhess_jax as bj

N = 7


def fun(x: Any) -> Any:
    return jnp.sum((x[1:] - x[:-1]) ** 2 + jnp.cosh(x[1:])) + jnp.cosh(x[0])


def ragged(x: Any) -> Any:
    return jnp.sum(x["q"] ** 4) + jnp.sum((x["q"][1:] - x["q"][:-1] - x["u"]) ** 2) + jnp.sum(x["u"] ** 2)


def tree() -> dict:
    return {"q": jnp.linspace(0.1, 1, 2 * N).reshape(N, 2), "u": jnp.full((N - 1, 2), 0.5)}


def band() -> Any:
    return bj.hessian(fun, 1)(jnp.linspace(0.1, 1, N))


def start() -> Any:
    return jnp.linspace(0.1, 1, N)


ROOMS: dict[str, Callable[[], Any]] = {
    "band": lambda: jax.jit(lambda H, x: (bj.matvec(H, x), bj.to_dense(H), bj.to_bcoo(H).todense()))(band(), start()),
    **{
        f"probing {p}": lambda p=p: bj.hessian(ragged, 1, probing=p)(tree())
        for p in ("direct", "substitution", "fourier", "random")
    },
    "chunks": lambda: bj.hessian(ragged, 1, probing="fourier", chunk_size=3)(tree()),
    "gauss_newton": lambda: bj.gauss_newton(lambda x: x[1:] ** 2 - x[:-1], 1)(start()),
    "bandwidth": lambda: (bj.detect_bandwidth(ragged)(tree()), bj.band_error(fun)(band(), start())),
    "linalg": lambda: jax.jit(lambda H, x: (bj.solve(H, x), bj.logdet(bj.cholesky(H)), bj.ldl(H)))(band(), start()),
    "rcond": lambda: jax.jit(lambda H: bj.rcond(bj.cholesky(H), H))(band()),
    "newton": lambda: bj.newton(fun, start(), 1, history=True),
    "newton in jit": lambda: jax.jit(lambda c: bj.newton(lambda x: fun(x - c), start(), 1).x)(0.5),
    "sqp": lambda: bj.sqp(fun, lambda x: x[:1] - 1, start(), 1).x,
}


@contextlib.contextmanager
def debug_nans() -> Iterator[None]:
    before = jax.config.jax_debug_nans
    jax.config.update("jax_debug_nans", True)
    try:
        yield
    finally:
        jax.config.update("jax_debug_nans", before)


MODES = {
    "nans": debug_nans,
    "leaks": jax.checking_leaks,
}


@functools.cache
def in_the_usual_mode(room: str) -> Any:
    return jax.tree.map(np.asarray, ROOMS[room]())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("room", ROOMS)
def test_strict_modes(room: str, mode: str) -> None:
    expected = in_the_usual_mode(room)
    jax.clear_caches()  # a mode that is no part of JAX's keys must not find what was compiled before
    with MODES[mode]():
        found = ROOMS[room]()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        known = np.nan_to_num(b) if mode == "nans" else b  # what is not known is 0 there
        np.testing.assert_allclose(a, known, rtol=1e-9, atol=1e-9)


def test_the_suite_forbids_promotion() -> None:
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(3, "float32") + jnp.ones(3)
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


@pytest.mark.promotes("to see that the mark lets it")
def test_a_marked_test_may_promote() -> None:
    assert (jnp.ones(3, "float32") + jnp.ones(3)).dtype == "float64"
    assert (jnp.ones((2, 3)) + jnp.ones(3)).shape == (2, 3)
