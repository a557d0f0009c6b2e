"""The trust-region subproblem on banded factors: the p of least g^T p + p^T H p / 2 within |p| <= radius.

p = -(H + shift I)^-1 g, with the shift that makes H + shift I positive definite and |p| equal to the radius, or 0
where the Newton step fits (Moré and Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). The shift
is found by trial: one factorisation each, which fails where H + shift I is not positive definite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding

from bandhess_common.trust_region import GROW, HARD, NEAR, TRIES

from ...band.structures import Structure, shifted
from ...framework.kernels import kernel
from ...linalg import solve as solver


class Query(NamedTuple):
    """What is asked, in numbers."""

    radius: Any
    shift: Any  # tried first
    low: Any  # the wanted shift lies between these two
    high: Any
    guess: Any  # tried where H + shift I is not positive definite
    soft: Any  # less curvature than this counts as none
    enough: Any  # g^T (H + shift I)^-1 g / 2 not worth a step, where the gradient is small; else negative
    grow: Any  # where the first shift serves, the radius grows to its step
    idle: Any  # nothing is asked


class Answer(NamedTuple):
    """What is found: p is apart."""

    radius: Any
    shift: Any
    length: Any  # of -(H + shift I)^-1 g
    bend: Any  # p^T (H + shift I)^-1 p of that step: what `secular` needs
    size: Any  # |p|, an eigenvector added or a cut made
    slope: Any  # g^T p
    predicted: Any  # the model's decrease
    found: Any  # p may be tried
    settled: Any  # H + soft I is positive definite, and its step not worth making


def inside(low: Array, high: Array) -> Array:
    """A shift well inside the bracket, nearer its lower end."""
    return jnp.maximum(jnp.sqrt(low * high), low + 0.01 * (high - low))


def secular(shift: Array, length: Array, bend: Array, radius: Array) -> Array:
    """The next shift by Newton's method on 1/radius - 1/|p(shift)| = 0."""
    return shift + (length / radius - 1) * length**2 / bend


def pack(numbers: tuple, dtype: Any) -> Array:
    """One array of them."""
    return jnp.stack([jnp.asarray(a, dtype) for a in numbers])


def minimise_model(
    g: Array, ab: Any, start: Array, query: Query, sharding: NamedSharding | None = None
) -> tuple[Array, Array]:
    """`(p, Answer)`, packed, for g, start `(n,)` and H of order n; start is where an eigenvector is looked for."""
    operands = g, ab, start, pack(query, g.dtype)
    if solver.PARTITION_EVERYWHERE or isinstance(ab, Structure) or sharding is not None:
        return _search(*operands, sharding)
    return kernel("subproblem", _search, *operands, results=2)


class _Search(NamedTuple):
    """Between two trials."""

    tries: Array
    open: Array
    bracket: Array  # radius, shift, low, high
    failed: Array  # a shift has failed
    p: Array
    z: Array  # an approximate eigenvector of the least eigenvalue, or where its search begins
    warm: Array  # which of the two
    answer: Array  # Answer


class _Verdict(NamedTuple):
    """On the step p of a shift that was tried."""

    ok: Array  # H + shift I is positive definite
    radius: Array
    near: Array  # |p| is the radius, or the Newton step is within
    settled: Array
    short: Array  # |p| < radius, though the shift is positive


def _judge(query: Query, s: _Search, ok: Array, length: Array, decrement: Array) -> _Verdict:
    """length is |p|, decrement -g^T p."""
    radius, shift, _, _ = s.bracket
    ok = ok & jnp.isfinite(length)
    radius = jnp.where((query.grow > 0) & (s.tries == 0) & ok, jnp.maximum(radius, length), radius)
    near = (jnp.abs(length - radius) <= NEAR * radius) | ((shift == 0) & (length <= (1 + NEAR) * radius))
    settled = (shift <= query.soft) & (decrement / 2 <= query.enough)
    return _Verdict(ok, radius, ok & near, ok & settled, ok & (shift > 0) & (length < (1 - NEAR) * radius))


class _Solved(NamedTuple):
    """By one factorisation of H + shift I."""

    p: Array  # -(H + shift I)^-1 g
    y: Array  # (H + shift I)^-1 p
    z: Array  # nearer to the eigenvector, of size 1
    curvature: Array  # of z under H + shift I


def _solve(g: Array, factored: Any, query: Query, s: _Search) -> _Solved:
    """One loop for all solves, so that the program holds one: p; y; and where p is short, one or two turns of inverse
    iteration for z."""
    zero = jnp.zeros_like(g)

    def solve(carry: tuple) -> tuple:
        k, p, y, z, curvature = carry
        x = factored.solve(jnp.where(k == 0, -g, jnp.where(k == 1, p, z)))
        p, y = jnp.where(k == 0, x, p), jnp.where(k == 1, x, y)
        size = jnp.linalg.norm(x)
        curvature = jnp.where(k > 1, z @ x / size**2, curvature)
        z = jnp.where(k > 1, x / size, z)
        found = _judge(query, s, factored.ok, jnp.linalg.norm(p), -g @ p)
        done = ~found.ok | ((k == 1) & (found.near | found.settled | ~found.short))
        return jnp.where(done, 4, k + jnp.where((k == 1) & s.warm, 2, 1)), p, y, z, curvature

    first = (jnp.where(factored.ok, 0, 4), zero, zero, s.z, jnp.zeros((), g.dtype))
    return _Solved(*lax.while_loop(lambda carry: carry[0] < 4, solve, first)[1:])


class _Hard(NamedTuple):
    """The hard case: p is lengthened to the radius by tau z."""

    taken: Array
    tau: Array
    allowed: Array  # curvature of z, for which that loses little of the model's decrease
    late: Array  # many tries are spent


def _hard_case(s: _Search, found: _Verdict, by: _Solved, length: Array, decrement: Array) -> _Hard:
    """The tau of smaller size with |p + tau z| = radius. To the model it costs curvature tau^2 / 2: that of z under
    H + shift I, which also bounds the least eigenvalue."""
    (_, shift, _, _), radius = s.bracket, found.radius
    pz, room = by.p @ by.z, jnp.maximum(radius**2 - length**2, 0)
    tau = room / (pz + jnp.where(pz < 0, -1, 1) * jnp.sqrt(pz**2 + room))
    allowed = HARD * (shift * radius**2 + decrement) / tau**2
    open_ = found.short & ~found.near & ~found.settled
    hard = open_ & (by.curvature <= allowed)
    # Late, there is to be taken what promises more than p alone.
    late = s.tries >= TRIES // 2
    hard = hard | (open_ & late & (shift * (radius**2 - length**2) > tau**2 * by.curvature))
    return _Hard(hard, tau, allowed, late)


def _bracket(query: Query, s: _Search, found: _Verdict, by: _Solved, length: Array, allowed: Array) -> Array:
    """radius, shift, low, high for the next trial."""
    (_, shift, low, high), radius = s.bracket, found.radius
    inner = found.ok & (length < radius)
    high, low = jnp.where(inner, jnp.minimum(high, shift), high), jnp.where(inner, low, jnp.maximum(low, shift))
    low = jnp.where(found.short & (shift - by.curvature > low), shift - by.curvature, low)
    # Gershgorin's bound may be attained: never close in on it.
    high = jnp.where(~found.ok & (shift >= 0.9999 * high), 1.1 * jnp.maximum(shift, query.soft), high)
    within = lambda a: (low < a) & (a < high)  # noqa: E731
    aim = shift - by.curvature + allowed / 2  # here z should do
    newton, then = secular(shift, length, by.p @ by.y, radius), inside(low, high)
    grown = jnp.where(shift > 0, jnp.minimum(GROW * shift, then), then)
    grown = jnp.where(~s.failed & within(query.guess), query.guess, grown)
    # At a stationary point: is the curvature negative, or merely zero?
    grown = jnp.where((query.enough >= 0) & (shift < query.soft), query.soft, grown)
    then = jnp.where(found.short & within(aim) & (aim < shift), aim, then)
    then = jnp.where(within(newton), newton, then)
    then = jnp.where(found.ok, then, grown)
    return jnp.stack([radius, then, low, jnp.maximum(high, then)])


def _trial(g: Array, factored: Any, query: Query, s: _Search) -> _Search:
    """factored is of H + shift I."""
    _, shift, _, _ = s.bracket
    by = _solve(g, factored, query, s)
    length, decrement = jnp.linalg.norm(by.p), -g @ by.p
    found = _judge(query, s, factored.ok, length, decrement)
    ok, radius, near, settled, short = found
    hard, tau, allowed, late = _hard_case(s, found, by, length, decrement)
    # Many tries are spent: what there is, is taken, cut to the radius.
    fits = near | settled | hard
    clip = ok & ~fits & late
    cut, added = jnp.where(clip, jnp.minimum(1, radius / length), 1), jnp.where(hard, tau * by.z, 0)
    predicted = jnp.where(
        hard,
        decrement + shift * radius**2 - tau**2 * by.curvature,
        2 * cut * decrement - cut**2 * (decrement - shift * length**2),
    )
    size, slope = jnp.where(hard, radius, cut * length), g @ added - cut * decrement
    answer = Answer(radius, shift, length, by.p @ by.y, size, slope, predicted / 2, fits | clip, settled)
    return _Search(
        tries=s.tries + 1,
        open=~(fits | clip) & (s.tries < TRIES),
        bracket=_bracket(query, s, found, by, length, allowed),
        failed=s.failed | ~ok,
        p=jnp.where(ok, cut * by.p + added, 0),
        z=by.z,
        warm=s.warm | short,
        answer=pack(answer, g.dtype),
    )


def _search(
    g: Array, ab: Any, start: Array, numbers: Array, sharding: NamedSharding | None = None
) -> tuple[Array, Array]:
    query = Query(*numbers)

    def trial(s: _Search) -> _Search:
        factored = solver.factor(shifted(ab, s.bracket[1]), sharding=sharding)
        return _trial(g, factored, query, s)

    begin = _Search(
        tries=jnp.int32(0),
        open=query.idle == 0,
        bracket=numbers[:4],
        failed=jnp.bool_(False),
        p=jnp.zeros_like(g),
        z=start,
        warm=jnp.bool_(False),
        answer=jnp.zeros(len(Answer._fields), g.dtype).at[0].set(query.radius).at[1].set(query.shift),
    )
    end = lax.while_loop(lambda s: s.open, trial, begin)
    return end.p, end.answer
