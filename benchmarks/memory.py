"""Peak memory of an extraction, each in its own process: what it adds to imports and the argument.

Two n at one w, and two w at one n, so that the growth with n (w + 1) can be read: by products, a number of them at a
time, and by what is done by default ("auto": diagonals).

python benchmarks/memory.py [jax] [torch]
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

from _common import OBJECTIVES, jax_ops, machine, seconds, start, table, torch_ops

CASES = [
    (500_000, "window 8", 1),
    (10**6, "window 8", 1),
    (10**6, "window 2", 1),
    (10**6, "window 8", 4),
    (10**6, "window 8", None),
    (10**7, "window 2", 1),
    (10**6, "window 8", "auto"),
    (10**7, "window 2", "auto"),
]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB


def probing(backend: Any, chunk: int | str | None) -> Any:
    """Products where their number at a time is given: a subclass of `Direct` forms them always."""
    return "direct" if chunk == "auto" else type("Probes", (backend.Direct,), {})()


def child(backend: str, n: int, name: str, chunk: int | str | None) -> None:
    build, w = OBJECTIVES[name]
    x = start(n, name)
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        import bandhess_jax

        jax.config.update("jax_enable_x64", True)
        fun, point = build(jax_ops()), jnp.asarray(x)
        band = bandhess_jax.hessian(fun, w, probing=probing(bandhess_jax, chunk), chunk_size=chunk)
        compiled = jax.jit(band).lower(point).compile()
        before = peak()
        took, _ = seconds(lambda: compiled(point).block_until_ready())
    else:
        import torch

        import bandhess_torch

        fun, point = build(torch_ops()), torch.tensor(x)
        before = peak()
        band = bandhess_torch.hessian(fun, w, probing=probing(bandhess_torch, chunk), chunk_size=chunk)
        took, _ = seconds(lambda: band(point))
    print(peak() - before, took)


def main(backends: list[str]) -> None:
    print(machine("jax", "torch"), "; float64, one call\n", sep="")
    rows = []
    for backend in backends:
        for n, name, chunk in CASES:
            command = [sys.executable, __file__, backend, str(n), name, str(chunk)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            added, took = map(float, out.split())
            band = 8 * (OBJECTIVES[name][1] + 1) * n / 2**20
            rows.append([backend, name, n, chunk, added, band, added / band, took])
    header = ["backend", "objective", "n", "chunk_size", "peak MiB", "band MiB", "peak / band", "seconds"]
    table(header, rows)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        backend, n, name, chunk = sys.argv[1:]
        child(backend, int(n), name, None if chunk == "None" else chunk if chunk == "auto" else int(chunk))
    else:
        main(sys.argv[1:] or ["jax", "torch"])
