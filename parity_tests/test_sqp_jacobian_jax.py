"""Rows of the Jacobian, their windows and the Hessian's band, as `sqp` extracts them: against dense derivatives."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandhess_jax.band.stages import Layout
from bandhess_jax.extraction.products import Extraction
from bandhess_jax.optimise.sqp.derivatives import Derivatives, derivatives
from bandhess_jax.optimise.sqp.rows import windows

LAYOUTS = {
    "vector": lambda T: np.zeros(T),
    "matrix": lambda T: np.zeros((T, 2)),
    "tree": lambda T: {"a": np.zeros((T, 1, 2)), "b": np.zeros(T)},
    "ragged": lambda T: {"a": np.zeros((T, 2)), "u": np.zeros((T - 1, 2))},
}
CASES = [
    ("vector", 1, 0, "float64"), ("vector", 2, 3, "float64"), ("vector", 17, 1, "float32"),
    ("vector", 17, 3, "float64"),
    ("matrix", 1, 2, "float32"), ("matrix", 9, 0, "float64"), ("matrix", 9, 2, "float64"),
    ("tree", 2, 1, "float64"), ("tree", 7, 2, "float64"),
    ("ragged", 2, 0, "float64"), ("ragged", 8, 1, "float64"), ("ragged", 8, 2, "float32"),
]  # fmt: skip


def columns(tree: Any) -> Any:
    """(T - 1, d) and the last stage, from any of the trees."""
    parts = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    short = min(map(len, parts))
    return jnp.concatenate([part[:short] for part in parts], axis=1), parts[0][-1]


def problem(layout: Layout, k: int, kind: str) -> Any:
    """f and h of the flat x, of bandwidth k, rows in odd orders."""

    def functions(flat: Any) -> tuple:
        stages, last = columns(layout.unravel(flat))
        reach = min(k, len(stages) - 1)
        ahead = stages[reach:]
        back = stages[: len(ahead)]
        f = jnp.sum(jnp.sin(back) * jnp.cos(ahead)) + jnp.sum(last**3) + jnp.sum(stages**4)
        near = ahead[:, 0] * back[:, -1] - jnp.exp(back[:, 0])
        parts = [near[::-1], last[:1] ** 2, stages[:, 0] * 1e-3, near[:1] * 0 + 1.0, jnp.sum(stages[0] ** 2)[None]]
        if kind == "scan":
            parts.append(jax.lax.scan(lambda c, s: (c, s[0] ** 3), 0.0, stages)[1])
        return f.astype(flat.dtype), jnp.concatenate(parts if kind != "none" else [stages[:0, 0]]).astype(flat.dtype)

    return functions


def point(layout: Layout) -> Any:
    x = (0.3 + np.random.default_rng(0).random(layout.n)).astype(layout.dtype)
    return jax.device_put(x * (1 - np.asarray(layout.dummies())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def extracted(layout: Layout, extraction: Extraction, kind: str, wide: bool, x: Any, sigma: Any) -> tuple:
    functions = problem(layout, extraction.bandwidth + wide, kind)
    first = windows(lambda x: functions(x)[1], x, layout, extraction.bandwidth)
    y = jnp.linspace(1, 2, len(functions(x)[1]), dtype=x.dtype)
    return first, y, derivatives(functions, x, sigma, y, first, layout, extraction, True)


@functools.partial(jax.jit, static_argnums=0)
def dense(functions: Any, x: Any, sigma: Any, y: Any) -> tuple:
    """f and h, gradient and Hessian of L, Jacobian of h."""

    def lagrangian(x: Any) -> Any:
        f, h = functions(x)
        return sigma * f + y @ h

    rows = jax.jacfwd(lambda x: functions(x)[1])(x)
    return functions(x), jax.grad(lagrangian)(x), rows, jax.hessian(lagrangian)(x)


def dense_rows(found: Derivatives, first: Any, n: int) -> np.ndarray:
    J = np.zeros((len(first), n))
    for i, (start, row) in enumerate(zip(np.asarray(first), np.asarray(found.rows), strict=True)):
        J[i, start : start + len(row)] = row
    return J


def dense_band(band: np.ndarray) -> np.ndarray:
    n = band.shape[1]
    lower = sum(np.diag(band[i, : n - i], -i) for i in range(min(band.shape)))
    return lower + np.tril(lower, -1).T


@pytest.mark.parametrize(("name", "T", "k", "dtype"), CASES)
def test_against_dense_derivatives(name: str, T: int, k: int, dtype: str) -> None:
    layout = Layout.of(jax.tree.map(lambda a: a.astype(dtype), LAYOUTS[name](T)))
    kind = "scan" if name == "matrix" else "none" if name == "tree" and k == 2 else "arrays"
    probing = "substitution" if k == 3 else "direct"
    x, sigma = point(layout), jnp.asarray(0.5, dtype)
    first, y, found = extracted(layout, Extraction.of(k, probing, "auto"), kind, False, x, sigma)
    functions = problem(layout, k, kind)
    eps = float(jnp.finfo(dtype).eps)
    d, width = layout.d, min(k + 1, T) * layout.d
    assert (np.asarray(first) % d == 0).all()
    assert found.rows.shape == (len(y), width)
    assert ((np.asarray(first) >= 0) & (np.asarray(first) <= layout.n - width)).all()
    assert found.band.shape == ((k + 1) * d, layout.n)
    (value, h), grad, rows, hessian = dense(functions, x, sigma, y)
    np.testing.assert_allclose(found.value, value, rtol=32 * eps)
    np.testing.assert_allclose(found.h, h, rtol=32 * eps)
    tolerance = {"rtol": 1e2 * eps, "atol": 1e2 * eps}
    np.testing.assert_allclose(found.grad, grad, **tolerance)
    np.testing.assert_allclose(dense_rows(found, first, layout.n), rows, **tolerance)
    held = np.diag(layout.dummies())
    np.testing.assert_allclose(dense_band(np.asarray(found.band)), hessian + held, **tolerance)
    assert int(found.narrow) == 0


@pytest.mark.parametrize(("name", "kind"), [("vector", "none"), ("matrix", "arrays"), ("ragged", "arrays")])
def test_too_narrow(name: str, kind: str) -> None:
    """Of bandwidth 3, extracted with 2: told, and which of the two it is."""
    layout = Layout.of(LAYOUTS[name](9))
    found = extracted(layout, Extraction.of(2, "direct", "auto"), kind, True, point(layout), jnp.float64(1))[2]
    assert int(found.narrow) == (1 if kind == "none" else 2)


def test_gradients_that_vanish_at_the_start() -> None:
    """x[t] x[t + 1] at 0 touches nothing there; x[t] - 1 far from 0, with many stages in float32."""
    layout = Layout.of(np.zeros(40000, "float32"))
    rows = lambda x: jnp.concatenate([(x[1:] * x[:-1])[::-1], x[:1] - 1])  # noqa: E731
    first = jax.jit(lambda x: windows(rows, x, layout, 1))(jnp.zeros(40000, jnp.float32))
    np.testing.assert_array_equal(first, [*range(39999)[::-1], 0])


def test_windows_of_lanes() -> None:
    layout = Layout.of(np.zeros((6, 2)))
    x = jnp.asarray(np.random.default_rng(0).random((3, 12)))
    rows = lambda x: x[2:].reshape(5, 2)[::-1, 0] * x[:-2].reshape(5, 2)[::-1, 1]  # noqa: E731
    lanes = jax.vmap(lambda x: windows(rows, x, layout, 1))(x)
    np.testing.assert_array_equal(lanes, [[8, 6, 4, 2, 0]] * 3)
