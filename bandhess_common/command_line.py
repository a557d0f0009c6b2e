"""What `python -m bandhess_jax` and `python -m bandhess_torch` share: arguments, files, messages and exit codes.

Each package's `__main__` gives a `Framework`; everything else is here, and knows arrays of NumPy only.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from .status import Status

ENDS = """\
RESULT.npz gets x, value, grad_norm, steps, status (the code), status_name, and ab, the band of the Hessian at x:
ab[r, j] = H[j + r, j]. It is written whole or not at all.

exit code: 0  the status is CONVERGED or PRECISION_FLOOR
           1  any other end (MAX_STEPS, STALLED, UNBOUNDED, ...); the best point found is saved all the same
           2  bad input, or too small a bandwidth: one line on stderr, nothing is saved
         130  interrupted (Ctrl-C): one line on stderr, nothing is saved"""
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class BadInputError(Exception):
    """What the user has to mend; shown as one line."""


class Outcome(NamedTuple):
    """What `newton` returned and the Hessian's band there, as NumPy arrays; band_error only where it is too narrow."""

    x: np.ndarray
    value: np.ndarray
    grad_norm: np.ndarray
    steps: int
    status: Status
    ab: np.ndarray
    band_error: float


class Framework(NamedTuple):
    """prepare takes x0's dtype before the objective's file makes its constants; minimise is
    `(fun, x0, bandwidth, tol, max_steps, verbose) -> Outcome`."""

    name: str
    program: str
    description: str
    prepare: Callable[[np.dtype], None]
    minimise: Callable[..., Outcome]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInputError(f"{message} (see {self.prog} --help)")


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=framework.program, description=framework.description, epilog=ENDS, formatter_class=layout)
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
            if path.is_file():  # a pipe has no size to compare with
                check_size(file)
            x0 = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise BadInputError(f"--x0: cannot read {path}: {error.strerror}") from error
    except MemoryError as error:
        raise BadInputError(f"--x0: {path} does not fit into memory: {error}") from error
    except Exception as error:  # NumPy parses the header as a piece of Python: many ways to fail
        raise BadInputError(f"--x0: {path} is not a .npy file of numbers: {error}") from error
    if x0.dtype not in (np.float32, np.float64) or x0.ndim == 0:
        wanted = "float32 or float64 numbers of shape (n,) or (T, d, ...)"
        raise BadInputError(f"--x0: {path} must hold {wanted}, got {x0.dtype} of shape {x0.shape}")
    return x0


def check_size(file: BinaryIO) -> None:
    """An error where a .npy file's header promises more than follows: NumPy makes room for the promise first."""
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version in read_header:  # 3.0 is for field names, which numbers have not
        shape, _, dtype = read_header[version](file)
        promised, given = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
        if promised > given and not dtype.hasobject:
            raise ValueError(f"its header promises {promised} bytes, shape {shape} of {dtype}, {given} follow")
    file.seek(0)


def load_objective(name: str) -> Callable[[Any], Any]:
    file, _, function = name.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function.isidentifier():
        raise BadInputError(f"the objective must be given as FILE.py:FUNCTION, got {name!r}")
    if not path.is_file():
        raise BadInputError(f"there is no file {path}")
    # No import statement can ask for this name, so that it hides no module.
    spec = importlib.util.spec_from_file_location(f"objective in {path.stem.replace('.', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # as for a script: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
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


def nameless(path: str, flags: int) -> int:
    """An opener, for `open`: of a file in path's folder that has no name yet, where the system knows such ones (Linux),
    so that nothing is left of it when the process is killed; elsewhere of path."""
    try:
        assert os.path.isdir("/proc/self/fd")
        return os.open(os.path.dirname(path) or ".", os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AssertionError, AttributeError, OSError):
        return os.open(path, flags, 0o666)


def save(path: Path, **arrays: Any) -> None:
    """Whole or not at all, whenever the process is killed: written to the disk beside `path`, then moved there."""
    part = part_of(path)
    try:
        with open(part, "wb", opener=nameless) as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
            if not part.exists():  # src_dir_fd, though the path is absolute: only so does os.link follow symbolic links
                os.link(f"/proc/self/fd/{file.fileno()}", part, src_dir_fd=file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise BadInputError(f"--out: cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def check(name: str, k: int, end: Outcome) -> None:
    """An error where the end shows a mistake in what was given."""
    if end.status == Status.BAND_TOO_NARROW:
        raise BadInputError(
            f"{end.status.name}: the Hessian has entries outside bandwidth {k} (band error {end.band_error:.2g}; it is "
            "of rounding size where the bandwidth is right); try a larger --bandwidth, or another order of the stages: "
            "detect_bandwidth finds the one, reorder_bandwidth the other"
        )
    finite = all(np.isfinite(part).all() for part in (end.value, end.grad_norm, end.ab))
    if end.steps == 0 and not finite:
        raise BadInputError(
            f"{name} or a derivative of it is not finite at x0 (f = {end.value:g}, max|g| = {end.grad_norm:g})"
        )


def run(framework: Framework, options: argparse.Namespace) -> int:
    name, k = options.objective, options.bandwidth
    x0 = load_start(options.x0)
    check_writable(options.out)
    framework.prepare(x0.dtype)
    print(f"Newton's method on {name}, x0 {x0.shape} {x0.dtype}, bandwidth {k}, in {framework.name}", flush=True)
    fun = load_objective(name)
    try:
        end = framework.minimise(fun, x0, k, options.tol, options.max_steps, not options.quiet)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # by the objective (SystemExit, too), or by the library over what it returns
        raise BadInputError(f"{name}, x0 {x0.shape}: {describe(raised)}") from raised
    check(name, k, end)
    arrays = {"x": end.x, "value": end.value, "grad_norm": end.grad_norm, "steps": end.steps, "ab": end.ab}
    save(options.out, status=int(end.status), status_name=end.status.name, **arrays)
    print(f"{end.status.name}: f = {end.value:.12g}, max|g| = {end.grad_norm:.3g}, {end.steps} steps")
    print(f"saved {options.out}")
    return 0 if end.status in (Status.CONVERGED, Status.PRECISION_FLOOR) else 1


def main(framework: Framework, argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    try:
        return run(framework, parse(framework, argv))
    except BadInputError as error:
        print(f"{framework.program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{framework.program}: interrupted, nothing is saved", file=sys.stderr)
        return INTERRUPTED
