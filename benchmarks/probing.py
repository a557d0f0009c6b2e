"""The four probings on one problem: products, milliseconds and error, in float64 and float32, both backends.

python benchmarks/probing.py [--n 10000] [--objective "window 8"] [--repeats 15]
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import OBJECTIVES, jax_ops, machine, medians, start, table, torch_ops

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)

PROBINGS = ("direct", "direct, probes", "substitution", "fourier", "random")


def probing(backend: Any, name: str) -> Any:
    """A subclass of `Direct` forms its products always; "direct" itself lets diagonals be carried instead."""
    return type("Probes", (backend.Direct,), {})() if name == "direct, probes" else name


def products(backend: Any, name: str, w: int) -> int | str:
    if name == "direct":
        return "-"
    return getattr(backend, name.split(",")[0].capitalize())().count(10**6, 1, w)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10000)
    parser.add_argument("--objective", default="window 8", choices=list(OBJECTIVES))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(machine("jax", "torch"), f"; {options.objective}, n = {options.n}, medians of {options.repeats}")
    print("error: largest, relative to the largest entry, against direct probing in float64\n")
    build, w = OBJECTIVES[options.objective]
    x = start(options.n, options.objective)
    fj, ft = build(jax_ops()), build(torch_ops())
    reference = np.asarray(bandhess_jax.hessian(fj, w)(jnp.asarray(x)))
    size = np.abs(reference).max()
    calls, errors = {}, {}
    for name in PROBINGS:
        for bits in (64, 32):
            xj = jnp.asarray(x, f"float{bits}")
            xt = torch.tensor(x, dtype=getattr(torch, f"float{bits}"))
            hj = jax.jit(bandhess_jax.hessian(fj, w, probing=probing(bandhess_jax, name)))
            ht = bandhess_torch.hessian(ft, w, probing=probing(bandhess_torch, name))
            calls["jax", name, bits] = lambda hj=hj, xj=xj: hj(xj).block_until_ready()
            calls["torch", name, bits] = lambda ht=ht, xt=xt: ht(xt)
            errors["jax", name, bits] = float(np.abs(np.asarray(hj(xj)) - reference).max() / size)
            errors["torch", name, bits] = float(np.abs(ht(xt).numpy() - reference).max() / size)
    t = medians(calls, options.repeats)
    rows = []
    for name in PROBINGS:
        row: list[Any] = [name, products(bandhess_jax, name, w)]
        for backend in ("jax", "torch"):
            for bits in (64, 32):
                row += [t[backend, name, bits], f"{errors[backend, name, bits]:.0e}"]
        rows.append(row)
    pairs = [f"{backend} f{bits}" for backend in ("jax", "torch") for bits in (64, 32)]
    table(["probing", "products", *[f"{pair} {what}" for pair in pairs for what in ("ms", "error")]], rows)


if __name__ == "__main__":
    main()
