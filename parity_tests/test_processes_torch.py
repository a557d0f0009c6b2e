"""The example that spreads a batch over two processes finds what one process finds."""

import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "processes.py"
pytestmark = pytest.mark.cpu_only("gloo's processes are CPUs'")


def test_two_processes_fit_as_one() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(EXAMPLE)],
            env={**os.environ, **where, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [each.communicate(timeout=120) for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.communicate()
    example = runpy.run_path(str(EXAMPLE))
    weight, error = example["fit"](*example["series"](), lambda tensor: None)
    assert 5 < weight < 500
    assert error < 0.03
    for rank, (out, err) in enumerate(said):
        found = re.fullmatch(rf"process {rank} of 2: lambda (\S+), mean squared error (\S+)\n", out)
        assert found, err
        assert (float(found[1]), float(found[2])) == pytest.approx((weight, error), rel=1e-9)
