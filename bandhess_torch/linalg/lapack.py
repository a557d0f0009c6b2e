"""Tensors to LAPACK and back, through SciPy's pointers to it, batches in one call.

LAPACK reads `(w + 1, n)` column by column, which in memory is a C-ordered `(n, w + 1)`: one transposition of the
input, and none of the result, whose tensor keeps LAPACK's memory and strides. Solves with it copy nothing
more than the right-hand side. CUDA tensors make the trip to the CPU and back.

A batch of bands of n columns, stored one after the other with zeros in the unused cells, is one long band: nothing
couples a band to the next. A call factorises or solves as many as stay in cache. Only NaN and infinity cross the zeros
(0 * inf = NaN), so bands that bring or make them are taken out and done alone; the bits of the others do not change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.linalg import cython_blas, cython_lapack, get_lapack_funcs
from torch import Tensor


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def routine(name: str, dtype: torch.dtype) -> Any:
    if dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"banded factorisations take float32 and float64, got {dtype}; convert with .double()")
    return get_lapack_funcs((name,), dtype=_dtype(dtype))[0]


def tensor(a: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(a).to(like.device)


@cache
def _pointer(name: str, arguments: int) -> Any:
    """SciPy's BLAS or LAPACK routine as a function that ctypes calls, without the GIL."""
    capsule = (cython_blas.__pyx_capi__ | cython_lapack.__pyx_capi__)[name]
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


def _fill(a: np.ndarray, ab: np.ndarray) -> None:
    """LAPACK's memory `(lanes, n, w + 1)` from `(lanes, w + 1, n)`, with zeros in the unused cells."""
    a[:] = ab.transpose(0, 2, 1)
    for cells in _unused(a):
        cells[:] = 0


def _share_out(work: Callable[[slice], Any], a: np.ndarray) -> None:
    """`work` on the lanes of bands, in as many threads as torch uses and in pieces that stay in cache."""
    lanes, n, rows = a.shape
    if a.size == 0:
        return
    alone = rows > 65  # here LAPACK works on blocks of columns, whose bounds must not depend on the neighbours
    threads = 1 if alone or lanes * n < 20_000 else min(lanes, torch.get_num_threads())
    step = 1 if alone else max(1, 2**17 // (n * rows))

    def share(thread: int) -> None:
        first, end = lanes * thread // threads, lanes * (thread + 1) // threads
        for start in range(first, end, step):
            work(slice(start, min(start + step, end)))

    if threads == 1:
        share(0)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = pool.map(share, range(1, threads))
        share(0)
        list(others)  # raises what they raised


def _tridiagonal(a: np.ndarray) -> bool:
    return a.shape[2] == 2 and a.dtype.kind == "f"


def _pbtrf(a: np.ndarray) -> int:
    """LAPACK's `pbtrf` on bands `(lanes, n, w + 1)`, as one; for w = 1 by `pttrf`, H = M D M^T with L = M sqrt(D)."""
    lanes, n, rows = a.shape
    if not _tridiagonal(a):
        return _call("pbtrf", b"L", lanes * n, rows - 1, a, rows)
    d, m = a[:, :, 0].copy(), a[:, :, 1].copy()
    code = _call("pttrf", lanes * n, d, m)
    done = (code - 1) // n if code else lanes
    with np.errstate(invalid="ignore"):
        a[:done, :, 0] = np.sqrt(d[:done])
        a[:done, :, 1] = m[:done] * a[:done, :, 0]
    return code


def _pbtrs(a: np.ndarray, x: np.ndarray) -> int:
    """LAPACK's `pbtrs` in place on right-hand sides `(k, lanes, n)`; for w = 1 `pttrs`."""
    lanes, n, rows = a.shape
    if not _tridiagonal(a):
        return _call("pbtrs", b"L", lanes * n, rows - 1, len(x), a, rows, x, _leading(x))
    with np.errstate(all="ignore"):
        d, m = a[:, :, 0] ** 2, a[:, :, 1] / a[:, :, 0]
    return _call("pttrs", lanes * n, len(x), d, m, x, _leading(x))


def _factorise(a: np.ndarray, source: np.ndarray, info: np.ndarray) -> None:
    """Factorises bands `(lanes, n, w + 1)` in place; source `(lanes, w + 1, n)` holds them as they were."""
    n, rows = a.shape[1:]
    start = 0
    while start < len(a):
        rest = a[start:]
        code = _pbtrf(rest)
        if code:  # the lanes up to here are done, those after it untouched
            info[start + (code - 1) // n] = (code - 1) % n + 1
            start += (code - 1) // n + 1
            continue
        # LAPACK lets NaN and infinity pass: infinite pivots stand in the band itself, NaN goes on to the last one.
        if np.isfinite(rest[-1, -1, 0]) and np.isfinite(source[start:, 0]).all():
            return
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


def _lanes(ab: Tensor) -> np.ndarray:
    """`(lanes, w + 1, n)`."""
    routine("pbtrf", ab.dtype)  # or it says what is wrong with the dtype
    return ab.detach().cpu().reshape(ab.shape[:-2].numel(), *ab.shape[-2:]).numpy()


def _columns(b: Tensor) -> np.ndarray:
    """Right-hand sides `(..., n, k)` as `(k, lanes, n)`."""
    n, k = b.shape[-2:]
    return b.detach().cpu().reshape(b.shape[:-2].numel(), n, k).permute(2, 0, 1).numpy()


def _factored(ab: Tensor, then: Callable[[np.ndarray, slice], None] | None = None) -> tuple[Tensor, Tensor]:
    """As `pbtrf`; calls `then` with a piece of the factor and its lanes, while it is in cache."""
    source = _lanes(ab)
    info = np.zeros(len(source), np.int32)
    a = np.empty((len(source), ab.shape[-1], ab.shape[-2]), routine("pbtrf", ab.dtype).dtype)

    fresh = a.nbytes > 2**25  # more than malloc keeps: pages new to the process, which threads fight over
    if fresh:
        _fill(a, source)

    def work(share: slice) -> None:
        if not fresh:
            _fill(a[share], source[share])
        _factorise(a[share], source[share], info[share])
        if then and not info[share].any():
            then(a[share], share)

    _share_out(work, a)
    if info.any():
        a[info != 0] = np.nan
    # Views of tensors would not do as outputs of an autograd.Function: views of arrays.
    return tensor(a.transpose(0, 2, 1).reshape(ab.shape), ab), tensor(info.reshape(ab.shape[:-2]), ab)


def pbtrf(ab: Tensor) -> tuple[Tensor, Tensor]:
    """`(cb, info)` for ab `(..., w + 1, n)`; info also counts a pivot that is NaN or infinite, which LAPACK lets pass.

    Unused cells of cb are 0; where info is not 0, cb is NaN.
    """
    return _factored(ab)


def pbsv(ab: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(x, cb, info)` for b `(..., n, k)`: `pbtrf` and `pbtrs` in one; x means nothing unless all info is 0."""
    routine("pbtrf", ab.dtype)
    columns = _columns(b)
    x = np.empty(columns.shape, columns.dtype)

    def substitute(a: np.ndarray, share: slice) -> None:
        _substitute(a, x[:, share], columns[:, share], _pbtrs)

    cb, info = _factored(ab, substitute if x.size else None)
    return _solution(x, b), cb, info


def _substitute(a: np.ndarray, x: np.ndarray, b: np.ndarray, call: Callable[[np.ndarray, np.ndarray], int]) -> None:
    """Solves for right-hand sides b and into x, `(k, lanes, n)` both; `call` does it in place."""
    x[:] = b
    singular = call(a, x)
    if len(a) == 1:
        if singular:
            x[:] = np.nan
    elif singular or not np.isfinite(x).all():
        bad = ~np.isfinite(a).all((1, 2)) | (a[:, :, 0] == 0).any(1) | ~np.isfinite(b).all((0, 2))
        if not bad.any():
            bad[:] = True  # a finite system whose solution overflows
        good = a.copy()
        good[bad] = np.eye(1, a.shape[2])
        x[:] = b
        x[:, bad] = 0
        call(good, x)
        for i in np.flatnonzero(bad):
            one = slice(i, i + 1)
            _substitute(a[one], x[:, one], b[:, one], call)


def _solution(x: np.ndarray, b: Tensor) -> Tensor:
    return tensor(x.transpose(1, 2, 0).reshape(b.shape), b)


def _solve(cb: Tensor, b: Tensor, call: Callable[[np.ndarray, np.ndarray], int]) -> Tensor:
    """x for cb `(..., w + 1, n)` and b `(..., n, k)`; `call` solves in place for some lanes' `(k, lanes, n)`."""
    if b.numel() == 0:
        return b.clone()
    factors, columns = _lanes(cb.resolve_conj()), _columns(b)
    a = factors.transpose(0, 2, 1)
    # LAPACK's own result is used as it is.
    if not a.flags.c_contiguous or (len(a) > 1 and any(cells.any() for cells in _unused(a))):
        a = np.empty(a.shape, a.dtype)
        _fill(a, factors)
    x = np.empty(columns.shape, columns.dtype)
    _share_out(lambda share: _substitute(a[share], x[:, share], columns[:, share], call), a)
    return _solution(x, b)


def _leading(x: np.ndarray) -> int:
    """The distance of right-hand sides in memory."""
    return x.strides[0] // x.itemsize


def pbtrs(cb: Tensor, b: Tensor) -> Tensor:
    """L^-T L^-1 b for cb `(..., w + 1, n)` and b `(..., n, k)`."""
    return _solve(cb, b, _pbtrs)


class Shifted:
    """H + shift I for a band `(w + 1, n)` on the CPU and one shift after the other; vectors are arrays. By `pbtrf` and
    `pbtrs`; a tridiagonal one by `pttrf` and `pttrs`, which are several times as fast."""

    def __init__(self, ab: Tensor) -> None:
        rows, n = ab.shape
        band = np.empty((1, n, rows), routine("pbtrf", ab.dtype).dtype)
        _fill(band, _lanes(ab))
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
            self._forward = _bind("tbtrs", b"L", b"N", b"N", n, rows - 1, 1, self.factor, rows, self.x, n)

    def factorise(self, shift: float) -> bool:
        """False where H + shift I is not positive definite; NaN and infinity pass, as in LAPACK."""
        np.copyto(self.factor, self.band)
        self.diagonal += shift
        return self._factorise() == 0

    def solve(self, b: np.ndarray) -> np.ndarray:
        np.copyto(self.x, b)
        self._solve()
        return self.x.copy()

    def energy(self, b: np.ndarray) -> float:
        """b^T (H + shift I)^-1 b."""
        np.copyto(self.x, b)
        if self.factor.ndim == 2:
            self._solve()
            return float(b @ self.x)
        self._forward()  # |L^-1 b|^2
        return float(self.x @ self.x)


def eliminate(columns: np.ndarray) -> bool:
    """In place from the columns of a band, `(n + w, w + 1)` in float64 with zeros in the last w, to d_j and d_j m_j of
    H = M D M^T: LAPACK's `pbtf2` without its roots, for w > 0. False where a column has 0 for its pivot alone."""
    rows, size, first = columns.shape[1], columns.itemsize, columns.ctypes.data
    syr, entries, alpha = _pointer("dsyr", 7), columns.reshape(-1).data, ctypes.c_double()
    constants = alpha, ctypes.c_char(b"L"), ctypes.c_int(rows - 1), ctypes.c_int(1)
    scale, lower, w, one = (ctypes.addressof(c) for c in constants)
    for j in range(0, len(entries) - rows * (rows - 1), rows):
        if (pivot := entries[j]) == 0:
            if any(entries[j + 1 : j + rows]):
                return False
            continue
        alpha.value = -1 / pivot
        # The w x w triangle that the column updates begins at the next one; along its rows, entries are w cells apart.
        syr(lower, w, scale, first + size * (j + 1), one, first + size * (j + rows), w)
    return True


def tbtrs(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    """L^-1 b or L^-T b for cb `(..., w + 1, n)` and b `(..., n, k)`; NaN where the diagonal has a zero."""

    def call(a: np.ndarray, x: np.ndarray) -> int:
        lanes, n, rows = a.shape
        trans = b"T" if transpose else b"N"
        return _call("tbtrs", b"L", trans, b"N", lanes * n, rows - 1, len(x), a, rows, x, _leading(x))

    return _solve(cb, b, call)


def gbtrf(ab: Tensor, l: int, u: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """`(lu, pivots, info)` of general bands: `(..., 2 l + u + 1, n)`, `(..., n)`; info: which pivot is exactly 0."""
    source = ab.detach().cpu().resolve_conj().reshape(ab.shape[:-2].numel(), *ab.shape[-2:])
    rows, n = 2 * l + u + 1, ab.shape[-1]
    a = np.zeros((len(source), n, rows), routine("gbtrf", ab.dtype).dtype)
    a[:, :, l:] = source.mT.numpy()
    pivots, info = np.zeros((len(a), n), np.int32), np.zeros(len(a), np.int32)
    for i, one in enumerate(a):
        info[i] = _call("gbtrf", n, n, l, u, one, rows, pivots[i])
    lu = a.transpose(0, 2, 1).reshape(*ab.shape[:-2], rows, n)
    return tensor(lu, ab), tensor(pivots.reshape(*ab.shape[:-2], n), ab), info.reshape(ab.shape[:-2])


def gbtrs(lu: Tensor, pivots: Tensor, b: Tensor, l: int, u: int, adjoint: bool) -> Tensor:
    """A^-1 b or A^-H b for b `(..., n, k)`, from `gbtrf`."""
    n, k = b.shape[-2:]
    a = lu.detach().cpu().reshape(-1, *lu.shape[-2:]).mT.contiguous().numpy()
    swaps = pivots.cpu().reshape(-1, n).contiguous().numpy()
    x = b.detach().cpu().resolve_conj().reshape(-1, n, k).mT.clone(memory_format=torch.contiguous_format).numpy()
    for i in range(len(a)):
        _call("gbtrs", b"C" if adjoint else b"N", n, l, u, k, a[i], a.shape[2], swaps[i], x[i], n)
    return tensor(x.transpose(0, 2, 1).reshape(b.shape), b)
