"""The command line, in both backends: what it saves, what it prints, and that bad input gives one line and no file."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import Backend

import bandhess_common

# Written with the array's operators only, so that one file serves both backends.
OBJECTIVES = """
import neighbour

def energy(x):
    return ((x[1:] - x[:-1]) ** 2).sum() / 2 + (x**4).sum() - x.sum()

def planar(x):
    return energy(x) + ((x[:, 0] - 1) ** 2).sum()

def wide(x):
    return energy(x) + x[0] * x[-1]

def fold(x):
    return -energy(x)

def vector(x):
    return x * x

def nothing(x):
    return None

def infinite(x):
    return energy(x) + 1 / (x[0] - x[0])

def corner(x):
    return ((x - x[0]) ** 2).sum() + abs(x[0] - 1) ** 1.5

def raises(x):
    raise KeyError("no wheel\\nno road")

def leaves(x):
    raise SystemExit(0)

number = 3.0
"""


def header(shape: tuple[int, ...]) -> bytes:
    """Of a .npy file of float64 numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the objectives and starts; what `main` changes in this process is restored."""
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "objectives.py").write_text(OBJECTIVES)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "x0.npy", np.linspace(1, 2, 12))
    np.save(tmp_path / "planar.npy", np.linspace(1, 2, 12, dtype=np.float32).reshape(6, 2))
    np.save(tmp_path / "integers.npy", np.arange(12))
    np.save(tmp_path / "complex.npy", np.ones(12, complex))
    np.save(tmp_path / "half.npy", np.ones(12, np.float16))
    np.save(tmp_path / "scalar.npy", 1.0)
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", x=np.ones(3))
    (tmp_path / "promise.npy").write_bytes(header((50_000_000_000,)) + bytes(80))
    (tmp_path / "overflow.npy").write_bytes(header((10**30,)) + bytes(80))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("objective", "objective in objective", "objective in objectives"):  # restored at the end
        monkeypatch.setitem(sys.modules, name, None)
    del sys.modules["objective"]
    before = torch.get_default_dtype()
    yield tmp_path
    torch.set_default_dtype(before)


@pytest.fixture
def main(backend: Backend, folder: Path) -> Callable[..., int]:
    """`main(objective, x0, bandwidth, *more)` in this process, which saves result.npz unless told otherwise."""
    module = importlib.import_module(f"{backend.package.__name__}.__main__")

    def call(objective: str, x0: str = "x0.npy", bandwidth: object = 1, *more: str, out: str = "result.npz") -> int:
        return module.main([objective, "--x0", x0, "--bandwidth", str(bandwidth), "--out", out, *more])

    return call


def run(backend: Backend, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", backend.package.__name__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def analytic_band(x: np.ndarray) -> np.ndarray:
    """Of `energy` at a vector."""
    diagonal = np.full(len(x), 2.0)
    diagonal[[0, -1]] = 1
    return np.stack([diagonal + 12 * x**2, np.append(np.full(len(x) - 1, -1.0), 0)])


def test_saves_what_newton_returns(
    backend: Backend, main: Callable, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.path.insert(0, str(folder))
    energy = importlib.import_module("objectives").energy
    expected = backend.package.newton(energy, backend.array(np.load("x0.npy")), 1)

    assert main("objectives.py:energy") == 0
    with np.load("result.npz") as result:
        assert set(result) == {"x", "value", "grad_norm", "steps", "status", "status_name", "ab"}
        np.testing.assert_array_equal(result["x"], backend.numpy(expected.x))
        assert result["x"].dtype == np.float64
        np.testing.assert_allclose(result["x"], 4 ** (-1 / 3), rtol=1e-7)  # every spring slack, 4 x^3 = 1
        np.testing.assert_allclose(result["ab"], analytic_band(result["x"]), rtol=1e-14)
        assert result["ab"][1, -1] == 0
        assert result["value"] == float(expected.value)
        assert result["grad_norm"] == float(expected.grad_norm)
        assert result["steps"] == expected.steps > 0
        assert (result["status"], result["status_name"]) == (0, "CONVERGED")

    lines = capsys.readouterr().out.splitlines()
    assert "objectives.py:energy" in lines[0]
    assert "bandwidth 1" in lines[0]
    assert lines[1].split() == ["step", "f", "|grad|", "shift", "radius", "seconds"]
    assert [int(line.split()[0]) for line in lines[2:-2]] == list(range(expected.steps + 1))
    assert lines[-2].startswith(f"CONVERGED: f = {float(expected.value):.12g}")
    assert lines[-1] == "saved result.npz"
    assert sorted(path.name for path in folder.glob("*result*")) == ["result.npz"]  # no temporary file


def test_stages_in_float32_quietly(main: Callable, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("objectives.py:planar", "planar.npy", 1, "--quiet", "--tol", "1e-3") == 0
    with np.load("result.npz") as result:
        assert result["x"].shape == (6, 2)
        assert result["ab"].shape == (4, 12)
        assert result["x"].dtype == result["ab"].dtype == result["value"].dtype == np.float32
        np.testing.assert_allclose(result["x"][:, 1], 4 ** (-1 / 3), rtol=1e-3)
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("objective", "more", "status"),
    [("energy", ["--max-steps", "2"], "MAX_STEPS"), ("fold", [], "UNBOUNDED")],
)
def test_other_ends_are_saved_with_exit_code_1(
    backend: Backend, main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], objective: str, more: list[str],
    status: str,
) -> None:  # fmt: skip
    assert main(f"objectives.py:{objective}", "x0.npy", 1, *more) == 1
    with np.load("result.npz") as result:
        assert result["status_name"] == status
        assert result["status"] == backend.package.Status[status]
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2].startswith(f"{status}: f = ")
    assert printed.err == ""


def test_a_fresh_process_computes_in_the_precision_of_x0(backend: Backend, folder: Path) -> None:
    """The objective's own constants included, which are made when its file is imported."""
    module = backend.xp.__name__
    (folder / "own.py").write_text(
        f"import {module} as xp\nTARGET = xp.asarray([0.1, 0.2, 0.3])\n"
        "def distance(x):\n    return xp.cosh(x - TARGET).sum()\n"
    )
    np.save(folder / "own.npy", np.zeros(3))
    done = run(backend, "own.py:distance", "--x0", "own.npy", "--bandwidth", "0", "--out", "own.npz")
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(folder / "own.npz") as result:
        np.testing.assert_allclose(result["x"], [0.1, 0.2, 0.3], rtol=0, atol=1e-15)
        np.testing.assert_allclose(result["ab"], np.ones((1, 3)), rtol=1e-15)


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


def test_a_module_named_objective_is_not_hidden(main: Callable, folder: Path) -> None:
    """Beside the file that is given, or by the name of that file."""
    (folder / "objective.py").write_text("def half(x):\n    return x / 2\n")
    (folder / "using.py").write_text(
        "import objective\nfrom objectives import energy\n\ndef fun(x):\n    return energy(objective.half(x))\n"
    )
    assert main("using.py:fun") == 0
    with np.load("result.npz") as result:
        np.testing.assert_allclose(result["x"], 2 * 4 ** (-1 / 3), rtol=1e-7)


def test_an_interruption_is_one_line(
    main: Callable, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stops.py").write_text("def fun(x):\n    raise KeyboardInterrupt\n")
    assert main("stops.py:fun") == 130
    assert capsys.readouterr().err.endswith("interrupted, nothing is saved\n")
    assert not (folder / "result.npz").exists()


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


def test_help_tells_the_exit_codes(backend: Backend, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    module = importlib.import_module(f"{backend.package.__name__}.__main__")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m {backend.package.__name__}" in text
    assert "exit code: 0" in text
    assert f"python -m {backend.package.__name__} chain.py:energy --x0 x0.npy" in text
