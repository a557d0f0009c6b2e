"""Diagonals carried through linear programs, without probes. JAX alone: PyTorch's are in test_diagonals_torch.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array, lax
from oracles import store

import bandhess_jax as bh
from bandhess_jax.extraction import hessian as _hessian
from bandhess_jax.extraction.diagonals import rules as _rules
from bandhess_jax.extraction.diagonals import values as _parts
from bandhess_jax.extraction.diagonals import walk as _diagonals
from bandhess_jax.extraction.diagonals.walk import diagonals
from bandhess_jax.framework.fusion import flattened

MOST = 24  # entries of a value of the random programs: they may then be taken apart along every axis


def coefficients(shape: Any, seed: int = 0) -> Array:
    """No two alike, of either sign."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.5, 2, tuple(shape)) * rng.choice([-1, 1], tuple(shape)))


def dense(matvec: Callable, n: int, dtype: Any = np.float64) -> np.ndarray:
    """Column by column, by the definition."""
    compiled = jax.jit(matvec)
    return np.array([compiled(column) for column in jnp.eye(n, dtype=dtype)]).reshape(n, n).T


def carried(matvec: Callable, n: int, rows: int | None = None, dtype: Any = np.float64) -> Any:
    def band() -> Any:
        flat, _ = flattened(matvec, jax.ShapeDtypeStruct((n,), dtype))
        return None if flat is None else diagonals(flat, n, rows or n, dtype, 10**9)

    return jax.jit(band)()


def gram(g: Callable, n: int) -> Callable:
    """v -> g^T (D g(v)), symmetric, D with no two entries alike."""
    like = jax.ShapeDtypeStruct((n,), np.float64)
    weights = coefficients(jax.eval_shape(g, like).shape, 1)
    return lambda v: jax.linear_transpose(g, like)(weights * g(v))[0]


def assert_carried(matvec: Callable, n: int) -> None:
    h, ab = dense(matvec, n), carried(matvec, n)
    assert ab is not None
    np.testing.assert_allclose(ab, store(h, n - 1), rtol=1e-12, atol=1e-13 * np.max(abs(h), initial=1))


def test_the_definition() -> None:
    """value[i] = sum of part[i] v[o + strides . i] over the parts, entry by entry."""

    def program(v: Array) -> Array:  # every other row from the back; (2, 3), with gaps (2, 5), and padded (2, 6)
        grid = coefficients((4, 3), 2) * v.reshape(4, 3)
        return lax.pad(
            lax.slice(grid[::-1], (0, 0), (4, 3), (2, 1)) + 2 * grid[:2], 0.0, [(0, 0, 0), (-1, 2, 1)]
        ).reshape(-1)

    n, v = 12, np.asarray(coefficients((12,), 3))
    value = _diagonals._carry(flattened(program, v)[0], n, v.dtype, 10**9)
    out = np.zeros(n)
    for (o, grid), part in value.parts.items():
        start, size, step = grid[0]
        for k in range(size):
            i = start + step * k
            coefficient = float(np.broadcast_to(part, size)[k])
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
    "broadcast_in_dim": lambda v: v[:3].reshape(3, 1) * coefficients((3, 4)) + v[4:8] + v[11:].reshape(()),
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
        jnp.sum(v.reshape(2, 3, 2) * coefficients((2, 3, 2)), (0, 2)) + jnp.sum(v[:3].reshape(3, 1) + v[:2])
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
    assert set(_rules.RULES) - seen <= {"stack", "unstack"}  # newer than the oldest JAX supported


# --- Random programs: (value, random numbers) -> value ---------------------------------------------------------------


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

    assert_carried(gram(g, n), n)


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


# --- What is left to probing -----------------------------------------------------------------------------------------

N = 9
UNKNOWN: dict[str, Callable[[Array], Array]] = {
    "cumsum": lambda v: jnp.cumsum(v)[2:] - jnp.cumsum(v)[:-2],
    "scan": lambda v: lax.scan(lambda c, a: (2 * a + c, c + a), v[0], v)[1],
    "gather": lambda v: v[jnp.array([0, 1, 1, 3, 2])],
    "cond": lambda v: lax.cond(jnp.sum(coefficients((3,))) > 9, lambda v: 2 * v, lambda v: v[::-1], v),
    "checkpoint": jax.checkpoint(lambda v: v[1:] + 2 * v[:-1]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_fallback(name: str) -> None:
    g = UNKNOWN[name]
    h = dense(gram(g, N), N)
    assert carried(gram(g, N), N) is None
    np.testing.assert_allclose(bh.from_matvec(gram(g, N), jnp.zeros(N), N - 1), store(h, N - 1), rtol=1e-12)
    weights = coefficients(g(jnp.ones(N)).shape, 1)
    ab = bh.hessian(lambda x: jnp.sum(weights * g(x) ** 2) / 2, N - 1)(jnp.ones(N))
    np.testing.assert_allclose(ab, store(h, N - 1), rtol=1e-12)


def test_fallback_of_callbacks_and_of_what_is_no_product() -> None:
    def on_host(v: Array) -> Array:
        return jax.pure_callback(lambda v: 3 * np.asarray(v), v, v, vmap_method="sequential")

    def loop(v: Array) -> Array:
        return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, 2 * c[1]), (0, v))[1]

    for matvec, main in ((on_host, 3), (loop, 4), (jnp.zeros_like, 0)):
        assert carried(matvec, N) is None
        np.testing.assert_array_equal(bh.from_matvec(matvec, jnp.zeros(N), 1), [[main] * N, [0] * N])
    for nonlinear in (lambda v: v * v, lambda v: 1 / v, lambda v: jnp.where(v > 0, v, 2 * v), lambda v: v.astype(int)):
        assert carried(nonlinear, N) is None


def test_axes_too_long_to_be_taken_apart() -> None:
    """A sum over all of v is n diagonals: unrolled where it is short, and no program of many thousands of parts."""
    for n in (_parts.SHORT, _parts.SHORT + 1, 500):
        c = coefficients((n,))
        ab = carried(lambda v, c=c: c * jnp.sum(c * v), n, rows=3 if n == 500 else n)
        assert (ab is None) == (n > _parts.SHORT)
    c = coefficients((4, 16, 16))
    blocks = gram(lambda v: jnp.sum(c[: v.size // 256] * v.reshape(-1, 16, 16), (1, 2)), 1024)
    assert carried(blocks, 1024, rows=256) is None


# --- The extraction --------------------------------------------------------------------------------------------------


def window(x: Array) -> Array:
    """Half-bandwidth 3."""
    return jnp.sum(jnp.sin(x[3:] * x[1:-2] + 2 * x[:-3]) ** 2)


class Twice(bh.Direct):
    """A probing of the user's own, which shows itself."""

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        return 2 * super().decode(kept, T, d, k)


def test_no_products_in_the_program() -> None:
    x = jnp.linspace(-1.0, 2.0, 2**18)  # so long that probing loops
    text = jax.jit(bh.hessian(window, 3)).lower(x).as_text()
    probed = jax.jit(bh.hessian(window, 3, probing=Twice())).lower(x).as_text()
    for name in ("while", "remainder", "dynamic_slice"):
        assert f"stablehlo.{name}" in probed
        assert f"stablehlo.{name}" not in text
    assert "dot_general" not in text


def test_own_and_other_probings_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    x = coefficients((11,))
    ab = bh.hessian(window, 3)(x)
    np.testing.assert_allclose(ab, store(np.asarray(jax.hessian(window)(x)), 3), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bh.hessian(window, 3, probing=Twice())(x), 2 * ab, rtol=1e-12, atol=1e-13)

    def never(*_: Any) -> None:
        raise AssertionError("carried")

    monkeypatch.setattr(_hessian, "diagonals", never)
    for probing in ("substitution", "fourier", "random", Twice()):
        jax.make_jaxpr(bh.hessian(lambda x: window(x), 3, probing=probing))(x)
    with pytest.raises(AssertionError, match="carried"):
        jax.make_jaxpr(bh.hessian(lambda x: window(x), 3))(x)


def test_too_narrow_a_bandwidth() -> None:
    """As probing has it, folded into the band; `band_error` sees it, entries of another stage's block too."""
    x, z = coefficients((11,)), coefficients((6, 2))
    for k in (0, 2):
        ab = bh.hessian(window, k)(x)
        np.testing.assert_allclose(bh.hessian(window, k, probing=Twice())(x), 2 * ab, rtol=1e-12, atol=1e-13)
        assert bh.band_error(window)(ab, x) > 1e-3

    def neighbours(z: Array) -> Array:  # one off the diagonal, from stage to stage
        return jnp.sum(coefficients((5,)) * z[:-1, 1] * z[1:, 0]) + jnp.sum(z**2)

    assert bh.band_error(neighbours)(bh.hessian(neighbours, 0)(z), z) > 1e-3
    assert bh.band_error(neighbours)(bh.hessian(neighbours, 1)(z), z) < 1e-12


def test_not_a_number_and_infinity_stay_in_their_places() -> None:
    c = np.arange(1.0, N)
    c[2], c[5] = np.nan, np.inf
    ab = carried(lambda v: jnp.pad(c * v[1:], (0, 1)) + jnp.pad(c * v[:-1], (1, 0)), N)
    np.testing.assert_array_equal(ab[1], [*c, 0])
    np.testing.assert_array_equal(np.delete(ab, 1, 0), 0)
    # Constants that overflow are no warning of NumPy's, which pytest would raise.
    np.testing.assert_array_equal(carried(lambda v: v - 1e200 * (1e200 * v), N, 1), [[-np.inf] * N])
    np.testing.assert_array_equal(carried(lambda v: (1e200 * v).astype(np.float32), N, 1), [[np.inf] * N])


def test_single_precision() -> None:
    """No float64 on the way, though x64 is enabled; conversions round as the program has it."""
    x = coefficients((N,)).astype(np.float32)
    ab = bh.hessian(window, 3)(x)
    assert ab.dtype == np.float32
    assert "f64" not in str(jax.make_jaxpr(bh.hessian(window, 3))(x))
    np.testing.assert_allclose(ab, bh.hessian(window, 3)(x.astype(float)), rtol=1e-4, atol=1e-5)
    thirds = carried(lambda v: (v / 3).astype(np.float32).astype(float) * 3, N, 1)
    np.testing.assert_array_equal(thirds, [[float(np.float32(1 / 3)) * 3] * N])


def test_transforms() -> None:
    x, weights = coefficients((3, N)), coefficients((4, N), 1)

    def plain(x: Array) -> Array:
        h = jax.hessian(window)(x)
        return jnp.stack([jnp.pad(jnp.diagonal(h, -r), (0, r)) for r in range(4)])

    band = bh.hessian(window, 3)
    np.testing.assert_allclose(jax.jit(jax.vmap(band))(x), jax.jit(jax.vmap(plain))(x), rtol=1e-12, atol=1e-13)
    third, expected = (jax.jit(jax.grad(lambda x, f=f: jnp.sum(weights * f(x))))(x[0]) for f in (band, plain))
    np.testing.assert_allclose(third, expected, rtol=1e-11, atol=1e-12)
