"""Selected eigenpairs of a Hermitian band by inertia.

H - s I = M D M^H has as many negative pivots as H has eigenvalues below s (Sylvester), so each wanted one is enclosed
by counting at shifts, several at once. A shift at which the pivots grow so that rounding may change the count tells
nothing and is passed over: the next pass has others. Vectors follow by inverse iteration with pivoting at the
enclosed values, and a Rayleigh-Ritz step makes them orthonormal, in clusters too, and the values accurate to
rounding. (Parlett 1998, chapters 3 and 11; LAPACK's stebz and stein for tridiagonal matrices.)
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.eigen import NEAR, PASSES, PHASE, ROUNDS, SECTIONS

from ..band.noise import hash_noise
from ..band.storage import clear_unused, transposed
from ..linalg.ldl import ldl_columns
from ..linalg.lu import solve_general
from .forms import real_band


def product(ab: Array, x: Array) -> Array:
    """H x for a Hermitian lower band `(w + 1, n)` and x `(n, m)`."""
    n, y = x.shape[0], ab[0].real.astype(x.dtype)[:, None] * x
    for d in range(1, min(ab.shape[0], n)):
        cells = ab[d, : n - d, None]
        y = y + jnp.pad(cells * x[: n - d], ((d, 0), (0, 0))) + jnp.pad(cells.conj() * x[d:], ((0, d), (0, 0)))
    return y


def radius(ab: Array) -> Array:
    """The largest row sum of |H|, a bound of |eigenvalues|, of a lower band without unused cells."""
    sizes, n = jnp.abs(ab), ab.shape[1]
    sums = sizes.sum(0)
    for d in range(1, min(ab.shape[0], n)):
        sums = sums + jnp.pad(sizes[d, : n - d], (d, 0))
    return sums.max()


def count_below(ab: Array, shift: Array) -> Array:
    """How many eigenvalues of H, |H| about 1, are below shift; -1 where element growth makes the count doubtful."""
    pair = 2 if jnp.iscomplexobj(ab) else 1
    real = real_band(ab) if pair == 2 else ab
    columns = ldl_columns(real.at[0].add(-shift))
    pivots = columns[:, 0]
    growth = jnp.max(jnp.max(jnp.abs(columns[:, 1:]), axis=1, initial=0) ** 2 / jnp.abs(pivots))
    # The pivots of a tridiagonal matrix are those of one a rounding away, whatever they are (Demmel 1997, lemma 5.3).
    limit = jnp.inf if real.shape[0] <= 2 else float(jnp.finfo(real.dtype).eps) ** -0.5
    trusted = jnp.isfinite(pivots).all() & (growth < limit)
    return jnp.where(trusted, jnp.sum(pivots < 0, dtype=jnp.int32) // pair, -1)


def enclose(ab: Array, first: int, count: int) -> tuple[Array, Array]:
    """`(low, high)`, `(count,)` each: brackets of the eigenvalues of H, |H| at most 1, from the first-th on."""
    dtype = jnp.finfo(ab.dtype).dtype
    wanted = first + jnp.arange(count, dtype=jnp.int32)[:, None]
    counts = jax.vmap(jax.vmap(partial(count_below, ab)))

    def narrow(turn: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        phase = 0.25 + 0.5 * jnp.mod((turn + 1).astype(dtype) * PHASE, 1)
        shifts = low[:, None] + (high - low)[:, None] * ((jnp.arange(SECTIONS, dtype=dtype) + phase) / SECTIONS)[None]
        below = counts(shifts)
        high = jnp.minimum(high, jnp.min(jnp.where(below > wanted, shifts, jnp.inf), axis=1))
        known = (below >= 0) & (below <= wanted) & (shifts < high[:, None])
        return jnp.maximum(low, jnp.max(jnp.where(known, shifts, -jnp.inf), axis=1)), high

    ends = jnp.full(count, -1.01, dtype), jnp.full(count, 1.02, dtype)
    return lax.fori_loop(0, PASSES[dtype.name], narrow, ends)


def shifted_solve(ab: Array, shifts: Array, b: Array) -> Array:
    """Column k of the result is (H - shifts[k] I)^-1 b[:, k]."""
    w = ab.shape[0] - 1
    general = jnp.concatenate([transposed(ab, w).conj()[:-1], ab])

    def one(shift: Array, b: Array) -> Array:
        return solve_general(general.at[w].add(-shift.astype(ab.dtype)), b, w, w)[0]

    return jax.vmap(one, (0, 1), 1)(shifts, b)


def ritz(ab: Array, values: Array) -> tuple[Array, Array]:
    """`(values, vectors)` from approximations of the values."""
    n, m = ab.shape[1], values.shape[0]
    near = values + NEAR * jnp.finfo(ab.dtype).eps
    x = hash_noise(jnp.zeros(n * m, values.dtype), 1).reshape(n, m).astype(ab.dtype)
    for _ in range(ROUNDS):
        x = shifted_solve(ab, near, x)
        x = jnp.linalg.qr(x / jnp.max(jnp.abs(x), axis=0, keepdims=True).astype(x.dtype))[0]
    found, rotation = jnp.linalg.eigh(x.conj().T @ product(ab, x))
    return found, x @ rotation


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def eigenpairs(ab: Array, first: int, count: int) -> tuple[Array, Array]:
    """`(values (count,), vectors (n, count))` of a Hermitian lower band `(w + 1, n)`, in ascending order from the
    first-th on. NaN where H is not finite, or rounding leaves the counts without an answer.

    Cost: 20 (float32: 10) passes of 8 count factorisations, 3 count LU factorisations, and some 20 n count^2 flops.
    """
    ab = clear_unused(ab)
    size = radius(ab)
    scaled = ab / jnp.where(size > 0, size, 1).astype(ab.dtype)
    low, high = enclose(scaled, first, count)
    middle = low + (high - low) / 2
    values, vectors = ritz(scaled, middle)
    close = jnp.abs(values - middle) <= float(jnp.finfo(ab.dtype).eps) ** 0.5
    return jnp.where(close, values * size, jnp.nan), jnp.where(close[None], vectors, jnp.nan)


@eigenpairs.defjvp
def _eigenpairs_jvp(first: int, count: int, primals: tuple, tangents: tuple) -> tuple:
    (ab,), (dab,) = primals, tangents
    values, vectors = eigenpairs(ab, first, count)
    moved = product(clear_unused(dab), vectors)
    inside = vectors.conj().T @ moved
    gaps = values[None, :] - values[:, None]
    itself = jnp.eye(count, dtype=bool)
    mixed = jnp.where(itself, 0, inside / jnp.where(itself, 1, gaps).astype(inside.dtype))
    outside = _beyond(clear_unused(ab), values, vectors, moved)
    return (values, vectors), (jnp.diagonal(inside).real, vectors @ mixed - outside)


def _beyond(ab: Array, values: Array, vectors: Array, b: Array) -> Array:
    """Column k is P (H - values[k] I)^-1 P b[:, k], P being the projector beside the vectors."""
    constant, near = lax.stop_gradient((ab, values)), NEAR * jnp.finfo(ab.dtype).eps

    def aside(x: Array) -> Array:
        return x - vectors @ (vectors.conj().T @ x)

    def matvec(x: Array) -> Array:
        y = aside(x)
        return aside(product(ab, y) - values.astype(y.dtype)[None] * y) + (x - y)

    def apply(_: object, b: Array) -> Array:
        inner = aside
        y = inner(b)
        shifts = constant[1] + near * radius(constant[0])
        x = inner(shifted_solve(constant[0], shifts, y))
        left = y - inner(product(constant[0], x) - constant[1].astype(x.dtype)[None] * x)
        return inner(x + shifted_solve(constant[0], shifts, left)) + (b - y)

    return aside(lax.custom_linear_solve(matvec, aside(b), apply, apply))
