"""A folder of objectives and starts for the command line's tests, and `main` in this process."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import Backend

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
