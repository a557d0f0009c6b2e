"""What SciPy's functions in JAX take: as `jnp.asarray` takes it, and without its programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandhess_jax import scipy
from bandhess_jax.scipy.arguments import as_array

N = 29  # which no other test has: its programs are new
AB, B = [[0.0] * N, [4] * N], [5.0] * N
VALUES: dict[str, Any] = {
    "a list": AB,
    "a tuple of integers": (1, 2, 3),
    "complex numbers": [1.0, 2 + 1j],
    "flags": [True, False],
    "nothing": [],
    "a number": 3.0,
    "lists of arrays": [np.float32([1, 2]), jnp.ones(2, jnp.float32)],
    "scalars of NumPy's": [np.float32(1), np.float32(2)],
    "an array of JAX": jnp.arange(3),
    **{f"NumPy's {name}": np.arange(4).astype(name) for name in "?bhilBHILefdFD"},
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_arrays_are_those_of_asarray(name: str, x64: bool) -> None:
    with jax.enable_x64(x64):
        found, expected = as_array(VALUES[name]), jnp.asarray(VALUES[name])
    assert isinstance(found, jax.Array)
    assert (found.dtype, found.weak_type, found.sharding) == (expected.dtype, expected.weak_type, expected.sharding)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", [["x"], [1.0, [2.0]], np.array([None]), np.arange(3, dtype=">f8"), None])
def test_errors_are_those_of_asarray(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        jnp.asarray(value)
    with pytest.raises(expected.type) as found:
        as_array(value)
    assert str(found.value) == str(expected.value)


def test_a_traced_list_stays_traced() -> None:
    np.testing.assert_allclose(
        jax.grad(lambda x: scipy.solveh_banded([[x, x]], [1.0, 1.0], lower=True).sum())(2.0), -0.5
    )


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of the programs that are compiled."""
    found: list[str] = []

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text.startswith("Finished XLA compilation of "):
                found.append(text.removeprefix("Finished XLA compilation of ").split(" in ")[0])

    logger, handler = logging.getLogger("jax"), Note()
    logger.addHandler(handler)
    with jax.log_compiles():
        yield found
    logger.removeHandler(handler)


def test_a_first_call_compiles_one_program(compiled: list[str]) -> None:
    scipy.solveh_banded(np.array(AB), np.array(B))
    assert compiled == ["jit(_compiled)"]
    scipy.solveh_banded(AB, B)
    scipy.cholesky_banded(AB)
    scipy.eigvals_banded(np.array(AB), select="v", select_range=(0.0, 3.0))
    assert compiled == [f"jit({name})" for name in ("_compiled", "_compiled", "_scaled", "count_below", "_compiled")]
