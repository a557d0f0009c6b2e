"""Loops under vmap in JAX: each problem as if it were alone, one after another or in a pool of lanes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS
from minimisations import landscape
from newton_cases import ENDS, LANDSCAPE, on_landscape
from programs import largest_in
from sqp_cases import YARD

import bandhess_jax as bh
from bandhess_jax.framework import lanes
from bandhess_jax.framework.lanes import Loop

LANES = 4
CALLS: list[tuple[int, ...]] = []  # for each turn the lanes that made it


def counted(value: Any) -> Any:
    """value, noting the turn; under vmap all lanes make it at once."""

    def note(value: np.ndarray) -> np.ndarray:
        CALLS.append(value.shape)
        return value

    return jax.pure_callback(note, jax.ShapeDtypeStruct((), value.dtype), value, vmap_method="broadcast_all")


def compound(start: Any, rate: Any, turns: Any, count: bool) -> Loop:
    """Adds rate[0] to the start and multiplies by rate[1], so many times; then says how often, if it is to count."""

    def turn(s: tuple) -> tuple:
        return (counted(s[0]) + rate[0]) * rate[1], s[1] + jnp.int32(1)

    return Loop(
        lambda: (start, jnp.int32(0)), lambda s: s[1] < turns, turn, lambda s: (s[0], jnp.where(count, s[1], 0))
    )


def by_hand(start: float, rate: np.ndarray, turns: int, count: bool) -> tuple[float, int]:
    value = start
    for _ in range(turns):
        value = (value + rate[0]) * rate[1]
    return value, turns if count else 0


STATE = 2  # numbers


@pytest.fixture(params=["one after another", "pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """On a CPU, where compiled kernels serve; in a pool of LANES, as elsewhere."""
    if request.param != "pool":
        request.getfixturevalue("compiled_kernels")
    monkeypatch.setattr(lanes, "NUMBERS", STATE * LANES)
    CALLS.clear()
    with bh.portable() if request.param == "pool" else contextlib.nullcontext():
        yield request.param


def problems(size: int) -> tuple:
    """Unlike each other in everything, in the turns above all: 0 to 30 of them."""
    rng = np.random.default_rng(size)
    turns = rng.integers(0, 6, size).astype(np.int32)
    turns[2::7] = 30
    return rng.standard_normal(size), 1 + rng.random((size, 2)) / 9, turns, rng.random(size) < 0.5


@pytest.mark.parametrize("size", [0, 1, LANES, LANES + 1, 23])
def test_every_problem_has_its_own_result(way: str, size: int) -> None:
    given = problems(size)
    values, counts = jax.vmap(lambda *one: lanes.run(compound, *one))(*map(jnp.asarray, given))
    assert (values.shape, counts.shape, counts.dtype) == ((size,), (size,), jnp.int32)
    expected = [by_hand(*one) for one in zip(*given, strict=True)]
    np.testing.assert_allclose(values, [value for value, _ in expected], rtol=1e-13)
    np.testing.assert_array_equal(counts, [count for _, count in expected])


def test_finished_problems_hold_up_nobody(way: str) -> None:
    """One after another, each makes its own turns; in a pool there are little more than its share of the sum."""
    given = problems(23)
    jax.block_until_ready(jax.vmap(lambda *one: lanes.run(compound, *one))(*map(jnp.asarray, given)))
    total, longest = int(given[2].sum()), int(given[2].max())
    if way == "pool":
        assert set(CALLS) == {(LANES,)}
        assert total / LANES <= len(CALLS) < total / LANES + longest
        assert len(CALLS) < longest * 23 / LANES / 2  # XLA's rule, four at a time
    else:
        assert [()] * total == CALLS


def test_a_small_batch_is_one_loop(way: str) -> None:
    given = problems(LANES)
    jax.block_until_ready(jax.vmap(lambda *one: lanes.run(compound, *one))(*map(jnp.asarray, given)))
    expected = [(LANES,)] * int(given[2].max()) if way == "pool" else [()] * int(given[2].sum())
    assert expected == CALLS


def test_nested(way: str) -> None:
    """Axes merge: each leaf has one of them, both, or none, and may have it anywhere."""
    start, rate, _, _ = problems(3)
    turns = np.array([[5, 0, 2], [1, 9, 3]], np.int32)

    def run(start: Any, rate: Any, turns: Any) -> Any:
        return lanes.run(compound, start, rate, turns, True)[0]

    inner = jax.vmap(run, (None, 1, 0))
    found = jax.jit(jax.vmap(inner, (0, None, 0)))(jnp.asarray(start[:2]), jnp.asarray(rate.T), jnp.asarray(turns))
    expected = [[by_hand(start[i], rate[j], turns[i, j], True)[0] for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert len(set(CALLS)) == 1  # one batch, not a batch of batches
    assert CALLS[0] == ((LANES,) if way == "pool" else ())


def test_what_all_share_is_not_copied(way: str) -> None:
    table = jnp.arange(1000.0)

    def loop(k: Any, table: Any) -> Loop:
        return Loop(
            lambda: (jnp.zeros(()), k), lambda s: s[1] > 0, lambda s: (s[0] + table[s[1]], s[1] - 1), lambda s: s[0]
        )

    k = jnp.arange(23, dtype=jnp.int32)
    program = jax.jit(jax.vmap(lambda k: lanes.run(loop, k, table)))
    np.testing.assert_allclose(program(k), np.cumsum(np.arange(23.0)))
    assert largest_in(jax.make_jaxpr(program)(k).jaxpr) <= 1000


def test_keys(way: str) -> None:
    """Random keys, which are no numbers, are given and carried."""

    def loop(key: Any, k: Any) -> Loop:
        def turn(s: tuple) -> tuple:
            return jax.random.fold_in(s[0], s[1]), s[1] - 1

        return Loop(lambda: (key, k), lambda s: s[1] > 0, turn, lambda s: jax.random.uniform(s[0]))

    keys, k = jax.random.split(jax.random.key(0), 9), jnp.asarray([3, 0, 1, 7, 2, 2, 1, 0, 4], jnp.int32)
    alone = jax.jit(lambda key, k: loop(key, k).run())
    found = jax.jit(jax.vmap(lambda key, k: lanes.run(loop, key, k)))(keys, k)
    np.testing.assert_array_equal(found, [alone(*one) for one in zip(keys, k, strict=True)])


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Of the pools that are made: for states of 60 to 400 numbers each."""
    made: list[int] = []
    pool = lanes._pool

    def noted(batch: Any, leaves: tuple, width: int, *shapes: Any) -> Any:
        made.append(width)
        return pool(batch, leaves, width, *shapes)

    monkeypatch.setattr(lanes, "NUMBERS", 1200)
    monkeypatch.setattr(lanes, "_pool", noted)
    with bh.portable():
        yield made


OPTIONS = {"history": True, "max_steps": 50}


def lanes_of_every_end(fun: Any) -> tuple:
    """Of `newton`, and the arrays that it maps over."""
    starts = jnp.asarray([x0 for _, x0, _ in ENDS.values()])
    coefficients = jnp.asarray([c.array() for c, _, _ in ENDS.values()])
    return jax.vmap(lambda x0, c: bh.newton(fun, x0, 1, args=(c,), **OPTIONS)), (starts, coefficients)


def assert_as_if_alone(result: bh.NewtonResult, tolerance: float) -> None:
    for lane, (end, (c, x0, _)) in enumerate(ENDS.items()):
        alone = on_landscape(BACKENDS["jax"], x0, c, **OPTIONS)
        assert (int(result.status[lane]), int(result.steps[lane])) == (alone.status, alone.steps), end
        np.testing.assert_allclose(result.x[lane], alone.x, rtol=tolerance, atol=tolerance)
        for row, other in zip(result.history, alone.history, strict=True):
            np.testing.assert_allclose(row[lane, : alone.steps + 1], other, rtol=10 * tolerance, atol=tolerance)


def test_newton_in_a_pool(widths: list[int]) -> None:
    """Problems of every end, their histories included; and the program is there for GPUs."""
    solve, given = lanes_of_every_end(landscape(jnp))  # not the function whose programs others have compiled
    batch = jax.jit(solve)
    assert_as_if_alone(batch(*given), 1e-7)
    assert 1 < widths[0] < len(ENDS)
    assert "stablehlo.while" in batch.trace(*given).lower(lowering_platforms=("cuda",)).as_text()


def spline(x: Any, weights: Any, data: Any) -> Any:
    """Of stages with two leaves, and a level that all share."""
    q, level = x["q"] - x["level"], x["level"]
    steps = jnp.sum((q[1:] - q[:-1] - x["v"][:-1]) ** 2) + weights * jnp.sum((x["v"][1:] - x["v"][:-1]) ** 2)
    return steps + jnp.sum(jnp.cosh(q - data)) + jnp.sum(level**4)


def test_derivatives_structures_and_scales_in_a_pool(widths: list[int]) -> None:
    """Only the weights have lanes: start, scales and data are shared. Against the gradient, and finite differences."""
    x0 = {"q": jnp.zeros(5), "v": jnp.zeros(5), "level": jnp.ones(1)}
    sizes, data = jax.tree.map(lambda a: jnp.full(a.shape, 3.0), x0), jnp.asarray([0.4, -0.3, 0.8, 0.1, -0.6])

    def solved(weights: Any) -> Any:
        axes = {"q": 0, "v": 0, "level": None}
        return bh.newton(spline, x0, 1, args=(weights, data), scale=sizes, stage_axes=axes)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def both(weights: Any) -> Any:
        result = jax.vmap(solved)(weights)
        return jnp.sum(result.x["q"][:, 2] + result.x["level"][:, 0]), result

    weights, delta = jnp.asarray(np.geomspace(1e-2, 1e3, 17)), 1e-5
    (_, result), slope = both(weights)
    assert 1 < widths[0] < 17
    np.testing.assert_array_equal(result.status, bh.Status.CONVERGED)
    for slopes in jax.tree.leaves(jax.vmap(jax.grad(spline), (0, 0, None))(result.x, weights, data)):
        np.testing.assert_allclose(slopes, 0, atol=1e-6)
    for lane in (3, 11):
        step = delta * weights[lane]
        ahead, behind = (both(weights.at[lane].add(sign * step))[0][0] for sign in (1, -1))
        np.testing.assert_allclose(slope[lane], (ahead - behind) / (2 * step), rtol=1e-4)


def test_sqp_in_a_pool_is_there_for_gpus(widths: list[int]) -> None:
    """Its portable engine takes 15 s to compile here: translated for a GPU, it is not run."""
    batch = jax.jit(jax.vmap(lambda x, c: bh.sqp(*YARD["jax"], x, 1, args=(c,))))
    shapes = jax.ShapeDtypeStruct((40, 6), float), jax.ShapeDtypeStruct((40, 13), float)
    assert "stablehlo.while" in batch.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert widths[0] < 40


@pytest.mark.usefixtures("compiled_kernels")
def test_over_devices() -> None:
    """Each device solves its own problems."""
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("lanes",))
    spec = jax.sharding.PartitionSpec("lanes")
    solve, given = lanes_of_every_end(LANDSCAPE["jax"])
    over = jax.shard_map(solve, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert_as_if_alone(over(*given), 1e-13)
