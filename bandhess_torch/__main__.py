"""Minimise an objective from the command line, by Newton's method with its exact banded Hessian.

    python -m bandhess_torch chain.py:energy --x0 x0.npy --bandwidth 1 --out result.npz

where chain.py holds, for example,

    def energy(x):
        return ((x[1:] - x[:-1]) ** 2).sum() + (x[0] ** 4 - 1) ** 2 + x[-1] ** 2

and x0.npy was written by numpy.save: float32 or float64, of shape (n,), or (T, d, ...) for T stages.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from . import Status, band_error, hessian, newton

PROGRAM = f"python -m {__package__}"
ENDS = """\
RESULT.npz gets x, value, grad_norm, steps, status (the code), status_name, and ab, the band of the Hessian at x:
ab[r, j] = H[j + r, j]. It is written whole or not at all.

exit code: 0  the status is CONVERGED or PRECISION_FLOOR
           1  any other end (MAX_STEPS, STALLED, UNBOUNDED, ...); the best point found is saved all the same
           2  bad input, or too small a bandwidth: one line on stderr, nothing is saved"""


class BadInputError(Exception):
    """What the user has to mend; shown as one line."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInputError(f"{message} (see {PROGRAM} --help)")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=ENDS, formatter_class=layout)
    parser.add_argument("objective", metavar="FILE.py:FUNCTION", help="a scalar function of one array")
    parser.add_argument("--x0", type=Path, required=True, metavar="X0.npy", help="where to start")
    parser.add_argument("--bandwidth", type=int, required=True, metavar="K", help="stage t couples to t - K .. t + K")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULT.npz", help="where to save the result")
    parser.add_argument("--tol", type=float, help="relative tolerance (default: sqrt(eps) of x0's dtype)")
    parser.add_argument("--max-steps", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="print no table of the progress")
    return parser.parse_args(argv)


def describe(error: BaseException) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def load_start(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            x0 = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise BadInputError(f"--x0: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInputError(f"--x0: {path} is not a .npy file of numbers: {error}") from error
    if x0.dtype not in (np.float32, np.float64) or x0.ndim == 0:
        wanted = "float32 or float64 numbers of shape (n,) or (T, d, ...)"
        raise BadInputError(f"--x0: {path} must hold {wanted}, got {x0.dtype} of shape {x0.shape}")
    return x0


def load_objective(name: str) -> Callable[[Any], Any]:
    file, _, function = name.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function.isidentifier():
        raise BadInputError(f"the objective must be given as FILE.py:FUNCTION, got {name!r}")
    if not path.is_file():
        raise BadInputError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location("objective", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # as for a script: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInputError(f"importing {path} raises {describe(error)}") from error
    if not hasattr(module, function):
        raise BadInputError(f"{path} has no function {function}")
    fun = getattr(module, function)
    if not callable(fun):
        raise BadInputError(f"{function} in {path} is not a function, its type is {type(fun).__name__}")
    return fun


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if path.is_dir():
        raise BadInputError(f"--out: {path} is a folder; give a file in it, such as {path / 'result.npz'}")
    try:
        part_of(path).touch()
        part_of(path).unlink()
    except OSError as error:
        raise BadInputError(f"--out: cannot write {path}: {error.strerror}") from error


def save(path: Path, **arrays: Any) -> None:
    """Whole or not at all: written beside `path`, then moved there."""
    try:
        with open(part_of(path), "wb") as file:
            np.savez(file, **arrays)
        os.replace(part_of(path), path)
    except OSError as error:
        raise BadInputError(f"--out: cannot write {path}: {error.strerror}") from error
    finally:
        part_of(path).unlink(missing_ok=True)


def run(options: argparse.Namespace) -> int:
    name, k = options.objective, options.bandwidth
    start = load_start(options.x0)
    check_writable(options.out)
    if start.dtype == np.float64:
        torch.set_default_dtype(torch.float64)  # before the objective's file makes its constants
    print(f"Newton's method on {name}, x0 {start.shape} {start.dtype}, bandwidth {k}, in PyTorch", flush=True)
    fun, x0 = load_objective(name), torch.from_numpy(start)
    try:
        result = newton(fun, x0, k, tol=options.tol, max_steps=options.max_steps, verbose=not options.quiet)
        ab = hessian(fun, k)(result.x)
        error = float(band_error(fun)(ab, result.x)) if result.status == Status.BAND_TOO_NARROW else 0.0
    except Exception as raised:  # by the objective, or by the library over what it returns
        raise BadInputError(f"{name}, x0 {start.shape}: {describe(raised)}") from raised

    value, grad_norm = float(result.value), float(result.grad_norm)
    if result.status == Status.BAND_TOO_NARROW:
        raise BadInputError(
            f"{result.status.name}: the Hessian has entries outside bandwidth {k} (band error {error:.2g}; it is of "
            "rounding size where the bandwidth is right); try a larger --bandwidth, or another order of the stages: "
            "detect_bandwidth finds the one, reorder_bandwidth the other"
        )
    if result.steps == 0 and not (np.isfinite([value, grad_norm]).all() and np.isfinite(np.asarray(ab)).all()):
        raise BadInputError(f"{name} or a derivative of it is not finite at x0 (f = {value:g}, max|g| = {grad_norm:g})")
    arrays = {"x": result.x, "value": result.value, "grad_norm": result.grad_norm, "steps": result.steps, "ab": ab}
    save(options.out, status=int(result.status), status_name=result.status.name, **arrays)
    print(f"{result.status.name}: f = {value:.12g}, max|g| = {grad_norm:.3g}, {result.steps} steps")
    print(f"saved {options.out}")
    return 0 if result.status in (Status.CONVERGED, Status.PRECISION_FLOOR) else 1


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(parse(argv))
    except BadInputError as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
