"""Newton over eight devices, beside one: run as a program, it prints what test_sharded_newton.py judges."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from collectives import collectives
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from killed_newton import KilledError, kill_at

import bandhess_jax as bj

DEVICES, T, D = 8, 512, 2
ROWS = 3 * D


def path(x: Any, c: Any) -> Any:
    """Smooth, bent around a bump, drawn to c: not convex."""
    bend = x[2:] - 2 * x[1:-1] + x[:-2]
    return 10 * jnp.sum(bend**2) + jnp.sum(jnp.exp(-jnp.sum(x**2, 1))) + jnp.sum((x - c) ** 2) / 8


def control(tree: Any) -> Any:
    """q has a stage more than u has controls."""
    q, u = tree["q"], tree["u"]
    steps = q[1:] - q[:-1] - 0.3 * jnp.sin(q[:-1]) * u - 0.1
    return 10 * jnp.sum(steps**2) + jnp.sum(u**2) + 0.1 * jnp.sum(q**4)


def solved(x0: Any, c: Any, sharding: NamedSharding | None) -> tuple:
    """`(gradient, result)`: of |x|^2 at the minimiser, with respect to c."""

    def loss(c: Any) -> tuple:
        found = bj.newton(path, x0, 2, args=(c,), sharding=sharding)
        return jnp.sum(found.x**2), found[:5]

    return jax.grad(loss, has_aux=True)(c)


def gap(a: Any, b: Any) -> float:
    """The largest difference of two trees of arrays."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - b))), a, b)))


def facts(several: tuple, one: tuple) -> dict:
    """Of two results, from several devices and from one."""
    return {
        "status": [int(several[4]), int(one[4])],
        "steps": [int(several[3]), int(one[3])],
        "value": float(np.abs(several[1] - one[1])),
        "x": gap(several[0], one[0]),
    }


def even(sharding: NamedSharding) -> dict:
    """A vector of stages that the devices divide: one program for minimiser and gradient."""
    rng = np.random.default_rng(0)
    x0, c = rng.normal(size=(2, T, D))
    put = lambda a: jax.device_put(a, sharding)  # noqa: E731
    program = jax.jit(lambda x0, c: solved(x0, c, sharding)).lower(put(x0), put(c)).compile()
    gradient, found = program(put(x0), put(c))
    single = jax.jit(lambda x0, c: solved(x0, c, None))
    reference, alone = single(jnp.asarray(x0), jnp.asarray(c))
    x0[T // 3] = np.nan
    _, failed = program(put(x0), put(c))
    return facts(found, alone) | {
        "gradient": gap(gradient, reference),
        "sent": [list(each) for each in collectives(program.as_text())],
        "parts": [list(part.data.shape) for part in found[0].addressable_shards],
        "failed": [int(failed[4]), int(single(jnp.asarray(x0), jnp.asarray(c))[1][4])],
    }


def uneven(sharding: NamedSharding) -> dict:
    """A tree of 205 stages and 204 controls, as the user has them, on one device; killed on its way over all."""
    rng = np.random.default_rng(1)
    x0 = {"q": rng.normal(size=(205, 3)), "u": rng.normal(size=(204, 1))}
    options = {"scale": "diagonal", "history": True}
    alone = bj.newton(control, x0, 1, **options)
    with tempfile.TemporaryDirectory() as folder:
        saved = options | {"sharding": sharding, "checkpoint": folder}
        with contextlib.suppress(KilledError), kill_at(5):
            bj.newton(control, x0, 1, **saved)
        written = [int(path.name) for path in Path(folder).iterdir()]
        found = bj.newton(control, x0, 1, **saved)
    rows = [np.asarray(of.history.value) for of in (found, alone)]
    way = float(np.max(np.abs(rows[0] - rows[1]) / np.abs(rows[1])))
    return facts(found, alone) | {"history": way, "written": written}


def few(sharding: NamedSharding) -> dict:
    """Of 13 stages: the devices do not divide them, and have fewer than the bandwidth counts."""
    x0 = np.random.default_rng(2).normal(size=(13, 1))
    several, one = (bj.newton(path, x0, 2, args=(np.ones(1),), sharding=over) for over in (sharding, None))
    return facts(several, one)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(jax.devices(), ("stages",))
    sharding = NamedSharding(mesh, PartitionSpec("stages"))
    print(json.dumps({"even": even(sharding), "uneven": uneven(sharding), "few": few(sharding)}))


if __name__ == "__main__":
    main()
