"""A loop under vmap: a problem that ends holds up no other.

XLA's own rule turns all problems in one loop until the last has ended; those that ended before are frozen. Here

- on a CPU, where compiled kernels serve, they go one after another, as if alone, each with its own number of turns;
- elsewhere (in a process with a GPU, and inside `portable()`) some go side by side in a pool of lanes, as many as fill
  the device: when one ends, its result goes to its place, and the next that waits takes its lane. P lanes make about
  sum(turns) / P turns together, where XLA's rule makes max(turns) for each P problems. A batch that fits into the pool
  is XLA's loop itself.

Two lanes, for problems of 1, 3, 2 and 1 turns (a capital marks the last one), and XLA's rule for two and two of them:

    A c C D        A . . c C
    b b B .        b b B D .
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .kernels import cpu_kernels

NUMBERS = 2**22
"""In the states of a pool's lanes, at most: 32 MiB of float64, as much as an accelerator's second-level cache holds.
Fewer lanes leave it idle between two kernels; more take longer by as much as they are more."""


class Loop(NamedTuple):
    """Of one problem; states are pytrees of arrays."""

    begin: Callable[[], Any]  # the first state
    is_open: Callable[[Any], Array]  # whether it goes on, and is turned again
    turn: Callable[[Any], Any]  # the next state
    end: Callable[[Any], Any]  # the result

    def run(self) -> Any:
        return self.end(lax.while_loop(self.is_open, self.turn, self.begin()))


def run(loop_of: Callable[..., Loop], *given: Any, plain: bool = False) -> Any:
    """`loop_of(*given).run()`, under vmap as this file says; plain: by XLA's own rule, for loops with effects.

    given: pytrees of arrays. loop_of closes over no tracer; vmap calls it anew.
    """
    if plain:
        return loop_of(*given).run()
    leaves, treedef = jax.tree.flatten(given)
    of_leaves = lambda leaves: loop_of(*jax.tree.unflatten(treedef, leaves))  # noqa: E731
    return _batched(_Batch(of_leaves, (), ((),) * len(leaves)))(*leaves)


class _Batch(NamedTuple):
    """Problems in an array with an axis for each vmap around."""

    loop_of: Callable[[list], Loop]
    sizes: tuple[int, ...]  # of the axes, the outermost first
    axes: tuple[tuple[bool, ...], ...]  # for each leaf: which of them it has

    @property
    def total(self) -> int:
        return math.prod(self.sizes)

    def pick(self, leaves: Any, place: Array) -> list:
        """The leaves of one problem, None for those that all problems share."""
        at = jnp.unravel_index(place, self.sizes)
        index = [tuple(i for i, has in zip(at, each, strict=True) if has) for each in self.axes]
        return [leaf[i] if i else None for leaf, i in zip(leaves, index, strict=True)]

    def loop(self, leaves: Any, own: list) -> Loop:
        return self.loop_of([a if b is None else b for a, b in zip(leaves, own, strict=True)])


def _batched(batch: _Batch) -> Callable:
    """Of the leaves, with the batch's axes in front of the results."""

    @jax.custom_batching.custom_vmap
    def results(*leaves: Array) -> Any:
        if not batch.sizes:
            return batch.loop_of(list(leaves)).run()
        out = _many(batch, leaves)
        return jax.tree.map(lambda a: a.reshape(*batch.sizes, *a.shape[1:]), out)

    @results.def_vmap
    def rule(size: int, batched: list[bool], *leaves: Array) -> tuple[Any, Any]:
        axes = tuple((has, *inner) for has, inner in zip(batched, batch.axes, strict=True))
        out = _batched(batch._replace(sizes=(size, *batch.sizes), axes=axes))(*leaves)
        return out, jax.tree.map(lambda _: True, out)

    return results


def _many(batch: _Batch, leaves: tuple) -> Any:
    """The results, in one axis."""
    alone = lambda place: batch.loop(leaves, batch.pick(leaves, place)).run()  # noqa: E731
    places = jnp.arange(batch.total, dtype=jnp.int32)
    if batch.total and cpu_kernels() == "compiled" and jax.default_backend() == "cpu":
        return lax.map(alone, places)
    state, result = _shapes(batch, leaves)
    if not batch.total:
        return _zeros(result, 0)
    width = max(1, NUMBERS // sum(leaf.size for leaf in jax.tree.leaves(state)))
    return jax.vmap(alone)(places) if batch.total <= width else _pool(batch, leaves, width, state, result)


def _shapes(batch: _Batch, leaves: tuple) -> tuple[Any, Any]:
    """Of one problem: of a state, and of the result."""

    def both(*leaves: Array) -> tuple[Any, Any]:
        loop = batch.loop_of(list(leaves))
        state = loop.begin()
        return state, loop.end(state)

    one = (jax.ShapeDtypeStruct(a.shape[sum(has) :], a.dtype) for a, has in zip(leaves, batch.axes, strict=True))
    return jax.eval_shape(both, *one)


def _zeros(shapes: Any, count: int) -> Any:
    return jax.tree.map(lambda a: jnp.zeros((count, *a.shape), a.dtype), shapes)


class _Pool(NamedTuple):
    place: Array  # of the problem in a lane; of no problem where the lane is empty
    waiting: Array  # place of the next problem
    own: list  # a lane's leaves
    state: Any  # a lane's
    results: Any  # a problem's


def _pool(batch: _Batch, leaves: tuple, width: int, state: Any, result: Any) -> Any:
    """All lanes turn until a problem ends; then those that ended leave, and those that wait take their lanes.

    state and result are the shapes of one problem's. Each function stands in the program once.
    """
    total, loop = batch.total, lambda own: batch.loop(leaves, own)

    def begin(place: Array) -> tuple[list, Any]:
        own = batch.pick(leaves, place)
        return own, loop(own).begin()

    def turn(own: list, state: Any) -> Any:
        here = loop(own)
        return _choose(here.is_open(state), here.turn(state), state)

    def are_open(own: list, state: Any) -> Array:
        return jax.vmap(lambda own, state: loop(own).is_open(state))(own, state)

    def refill(pool: _Pool) -> _Pool:
        ends = jax.vmap(lambda own, state: loop(own).end(state))(pool.own, pool.state)
        free = (pool.place == total) | ~are_open(pool.own, pool.state)
        left = jnp.where(free, pool.place, total)
        results = jax.tree.map(lambda a, one: a.at[left].set(one, mode="drop"), pool.results, ends)
        rank = jnp.cumsum(free, dtype=jnp.int32)
        place = jnp.where(free, jnp.minimum(pool.waiting + rank - 1, total), pool.place)
        fresh = jax.vmap(begin)(jnp.minimum(place, total - 1))
        own, state = jax.vmap(_choose)(free & (place < total), fresh, (pool.own, pool.state))
        return _Pool(place, pool.waiting + rank[-1], own, state, results)

    def until_one_ends(pool: _Pool) -> _Pool:
        pool = refill(pool)
        busy = pool.place < total
        go_on = lambda state: jnp.any(busy) & jnp.all(~busy | are_open(pool.own, state))  # noqa: E731
        state = lax.while_loop(go_on, lambda state: jax.vmap(turn)(pool.own, state), pool.state)
        return pool._replace(state=state)

    own = jax.vmap(lambda place: batch.pick(leaves, place))(jnp.zeros(width, jnp.int32))
    nobody = jnp.full(width, total, jnp.int32)
    empty = _Pool(nobody, jnp.int32(0), own, _zeros(state, width), _zeros(result, total))
    going = lambda pool: (pool.waiting < total) | jnp.any(pool.place < total)  # noqa: E731
    return lax.while_loop(going, until_one_ends, empty).results


def _choose(first: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)
