"""Factorising and solving on a GPU: against the rate at which it copies memory, and against LAPACK on its host.

python benchmarks/gpu.py [--repeats 21] [--seconds 120]    where there is a GPU that JAX or PyTorch (or both) can use
python benchmarks/gpu.py --rehearse                        the same on a CPU, with small sizes: shows that it runs

Bytes that must move: the band and the right-hand side are read, the solution is written, once. A measured copy of a
large array gives the rate (its bytes count twice, read and written); "of copy" is the time that these bytes take at
that rate, over the time measured. The goals: n = 1e6, w = 4, float64 in 2 ms; 10000 systems of n = 1000, w = 4 at 30%
of the copy rate.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _common import machine, table
from scipy.linalg import lapack

CASES = [  # the goals' first, the largest last: time may run out
    *((1, n, w) for n in (10**6, 10**5) for w in (4, 1, 16)),
    *((10000, 1000, w) for w in (4, 1, 16)),
    *((1, 10**7, w) for w in (4, 1, 16)),
]
GOALS = {(1, 10**6, 4): "2 ms", (10000, 1000, 4): "30% of copy"}
REHEARSAL = [(1, 1000, 1), (1, 3000, 4), (1, 2000, 16), (20, 100, 4)]


class Framework(NamedTuple):
    """What differs: the device's name, moving an array there, the calls to time, and waiting for their end."""

    name: str
    device: str
    move: Callable[[np.ndarray], Any]
    factor_solve: Callable[[Any, Any], Any]
    batched: Callable[[Any, Any], Any]
    copy: Callable[[Any], Any]
    wait: Callable[[Any], Any]
    to_numpy: Callable[[Any], np.ndarray]


def jax_framework(rehearse: bool) -> Framework | str:
    """The framework, or why it is not there."""
    try:
        import jax
        import jax.numpy as jnp

        import bandhess_jax
        from bandhess_jax.linalg import solve
    except ImportError as error:
        return f"jax: {error}"
    if rehearse:
        solve.PARTITION_EVERYWHERE = True
    device = jax.devices()[0]
    if device.platform == "cpu" and not rehearse:
        return "jax: sees no GPU (pip install 'jax[cuda12]')"
    jax.config.update("jax_enable_x64", True)

    def factor_solve(ab: Any, b: Any) -> Any:
        return bandhess_jax.factor(ab).solve(b)

    return Framework(
        "jax", device.device_kind, jnp.asarray, jax.jit(factor_solve), jax.jit(jax.vmap(factor_solve)),
        jax.jit(lambda x: x + 1), jax.block_until_ready, np.asarray,
    )  # fmt: skip


def torch_framework(rehearse: bool) -> Framework | str:
    try:
        import torch

        import bandhess_torch
        from bandhess_torch.linalg import solve
    except ImportError as error:
        return f"torch: {error}"
    if rehearse:
        solve.PARTITION_EVERYWHERE = True
    elif not torch.cuda.is_available():
        return "torch: sees no GPU (install a build with CUDA)"
    device = torch.device("cpu" if rehearse else "cuda")

    def factor_solve(ab: Any, b: Any) -> Any:
        return bandhess_torch.factor(ab).solve(b)

    def wait(x: Any) -> Any:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return x

    return Framework(
        "torch", "cpu" if rehearse else torch.cuda.get_device_name(), lambda x: torch.tensor(x, device=device),
        factor_solve, torch.func.vmap(factor_solve), lambda x: x + 1, wait, lambda x: x.cpu().numpy(),
    )  # fmt: skip


def median_ms(call: Callable[[], Any], repeats: int) -> float:
    call(), call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def copy_rate(framework: Framework, megabytes: int, repeats: int) -> float:
    """Bytes per millisecond, read and written, of x + 1."""
    x = framework.move(np.zeros(megabytes * 125000))
    return 2e6 * megabytes / median_ms(lambda: framework.wait(framework.copy(x)), repeats)


def lapack_ms(ab: np.ndarray, b: np.ndarray, repeats: int) -> float:
    """pbtrf and pbtrs on the host, the whole batch, called from a loop."""
    fortran = [np.asfortranarray(one) for one in ab]

    def solve() -> None:
        for one, rhs in zip(fortran, b, strict=True):
            cb, info = lapack.dpbtrf(one, lower=1)
            assert info == 0
            lapack.dpbtrs(cb, rhs, lower=1)

    return median_ms(solve, min(repeats, 3))


def case(systems: int, n: int, w: int, rates: dict[Framework, float], repeats: int) -> list[list[Any]]:
    """A row of the table for each framework."""
    rng = np.random.default_rng(n + w)
    ab = rng.uniform(-1, 1, (systems, w + 1, n))
    ab[:, 0] += 2 * w + 2
    b = rng.standard_normal((systems, n))
    cb, _ = lapack.dpbtrf(ab[-1], lower=1)
    expected, _ = lapack.dpbtrs(cb, b[-1], lower=1)
    host, rows = lapack_ms(ab, b, repeats), []
    for framework, rate in rates.items():
        given = (ab[0], b[0]) if systems == 1 else (ab, b)
        arrays = [framework.move(array) for array in given]
        call = framework.factor_solve if systems == 1 else framework.batched
        x = framework.to_numpy(call(*arrays)).reshape(b.shape)[-1]
        np.testing.assert_allclose(x, expected, rtol=1e-10, atol=1e-12)
        ms = median_ms(lambda call=call, arrays=arrays, wait=framework.wait: wait(call(*arrays)), repeats)
        share = f"{100 * (ab.nbytes + 2 * b.nbytes) / rate / ms:.3g}%"
        rows.append([framework.name, systems, n, w, ms, share, host, ms / host, GOALS.get((systems, n, w), "")])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=120, help="no case is begun after this time")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with small sizes; its times mean nothing")
    options = parser.parse_args()
    start = time.perf_counter()
    found = [jax_framework(options.rehearse), torch_framework(options.rehearse)]
    frameworks = [framework for framework in found if isinstance(framework, Framework)]
    for missing in (reason for reason in found if isinstance(reason, str)):
        print(missing)
    if not frameworks:
        print("No GPU, nothing to measure. `--rehearse` runs the programs on this CPU, with small sizes.")
        sys.exit(1)
    print(machine("numpy", "scipy", *(framework.name for framework in frameworks)), "; float64", sep="")
    rates = {each: copy_rate(each, 8 if options.rehearse else 1024, options.repeats) for each in frameworks}
    for framework, rate in rates.items():
        print(f"{framework.name} on {framework.device}: copies {rate / 1e6:.3g} GB/s")
    rows: list[list[Any]] = []
    failed = False
    for sizes in REHEARSAL if options.rehearse else CASES:
        if time.perf_counter() - start > options.seconds:
            print("out of time before (systems, n, w) =", sizes)
            continue
        try:
            rows += case(*sizes, rates, options.repeats)
        except Exception as error:  # out of memory, or a wrong result: the other cases still say something
            print("failed at (systems, n, w) =", sizes, f"{type(error).__name__}: {error}")
            failed = True
    print()
    table(["", "systems", "n", "w", "ms", "of copy", "host LAPACK ms", "ratio", "goal"], rows)
    sys.exit(failed)


if __name__ == "__main__":
    main()
