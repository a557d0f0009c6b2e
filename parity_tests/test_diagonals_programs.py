"""Diagonals carried through random linear programs, and through ravelled values. JAX alone: PyTorch's random programs
are in test_diagonals_torch_programs.py."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from carrying import assert_carried, carried, coefficients, gram
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array, lax

MOST = 24  # entries of a value of the random programs: they may then be taken apart along every axis

# --- Random programs: (value, random numbers) -> value ----------------------------------------------------------------


def _shape(size: int, rng: Any) -> list[int]:
    """Some factors of a size, and ones."""
    out = [1] * int(rng.integers(2))
    while size > 1:
        out.append(int(rng.choice([f for f in range(2, size + 1) if size % f == 0])))
        size //= out[-1]
    return [*out, *[1] * int(rng.integers(2))]


def _scaled(x: Array, rng: Any) -> Array:
    return x * coefficients([d if rng.integers(3) else 1 for d in x.shape], int(rng.integers(99)))


def _sliced(x: Array, rng: Any) -> Array:
    starts = [int(rng.integers(d)) for d in x.shape]
    stops = [int(rng.integers(a + 1, d + 1)) for a, d in zip(starts, x.shape, strict=True)]
    return lax.slice(x, starts, stops, [int(rng.integers(1, 4)) for _ in starts])


def _padded(x: Array, rng: Any) -> Array:
    return lax.pad(x, 0.0, [(int(rng.integers(-1, 3)), int(rng.integers(0, 2)), int(rng.integers(3))) for _ in x.shape])


def _reversed(x: Array, rng: Any) -> Array:
    return lax.rev(x, [axis for axis in range(x.ndim) if rng.integers(2)]) + 2 * x


def _concatenated(x: Array, rng: Any) -> Array:
    cases = [x, jnp.zeros_like(x), _scaled(x, rng)]
    axis = int(rng.integers(x.ndim + 1))
    picked = [cases[i] for i in rng.permutation(3)[: rng.integers(2, 4)]]
    return jnp.stack(picked, axis) if axis == x.ndim else jnp.concatenate([picked[0], x, *picked[1:]], axis)


def _unstacked(x: Array, rng: Any) -> Array:
    return sum((k + 2) * row for k, row in enumerate(jnp.unstack(jnp.atleast_1d(x))))


def _selected(x: Array, rng: Any) -> Array:
    return lax.select_n(jnp.asarray(rng.integers(0, 3, x.shape)), x, jnp.zeros_like(x), _scaled(x, rng))


def _multiplied(x: Array, rng: Any) -> Array:
    order = [int(i) for i in rng.permutation(x.ndim)]
    cut = sorted(int(i) for i in rng.integers(0, x.ndim + 1, 2))
    contracted, batch = order[: cut[0]], order[cut[0] : cut[1]]
    here = [int(i) for i in rng.permutation(cut[1] + 1)]  # where these axes, and a new one, stand in the matrix
    shape = [3] * len(here)
    for axis, there in zip(order, here, strict=False):
        shape[there] = x.shape[axis]
    shape[here[-1]] = 2
    there = here[: cut[0]], here[cut[0] : -1]
    if rng.integers(2):
        return lax.dot_general(x, coefficients(shape, 4), ((contracted, there[0]), (batch, there[1])))
    return lax.dot_general(coefficients(shape, 4), x, ((there[0], contracted), (there[1], batch)))


OPERATIONS: dict[str, Callable[[Array, Any], Array]] = {
    "scale": _scaled,
    "divide": lambda x, rng: -x / _scaled(jnp.ones_like(x), rng),
    "slice": _sliced,
    "pad": _padded,
    "reverse": _reversed,
    "transpose": lambda x, rng: jnp.transpose(x, rng.permutation(x.ndim)),
    "reshape": lambda x, rng: lax.reshape(x, _shape(x.size, rng), [int(i) for i in rng.permutation(x.ndim)]),
    "broadcast": lambda x, rng: jnp.broadcast_to(x, (2, *x.shape)) - jnp.expand_dims(x, 0),
    "sum": lambda x, rng: jnp.sum(x, tuple(axis for axis in range(x.ndim) if rng.integers(2))),
    "squeeze": lambda x, rng: jnp.squeeze(x),
    "concatenate": _concatenated,
    "unstack": _unstacked,
    "select": _selected,
    "multiply": _multiplied,
}
steps = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 999)), min_size=3, max_size=8)


@settings(max_examples=20)
@given(n=st.sampled_from([1, 2, 3, 5, 7]), steps=steps)
def test_random_programs(n: int, steps: list[tuple[str, int]]) -> None:
    def g(v: Array) -> Array:
        for name, seed in steps:
            after = OPERATIONS[name](v, np.random.default_rng(seed))
            v = after if 0 < after.size <= MOST and after.ndim < 5 else v
        return v

    # A reshape may leave no grid: of two rows of three, flattened, three rows of two have none.
    assert_carried(gram(g, n), n, may_give_up=any(name == "reshape" for name, _ in steps[1:]))


# Values of 40 rows, ravelled: no stride of v is theirs.
STAGES = (40, 3)
RAVELLED: dict[str, Callable[[Array], Array]] = {
    "ravelled": lambda v: v.reshape(-1),
    "joined": lambda v: jnp.concatenate([v.reshape(-1), 2 * v[:, 1], jnp.ones(2), (v[1:] - v[:-1]).reshape(-1)]),
    "joined again": lambda v: jnp.concatenate([jnp.append(v.reshape(-1), v[:, 0]), 3 * v.reshape(-1)]),
    "scaled": lambda v: coefficients((120,), 2) * v.reshape(-1),
    "added": lambda v: -v.reshape(-1) + (3 * v).reshape(-1) / 2,
    "added to strides": lambda v: v.reshape(-1) + coefficients((120,), 2) * jnp.repeat(v[:, 2], 3),
    "selected": lambda v: jnp.where(coefficients((120,), 2) > 0, v.reshape(-1), (2 * v).reshape(-1)),
    "converted": lambda v: v.reshape(-1).astype(np.float32).astype(float),
    "cut and back": lambda v: jnp.concatenate([v.reshape(-1), v[:, 0]])[:120].reshape(40, 3)[3:, 1],
    "cut within": lambda v: jnp.concatenate([v.reshape(-1), v[:, 0]])[120:157][20:],
    "padded": lambda v: jnp.pad(v.reshape(-1), (3, 4))[3:123].reshape(40, 3),
}


@pytest.mark.parametrize("name", RAVELLED)
def test_ravelled(name: str) -> None:
    """Along an affine image of stages of 5 numbers, of which 3 are kept: (t, i) -> 3 t + i is no stride of 5 t + i."""
    n, weights = 200, coefficients(STAGES, 3)
    assert_carried(gram(lambda v: RAVELLED[name](weights * v.reshape(40, 5)[:, 1:4]), n), n)


def test_ravelled_otherwise() -> None:
    """A value of no axis beside blocks, a cut through a block, and other stages than were ravelled."""
    inner = lambda v: v.reshape(40, 5)[:, 1:4].reshape(-1)  # noqa: E731
    for g in (lambda v: inner(v) + v[7], lambda v: inner(v)[2:], lambda v: inner(v).reshape(-1, 6)):
        assert carried(gram(g, 200), 200) is None
