"""Probes and products: which vectors are multiplied, how many, and that chunks change nothing."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from oracles import integers, store
from probing_cases import banded

import bandhess_jax

SHAPES = [(9, 1, 0), (11, 1, 2), (6, 1, 5), (4, 1, 9), (7, 3, 1), (5, 2, 2), (6, 2, 0), (1, 3, 2), (1, 1, 0)]
shapes = pytest.mark.parametrize(("T", "d", "k"), SHAPES)


@shapes
def test_probes_by_definition(backend: Backend, T: int, d: int, k: int) -> None:
    h, probes = banded(T, d, k), []

    def product(v: np.ndarray) -> np.ndarray:
        probes.append(np.array(v).ravel())
        return (h @ v.ravel()).reshape(v.shape)

    like = backend.array(np.zeros((T, d)))
    ab = backend.numpy(backend.package.from_matvec(backend.on_host(product), like, k, chunk_size=1))

    np.testing.assert_array_equal(ab, store(h, (k + 1) * d - 1), strict=True)
    assert len(probes) == min(2 * k + 1, T) * d
    # Every column is in exactly one probe, as 1 ...
    np.testing.assert_array_equal(np.unique(probes), [0, 1] if len(probes) > 1 else [1])
    np.testing.assert_array_equal(np.sum(probes, axis=0), np.ones(T * d))
    # ... and no two columns of one probe share a row of the matrix.
    for probe in probes:
        columns = np.flatnonzero(probe)
        for a in columns:
            for b in columns:
                assert a == b or not np.any((h[:, a] != 0) & (h[:, b] != 0))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 1000, None, "auto"])
def test_chunks_change_nothing(backend: Backend, chunk_size: int | str | None) -> None:
    T, d, k = 9, 2, 2  # 10 probes: 2 divides them, 3 does not
    h = backend.array(banded(T, d, k))
    ab = backend.package.from_matvec(lambda v: h @ v, backend.array(np.zeros((T, d))).reshape(-1), (k + 1) * d - 1)
    chunked = backend.package.from_matvec(
        lambda v: (h @ v.reshape(-1)).reshape(v.shape), backend.array(np.zeros((T, d))), k, chunk_size=chunk_size
    )
    np.testing.assert_array_equal(backend.numpy(chunked), store(banded(T, d, k), (k + 1) * d - 1))
    np.testing.assert_array_equal(
        backend.numpy(chunked), backend.numpy(ab)
    )  # the same band, extracted as that of a vector


def test_chunk_size_bounds_the_batch(backend: Backend) -> None:
    """A batched product forms (probes, n) arrays: never more than chunk_size probes at a time."""
    n, k = 50, 10
    like, scale = backend.array(np.zeros(n)), backend.array(np.arange(1.0, 1 + 7 * n).reshape(7, n))

    def largest(chunk_size: int | None) -> int:
        # (7, n) per product: larger than the band's own arrays, so that the products decide. By running sums, which
        # nothing but probes goes through.
        def band(like):
            return backend.package.from_matvec(
                lambda v: backend.xp.cumsum(scale * v[None] * scale, 0)[-1], like, k, chunk_size=chunk_size
            )

        return backend.largest_array(band, like)

    assert largest(4) == 4 * 7 * n
    assert largest(None) == (2 * k + 1) * 7 * n


def test_batches_of_probes_by_default() -> None:
    """In JAX on a CPU: many at once, few or wide ones one at a time, and so are products on the host."""

    def loops(matvec: Callable, n: int, k: int) -> bool:
        band = partial(bandhess_jax.from_matvec, matvec, bandwidth=k)
        return "scan[" in str(jax.make_jaxpr(band)(jnp.zeros(n)))

    opaque = jax.checkpoint(lambda v: 2 * v)  # as it stands, it would need no probes
    assert not loops(opaque, 50, 4)
    assert loops(opaque, 50, 3)
    assert not loops(opaque, 2**13, 3)
    assert loops(opaque, 2**18, 3)
    assert loops(jax.checkpoint(lambda v: jnp.sum(jnp.cos(jnp.outer(jnp.arange(32.0), v)), 0)), 2**13, 3)
    turns = lambda v: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, v))[1]  # noqa: E731
    assert not loops(turns, 2**17, 4)  # a loop, shared by many probes
    assert loops(turns, 2**13, 3)
    on_host = BACKENDS["jax"].on_host(lambda v: 2 * v)
    assert loops(on_host, 50, 4)
    for product in (on_host, jax.checkpoint(on_host), lambda v: jax.lax.cond(v[0] < 9, on_host, on_host, v)):
        np.testing.assert_array_equal(bandhess_jax.from_matvec(product, jnp.zeros(50), 4)[0], 2 * np.ones(50))
    assert loops(lambda v: jax.ffi.ffi_call("never_called", jax.ShapeDtypeStruct(v.shape, v.dtype))(v), 50, 4)


def test_operator_on_trees(backend: Backend) -> None:
    """A block-diagonal operator on {"q": (T, 2), "u": (T - 1,)}: the missing end is a dummy with a unit diagonal."""
    T = 4
    like = {"q": backend.array(np.zeros((T, 2))), "u": backend.array(np.zeros(T - 1))}
    block = backend.array([[2.0, 3.0], [3.0, 5.0]])

    def operator(v):
        return {"q": v["q"] @ block, "u": 7 * v["u"]}

    ab = backend.numpy(backend.package.from_matvec(operator, like, 1))
    expected = np.zeros((6, 3 * T))
    expected[0] = [2, 5, 7] * (T - 1) + [2, 5, 1]
    expected[1] = [3, 0, 0] * T
    np.testing.assert_array_equal(ab, expected, strict=True)


def test_float32(backend: Backend) -> None:
    h = backend.array(banded(6, 1, 1), "float32")
    ab = backend.package.from_matvec(lambda v: h @ v, backend.array(integers(6, 0), "float32"), 1)
    np.testing.assert_array_equal(backend.numpy(ab), store(banded(6, 1, 1), 1).astype("float32"), strict=True)


def test_bad_input(backend: Backend) -> None:
    like = backend.array(np.zeros(4))

    def extract(bandwidth=1, like=like, matvec=lambda v: v, **options):
        return lambda: backend.package.from_matvec(matvec, like, bandwidth, **options)

    bad = [
        (ValueError, "bandwidth must be an int >= 0, got -1", extract(-1)),
        (TypeError, "bandwidth must be an int >= 0, got 1.0", extract(1.0)),
        (TypeError, "bandwidth must be an int >= 0, got True", extract(True)),
        (TypeError, "bandwidth must be an int >= 0, got None", extract(None)),
        (ValueError, r"probing must be one of .*'direct'.*'other'", extract(probing="other")),
        (ValueError, "probing must be one of", extract(probing=None)),
        (
            ValueError,
            "probing must be one of",
            extract(probing=type(backend.package.extraction.probing.protocol.as_probing("direct"))),
        ),
        (ValueError, "chunk_size must be an int >= 1, got 0", extract(chunk_size=0)),
        (TypeError, 'chunk_size must be an int >= 1, None or "auto", got 1.5', extract(chunk_size=1.5)),
        (TypeError, "chunk_size must be an int >= 1, None or \"auto\", got 'all'", extract(chunk_size="all")),
        (TypeError, "like must have a real floating dtype", extract(like=backend.array([1, 2]))),
        (ValueError, "every leaf of like needs a leading stage axis", extract(like=backend.array(1.0))),
        (ValueError, r"expected a .*shape.*\(4,\).*\(3,\)", extract(matvec=lambda v: v[1:])),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()
