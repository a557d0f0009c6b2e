"""Bands split over 2 and 4 processes that talk over loopback, and what becomes of a run that loses one of them."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from killed_newton import path, start
from matrices import EPS

import bandhess_jax as bj

WORKER = Path(__file__).with_name("sharded_worker.py")
pytestmark = pytest.mark.cpu_only("gloo's collectives are CPUs'")


class Run:
    """Processes of one run, and the files that they write to."""

    def __init__(self, folder: Path, count: int, minimise: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.outputs = [folder / f"{number}.out" for number in range(count)]
        self.errors = [folder / f"{number}.err" for number in range(count)]
        self.processes = []
        options = [str(folder / "states")] if minimise else []
        with ExitStack() as files:
            for number in range(count):
                out, err = (files.enter_context(path[number].open("w")) for path in (self.outputs, self.errors))
                command = [sys.executable, str(WORKER), "process", str(number), str(count), port, *options]
                self.processes.append(subprocess.Popen(command, stdout=out, stderr=err))

    def facts(self, seconds: float) -> list[dict]:
        """What all of them have measured, waited for."""
        until = time.monotonic() + seconds
        while not all(path.read_text().endswith("}\n") for path in self.outputs):
            assert time.monotonic() < until, [path.read_text() for path in self.errors]
            failed = [path.read_text() for path, each in zip(self.errors, self.processes, strict=True) if each.poll()]
            assert not failed, failed
            time.sleep(0.05)
        return [json.loads(path.read_text().splitlines()[-1]) for path in self.outputs]


@contextmanager
def started(count: int, minimise: bool = False) -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), count, minimise)
        try:
            yield run
        finally:
            for each in run.processes:
                each.kill()
                each.wait()


def check(facts: list[dict], count: int) -> None:
    assert len(facts) == count
    for each in facts:
        assert (each["devices"], each["own"]) == (count, 1)
        assert max(each["solve"], each["inverse"], each["logdet"]) <= 100 * EPS
        assert each["ok"] is True
        assert each["bad"] == [False, False]
        assert each["info"] == each["minors"]
        assert each["minors"][0] == 0 < min(each["minors"][1:])
        assert each["nan"] == [True, True]


def test_four_processes() -> None:
    """Of 61 columns."""
    with started(4) as run:
        check(run.facts(120), 4)
        assert [each.wait(60) for each in run.processes] == [0, 0, 0, 0]


def check_minimiser(facts: list[dict]) -> None:
    """That of one process, made by its steps; each process has its half. Sums in another order differ by roundings,
    and the end by what the tolerance leaves."""
    alone, half = bj.newton(path, start(), 2, args=(1.0,), history=True), len(start()) // 2
    for number, found in enumerate(each["newton"] for each in facts):
        assert (found["steps"], found["status"]) == (alone.steps, alone.status)
        assert abs(found["value"] - float(alone.value)) <= 1e-11 * abs(float(alone.value))
        [(first, x)] = found["x"]
        assert (first or 0, len(x)) == (number * half, half)
        np.testing.assert_allclose(x, alone.x[number * half :][:half], atol=1e-6)


def test_two_processes_and_the_loss_of_one() -> None:
    """The survivor ends by itself, with an error that names the lost one, when its heartbeats have been missing for
    the ten seconds that the run allows; the runtime takes a few more to say so."""
    with started(2, minimise=True) as run:
        facts = run.facts(120)
        check(facts, 2)
        check_minimiser(facts)
        first, second = run.processes
        assert first.poll() is None
        second.kill()
        assert first.wait(50) not in (0, None)
        said = run.errors[0].read_text()
    assert re.search(r"Task 1 heartbeat timeout|stopped sending heartbeats\):\s+1\s", said), said
