"""Ctrl-C ends a running loop of JAX's, which knows nothing of Python's signals: it runs in pieces of half a second."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SLOW = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
fun = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2)
"""
LOOP = """
from bandhess_jax import newton, sqp
endless = dict(tol=1e-300, max_steps=10**6)
x0 = 2 * np.sin(1.7 * np.arange(20000))
minimise = dict(
    newton=lambda limit: newton(fun, x0, 1, max_seconds=limit, **endless),
    sqp=lambda limit: sqp(fun, lambda x: x[:1] - 0.9, x0, 1, max_seconds=limit, **endless),
)[NAME]
minimise(0.1)
print("compiled", flush=True)
while True:
    minimise(None)
"""
COMMAND = """
import runpy, sys
sys.argv = "bandhess slow.py:fun --x0 x0.npy --bandwidth 1 --tol 1e-300 --max-steps 1000000 --out out.npz".split()
runpy.run_module("bandhess_jax", run_name="__main__", alter_sys=True)
"""


def interrupted(script: str, folder: Path) -> tuple[int, str]:
    """The exit code, and what is said on stderr, of a script that is interrupted once it has printed a line."""
    # A shell's background jobs ignore SIGINT.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + script
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-u", "-c", script], cwd=folder, text=True, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_loops_end(name: str, tmp_path: Path) -> None:
    code, errors = interrupted(SLOW + LOOP.replace("NAME", repr(name)), tmp_path)
    assert "KeyboardInterrupt" in errors
    assert code == -signal.SIGINT


def test_the_command_line_ends(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    np.save(tmp_path / "x0.npy", 2 * np.sin(1.7 * np.arange(20000)))
    code, errors = interrupted(COMMAND, tmp_path)
    assert code == 130
    assert "nterrupted" in errors
    assert not (tmp_path / "out.npz").exists()
