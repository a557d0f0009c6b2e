"""The condition estimate: against the dense condition number and LAPACK's `pbcon`."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np
import pytest
from backends import Backend
from matrices import lapack_factor, lower_factor, poisoned, positive_band
from oracles import store, unstore
from scipy.linalg import cython_lapack


def lapack_function(name: str, arguments: int) -> Callable:
    """A LAPACK routine that SciPy exports for Cython only."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = cython_lapack.__pyx_capi__[name]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)


def pbcon(ab: np.ndarray) -> float:
    """LAPACK's estimate for a positive definite band."""
    rows, n = ab.shape
    cb, info = lapack_factor(ab)
    assert info == 0
    arrays = [
        np.frombuffer(b"L", np.int8), np.array([n], np.int32), np.array([rows - 1], np.int32), np.asfortranarray(cb),
        np.array([rows], np.int32), np.array([np.abs(unstore(ab)).sum(0).max()]), np.zeros(1), np.zeros(3 * n),
        np.zeros(n, np.int32), np.zeros(1, np.int32),
    ]  # fmt: skip
    lapack_function("dpbcon", len(arrays))(*(array.ctypes.data for array in arrays))
    assert arrays[-1][0] == 0
    return float(arrays[6][0])


@functools.cache
def batched(backend: Backend) -> Callable:
    p = backend.package
    return backend.jit(backend.vmap(lambda ab: p.rcond(p.cholesky_ex(ab)[0], ab)))


def estimate(backend: Backend, ab: np.ndarray, dtype: str = "float64") -> np.ndarray:
    """A batch of them; NaN where the factor fails."""
    return backend.numpy(batched(backend)(backend.array(ab, dtype)))


@pytest.mark.parametrize(("n", "w"), [(1, 2), (7, 0), (30, 2), (90, 5)])
def test_rcond(backend: Backend, n: int, w: int) -> None:
    """LAPACK's estimate, which is the condition number itself here, up to condition 1e11."""
    lanes = []
    for seed, exponent in enumerate([0, 3, 9, 11] if n > 1 else [0]):
        L = lower_factor(n, w, seed)
        L[n // 2, n // 2] *= 10.0 ** (-exponent / 2)
        lanes.append(store(L @ L.T, w))
    found = estimate(backend, np.stack(lanes))
    assert found.dtype == np.float64
    for ab, value in zip(lanes, found, strict=True):
        np.testing.assert_allclose(value, pbcon(ab), rtol=1e-4)  # eps times the condition number
        np.testing.assert_allclose(value, 1 / np.linalg.cond(unstore(ab), 1), rtol=1e-4)


def test_where_the_climb_stops_short(backend: Backend) -> None:
    """Random bands of both signs on which unit vectors alone would not do: within a factor of 3, never too small."""
    lanes = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        L = np.eye(12) + np.diag(rng.uniform(-2, 2, 11), -1) + np.diag(rng.uniform(-2, 2, 10), -2)
        lanes.append(store(L @ L.T, 2))
    truth = np.array([1 / np.linalg.cond(unstore(ab), 1) for ab in lanes])
    found = estimate(backend, np.stack(lanes))
    assert np.all(found >= truth * (1 - 1e-6))
    assert np.all(found <= 3 * truth)
    assert np.all(found <= np.array([pbcon(ab) for ab in lanes]) * (1 + 1e-6))


def test_scale_float32_and_unused_cells(backend: Backend) -> None:
    ab = positive_band(8, 3)
    value = float(estimate(backend, ab[None])[0])
    np.testing.assert_allclose(estimate(backend, 2.0**300 * poisoned(ab)[None]), value, rtol=1e-14)
    single = estimate(backend, ab[None], "float32")
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, value, rtol=1e-4)


def test_empty_indefinite_and_bad_input(backend: Backend) -> None:
    p = backend.package
    empty = backend.array(np.zeros((3, 0)))
    assert float(p.rcond(empty, empty)) == 1
    ab = positive_band(8, 3)
    cb = backend.array(ab)
    ab[0, 2] = -1
    assert np.isnan(estimate(backend, ab[None])).all()
    with pytest.raises(ValueError, match=r"cb and ab must have one shape and dtype.*\(4, 8\).*\(2, 8\)"):
        p.rcond(cb, backend.array(np.ones((2, 8))))
    with pytest.raises(ValueError, match="cb must be 2-D"):
        p.rcond(backend.array(np.ones(8)), cb)
    with pytest.raises(ValueError, match="ab must be 2-D"):
        p.rcond(cb, backend.array(np.ones(8)))
