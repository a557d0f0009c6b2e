"""The command line, in both backends: bad input and failed writes give one line and no file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from backends import Backend
from cli_folder import folder, main, run

import bandhess_common

__all__ = ["folder", "main"]  # fixtures

SYNTAX_ERROR = "def energy(x:\n    return x"
BAD = {
    "no file": (["missing.py:energy"], "there is no file missing.py"),
    "no function named": (["objectives.py"], "FILE.py:FUNCTION, got 'objectives.py'"),
    "empty function name": (["objectives.py:"], "FILE.py:FUNCTION"),
    "no Python file": (["x0.npy:energy"], "FILE.py:FUNCTION"),
    "unknown function": (["objectives.py:enery"], "objectives.py has no function enery"),
    "not callable": (["objectives.py:number"], "number in objectives.py is not a function, its type is float"),
    "import raises": (["broken.py:energy"], "importing broken.py raises ZeroDivisionError: division by zero"),
    "import exits": (["exits.py:energy"], "importing exits.py raises SystemExit: 3"),
    "syntax error": (["syntax.py:energy"], "importing syntax.py raises SyntaxError"),
    "no x0 file": (["objectives.py:energy", "missing.npy"], "--x0: cannot read missing.npy: No such file"),
    "x0 is a folder": (["objectives.py:energy", "."], "--x0: cannot read"),
    "x0 empty": (["objectives.py:energy", "empty.npy"], "empty.npy is not a .npy file"),
    "x0 not npy": (["objectives.py:energy", "objectives.py"], "objectives.py is not a .npy file"),
    "x0 npz": (["objectives.py:energy", "several.npz"], "several.npz is not a .npy file"),
    "x0 objects": (["objectives.py:energy", "objects.npy"], "objects.npy is not a .npy file of numbers"),
    "x0 promises 373 GiB": (["objectives.py:energy", "promise.npy"], "promises 400000000000 bytes"),
    "x0 promises more than there is": (["objectives.py:energy", "overflow.npy"], "80 follow"),
    "x0 integers": (["objectives.py:energy", "integers.npy"], "float32 or float64 numbers"),
    "x0 complex": (["objectives.py:energy", "complex.npy"], "got complex128 of shape (12,)"),
    "x0 half": (["objectives.py:energy", "half.npy"], "got float16"),
    "x0 scalar": (["objectives.py:energy", "scalar.npy"], "got float64 of shape ()"),
    "x0 of a wrong shape": (["objectives.py:planar"], "objectives.py:planar, x0 (12,): "),
    "objective raises": (["objectives.py:raises"], "KeyError: "),
    "objective exits": (["objectives.py:leaves"], "objectives.py:leaves, x0 (12,): SystemExit: 0"),
    "not scalar": (["objectives.py:vector"], "must return a real scalar"),
    "returns nothing": (["objectives.py:nothing"], "objectives.py:nothing, x0 (12,): TypeError: "),
    "not finite": (["objectives.py:infinite"], "is not finite at x0"),
    "derivative not finite": (["objectives.py:corner"], "is not finite at x0"),
    "negative bandwidth": (["objectives.py:energy", "x0.npy", -1], "bandwidth must be an int >= 0, got -1"),
    "fractional bandwidth": (["objectives.py:energy", "x0.npy", 1.5], "--bandwidth: invalid int value: '1.5'"),
    "bad tolerance": (["objectives.py:energy", "x0.npy", 1, "--tol", "0"], "tol must be positive"),
    "bad max-steps": (["objectives.py:energy", "x0.npy", 1, "--max-steps", "-1"], "max_steps must be an int >= 0"),
    "unknown option": (["objectives.py:energy", "x0.npy", 1, "--speed"], "unrecognized arguments: --speed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_saved(
    main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (folder / "broken.py").write_text("1 / 0")
    (folder / "exits.py").write_text("raise SystemExit(3)")
    (folder / "syntax.py").write_text(SYNTAX_ERROR)
    before = sorted(folder.iterdir())
    arguments, expected = BAD[case]
    assert main(*arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert sorted(folder.iterdir()) == before


# Forks without a framework's threads; each child writes without end and tells where it is.
WRITERS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from bandhess_common.command_line import save
rng, start = np.random.default_rng(0), time.perf_counter()
save(Path("result.npz"), x=np.zeros(100_000), status=0)
seconds = time.perf_counter() - start
for _ in range(20):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        while True:
            for i in range(256):
                os.write(tell, b".")
                save(Path("result.npz"), x=np.full(100_000, i), status=i)
    os.read(told, 1)
    time.sleep(rng.uniform(0, 2 * seconds))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    os.close(told), os.close(tell)
    for path in Path(".").iterdir():
        with np.load(path) as result:  # raises for half a file
            assert (result["x"] == result["status"]).all() and result["x"].shape == (100_000,), path
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files without a name are Linux's")
def test_killed_while_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    root = str(Path(bandhess_common.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", WRITERS], cwd=tmp_path / "folder", env={**os.environ, "PYTHONPATH": root},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("missing/result.npz", "No such file or directory"),
        ("x0.npy/result.npz", "Not a directory"),
        (".", "is a folder; give a file in it"),
    ],
)
def test_a_place_it_cannot_write_to_is_refused_before_the_work(
    main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], out: str, expected: str
) -> None:
    assert main("objectives.py:energy", out=out) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert expected in printed.err
    assert printed.err.count("\n") == 1


def test_a_folder_without_permission_is_refused(
    main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> None:  # the superuser, whom no permission stops, runs tests too
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    assert main("objectives.py:energy") == 2
    assert capsys.readouterr().err.endswith("--out: cannot write result.npz: Permission denied\n")


def test_a_failed_write_leaves_the_old_result(
    main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (folder / "result.npz").write_text("old")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(os, "replace", full)
    assert main("objectives.py:energy") == 2
    assert capsys.readouterr().err.endswith("--out: cannot write result.npz: No space left on device\n")
    assert sorted(folder.iterdir()) == before
    assert (folder / "result.npz").read_text() == "old"


NARROW = "BAND_TOO_NARROW: the Hessian has entries outside bandwidth 1 (band error "


@pytest.mark.parametrize(("objective", "expected"), [("wide", NARROW), ("raises", "KeyError")], ids=["wide", "raises"])
def test_no_traceback_from_a_process(backend: Backend, folder: Path, objective: str, expected: str) -> None:
    before = sorted(folder.iterdir())
    done = run(backend, f"objectives.py:{objective}", "--x0", "x0.npy", "--bandwidth", "1", "--out", "result.npz")
    assert done.returncode == 2
    assert done.stderr.startswith(f"python -m {backend.package.__name__}: error: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert sorted(folder.iterdir()) == before
