"""What the tests of sharded bands assert, measured in processes of its own: JSON on the last line of the output.

python sharded_worker.py virtual                        on 8 virtual devices (XLA_FLAGS makes them)
python sharded_worker.py process ID COUNT PORT [FOLDER] one of COUNT processes; with a folder it minimises, too, saves
                                                        its state there, and then solves until a peer is lost
"""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from killed_newton import KilledError, kill_at, path, start
from matrices import first_failure, lower_factor, poisoned, positive_band, rhs
from oracles import store, unstore
from scipy.linalg import solveh_banded

import bandhess_jax as bh

CASES = {"even": (64, 4), "uneven": (61, 2), "diagonal": (64, 0), "few": (13, 2)}  # of 8 devices; even: q = 2 w
COLLECTIVES = re.compile(
    r"= (\S+?)(?:\{[\d,]*\})? (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)\("
)


def over_devices() -> NamedSharding:
    return NamedSharding(Mesh(jax.devices(), ("stages",)), PartitionSpec("stages"))


def split(a: np.ndarray, sharding: NamedSharding) -> Array:
    """On the devices, its last axis over theirs."""
    return jax.device_put(a, NamedSharding(sharding.mesh, PartitionSpec(*[None] * (a.ndim - 1), "stages")))


def error(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest entry."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / np.abs(b).max())


def backward_error(ab: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    H = unstore(ab)
    return float(np.abs(H @ x - b).max() / (np.abs(H).sum(1).max() * np.abs(x).max() + np.abs(b).max()))


def equal_to_one_device(n: int, w: int, sharding: NamedSharding) -> dict:
    ab, b = positive_band(n, w), rhs(n, None)
    F, G = bh.factor(poisoned(ab), sharding=sharding), bh.factor(ab)
    return {
        "solve": error(bh.solve(poisoned(ab), b, sharding=sharding), G.solve(b)),
        "factor": error(F.solve(b), G.solve(b)),
        "logdet": error(F.logdet(), G.logdet()),
        "inverse": error(bh.inverse_band(F), bh.inverse_band(G)),
        "matvec": error(bh.matvec(ab, b, sharding=sharding), bh.matvec(ab, b)),
        "ok": bool(F.ok),
        "info": int(F.info),
        "shard": F.solve(b).addressable_shards[0].data.shape[0],
    }


def from_cholesky(sharding: NamedSharding) -> dict:
    """`logdet` and `inverse_band` of a Cholesky factor."""
    n, w = CASES["even"]
    cb = bh.cholesky(positive_band(n, w))
    return {
        "logdet": error(bh.logdet(cb, sharding=sharding), bh.logdet(cb)),
        "inverse": error(bh.inverse_band(cb, sharding=sharding), bh.inverse_band(cb)),
    }


def backward_errors(sharding: NamedSharding) -> dict:
    """The worst of bands of condition 1e12 whose small pivot lies in an interior, a separator, or beside it."""
    n, w = CASES["even"]
    ours, lapack, conditions = [], [], []
    for seed in range(4):
        for column in (17, 19, 20, 23, 24, 63):
            L = lower_factor(n, w, seed)
            L[column, column] *= 1e-6
            ab, b = store(L @ L.T, w), rhs(n, None, seed)
            ours.append(backward_error(ab, np.asarray(bh.solve(ab, b, sharding=sharding)), b))
            lapack.append(backward_error(ab, solveh_banded(ab, b, lower=True), b))
            conditions.append(np.linalg.cond(unstore(ab)))
    return {"ours": max(ours), "lapack": max(lapack), "condition": float(np.median(conditions))}


def verdict(ab: np.ndarray, sharding: NamedSharding) -> dict:
    """What is said of a matrix that is not positive definite: which of the results are NaN throughout."""
    F, n, w = bh.factor(ab, sharding=sharding), ab.shape[1], ab.shape[0] - 1
    used = poisoned(np.ones((w + 1, n))) == 1
    x, Z = np.asarray(F.solve(rhs(n, None))), np.asarray(bh.inverse_band(F))
    whole = [np.isnan(x).all(), np.isnan(F.logdet()), np.isnan(Z[used]).all()]
    return {
        "ok": bool(F.ok),
        "info": [int(F.info), first_failure(unstore(ab))],
        "nan": [bool(each) for each in whole],
    }


def failures(sharding: NamedSharding) -> dict:
    """On device 5 of 8 alone, which has the columns 40 .. 47 (44 .. 47 its separator)."""
    n, w = CASES["even"]

    def changed(row: int, column: int, value: float, w: int = w) -> np.ndarray:
        ab = positive_band(n, w)
        ab[row, column] = value
        return ab

    joint = np.zeros((w + 1, n))  # every device's columns are positive definite: [[1, 2], [2, 1]] stands across two
    joint[0], joint[1, 39] = 1, 2
    twice = joint.copy()  # and the device's columns alone would tell a later minor
    twice[0, 42] = -1
    return {
        "interior": verdict(changed(0, 41, -1), sharding),
        "separator": verdict(changed(0, 46, -1), sharding),
        "joint and interior": verdict(twice, sharding),
        "joint": verdict(joint, sharding),
        "NaN in an interior": verdict(changed(0, 42, np.nan), sharding),
        "NaN in a coupling": verdict(changed(w, 47, np.nan), sharding),
        "infinite": verdict(changed(0, 42, np.inf), sharding),
        "diagonal": verdict(changed(0, 42, -1, 0), sharding),
    }


def loss(ab: Array, b: Array, c: Array, sharding: NamedSharding | None) -> Array:
    F = bh.factor(ab, sharding=sharding)
    return jnp.sin(bh.solve(ab, b, sharding=sharding)).sum() + F.logdet() + (c * bh.inverse_band(F)).sum()


def derivatives(sharding: NamedSharding) -> dict:
    n, w = CASES["even"]
    ab, b, c = positive_band(n, w), rhs(n, None), positive_band(n, w, 1)
    point, ways = (jnp.asarray(ab), jnp.asarray(b)), (jnp.asarray(c), jnp.asarray(b[::-1]))

    def both(sharding: NamedSharding | None) -> tuple:
        f = lambda *point: loss(*point, c, sharding)  # noqa: E731
        return jax.jit(lambda *point: (jax.grad(f, (0, 1))(*point), jax.jvp(f, point, ways)[1]))(*point)

    (by_ab, by_b), along = both(sharding)
    expected, expected_along = both(None)
    lanes = jax.vmap(lambda b: bh.solve(ab, b, sharding=sharding))(jnp.stack([b, b[::-1]]))
    return {
        "ab": error(by_ab, expected[0]),
        "b": error(by_b, expected[1]),
        "along": error(along, expected_along),
        "vmap": error(lanes[1], bh.solve(ab, b[::-1])),
    }


def collectives(function: Callable, *operands: np.ndarray, sharding: NamedSharding) -> list:
    """What a compiled program says to other devices, and how many numbers of it."""
    text = jax.jit(function).lower(*[split(each, sharding) for each in operands]).compile().as_text()
    found = COLLECTIVES.findall(text)
    return sorted([name, int(np.prod([int(size) for size in re.findall(r"[\d]+", shape.split("[")[1])] or [1]))]
                  for shape, name in found)  # fmt: skip


def programs(sharding: NamedSharding) -> dict:
    """The collectives of bands of n and of 10 n columns."""
    w = 2

    def of(function: Callable, w: int = w) -> list:
        return [collectives(function, np.ones((w + 1, n)), np.ones(n), sharding=sharding) for n in (640, 6400)]

    return {
        "solve": of(lambda ab, b: bh.solve(ab, b, sharding=sharding)),
        "refined": of(lambda ab, b: bh.solve(ab, b, refine=2, sharding=sharding)),
        "gradient": of(jax.grad(lambda ab, b: bh.solve(ab, b, sharding=sharding).sum(), (0, 1))),
        "inverse": of(lambda ab, _: bh.inverse_band(bh.factor(ab, sharding=sharding))),
        "matvec": of(bh.matvec),
        "wide matvec": of(lambda ab, x: bh.matvec(ab, x, sharding=sharding), 20),
    }


def refined(sharding: NamedSharding) -> float:
    """Of two columns, beside a solution in float64."""
    n, w = CASES["uneven"]
    ab, b = positive_band(n, w), rhs(n, 2)
    return error(bh.solve(poisoned(ab), b, refine=3, sharding=sharding), bh.factor(ab).solve(b))


def structures(sharding: NamedSharding) -> dict:
    n, w = CASES["even"]
    H = bh.Bordered(positive_band(n, w), rhs(n, None)[None] / 10, np.array([[50.0]]))
    b, negative = rhs(n + 1, None), H._replace(corner=-H.corner)
    return {
        "bordered": error(bh.solve(H, b, sharding=sharding), bh.solve(H, b)),
        "info": [int(bh.factor(each, sharding=sharding).info) for each in (H, negative)],
    }


def virtual() -> dict:
    sharding = over_devices()
    facts = {
        "cases": {name: equal_to_one_device(*size, sharding) for name, size in CASES.items()},
        "explicit": equal_to_one_device(*CASES["even"], NamedSharding(jax.make_mesh((8,), ("stages",)), sharding.spec)),
    }
    for part in (from_cholesky, backward_errors, failures, derivatives, programs, refined, structures):
        facts[part.__name__] = part(sharding)
    return facts


def process(number: int, count: int, port: str) -> dict:
    """The same answers in `count` processes. 61 columns are not split evenly; 64 are."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", count, number, initialization_timeout=60, heartbeat_timeout_seconds=10
    )
    sharding, (n, w) = over_devices(), (64 if count == 2 else 61, 2)
    ab, b = positive_band(n, w), rhs(n, None)
    F, H = bh.factor(ab, sharding=sharding), unstore(ab)
    x, Z = np.linalg.solve(H, b), store(np.linalg.inv(H), w)
    broken, unknown = ab.copy(), ab.copy()
    broken[0, n - 9], unknown[0, 3] = -1, np.nan

    def pieces(x: Array) -> list[tuple[np.ndarray, tuple]]:
        return [(np.asarray(shard.data), shard.index) for shard in x.addressable_shards]

    return {
        "devices": len(jax.devices()),
        "own": len(jax.local_devices()),
        "solve": max(error(piece, x[at]) for piece, at in pieces(F.solve(b))),
        "inverse": max(error(piece, Z[at]) for piece, at in pieces(bh.inverse_band(F))),
        "logdet": error(F.logdet(), np.linalg.slogdet(H)[1]),
        "ok": bool(F.ok),
        "bad": [bool(bh.factor(each, sharding=sharding).ok) for each in (broken, unknown)],
        "info": [int(bh.factor(each, sharding=sharding).info) for each in (ab, broken, unknown)],
        "minors": [first_failure(unstore(each)) for each in (ab, broken, unknown)],
        "nan": [
            bool(np.isnan(piece).all())
            for each in (broken, unknown)
            for piece, _ in pieces(bh.solve(each, b, sharding=sharding))
        ],
    }


def minimise(folder: str) -> dict:
    """By a run that is killed before its fifth state is saved, and another one that goes on."""
    options = {"args": (1.0,), "sharding": over_devices(), "checkpoint": folder}
    with contextlib.suppress(KilledError), kill_at(5):
        bh.newton(path, start(), 2, **options)
    result = bh.newton(path, start(), 2, **options)
    pieces = [[shard.index[0].start, np.asarray(shard.data).tolist()] for shard in result.x.addressable_shards]
    return {"x": pieces, "value": float(result.value), "steps": result.steps, "status": result.status}


def solve_until_lost() -> None:
    """Another process is killed meanwhile: this one is to end by itself."""
    sharding = over_devices()
    F, x = bh.factor(split(positive_band(64, 2), sharding), sharding=sharding), split(rhs(64, None), sharding)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        x = jax.block_until_ready(F.solve(x))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", os.environ["BANDHESS_TEST_CACHE"])
    kind, *arguments = sys.argv[1:]
    facts = virtual() if kind == "virtual" else process(*map(int, arguments[:2]), arguments[2])
    if folder := arguments[3:]:
        facts["newton"] = minimise(*folder)
    print(json.dumps(facts), flush=True)
    if folder:
        solve_until_lost()
