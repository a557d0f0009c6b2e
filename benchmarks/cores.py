"""From how many cores on does the partition method pay? Its whole work, on one core, beside the serial solve.

python benchmarks/cores.py [--n 160000] [--parts 8] [--repeats 21]
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from _common import machine, medians, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=160_000)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=21)
    given = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={given.parts}"
    if sys.platform == "linux":  # before JAX starts its threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import bandhess_jax as bh

    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(jax.devices(), ("stages",))
    stages, columns = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("stages",), (None, "stages")))
    solve, split = jax.jit(bh.solve), jax.jit(partial(bh.solve, sharding=stages))
    rows = []
    for w in (1, 2, 4, 8, 16, 32):
        ab, b = np.full((w + 1, given.n), -1.0), np.ones(given.n)
        ab[0] = 2 * w + 1
        here, there = jax.device_put((ab, b)), (jax.device_put(ab, columns), jax.device_put(b, stages))
        np.testing.assert_allclose(split(*there), solve(*here), rtol=1e-10)
        t = medians({"serial": lambda here=here: jax.block_until_ready(solve(*here)),
                     "parts": lambda there=there: jax.block_until_ready(split(*there))}, given.repeats)  # fmt: skip
        ratio = t["parts"] / t["serial"]
        rows.append([w, t["serial"], t["parts"], ratio, *(2 * ratio / cores for cores in (8, 16, 64))])
    print(f"{machine('jax')}; n = {given.n}, {given.parts} parts, one core, medians of {given.repeats}\n")
    table(["w", "serial ms", "parts ms", "ratio", "8 cores / 2 threads", "16 / 2", "64 / 2"], rows)


if __name__ == "__main__":
    main()
