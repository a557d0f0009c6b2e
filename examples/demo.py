"""What bandhess does, in both frameworks, on four problems: tables here, pictures in the folder given by --out.

python examples/demo.py --out demo_out
"""

from __future__ import annotations

import os

# Problems of this size gain nothing from threads, and lose much on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pictures
import torch
from first_order import Run, adam, lbfgsb
from problems import DISASTERS, PATH_MINIMUM, YEARS, chain, path, path_start, smooth_counts

import bandhess_jax
import bandhess_torch

BACKENDS: dict[str, tuple[Any, Any]] = {"JAX": (bandhess_jax, jnp), "PyTorch": (bandhess_torch, torch)}
BUDGET = (2.0, 4.0)  # seconds for a gradient method: as long as Newton's longest first call, but within these
ADAM_RATE = {1000: 1e-5, 10000: 3e-7}  # the best in that time of two rates tried per decade


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def show_chain() -> None:
    """The products, the band read off them, and a solve, with the published digits."""
    title("1. Twelve springs in a row: the whole Hessian from three products")
    n = 12
    colour = np.arange(n) % 3
    solution = np.array([8, 16, 24, 32, 40, 35, 30, 25, 20, 15, 10, 5]) / 13
    for name, (bh, xp) in BACKENDS.items():
        grad, jvp = (jax.grad, jax.jvp) if xp is jnp else (torch.func.grad, torch.func.jvp)
        x = xp.zeros(n, dtype=xp.float64)
        probes = [xp.asarray(np.where(colour == c, 1.0, 0.0)) for c in range(3)]
        products = np.array([jvp(grad(chain), (x,), (probe,))[1] for probe in probes])
        ab = bh.hessian(chain, 1)(x)
        found = np.asarray(bh.solve(ab, xp.asarray(np.eye(n)[4])))
        np.testing.assert_array_equal(np.asarray(ab), [[2] * n, [-1] * (n - 1) + [0]])
        np.testing.assert_allclose(found, solution, rtol=1e-14)

        print(f"{name}: H y, y being 1 at every third entry, from the first, second, third on:")
        print_rows(products, "4.0f")
        print("the band in them: the diagonal of H, and below it the subdiagonal (its last cell is unused):")
        print_rows(np.asarray(ab), "4.0f")
        print("x with H x = (0, 0, 0, 0, 1, 0, ..., 0):")
        print_rows(found.reshape(2, 6), "12.8f")
    print("Both bands are exact, and both solutions have the published digits.")


def print_rows(rows: np.ndarray, spec: str) -> None:
    for row in rows:
        print("  " + "".join(format(entry + 0.0, spec) for entry in row))  # + 0.0: no "-0"


class Recorder:
    """A callback that notes when each step came, and its objective."""

    def restart(self) -> None:
        self.began = time.perf_counter()
        self.seconds: list[float] = []
        self.values: list[float] = []

    def __call__(self, info: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.values.append(float(info.value))


def newton(name: str, n: int) -> tuple[Run, float]:
    """Newton's run, timed in its second call, and how much longer the first one took."""
    bh, xp = BACKENDS[name]
    fun, x0, record = path(xp), xp.asarray(path_start(n)), Recorder()
    elapsed = []
    for _ in range(2):
        record.restart()  # the same callback: another one would be compiled anew
        result = bh.newton(fun, x0, 4, callback=record)
        elapsed.append(time.perf_counter() - record.began)
    assert result.status in (bh.Status.CONVERGED, bh.Status.PRECISION_FLOOR), result.status.name
    run = Run(np.asarray(result.x), result.steps, record.seconds, record.values, elapsed[1])
    return run, max(0.0, elapsed[0] - elapsed[1])


def show_path(out: Path) -> None:
    """Newton's method against Adam and L-BFGS-B for an equal time."""
    title("2. A stiff path among three bumps: minimise over n coordinates, bandwidth 4, in float64")
    runs: dict[int, dict[str, Run]] = {}
    for n, minimum in PATH_MINIMUM.items():
        newtons = {f"Newton, {name}": newton(name, n) for name in BACKENDS}
        compiling = {method: seconds for method, (_, seconds) in newtons.items()}
        first_call = max(run.total + seconds for run, seconds in newtons.values())
        budget = float(np.clip(first_call, *BUDGET))
        solved = {method: run for method, (run, _) in newtons.items()}
        solved["L-BFGS-B"] = lbfgsb(path(jnp), path_start(n), budget)
        solved["Adam"] = adam(path(jnp), path_start(n), ADAM_RATE[n], budget)
        runs[n] = solved

        print(
            f"n = {n}: L-BFGS-B and Adam get {budget:.1f} s each, their compiling not counted "
            f"(Newton's longest first call, compiling included: {first_call:.1f} s)"
        )
        print(f"  {'method':<16}{'iterations':>11}{'seconds':>9}{'compiling':>11}{'f':>14}{'f - f*':>9}{'max|g|':>9}")
        least = min(run.values[-1] for run in solved.values())
        for method, run in solved.items():
            value, gradient = run.values[-1], torch.func.grad(path(torch))(torch.tensor(run.x))
            extra = f"{compiling[method]:.2f}" if method in compiling else ""
            print(
                f"  {method:<16}{run.iterations:11d}{run.total:9.3f}{extra:>11}{value:14.9f}{value - least:9.1e}"
                f"{float(gradient.abs().max()):9.1e}"
            )
        for run, _ in newtons.values():
            np.testing.assert_allclose(run.values[-1], minimum, rtol=0, atol=1e-8 * max(1, abs(minimum)))
        print(f"  Both Newtons reach the known minimum, {minimum:.9f}, to 1e-8.")
    best = torch.tensor(runs[1000]["Newton, PyTorch"].x)
    pictures.draw_path(out / "path.png", runs, bandhess_torch.hessian(path(torch), 4)(best).numpy())
    print(f"Picture: {out / 'path.png'}")


def show_coal(out: Path) -> None:
    """A smoothed rate with its uncertainty, from counts."""
    title("3. Coal-mining disasters per year: a smooth rate from counts, bandwidth 2")
    weight, n = 3000.0, len(DISASTERS)
    rates, deviations = [], []
    for name, (bh, xp) in BACKENDS.items():
        fun, counts = smooth_counts(xp), xp.asarray(DISASTERS)
        x0 = xp.asarray(np.full(n, np.log(DISASTERS.mean())))
        result = bh.newton(fun, x0, 2, args=(counts, weight))
        ab = bh.hessian(fun, 2)(result.x, counts, weight)
        covariance = bh.inverse_band(bh.cholesky(ab))  # H^-1: the posterior's, in Laplace's approximation
        rates.append(np.asarray(result.x))
        deviations.append(np.sqrt(np.asarray(covariance[0])))
        rate = np.exp(rates[-1])
        print(
            f"  {name:<8} {result.status.name} in {result.steps} steps, f = {float(result.value):.10f}; disasters per "
            f"year: {rate[0]:.4f} in {YEARS[0]}, {rate[-1]:.4f} in {YEARS[-1]}"
        )
    np.testing.assert_allclose(rates[1], rates[0], rtol=0, atol=1e-7)
    np.testing.assert_allclose(deviations[1], deviations[0], rtol=1e-7)
    print(f"  They agree to {np.max(np.abs(rates[1] - rates[0])):.0e} in the log-rate.")
    pictures.draw_coal(out / "coal.png", rates[0], deviations[0])
    print(f"Picture: {out / 'coal.png'}")


def show_own(out: Path) -> None:
    """The command line, on a file that knows neither framework."""
    file = os.path.relpath(Path(__file__).with_name("own_problem.py"))
    title(f"4. A problem of your own, from the command line: {file}")
    start = out / "own_x0.npy"
    t = np.arange(1, 41) / 41
    np.save(start, np.stack([t, -2 * t * (1 - t)], axis=1))

    def begin(package: str, bandwidth: int, result: str) -> tuple[list[str], subprocess.Popen[str]]:
        line = ["-m", package, f"{file}:cable", "--x0", str(start), "--bandwidth", str(bandwidth)]
        line += ["--out", str(out / result)]
        pipe = subprocess.PIPE
        return line, subprocess.Popen([sys.executable, *line], stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def end(line: list[str], process: subprocess.Popen[str], expected: int) -> None:
        printed, _ = process.communicate()
        print(f"$ {shlex.join(['python', *line])}\n{printed}", end="")
        assert process.returncode == expected, f"exit code {process.returncode}, expected {expected}"

    solves = [begin("bandhess_jax", 1, "own_jax.npz"), begin("bandhess_torch", 1, "own_torch.npz")]
    refused = begin("bandhess_torch", 0, "refused.npz")
    for line, process in solves:
        end(line, process, 0)
    with np.load(out / "own_jax.npz") as one, np.load(out / "own_torch.npz") as other:
        np.testing.assert_allclose(one["x"], other["x"], rtol=0, atol=1e-7)
        np.testing.assert_allclose(one["ab"], other["ab"], rtol=0, atol=1e-5)
        print(f"Both frameworks find the same shape, to {np.max(np.abs(one['x'] - other['x'])):.0e}.")
    print("\nToo small a bandwidth is refused, and nothing is saved:")
    end(*refused, 2)
    assert not (out / "refused.npz").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the pictures (default: demo_out)")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    print(f"JAX {jax.__version__} and PyTorch {torch.__version__}, each number computed in both")
    show_chain()
    show_path(out)
    show_coal(out)
    show_own(out)
    print(
        f"\nAll checks passed in {time.perf_counter() - began:.0f} s. Pictures: {out / 'path.png'}, {out / 'coal.png'}"
    )


if __name__ == "__main__":
    main()
