"""Tensors to LAPACK and back, through SciPy's pointers to it, batches in one call.

LAPACK reads `(w + 1, n)` column by column, which in memory is a C-ordered `(n, w + 1)`: one transposition of the
input, and none of the result, whose tensor keeps LAPACK's memory and strides. Solves with it copy nothing
more than the right-hand side. CUDA tensors make the trip to the CPU and back.

A batch of bands of n columns, stored one after the other with zeros in the unused cells, is one long band: nothing
couples a band to the next. A call factorises or solves as many as a thread gets. Only NaN and infinity cross the zeros
(0 * inf = NaN), so bands that bring or make them are taken out and done alone; the bits of the others do not change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.linalg import cython_lapack, get_lapack_funcs
from torch import Tensor


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _routine(name: str, dtype: torch.dtype) -> Any:
    if dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"banded factorisations take float32 and float64, got {dtype}; convert with .double()")
    return get_lapack_funcs((name,), dtype=_dtype(dtype))[0]


def _columns(t: Tensor) -> np.ndarray:
    """`t` as a Fortran-ordered array; shares memory where t is LAPACK's own result."""
    t = t.detach().cpu().resolve_conj()
    return t.numpy() if t.ndim == 1 else t.mT.contiguous().numpy().T


def _tensor(a: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(a).to(like.device)


@cache
def _pointer(name: str, arguments: int) -> Any:
    """SciPy's LAPACK routine as a function that ctypes calls, without the GIL."""
    capsule = cython_lapack.__pyx_capi__[name]
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address(capsule, name_of(capsule)))


def _bind(name: str, *arguments: bytes | int | np.ndarray) -> Callable[[], int]:
    """A call of LAPACK with these arguments up to info, which it returns; to be made any number of times."""
    kind = next("sdcz"["fdFD".index(a.dtype.char)] for a in arguments if isinstance(a, np.ndarray))
    info = ctypes.c_int()

    def address(a: bytes | int | np.ndarray) -> Any:
        if isinstance(a, np.ndarray):
            return a.ctypes.data
        return ctypes.byref(ctypes.c_char(a) if isinstance(a, bytes) else ctypes.c_int(a))

    routine = _pointer(kind + name, len(arguments) + 1)
    addresses = (*map(address, arguments), ctypes.byref(info))

    def call(_alive: tuple = arguments) -> int:
        routine(*addresses)
        return info.value

    return call


def _call(name: str, *arguments: bytes | int | np.ndarray) -> int:
    return _bind(name, *arguments)()


def _unused(a: np.ndarray) -> list[np.ndarray]:
    """The unused cells of bands `(lanes, n, w + 1)`."""
    return [a[:, max(a.shape[1] - d, 0) :, d] for d in range(1, a.shape[2])]


def _fill(a: np.ndarray, ab: Tensor) -> None:
    """LAPACK's memory `(lanes, n, w + 1)` from `(lanes, w + 1, n)`, with zeros in the unused cells."""
    a[:] = ab.mT.numpy()  # in one thread: several slow each other down on fresh memory, torch's too
    for cells in _unused(a):
        cells[:] = 0


def _share_out(work: Callable[[slice], Any], a: np.ndarray) -> list[Any]:
    """`work` on shares of the lanes of bands, in as many threads as torch uses."""
    lanes, n, rows = a.shape
    if rows > 65:  # here LAPACK works on blocks of columns, whose bounds must not depend on the neighbours
        return [work(slice(i, i + 1)) for i in range(lanes)]
    threads = min(lanes, torch.get_num_threads()) if lanes * n > 20_000 else 1
    bounds = [lanes * i // threads for i in range(threads + 1)]
    shares = [slice(*pair) for pair in pairwise(bounds)]
    if threads == 1:
        return [work(shares[0])]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, shares))


def _factorise(a: np.ndarray, source: Tensor, info: np.ndarray) -> None:
    """Factorises bands `(lanes, n, w + 1)` in place; source holds them as they were."""
    n, rows = a.shape[1:]
    start = 0
    while start < len(a):
        rest = a[start:]
        code = _call("pbtrf", b"L", len(rest) * n, rows - 1, rest, rows)
        if code:  # the lanes up to here are done, those after it untouched
            info[start + (code - 1) // n] = (code - 1) % n + 1
            start += (code - 1) // n + 1
            continue
        # LAPACK lets NaN and infinity pass.
        bad = ~np.isfinite(rest[:, :, 0])
        if not bad.any():
            return
        if len(rest) == 1:
            info[start] = bad.argmax() + 1
            return
        _fill(rest, source[start:])
        spoilt = ~np.isfinite(rest).all((1, 2))
        if not spoilt.any():
            spoilt[bad.any(1).argmax()] = True  # a finite band that overflows
        for i in np.flatnonzero(spoilt):
            one = slice(start + i, start + i + 1)
            _factorise(a[one], source[one], info[one])
            a[one] = np.eye(1, rows)


def pbtrf(ab: Tensor) -> tuple[Tensor, Tensor]:
    """`(cb, info)` for ab `(..., w + 1, n)`; info also counts a pivot that is NaN or infinite, which LAPACK lets pass.

    Unused cells of cb are 0; where info is not 0, cb is NaN.
    """
    source = ab.detach().cpu().reshape(ab.shape[:-2].numel(), *ab.shape[-2:])
    info = np.zeros(len(source), np.int32)
    a = np.empty(source.mT.shape, _routine("pbtrf", ab.dtype).dtype)
    _fill(a, source)
    if a.size:
        _share_out(lambda share: _factorise(a[share], source[share], info[share]), a)
        a[info != 0] = np.nan
    # Views of tensors would not do as outputs of an autograd.Function: views of arrays.
    return _tensor(a.transpose(0, 2, 1).reshape(ab.shape), ab), _tensor(info.reshape(ab.shape[:-2]), ab)


def _solve(cb: Tensor, b: Tensor, call: Callable[[np.ndarray, np.ndarray], int]) -> Tensor:
    """x for cb `(..., w + 1, n)` and b `(..., n, k)`; `call` solves in place for some lanes' `(k, lanes, n)`."""
    if b.numel() == 0:
        return b.clone()
    rows, (n, k) = cb.shape[-2], b.shape[-2:]
    factors = cb.detach().cpu().resolve_conj().reshape(-1, rows, n)
    columns = b.detach().cpu().reshape(-1, n, k).permute(2, 0, 1)
    _routine("pbtrs", cb.dtype)  # or it says what is wrong with the dtype
    a = factors.mT.numpy()
    # LAPACK's own result is used as it is.
    if not factors.mT.is_contiguous() or (len(a) > 1 and any(cells.any() for cells in _unused(a))):
        a = np.empty(a.shape, a.dtype)
        _fill(a, factors)
    x = np.array(columns.numpy(), order="C")
    singular = any(_share_out(lambda share: call(a[share], x[:, share]), a))
    if len(a) == 1:
        x = np.full_like(x, np.nan) if singular else x
    elif singular or not np.isfinite(x).all():
        bad = ~np.isfinite(a).all((1, 2)) | (a[:, :, 0] == 0).any(1) | ~columns.isfinite().all(0).all(1).numpy()
        if not bad.any():
            bad[:] = True  # a finite system whose solution overflows
        a = a.copy()
        a[bad] = np.eye(1, rows)
        x[:] = columns.numpy()
        x[:, bad] = 0
        _share_out(lambda share: call(a[share], x[:, share]), a)
        for i in np.flatnonzero(bad):
            x[:, i] = _solve(factors[i], b.detach().cpu().reshape(-1, n, k)[i], call).mT.numpy()
    return _tensor(x.transpose(1, 2, 0).reshape(b.shape), b)


def _leading(x: np.ndarray) -> int:
    """The distance of right-hand sides in memory."""
    return x.strides[0] // x.itemsize


def pbtrs(cb: Tensor, b: Tensor) -> Tensor:
    """L^-T L^-1 b for cb `(..., w + 1, n)` and b `(..., n, k)`."""

    def call(a: np.ndarray, x: np.ndarray) -> int:
        lanes, n, rows = a.shape
        return _call("pbtrs", b"L", lanes * n, rows - 1, len(x), a, rows, x, _leading(x))

    return _solve(cb, b, call)


class Shifted:
    """H + shift I for a band `(w + 1, n)` on the CPU and one shift after the other; vectors are arrays. By `pbtrf` and
    `pbtrs`; a tridiagonal one by `pttrf` and `pttrs`, which are several times as fast."""

    def __init__(self, ab: Tensor) -> None:
        rows, n = ab.shape
        band = np.empty((1, n, rows), _routine("pbtrf", ab.dtype).dtype)
        _fill(band, ab.detach()[None])
        self.x = np.empty(n, band.dtype)
        if rows == 2:
            self.band = np.ascontiguousarray(band[0].T)
            self.factor = np.empty_like(self.band)
            self.diagonal = self.factor[0]
            parts = n, 1, *self.factor
            self._factorise, self._solve = _bind("pttrf", n, *self.factor), _bind("pttrs", *parts, self.x, n)
        else:
            self.band, self.factor = band, np.empty_like(band)
            self.diagonal = self.factor[0, :, 0]
            self._factorise = _bind("pbtrf", b"L", n, rows - 1, self.factor, rows)
            self._solve = _bind("pbtrs", b"L", n, rows - 1, 1, self.factor, rows, self.x, n)

    def factorise(self, shift: float) -> bool:
        """False where H + shift I is not positive definite; NaN and infinity pass, as in LAPACK."""
        np.copyto(self.factor, self.band)
        self.diagonal += shift
        return self._factorise() == 0

    def solve(self, b: np.ndarray) -> np.ndarray:
        np.copyto(self.x, b)
        self._solve()
        return self.x.copy()


def tbtrs(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    """L^-1 b or L^-T b for cb `(..., w + 1, n)` and b `(..., n, k)`; NaN where the diagonal has a zero."""

    def call(a: np.ndarray, x: np.ndarray) -> int:
        lanes, n, rows = a.shape
        trans = b"T" if transpose else b"N"
        return _call("tbtrs", b"L", trans, b"N", lanes * n, rows - 1, len(x), a, rows, x, _leading(x))

    return _solve(cb, b, call)


def ldl(ab: Tensor) -> Tensor:
    """D and, below, the multipliers M of H = M D M^T, for `(w + 1, n)` or a batch in front, with unused cells 0."""
    if ab.numel() == 0:
        return ab.clone()
    lanes = ab.detach().cpu().reshape(-1, *ab.shape[-2:]).numpy()
    batch, rows, n = lanes.shape
    # No entry couples one lane to the next: the batch is one long band.
    joined = _unpivoted_lu(lanes.transpose(1, 0, 2).reshape(rows, batch * n))
    if joined is not None:
        found = joined.reshape(rows, batch, n).transpose(1, 0, 2)
    else:
        found = np.stack([_by_columns(lane) if (one := _unpivoted_lu(lane)) is None else one for lane in lanes])
    return _tensor(np.ascontiguousarray(found, dtype=lanes.dtype), ab).reshape(ab.shape)


def _unpivoted_lu(a: np.ndarray) -> np.ndarray | None:
    """D and M of a band, in float64 by LAPACK's `gbtrf`; None where that fails.

    `gbtrf` takes the largest entry of a column for its pivot. In T H T^-1 with T = diag(2^(-g i)) the entries below the
    diagonal are so small that this is always the diagonal's, as long as no multiplier exceeds 2^g; powers of two round
    nothing. The rows and columns of H are scaled first so that their largest entries are about 1.
    """
    rows, n = a.shape
    w = min(rows, n) - 1
    if w == 0:
        return a
    d = np.arange(w + 1)[:, None]
    used = a[: w + 1].astype("float64")
    if not np.isfinite(used).all():
        return None
    below = np.minimum(d + np.arange(n), n - 1)
    largest = np.abs(used).max(0)
    np.maximum.at(largest, below, np.abs(used))
    half = np.frexp(largest)[1] // 2
    grade = d * min(100, 400 // w)
    scaling = -(half[below] + half)

    lu = np.zeros((3 * w + 1, n), order="F")
    lu[2 * w :] = np.ldexp(used, scaling - grade)
    for k in range(1, w + 1):
        lu[2 * w - k, k:] = np.ldexp(used[k, : n - k], scaling[k, : n - k] + grade[k])
    lu, pivots, _ = _routine("gbtrf", torch.float64)(lu, w, w, overwrite_ab=True)
    if np.any(pivots != np.arange(n)) or not np.isfinite(lu).all():
        return None
    found = np.zeros((rows, n))
    found[0] = np.ldexp(lu[2 * w], 2 * half)
    found[1 : w + 1] = np.ldexp(lu[2 * w + 1 :], grade[1:] + half[below[1:]] - half)
    return found


def _by_columns(a: np.ndarray) -> np.ndarray:
    """The same by the definition, a column at a time, whatever the multipliers."""
    rows, n = a.shape
    found = np.empty_like(a)
    pending = np.zeros((rows, rows), a.dtype)
    with np.errstate(all="ignore"):
        for j in range(n):
            c = a[:, j] - pending[0]
            m = np.divide(c, c[0], where=c != 0, out=np.zeros_like(c))
            pending[:-1, :-1] = pending[1:, 1:] + c[1:, None] * m[1:]
            found[0, j], found[1:, j] = c[0], m[1:]
    return found


def gbtrf(ab: Tensor, l: int, u: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """`(lu, pivots, info)` of general bands: `(..., 2 l + u + 1, n)`, `(..., n)`; info: which pivot is exactly 0."""
    source = ab.detach().cpu().resolve_conj().reshape(ab.shape[:-2].numel(), *ab.shape[-2:])
    rows, n = 2 * l + u + 1, ab.shape[-1]
    a = np.zeros((len(source), n, rows), _routine("gbtrf", ab.dtype).dtype)
    a[:, :, l:] = source.mT.numpy()
    pivots, info = np.zeros((len(a), n), np.int32), np.zeros(len(a), np.int32)
    for i, one in enumerate(a):
        info[i] = _call("gbtrf", n, n, l, u, one, rows, pivots[i])
    lu = a.transpose(0, 2, 1).reshape(*ab.shape[:-2], rows, n)
    return _tensor(lu, ab), _tensor(pivots.reshape(*ab.shape[:-2], n), ab), info.reshape(ab.shape[:-2])


def gbtrs(lu: Tensor, pivots: Tensor, b: Tensor, l: int, u: int, adjoint: bool) -> Tensor:
    """A^-1 b or A^-H b for b `(..., n, k)`, from `gbtrf`."""
    n, k = b.shape[-2:]
    a = lu.detach().cpu().reshape(-1, *lu.shape[-2:]).mT.contiguous().numpy()
    swaps = pivots.cpu().reshape(-1, n).contiguous().numpy()
    x = b.detach().cpu().resolve_conj().reshape(-1, n, k).mT.clone(memory_format=torch.contiguous_format).numpy()
    for i in range(len(a)):
        _call("gbtrs", b"C" if adjoint else b"N", n, l, u, k, a[i], a.shape[2], swaps[i], x[i], n)
    return _tensor(x.transpose(0, 2, 1).reshape(b.shape), b)
