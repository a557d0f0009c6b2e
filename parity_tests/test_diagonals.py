"""Diagonals carried through linear programs: one operation at a time. JAX alone: PyTorch's are in
test_diagonals_torch.py."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carrying import assert_carried, coefficients, gram
from jax import Array, lax

from bandhess_jax.extraction.diagonals import translator, walk
from bandhess_jax.framework.programs import flattened


def test_the_definition() -> None:
    """value[i] = sum of part[i] v[o + strides . i] over the parts, entry by entry."""

    def program(v: Array) -> Array:  # every other row from the back; (2, 3), with gaps (2, 5), and padded (2, 6)
        grid = coefficients((4, 3), 2) * v.reshape(4, 3)
        return lax.pad(
            lax.slice(grid[::-1], (0, 0), (4, 3), (2, 1)) + 2 * grid[:2], 0.0, [(0, 0, 0), (-1, 2, 1)]
        ).reshape(-1)

    n, v = 12, np.asarray(coefficients((12,), 3))
    value = walk.follow(flattened(program, v)[0], 10**9)
    out = np.zeros(n)
    for (o, grid), part in value.parts.items():
        start, size, step = grid[0]
        for k in range(size):
            i = start + step * k
            coefficient = float(np.broadcast_to(part.array, size)[k])
            if coefficient:
                out[i] += coefficient * v[o + value.strides[0] * i]
    np.testing.assert_allclose(out, program(v), rtol=1e-13)


# One rule at a time: each maps (12,) to values whose misplacement shows, for the weights after it are all different.
RULES: dict[str, Callable[[Array], Array]] = {
    "arithmetic": lambda v: v[3:] - 2 * v[:-3] + (-v[1:-2]) / coefficients((9,)) - (v[2:-1] - v[0]),
    "copy": lambda v: jnp.copy(v[1:]),
    "select_n": lambda v: jnp.where(coefficients((11,)) > 0, v[1:], 3 * v[:-1]),
    "select_n of integers": lambda v: lax.select_n(jnp.arange(11) % 3, v[1:], jnp.zeros(11), 2 * v[:-1]),
    "select_n by a scalar": lambda v: lax.select_n(jnp.int32(2), v[1:], v[:-1], v[1:] - v[0]),
    "transpose": lambda v: jnp.transpose(v.reshape(2, 3, 2), (2, 0, 1)) * coefficients((2, 2, 3)),
    "broadcast_in_dim": lambda v: v[:3].reshape(3, 1) * coefficients((3, 4)) + v[4:8][None] + v[11:].reshape(()),
    "squeeze": lambda v: v.reshape(1, 12, 1).squeeze(0)[1:, 0] - 2 * v[5:6].reshape(1, 1)[0, 0],
    "slice with steps": lambda v: lax.slice(v.reshape(3, 4), (0, 1), (3, 4), (2, 2)),
    "slice of gaps": lambda v: (
        lax.slice(lax.pad(v, 0.0, [(1, 2, 2)]), (3,), (30,), (2,)) + lax.pad(v, 0.0, [(0, 3, 1)])[1:15]
    ),
    "split": lambda v: jnp.concatenate(jnp.split(v, [3, 3, 8])[::-1]),
    "rev": lambda v: lax.rev(lax.pad(v, 0.0, [(2, 1, 1)]), (0,)) + jnp.pad(v, (0, 14)),
    "rev of both axes": lambda v: v.reshape(3, 4)[::-1, ::-1] - v.reshape(3, 4)[:, ::-1],
    "pad": lambda v: lax.pad(v.reshape(3, 4), 0.0, [(-1, 3, 2), (2, -2, 1)]),
    "pad away": lambda v: lax.pad(v[:2], 0.0, [(-4, 5, 0)]) + lax.pad(v[3:3], 0.0, [(1, 2, 3)]) + v[1:4],
    "concatenate": lambda v: jnp.concatenate([v[7:], jnp.zeros(2), v[4:5], 2 * lax.slice(v, (0,), (12,), (2,)), v[:0]]),
    "stack": lambda v: jnp.stack([v[1:], jnp.zeros(11), 2 * v[:-1]], 1),
    "unstack": lambda v: (lambda a, b, c: a - 2 * b[::-1] + 3 * c)(*jnp.unstack(v.reshape(4, 3), axis=1)),
    "reduce_sum": lambda v: (
        jnp.sum(v.reshape(2, 3, 2) * coefficients((2, 3, 2)), (0, 2)) + jnp.sum(v[:3].reshape(3, 1) + v[:2][None])
    ),
    "reduce_sum of gaps": lambda v: jnp.sum(lax.pad(v, 0.0, [(0, 0, 1)])[:21].reshape(7, 3), 1),
    "reshape": lambda v: jnp.pad(v.reshape(4, 3), ((1, 0), (0, 1))).reshape(2, 1, 10)[:, :, 1:].reshape(9, 2),
    "reshape across rows": lambda v: v.reshape(6, 2).T.reshape(4, 3) * coefficients((4, 3)),
    "reshape with dimensions": lambda v: lax.reshape(v.reshape(3, 4), (2, 6), (1, 0)),
    "dot_general": lambda v: coefficients((5, 12)) @ v,
    "dot_general from the left": lambda v: v.reshape(4, 3)[1:, :2] @ coefficients((2, 3)),
    "dot_general of two axes": lambda v: jnp.einsum("abc,dca->db", v.reshape(2, 3, 2), coefficients((4, 2, 2))),
    "dot_general of batches": lambda v: jnp.einsum("abc,bdc->bda", v.reshape(2, 3, 2), coefficients((3, 4, 2))),
    "dot_general of gaps": lambda v: lax.pad(v[:10], 0.0, [(1, 0, 1)]).reshape(2, 10) @ coefficients((10, 3)),
    "convert_element_type": lambda v: v.astype(np.float32).astype(np.float64),
    "scalar": lambda v: v[3] - 2 * v[5],
    "jit": lambda v: jax.jit(lambda u: u[1:] - 3 * u[:-1])(2 * v),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    assert_carried(gram(RULES[name], 12), 12)


# Of (100,): too long to be taken apart entry by entry, so that grids stay grids.
LONG: dict[str, Callable[[Array], Array]] = {
    "gaps": lambda v: lax.slice(lax.pad(lax.slice(v, (1,), (100,), (4,)), 0.0, [(1, 0, 3)]), (3,), (98,), (6,)),
    "gaps, reversed": lambda v: lax.pad(lax.slice(v, (0,), (99,), (2,)), 0.0, [(2, 1, 1)])[::-1] * coefficients((102,)),
    "crop": lambda v: lax.pad(2 * v, 0.0, [(5, -3, 0)]) + lax.pad(v, 0.0, [(0, 2, 0)]),
    "fill a row up": lambda v: jnp.pad(coefficients((100,)) * v, (1, 3)).reshape(26, 4) * coefficients((26, 4)),
    "within a row": lambda v: jnp.pad(v.reshape(50, 2)[:, 1], (3, 87)).reshape(2, 70),
    "stages": lambda v: v.reshape(50, 2)[1:] @ coefficients((2, 2)) - v.reshape(50, 2)[:-1].T[::-1].T,
}


@pytest.mark.parametrize("name", LONG)
def test_long_rule(name: str) -> None:
    assert_carried(gram(LONG[name], 100), 100)


def test_every_rule_has_its_case() -> None:
    like, seen = jax.ShapeDtypeStruct((12,), np.float64), set()
    for g in RULES.values():
        closed, _ = flattened(gram(g, 12), like)
        seen |= {equation.primitive.name for equation in closed.jaxpr.eqns}
    assert set(translator.TRANSLATIONS) - seen <= {"stack", "unstack"}  # newer than the oldest JAX supported
