"""A run that is killed at random moments, and begun again until it ends: python parity_tests/killed_newton.py [20]"""

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bandhess_jax as bj
from bandhess_jax.framework.checkpoint import Checkpoint


def path(x: Any, height: Any = 1.0) -> Any:
    """Smooth, bent around bumps: a minimum after some steps."""
    bend = x[2:] - 2 * x[1:-1] + x[:-2]
    return 10 * jnp.sum(bend**2) + height * jnp.sum(jnp.exp(-jnp.sum(x**2, 1))) + jnp.sum((x - 1) ** 2) / 8


def start(T: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(T, 2))


class KilledError(Exception):
    """In the place of a signal."""


@contextlib.contextmanager
def kill_at(save: int) -> Iterator[None]:
    """The run ends at the save of this number, 1 first."""
    write, calls = Checkpoint.save, iter(range(1, save))

    def fail(self: Checkpoint, number: int, state: Any) -> None:
        if next(calls, None) is None:
            raise KilledError
        write(self, number, state)

    Checkpoint.save = fail  # type: ignore[method-assign]
    try:
        yield
    finally:
        Checkpoint.save = write  # type: ignore[method-assign]


def say(info: Any) -> None:
    print(int(info.step), flush=True)
    time.sleep(0.02)


def run(folder: str) -> None:
    """Prints the steps as they are made, and then the minimiser."""
    jax.config.update("jax_enable_x64", True)
    result = bj.newton(path, start(), 2, callback=say, checkpoint=folder)
    print("x", np.asarray(result.x).tobytes().hex(), flush=True)


def one(folder: str, wait: float | None) -> list[str]:
    """What a process prints that is killed so long after its first line; or that ends by itself."""
    command = [sys.executable, __file__, "--run", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline().strip()]  # until then it compiles
        if wait is not None:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    return [line for line in lines if line.isdecimal() or process.returncode == 0]


def killed(times: int, seed: int = 0) -> tuple[list[list[int]], list[bytes]]:
    """The steps that each process made, and the minimisers' bytes: where a run has ended, another one begins."""
    draw, ways, ends = random.Random(seed), [], []
    with tempfile.TemporaryDirectory() as folder:
        while len(ways) <= times or not ends:
            last = len(ways) >= times
            lines = one(f"{folder}/{len(ends)}", None if last else draw.uniform(0, 0.3))
            ways.append([int(line) for line in lines if line.isdecimal()])
            ends += [bytes.fromhex(line.removeprefix("x ")) for line in lines if line.startswith("x ")]
    return ways, ends


def main(times: int) -> None:
    jax.config.update("jax_enable_x64", True)
    ways, ends = killed(times)
    for way in ways:
        print("steps", *way)
    x = np.asarray(bj.newton(path, start(), 2).x).tobytes()
    print(f"{len(ends)} runs ended, at the same minimiser:", all(end == x for end in ends))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 20)
