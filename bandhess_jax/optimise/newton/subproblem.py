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


def _search(
    g: Array, ab: Any, start: Array, numbers: Array, sharding: NamedSharding | None = None
) -> tuple[Array, Array]:
    query = Query(*numbers)
    soft, enough, zero = query.soft, query.enough, jnp.zeros_like(g)

    def trial(s: _Search) -> _Search:
        radius, shift, low, high = s.bracket
        factored = solver.factor(shifted(ab, shift), sharding=sharding)

        def judge(length: Array, decrement: Array) -> tuple[Array, ...]:
            ok = factored.ok & jnp.isfinite(length)
            reach = jnp.where((query.grow > 0) & (s.tries == 0) & ok, jnp.maximum(radius, length), radius)
            near = (jnp.abs(length - reach) <= NEAR * reach) | ((shift == 0) & (length <= (1 + NEAR) * reach))
            settled = (shift <= soft) & (decrement / 2 <= enough)
            return ok, reach, ok & near, ok & settled, ok & (shift > 0) & (length < (1 - NEAR) * reach)

        # One loop for all solves, so that the program holds one: p; H^-1 p; and where p is short, one or two turns of
        # inverse iteration for z.
        def solve(carry: tuple) -> tuple:
            k, p, y, z, curvature = carry
            x = factored.solve(jnp.where(k == 0, -g, jnp.where(k == 1, p, z)))
            p, y = jnp.where(k == 0, x, p), jnp.where(k == 1, x, y)
            size = jnp.linalg.norm(x)
            curvature = jnp.where(k > 1, z @ x / size**2, curvature)
            z = jnp.where(k > 1, x / size, z)
            ok, _, near, settled, short = judge(jnp.linalg.norm(p), -g @ p)
            done = ~ok | ((k == 1) & (near | settled | ~short))
            return jnp.where(done, 4, k + jnp.where((k == 1) & s.warm, 2, 1)), p, y, z, curvature

        first = (jnp.where(factored.ok, 0, 4), zero, zero, s.z, jnp.zeros((), g.dtype))
        _, p, y, z, curvature = lax.while_loop(lambda carry: carry[0] < 4, solve, first)

        length, decrement, bend = jnp.linalg.norm(p), -g @ p, p @ y
        ok, radius, near, settled, short = judge(length, decrement)
        # The tau of smaller size with |p + tau z| = radius. To the model it costs curvature tau^2 / 2: that of z under
        # H + shift I, which also bounds the least eigenvalue.
        pz, room = p @ z, jnp.maximum(radius**2 - length**2, 0)
        tau = room / (pz + jnp.where(pz < 0, -1, 1) * jnp.sqrt(pz**2 + room))
        allowed = HARD * (shift * radius**2 + decrement) / tau**2
        hard = short & ~near & ~settled & (curvature <= allowed)
        # Many tries are spent: take what there is, cut to the radius; or lengthened to it, where that promises more.
        late = s.tries >= TRIES // 2
        hard = hard | (short & ~near & ~settled & late & (shift * (radius**2 - length**2) > tau**2 * curvature))
        fits = near | settled | hard
        clip = ok & ~fits & late
        cut, added = jnp.where(clip, jnp.minimum(1, radius / length), 1), jnp.where(hard, tau * z, 0)
        predicted = jnp.where(
            hard,
            decrement + shift * radius**2 - tau**2 * curvature,
            2 * cut * decrement - cut**2 * (decrement - shift * length**2),
        )
        step = jnp.where(ok, cut * p + added, 0)
        found = fits | clip
        size = jnp.where(hard, radius, cut * length)
        slope = g @ added - cut * decrement
        answer = Answer(radius, shift, length, bend, size, slope, predicted / 2, found, settled)

        inner = ok & (length < radius)
        high, low = jnp.where(inner, jnp.minimum(high, shift), high), jnp.where(inner, low, jnp.maximum(low, shift))
        low = jnp.where(short & (shift - curvature > low), shift - curvature, low)
        # Gershgorin's bound may be attained: never close in on it.
        high = jnp.where(~ok & (shift >= 0.9999 * high), 1.1 * jnp.maximum(shift, soft), high)
        newton = secular(shift, length, bend, radius)
        aim = shift - curvature + allowed / 2  # here z should do
        within = lambda a: (low < a) & (a < high)  # noqa: E731
        next_shift = inside(low, high)
        grown = jnp.where(shift > 0, jnp.minimum(GROW * shift, next_shift), next_shift)
        grown = jnp.where(~s.failed & within(query.guess), query.guess, grown)
        # At a stationary point: is the curvature negative, or merely zero?
        grown = jnp.where((enough >= 0) & (shift < soft), soft, grown)
        next_shift = jnp.where(short & within(aim) & (aim < shift), aim, next_shift)
        next_shift = jnp.where(within(newton), newton, next_shift)
        next_shift = jnp.where(ok, next_shift, grown)
        return _Search(
            tries=s.tries + 1,
            open=~found & (s.tries < TRIES),
            bracket=jnp.stack([radius, next_shift, low, jnp.maximum(high, next_shift)]),
            failed=s.failed | ~ok,
            p=step,
            z=z,
            warm=s.warm | short,
            answer=pack(answer, g.dtype),
        )

    begin = _Search(
        tries=jnp.int32(0),
        open=query.idle == 0,
        bracket=numbers[:4],
        failed=jnp.bool_(False),
        p=zero,
        z=start,
        warm=jnp.bool_(False),
        answer=jnp.zeros(len(Answer._fields), g.dtype).at[0].set(query.radius).at[1].set(query.shift),
    )
    end = lax.while_loop(lambda s: s.open, trial, begin)
    return end.p, end.answer
