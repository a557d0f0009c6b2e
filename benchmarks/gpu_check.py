"""Everything that wants a GPU, in at most eight minutes, into one file: tests on the device, then benchmarks/gpu.py.

python benchmarks/gpu_check.py [--out benchmarks/gpu_results.md]    where JAX and PyTorch see a GPU
python benchmarks/gpu_check.py --rehearse --out FILE                on a CPU: one test file a part, small sizes

Needs the checkout, a C++ compiler for the kernels, and an interpreter with torch, jax, numpy, scipy, pytest, chex and
hypothesis. A part that fails or runs out of its time is recorded, the rest goes on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from _common import machine

ROOT = Path(__file__).resolve().parent.parent
PARTS = {  # the first file of each is the one that a rehearsal runs
    "extraction": ["gauss_newton", "hessian", "hessian_transforms", "probing_kinds", "probing"],
    "solve": ["factor", "solve", "solve_derivatives", "cholesky", "triangular"],
    "partition": ["partition"],
    "newton": ["newton_arguments", "newton", "newton_ends", "newton_transforms"],
    "sqp": ["sqp_arguments", "sqp", "sqp_ends"],
}
BUILD_LIMIT, TESTS_LIMIT, BENCHMARK_LIMIT = 110, 230, 130  # seconds: 470 in all; a rehearsal has four times as long
PYTEST = [
    "-m",
    "pytest",
    "-p",
    "no:cacheprovider",
    "-v",
    "--tb=short",
    "-o",
    "addopts=",
    "-o",
    "filterwarnings=default",
]


class Outcome(NamedTuple):
    part: str
    command: str
    end: str  # "passed", "failed (exit code)", or "out of time"
    seconds: float
    output: str

    @property
    def good(self) -> bool:
        return self.end == "passed"


def run(part: str, arguments: list[str], limit: float) -> Outcome:
    """A Python process in the checkout; nothing is installed, and JAX and PyTorch share the GPU's memory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=max(limit, 1))
        end = "passed" if process.returncode == 0 else f"failed ({process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its compiler or its workers too, which hold the pipe
        output, _ = process.communicate()
        end = "out of time"
    outcome = Outcome(part, " ".join(["python", *arguments]), end, time.monotonic() - start, output)
    print(f"{part}: {end} after {outcome.seconds:.0f} s", flush=True)
    return outcome


def build(patience: int) -> Outcome:
    """The compiled kernels, in place. A failed build is only a message to setup.py: no library, no success."""
    outcome = run("kernels", ["setup.py", "-q", "build_ext", "--inplace", "--force"], patience * BUILD_LIMIT)
    built = list((ROOT / "bandhess_common" / "kernels").glob("*.so"))
    fresh = any(time.time() - library.stat().st_mtime < outcome.seconds + 1 for library in built)
    return outcome if fresh or not outcome.good else outcome._replace(end="failed (no library)")


def tests(part: str, device: str, rehearse: bool, deadline: float) -> Outcome:
    files = [f"parity_tests/test_{name}.py" for name in PARTS[part][: 1 if rehearse else None]]
    return run(part, [*PYTEST, "--device", device, *files], deadline - time.monotonic())


def counts(outcome: Outcome) -> str:
    """Tests by outcome, also of a run that was cut short: each has its line."""
    found = re.findall(r"::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", outcome.output)
    return ", ".join(f"{found.count(word)} {word.lower()}" for word in dict.fromkeys(found))


def gpu() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"no answer from nvidia-smi ({type(error).__name__})"


def report(outcomes: list[Outcome], device: str, seconds: float) -> str:
    lines = ["# On the GPU" if device == "cuda" else "# A rehearsal on a CPU: its times mean nothing", ""]
    lines += [f"`python benchmarks/gpu_check.py`, {time.strftime('%Y-%m-%d')}, {seconds:.0f} s.", ""]
    lines += [f"GPU: {gpu()}. Host: {machine('numpy', 'scipy', 'jax', 'torch')}.", ""]
    lines += ["| part | end | s | tests |", "|---|---|---|---|"]
    lines += [f"| {each.part} | {each.end} | {each.seconds:.0f} | {counts(each)} |" for each in outcomes]
    benchmark = next((each.output for each in outcomes if each.part == "benchmark"), "").strip()
    lines += ["", "## benchmarks/gpu.py", "", benchmark, ""]
    for each in outcomes:
        if not each.good:
            lines += [f"## {each.part}: {each.end}", "", f"`{each.command}`", "", "```text"]
            lines += [*re.findall(r"^(?:FAILED|ERROR) .*", each.output, re.MULTILINE)[:100], ""]
            lines += [*each.output.splitlines()[-60:], "```", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu_results.md")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU; its times mean nothing")
    options = parser.parse_args()
    device, patience = ("cpu", 4) if options.rehearse else ("cuda", 1)
    start = time.monotonic()
    outcomes = [build(patience)]
    deadline = time.monotonic() + patience * TESTS_LIMIT
    with ThreadPoolExecutor(
        max(1, min(len(PARTS), (os.cpu_count() or 1) // 2))
    ) as pool:  # compiling is the host's work
        outcomes += pool.map(lambda part: tests(part, device, options.rehearse, deadline), PARTS)
    benchmark = ["benchmarks/gpu.py", *(["--rehearse", "--repeats", "3"] if options.rehearse else [])]
    outcomes.append(run("benchmark", benchmark, patience * BENCHMARK_LIMIT))
    options.out.write_text(report(outcomes, device, time.monotonic() - start), encoding="utf-8")
    print(f"written: {options.out}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
