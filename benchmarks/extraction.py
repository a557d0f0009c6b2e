"""Extracting the band of a Hessian: bandhess against asdex, CasADi, torch's loops and dense Hessians, in one run.

python benchmarks/extraction.py [--n 10000 100000] [--repeats 15] [--no-casadi] [--no-asdex] [--cases NAME ...]
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import OBJECTIVES, casadi_ops, jax_ops, machine, medians, seconds, start, table, torch_ops

import bandhess_jax
import bandhess_torch

jax.config.update("jax_enable_x64", True)


class Probes(bandhess_jax.Direct):
    """Direct probing that forms its products always. (Only `Direct` itself lets diagonals be carried instead.)"""


class NoDecoding(Probes):
    """Direct probing that forms its products and reads nothing off them: what it lacks is the decoding."""

    def decode(self, kept: jax.Array, T: int, d: int, k: int) -> jax.Array:
        return jnp.full(((k + 1) * d, T * d), kept.reshape(-1)[0])


class OneProduct(NoDecoding):
    """The linearised gradient and one product."""

    def probe(self, c: jax.Array, T: int, d: int, k: int, dtype: Any) -> jax.Array:
        return (jnp.arange(T * d) % (2 * k + 1) == c).astype(dtype)

    def keep(self, c: jax.Array, y: jax.Array, T: int, d: int, k: int) -> jax.Array:
        padded = jnp.pad(y, (0, 2 * k + 1))
        return padded[: T * d // (2 * k + 1) * (2 * k + 1)].reshape(-1, 2 * k + 1)[:, : (k + 1) * d]

    def count(self, T: int, d: int, k: int) -> int:
        return 1


def dense_case(name: str, repeats: int) -> list[Any]:
    """What a user has today: the dense Hessian, at a size where it still fits."""
    build, w = OBJECTIVES[name]
    x = start(2000, name)
    fj, ft, xj, xt = build(jax_ops()), build(torch_ops()), jnp.asarray(x), torch.tensor(x)
    full, band = jax.jit(jax.hessian(fj)), bandhess_jax.hessian(fj, w)
    size = np.abs(full(xj)).max()
    np.testing.assert_allclose(bandhess_jax.to_dense(band(xj)), full(xj), rtol=1e-9, atol=1e-9 * size)
    t = medians(
        {
            "jax band": lambda: band(xj).block_until_ready(),
            "jax dense": lambda: full(xj).block_until_ready(),
            "torch band": lambda: bandhess_torch.hessian(ft, w)(xt),
            "torch dense": lambda: torch.func.hessian(ft)(xt),
        },
        repeats,
    )
    row = [name, len(x), 2 * w + 1, len(x), t["jax band"], t["jax dense"], t["jax band"] / t["jax dense"]]
    return [*row, t["torch band"], t["torch dense"], t["torch band"] / t["torch dense"]]


def loop(w: int) -> Any:
    """The window objective, one window after the other: products that nothing but probes goes through."""

    def fun(x: jax.Array) -> jax.Array:
        def step(last: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
            window = jnp.append(last, new)
            s = jnp.sum(jnp.sin((1 + 0.1 * jnp.arange(w + 1)) * window))
            return window[1:], jnp.exp(0.3 * s) + s**2

        return jnp.sum(jax.lax.scan(step, x[:w], x[w:])[1]) + 0.5 * jnp.sum(x**2)

    return fun


LOOPS = {"loop 2": 2, "loop 8": 8}  # in JAX alone


def jax_case(name: str, n: int, repeats: int, with_asdex: bool, with_casadi: bool) -> tuple[dict, dict]:
    """What a call takes, beside its peers; and what its parts and the probings take."""
    if name in LOOPS:
        fun, w = loop(LOOPS[name]), LOOPS[name]
    else:
        build, w = OBJECTIVES[name]
        fun = build(jax_ops())
    x = jnp.asarray(start(n, name))
    calls: dict[str, Any] = {}
    out: dict[str, Any] = {"objective": name, "n": len(x)}
    parts: dict[str, Any] = dict(out)

    band = jax.jit(bandhess_jax.hessian(fun, w))
    out["first s"], ab = seconds(lambda: band(x).block_until_ready())
    calls["bandhess"] = lambda: band(x).block_until_ready()
    for chunk in ("auto", 1, 4, None):
        fixed = jax.jit(bandhess_jax.hessian(fun, w, probing=Probes(), chunk_size=chunk))
        calls[f"chunk {chunk}"] = lambda fixed=fixed: fixed(x).block_until_ready()
    for label, probing in (("one product", OneProduct()), ("no decoding", NoDecoding())):
        part = jax.jit(bandhess_jax.hessian(fun, w, probing=probing))
        calls[label] = lambda part=part: part(x).block_until_ready()
    half = jax.jit(bandhess_jax.hessian(fun, w, probing="substitution"))
    calls["substitution"] = lambda: half(x).block_until_ready()
    grad = jax.jit(jax.grad(fun))
    calls["gradient"] = lambda: grad(x).block_until_ready()

    if with_asdex:
        import asdex

        out["asdex first s"], modes = seconds(lambda: _asdex(asdex, fun, x))
        for label, mode in modes.items():
            calls[label] = lambda mode=mode: jax.block_until_ready(mode(x))
        check = modes["asdex"](x)
        below = np.asarray(check.indices)
        values = np.asarray(check.data)
        keep = below[:, 0] >= below[:, 1]
        mine = np.asarray(ab)[below[keep, 0] - below[keep, 1], below[keep, 1]]
        np.testing.assert_allclose(mine, values[keep], rtol=1e-9, atol=1e-9 * np.abs(values).max())
    if with_casadi:
        import casadi

        def make() -> Any:
            sx = casadi.SX.sym("x", len(x))
            return casadi.Function("H", [sx], [casadi.tril(casadi.hessian(build(casadi_ops())(sx), sx)[0])])

        out["casadi build s"], function = seconds(make)
        point = casadi.DM(np.asarray(x))
        calls["casadi"] = lambda: function(point)
    t = medians(calls, repeats)
    probes = t.pop("chunk auto")
    best_chunk = min((key for key in t if key.startswith("chunk")), key=t.__getitem__)
    product = (t["no decoding"] - t["one product"]) / (2 * w)
    out["gradient ms"], out["bandhess ms"] = t["gradient"], t["bandhess"]
    parts["probes ms"], parts["bandhess / probes"] = probes, t["bandhess"] / probes
    parts["linearise"], parts["products"] = t["one product"] - product, (2 * w + 1) * product
    parts["decode"] = probes - t["no decoding"]
    parts["best"], parts["/best"] = best_chunk, probes / t[best_chunk]
    parts["substitution ms"], parts["/probes"] = t["substitution"], t["substitution"] / probes
    if with_asdex:
        best = min(t[key] for key in t if key.startswith("asdex"))
        out["asdex ms"], out["/asdex"] = best, t["bandhess"] / best
        parts["probes / asdex"] = probes / best
        out["first/asdex"] = out["first s"] / out["asdex first s"]
    if with_casadi:
        out["casadi ms"], out["/casadi"] = t["casadi"], t["bandhess"] / t["casadi"]
    return out, parts


def _asdex(asdex: Any, fun: Any, x: Any) -> dict[str, Any]:
    colouring = asdex.hessian_coloring(fun, x)
    modes = {"asdex": jax.jit(asdex.hessian_from_coloring(fun, colouring))}
    jax.block_until_ready(modes["asdex"](x))
    modes["asdex chunk 1"] = jax.jit(asdex.hessian_from_coloring(fun, colouring, chunk_size=1))
    return modes


def batch_case(name: str, n: int, batch: int, repeats: int, with_asdex: bool) -> dict[str, Any]:
    """The bands at many points: vmap, against a loop over points."""
    build, w = OBJECTIVES[name]
    points = np.stack([start(n, name, seed) for seed in range(batch)])
    fj, ft, xj, xt = build(jax_ops()), build(torch_ops()), jnp.asarray(points), torch.tensor(points)
    one, many = jax.jit(bandhess_jax.hessian(fj, w)), jax.jit(jax.vmap(bandhess_jax.hessian(fj, w)))
    torch_one = bandhess_torch.hessian(ft, w)
    torch_many = torch.func.vmap(torch_one)
    bands = many(xj)
    np.testing.assert_allclose(torch_many(xt), bands, rtol=1e-9, atol=1e-9 * float(jnp.abs(bands).max()))
    calls = {
        "jax": lambda: many(xj).block_until_ready(),
        "jax loop": lambda: [one(x) for x in xj][-1].block_until_ready(),
        "torch": lambda: torch_many(xt),
        "torch loop": lambda: [torch_one(x) for x in xt],
    }
    if with_asdex:
        import asdex

        colouring = asdex.hessian_coloring(fj, xj[0])
        for label, chunk in {"asdex": {}, "asdex chunk 1": {"chunk_size": 1}}.items():
            mode = jax.jit(jax.vmap(asdex.hessian_from_coloring(fj, colouring, **chunk)))
            calls[label] = lambda mode=mode: jax.block_until_ready(mode(xj))
    t = medians(calls, repeats)
    out: dict[str, Any] = {"objective": name, "points": batch, "n": points.shape[1], "jax ms": t["jax"]}
    out["/loop"] = t["jax"] / t["jax loop"]
    if with_asdex:
        out["asdex ms"] = min(t["asdex"], t["asdex chunk 1"])
        out["/asdex"] = t["jax"] / out["asdex ms"]
    return out | {"torch ms": t["torch"], "torch /loop": t["torch"] / t["torch loop"]}


def torch_case(name: str, n: int, repeats: int) -> dict[str, Any]:
    build, w = OBJECTIVES[name]
    fun, x = build(torch_ops()), torch.tensor(start(n, name))
    probes = (torch.arange(len(x)) % (2 * w + 1) == torch.arange(2 * w + 1)[:, None]).to(x.dtype)

    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(fun(leaf), leaf, create_graph=True)[0], leaf

    def loop() -> torch.Tensor:
        grad, leaf = gradient()
        return torch.stack([torch.autograd.grad(grad, leaf, v, retain_graph=True)[0] for v in probes])

    def batched() -> torch.Tensor:
        grad, leaf = gradient()
        return torch.autograd.grad(grad, leaf, probes, is_grads_batched=True)[0]

    row = torch.arange(w + 1)[:, None] + torch.arange(len(x))
    inside = row < len(x)  # what a peer reads the band with, made in advance
    cells = torch.where(inside, torch.arange(len(x)) % (2 * w + 1) * len(x) + row, 0)

    def read(products: torch.Tensor) -> torch.Tensor:
        return torch.where(inside, products.take(cells), 0)

    band = bandhess_torch.hessian(fun, w)
    torch.testing.assert_close(band(x), read(loop()), rtol=1e-9, atol=1e-9)
    calls = {"band": lambda: band(x), "loop": loop, "batched": batched, "gradient": gradient}
    calls |= {"loop + band": lambda: read(loop()), "batched + band": lambda: read(batched())}
    t = medians(calls, repeats)
    out: dict[str, Any] = {"objective": name, "n": len(x), "bandhess ms": t["band"], "gradient ms": t["gradient"]}
    out |= {"loop ms": t["loop"], "/loop": t["band"] / t["loop"], "/(loop + band)": t["band"] / t["loop + band"]}
    out |= {"is_grads_batched ms": t["batched"], "/is_grads_batched": t["band"] / t["batched"]}
    return out | {"/(is_grads_batched + band)": t["band"] / t["batched + band"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cases", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--no-asdex", action="store_true")
    parser.add_argument("--no-casadi", action="store_true")
    options = parser.parse_args()
    peers = ["asdex"] * (not options.no_asdex) + ["casadi"] * (not options.no_casadi)
    print(machine("jax", "torch", *peers), f"; float64, medians of {options.repeats}", sep="")
    print("\nAgainst dense Hessians (jitted jax.hessian, torch.func.hessian)\n")
    table(
        ["objective", "n", "products", "dense", "jax ms", "dense ms", "ratio", "torch ms", "dense ms", "ratio"],
        [dense_case(name, options.repeats) for name in ("window 2", "path2d")],
    )
    print("\nJAX: milliseconds a call, first call in seconds (asdex: detection, colouring, compilation)\n")
    rows = []
    for n in options.n:
        for name in [*options.cases, *LOOPS]:
            # A network of a thousand weights an entry: CasADi's graph and asdex's detection take minutes.
            large, alone = name == "network", name in LOOPS
            asdex = not options.no_asdex and not (large and n > 10**4) and not alone
            rows.append(jax_case(name, n, options.repeats, asdex, not options.no_casadi and not large and not alone))
    for number, title in enumerate(("", "\nThe same by probes, and what their parts take\n")):
        if title:
            print(title)
        chosen = [row[number] for row in rows]
        header = max(chosen, key=len)
        table(list(header), [[row.get(column, "-") for column in header] for row in chosen])
    print("\nBatches by vmap\n")
    rows = [batch_case(name, 1000, 100, max(3, options.repeats // 2), not options.no_asdex) for name in options.cases]
    table(list(rows[0]), [list(row.values()) for row in rows])
    print("\nPyTorch: a loop over products, and one is_grads_batched call: up to the products, or with the band\n")
    rows = [torch_case(name, n, options.repeats) for n in options.n for name in options.cases]
    table(list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    main()
