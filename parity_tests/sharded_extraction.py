"""Extraction over eight devices, beside one: run as a program, it prints what test_sharded_extraction.py judges.

The number of devices is fixed when JAX starts, so this runs in a process of its own, once for all tests.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from collectives import collectives
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import bandhess_jax as bj

DEVICES, T = 8, 1024


def chain(x: Any) -> Any:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def bend(x: Any) -> Any:
    return jnp.sum((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2 * jnp.exp(x[1:-1])) + jnp.sum(jnp.cos(x))


def loops(x: Any) -> Any:
    """With a loop in every stage, which no diagonal is carried through."""

    def flow(q: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, q: q + 0.1 * jnp.sin(q[::-1]) * q, q)

    return jnp.sum((jnp.roll(x, -1, 0) - jax.vmap(flow)(x)) ** 2)


def control(tree: Any) -> Any:
    """q has a stage more than u has controls; mass is shared."""
    q, u = tree["q"], tree["u"]
    steps = q[1:] - q[:-1] - jnp.sin(q[:-1]) * u[: q.shape[0] - 1]
    return jnp.sum(steps**2) * tree.get("mass", 1) + jnp.sum(u**2) + jnp.sum(q**4)


def pinned(x: Any) -> Any:
    """Of T - 7 stages: those that fill up the devices are held at 0."""
    return bend(x[: T - 7]) + jnp.sum(x[T - 7 :] ** 2) / 2


def residuals(x: Any) -> tuple:
    return x[1:] - x[:-1] ** 2, jnp.sin(x)


class Probed(bj.Direct):
    """Direct probing that forms its products."""


class Case(NamedTuple):
    function: Callable
    x: Any
    k: int
    options: dict
    extract: str = "hessian"


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    x, X = rng.normal(size=8 * T), rng.normal(size=(T, 3))
    u, short, mass = rng.normal(size=(T, 1)), rng.normal(size=(T - 1, 1)), np.array(2.0)
    shared = {"stage_axes": {"q": 0, "u": 0, "mass": None}}
    probed = {"probing": Probed()}
    return {
        "vector": Case(chain, x, 1, {}),
        "vector, probes": Case(chain, x, 1, probed),
        "vector, waves": Case(chain, x, 1, {"probing": "fourier"}),
        "stages": Case(bend, X, 2, {}, "value_grad_hessian"),
        "stages, probes": Case(bend, X, 2, probed),
        "stages, waves": Case(bend, X, 2, {"probing": "fourier"}),
        "stages, probes one by one": Case(loops, X, 1, {"chunk_size": 1, "periodic": True}),
        "ring, probes": Case(loops, X, 1, {"periodic": True}),
        "ragged tree": Case(control, {"q": X, "u": short}, 1, {}),
        "tree, probes, shared mass": Case(control, {"q": X, "u": u, "mass": mass}, 1, probed | shared),
        "stages that do not divide": Case(pinned, X, 2, {}),
        "residuals": Case(residuals, x, 1, {}, "gauss_newton"),
        "residuals, probes": Case(residuals, x, 1, probed, "gauss_newton"),
    }


def window(x: Any) -> Any:
    """Five stages meet, those of two devices and more where a device has two."""
    return jnp.sum(jnp.cos(x[3:] * x[:-3]) + x[1:-2] * x[2:-1] ** 2) + jnp.sum(x**4)


def alone(x: Any) -> Any:
    return jnp.sum(jnp.cos(x) * x**2)


def short(tree: Any) -> Any:
    """Of 13 stages and 12 controls, and three of each that fill up the devices."""
    q, u = tree["q"], tree["u"]
    return control({"q": q[:13], "u": u[:12]}) + jnp.sum(q[13:] ** 2) + jnp.sum(u[12:] ** 2)


def small_cases() -> dict[str, Case]:
    """Of two stages a device: bands that reach further, w = 0, and stages that do not divide."""
    rng = np.random.default_rng(1)
    x, X, u = rng.normal(size=16), rng.normal(size=(16, 3)), rng.normal(size=(16, 1))
    probed = {"probing": Probed()}
    return {
        "vector": Case(window, x, 3, {}, "value_grad_hessian"),
        "vector, probes": Case(window, x, 3, probed),
        "vector, waves": Case(window, x, 3, {"probing": "fourier"}),
        "stages, probes": Case(window, X, 3, probed),
        "ragged tree": Case(control, {"q": X, "u": u[1:]}, 3, {}),
        "ragged tree, probes": Case(control, {"q": X, "u": u[1:]}, 3, probed),
        "w = 0": Case(alone, x, 0, {}),
        "w = 0, probes": Case(alone, X[:, :1], 0, probed),
        "tree that does not divide": Case(short, {"q": X, "u": u}, 1, {}),
        "tree that does not divide, probes": Case(short, {"q": X, "u": u}, 1, probed),
        "residuals, probes": Case(lambda x: x[3:] * x[:-3] - x[1:-2], x, 3, probed, "gauss_newton"),
    }


def measure(case: Case, sharding: NamedSharding) -> dict:
    """What the program over all devices is and gives, compared with that on one."""

    def put(leaf: np.ndarray) -> jax.Array:
        even = leaf.ndim and leaf.shape[0] % DEVICES == 0
        return jax.device_put(leaf, sharding if even else NamedSharding(sharding.mesh, PartitionSpec()))

    extract = getattr(bj, case.extract)(case.function, case.k, **case.options)
    x = jax.tree.map(put, case.x)
    together = jax.tree.map(jnp.asarray, case.x)
    compiled, single = (jax.jit(extract).lower(where).compile() for where in (x, together))
    out, one = compiled(x), single(together)
    errors = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b), initial=1)), out, one)
    bands = [leaf for leaf in jax.tree.leaves(out) if leaf.ndim == 2 and leaf.shape[1] >= 16]
    return {
        "error": max(jax.tree.leaves(errors)),
        "sent": [list(each) for each in collectives(compiled.as_text())],
        "memory": [program.memory_analysis().temp_size_in_bytes for program in (compiled, single)],
        "parts": [[list(part.data.shape) for part in leaf.addressable_shards] for leaf in bands],
        "shapes": [list(leaf.shape) for leaf in bands],
    }


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(jax.devices(), ("stages",))
    sharding = NamedSharding(mesh, PartitionSpec("stages"))
    of_all = {"large": cases(), "small": small_cases()}
    print(
        json.dumps({size: {name: measure(case, sharding) for name, case in of.items()} for size, of in of_all.items()})
    )


if __name__ == "__main__":
    main()
