"""How time, memory and what is sent grow: with n on one device, with the devices, and by a model beyond them.

Every row is a process of its own, since JAX' devices are counted when it starts. Virtual devices share the processor:
their time tells what a partition costs, not what machines gain. Memory is what the compiled program says it needs on a
device beside its arguments (results and temporaries), and what is sent is counted from the program's text:

    collective-permute  b bytes sent and received
    all-gather          (P - 1) parts of b bytes received, of P devices
    all-reduce          2 b (P - 1) / P sent and received, around a ring

For `newton` that is a turn's with one trial: its loops stand in the program once. The model takes b from the program
for 8 devices, and compares it with that for 16. (On fewer devices than the bandwidth counts, windows x[w:] are not cut
where x is, and more is sent.) Indices are 32 bits wide: more than 2^31 scalars are beyond the library, and for the
model alone.

python benchmarks/scale.py [--largest 10000000] [--split 1000000]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import jax_ops, machine, medians, table, window

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))  # whose tests read programs, too
from collectives import collectives

WIDTH = 4
MANY, FEW = 10**10, 8
OPERATIONS = ("hessian", "hessian, probes", "factor + solve", "newton, 5 steps")


class Row(NamedTuple):
    """Of one operation in one process."""

    milliseconds: float
    memory: int  # bytes a device
    parts: dict[str, int]  # bytes of each kind of collective, as the model has them


def operations(sharding: Any) -> dict[str, Callable]:
    import bandhess_jax as bh

    fun = window(WIDTH)(jax_ops())
    probes = type("Probes", (bh.Direct,), {})()
    split = {} if sharding is None else {"sharding": sharding}
    band = bh.hessian(fun, WIDTH)
    calls: tuple[Callable, ...] = (
        band,
        bh.hessian(fun, WIDTH, probing=probes),
        lambda x: bh.factor(band(x).at[0].add(10.0), **split).solve(x),
        lambda x: bh.newton(fun, x, WIDTH, max_steps=5, **split).x,
    )
    return dict(zip(OPERATIONS, calls, strict=True))


def parts(text: str, devices: int) -> dict[str, int]:
    """The b of each kind, summed over the program."""
    found: dict[str, int] = {}
    for kind, _, size in collectives(text):
        found[kind] = found.get(kind, 0) + (size // devices if kind == "all-gather" else size)
    return found


def child(devices: int, n: int) -> None:
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    jax.config.update("jax_enable_x64", True)
    x, sharding = 0.3 * np.random.default_rng(0).standard_normal(n), None
    if devices > 1:
        sharding = NamedSharding(Mesh(jax.devices(), ("stages",)), PartitionSpec("stages"))
    point = jax.device_put(x, sharding)
    rows = {}
    for name, call in operations(sharding).items():
        compiled = jax.jit(call).lower(point).compile()
        took = medians({name: lambda compiled=compiled: jax.block_until_ready(compiled(point))}, 3)
        uses = compiled.memory_analysis()
        memory = uses.temp_size_in_bytes + uses.output_size_in_bytes
        rows[name] = Row(took[name], memory, parts(compiled.as_text(), devices))
    print(json.dumps(rows))


def measure(devices: int, n: int) -> dict[str, Row]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--child", str(devices), str(n)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "XLA_FLAGS": flags})
    return {name: Row(*row) for name, row in json.loads(out.stdout).items()}


def sent(b: dict[str, int], devices: int) -> float:
    """Bytes that a device receives."""
    factors = {"all-gather": devices - 1, "all-reduce": 2 * (devices - 1) / devices}
    return sum(size * factors.get(kind, 1) for kind, size in b.items())


def exponent(a: float, b: float, ratio: float) -> str:
    return f"{math.log(b / a, ratio):.2f}" if a > 0 else "-"


def with_n(sizes: list[int]) -> None:
    print(f"One device, half-bandwidth {WIDTH}; exponents from the size before\n")
    rows, before = [], None
    for n in sizes:
        now = measure(1, n)
        for name, row in now.items():
            grown = ["-", "-"]
            if before:
                old, ratio = before[1][name], n / before[0]
                grown = [exponent(old[i], row[i], ratio) for i in range(2)]
            rows.append([name, n, row.milliseconds, grown[0], row.memory / 2**20, grown[1]])
        before = n, now
    table(["operation", "n", "ms", "exponent", "MiB", "exponent"], sorted(rows, key=lambda row: row[0]))


def with_devices(n: int) -> dict[int, dict[str, Row]]:
    print(f"\nn = {n} on virtual devices of this processor\n")
    measured = {devices: measure(devices, n) for devices in (1, 2, 4, FEW)}
    rows = []
    for name in OPERATIONS:
        one = measured[1][name]
        for devices, found in measured.items():
            row = found[name]
            time = [row.milliseconds, row.milliseconds / one.milliseconds]
            rows.append([name, devices, *time, row.memory / 2**20, sent(row.parts, devices)])
    table(["operation", "devices", "ms", "to one device's", "MiB a device", "bytes received a device"], rows)
    return measured


def model(measured: dict[str, Row], n: int) -> None:
    print(f"\nBy the model, n = {MANY:.0e}: what each of P devices receives, and the memory it needs\n")
    doubled, rows = measure(2 * FEW, 2 * n), []
    for name in OPERATIONS:
        b, column = measured[name].parts, measured[name].memory / (n / FEW)
        alike = "yes" if doubled[name].parts == b else f"no: {json.dumps(doubled[name].parts)}"
        for P in (64, 1024):
            memory = column * MANY / P / 2**30
            rows.append([name, P, json.dumps(b), alike, sent(b, P) / 1024, memory])
    table(["operation", "P", f"b of {FEW} devices", f"of {2 * FEW} alike", "KiB received", "GiB a device"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=10**7, help="n on one device, from 10^4 on by tens")
    parser.add_argument("--split", type=int, default=10**6, help="n over the devices, a multiple of 8")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    print(machine("jax"), "; float64, medians of 3\n", sep="")
    with_n([10**k for k in range(4, int(math.log10(options.largest)) + 1)])
    model(with_devices(options.split)[FEW], options.split)
    return None


if __name__ == "__main__":
    main()
