"""The command line, in both backends: what it saves, and what it prints."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from backends import Backend
from cli_folder import folder, main, run

__all__ = ["folder", "main"]  # fixtures


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


def test_help_tells_the_exit_codes(backend: Backend, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    module = importlib.import_module(f"{backend.package.__name__}.__main__")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m {backend.package.__name__}" in text
    assert "exit code: 0" in text
    assert f"python -m {backend.package.__name__} chain.py:energy --x0 x0.npy" in text
