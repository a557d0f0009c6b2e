"""One smoothing problem of a million stages, split over processes: JAX's own runtime carries what they send.

Each process holds a part of the data, and of the minimiser; on a cluster each has its node, or its GPU.

for i in 0 1 2 3; do python examples/four_processes.py $i --processes 4 & done; wait
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import bandhess_jax as bh


def misfit(x: jax.Array, data: jax.Array) -> jax.Array:
    """Smooth, and near the data, of which some are far off (Cauchy's loss)."""
    return 50 * jnp.sum((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2) + jnp.sum(jnp.log1p((x - data) ** 2))


def part_of_the_data(where: tuple[slice, ...]) -> np.ndarray:
    """Of these stages alone: no process needs the others."""
    t = np.arange(where[0].start or 0, where[0].stop)
    return np.sin(t / 500) + np.where(t % 17 == 0, 3.0, 0.1 * np.cos(7 * t))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("process", type=int, help="this one's number, 0 first")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--stages", type=int, default=1_000_000, help="a number that the processes divide")
    parser.add_argument("--coordinator", default="localhost:9907", help="where process 0 listens")
    parser.add_argument("--checkpoint", help="a folder that all processes see, to go on from after a loss of one")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(options.coordinator, options.processes, options.process)

    mesh = Mesh(jax.devices(), ("stages",))
    stages = NamedSharding(mesh, PartitionSpec("stages"))
    data = jax.make_array_from_callback((options.stages,), stages, part_of_the_data)
    result = bh.newton(misfit, data, 2, args=(data,), sharding=stages, checkpoint=options.checkpoint)
    parts = [part.data.shape for part in result.x.addressable_shards]
    print(f"process {options.process}: {result.status.name}, {result.steps} steps, f = {result.value:.6f}, has {parts}")


if __name__ == "__main__":
    main()
