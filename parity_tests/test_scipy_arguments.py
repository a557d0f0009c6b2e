"""The arguments of the drop-ins for `scipy.linalg`: dtypes, batches, errors, failures."""

import re
from typing import Any

import jax
import numpy as np
import pytest
import scipy.linalg
import torch
from backends import BACKENDS, Backend
from scipy_cases import EPS, backward_error, hermitian_band, positive_dense, random

# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_b", ["int64", "float32", "complex64"])
@pytest.mark.parametrize("of_ab", ["int64", "float16", "float32", "float64"])
def test_dtypes_are_scipys(backend: Backend, of_ab: str, of_b: str) -> None:
    ab, b = np.array([[4, 4]], of_ab), np.array([6, 7], of_b)
    x = backend.numpy(backend.package.scipy.solve_banded((0, 0), backend.array(ab), backend.array(b)))
    expected = scipy.linalg.solve_banded((0, 0), ab, b)
    assert x.dtype == expected.dtype
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_batches(backend: Backend) -> None:
    """Leading axes broadcast: against SciPy, in single precision with a tolerance; one ab for many b."""
    module = backend.package.scipy
    hermitian = [hermitian_band(positive_dense(6, 2, "complex64", seed), 2, False) for seed in range(2)]
    hermitian = np.nan_to_num(np.stack(hermitian))[:, None]  # (2, 1, 3, 6)
    general = random((2, 1, 3, 6), "complex64")
    general[0, 0, 1] += 8
    general[1, 0, 0] += 8
    pairs = ([[1], [2]], [[1], [0]])  # an (l, u) for each matrix
    b = random((3, 6, 2), "complex64")
    for call, ab in (
        (lambda module, ab, b: module.solveh_banded(ab, b), hermitian),
        (lambda module, ab, b: module.solveh_banded(ab, b), hermitian[0, 0]),
        (lambda module, ab, b: module.solve_banded((1, 1), ab, b), general[:1]),
        (lambda module, ab, b: module.solve_banded(pairs, ab, b), general),
    ):
        x, expected = backend.numpy(call(module, backend.array(ab), backend.array(b))), call(scipy.linalg, ab, b)
        assert x.dtype == expected.dtype
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(ValueError, match=r"`solveh_banded` does not support zero-size batches\."):
        module.solveh_banded(backend.array(hermitian[:0]), backend.array(b))


def test_empty(backend: Backend) -> None:
    """No unknowns, or no right-hand sides."""
    module = backend.package.scipy
    for ab, b in (((3, 0), (0,)), ((3, 4), (4, 0)), ((2, 3, 0), (0, 5)), ((3, 0), (2, 0, 5))):
        expected = scipy.linalg.solveh_banded(np.ones(ab), np.ones(b)).shape
        arrays = backend.array(np.ones(ab)), backend.array(np.ones(b))
        for x in (
            module.solveh_banded(*arrays),
            module.cho_solve_banded((arrays[0], False), arrays[1]),
            module.solve_banded((1, 1), *arrays),
        ):
            assert tuple(x.shape) == expected


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: m.solveh_banded([[1.0, 1]], [1.0]), ValueError, "shapes of ab and b are not compatible"),
        (lambda m: m.cho_solve_banded(([[1.0, 1]], True), [1.0]), ValueError, "shapes of cb and b are not compatible"),
        (lambda m: m.solve_banded((0, 0), [[1.0, 1]], [1.0]), ValueError, "shapes of ab and b are not compatible"),
        (
            lambda m: m.solve_banded((1, 1), [[1.0]], [1.0]),
            ValueError,
            r"invalid values for the number of lower and upper diagonals: l\+u\+1 \(3\) does not equal "
            r"ab.shape\[0\] \(1\)",
        ),
        (lambda m: m.solveh_banded([[np.nan]], [1.0]), ValueError, "array must not contain infs or NaNs.*ab"),
        (lambda m: m.solveh_banded([[1.0]], [np.inf]), ValueError, "array must not contain infs or NaNs.*b"),
        (lambda m: m.cholesky_banded([[np.nan]]), ValueError, "array must not contain infs or NaNs"),
        (lambda m: m.cho_solve_banded(([[np.inf]], True), [1.0]), ValueError, "array must not contain infs or NaNs"),
        (lambda m: m.solve_banded((0, 0), [[np.nan]], [1.0]), ValueError, "array must not contain infs or NaNs"),
        (lambda m: m.solve_banded((-1, 1), [[1.0]], [1.0]), ValueError, r"l_and_u\[0\] must be an int >= 0, got -1"),
        (lambda m: m.solve_banded((0, 0.5), [[1.0]], [1.0]), TypeError, r"l_and_u\[1\] must be an int"),
        (lambda m: m.solveh_banded([1.0], [1.0]), ValueError, "ab must have shape"),
        (lambda m: m.solveh_banded([[1.0]], 1.0), ValueError, "b must have shape"),
        (lambda m: m.solveh_banded(np.zeros((0, 1)), [1.0]), ValueError, "ab must have a row at least"),
        (lambda m: m.solveh_banded(np.ma.masked_all((1, 1)), [1.0]), ValueError, "masked arrays are not supported"),
    ],
)
def test_bad_arguments(backend: Backend, call: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call(backend.package.scipy)


# --- Failure ---------------------------------------------------------------------------------------------------------


def scipys_error(call: Any) -> str:
    with pytest.raises(np.linalg.LinAlgError) as caught:
        call(scipy.linalg)
    return re.escape(str(caught.value))


def failing(dtype: str, order: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of two bands in upper form, of which the second is not positive definite, and b."""
    good = positive_dense(6, 2, dtype)
    bad = good.copy()
    bad[order - 1, order - 1] -= 30
    return np.nan_to_num(np.stack([hermitian_band(h, 2, False) for h in (good, bad)])), random((6,), dtype)


HERMITIAN_CALLS = (lambda module, ab, b: module.solveh_banded(ab, b), lambda module, ab, b: module.cholesky_banded(ab))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("order", [1, 4, 6])
def test_not_positive_definite(backend: Backend, dtype: str, order: int) -> None:
    """SciPy's exception with its text, also from a batch."""
    ab, b = failing(dtype, order)
    module = backend.package.scipy
    for call in HERMITIAN_CALLS:
        text = scipys_error(lambda module, call=call: call(module, ab[1], b))
        assert str(order) in text
        with pytest.raises(module.LinAlgError, match=f"^{text}$"):
            call(module, backend.array(ab), backend.array(b))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_failure_is_nan_under_jit(dtype: str) -> None:
    """In the lanes that fail alone, and whatever the cause: NaN in the data too, which is not checked there."""
    module = BACKENDS["jax"].package.scipy
    function = jax.jit(lambda ab, b: [call(module, ab, b) for call in HERMITIAN_CALLS])
    ab, b = failing(dtype, 4)
    for second in (ab[1], np.where(np.arange(6) == 4, np.nan, ab[0])):
        x, cb = map(np.asarray, function(np.stack([ab[0], second]), b))
        assert backward_error(positive_dense(6, 2, dtype), x[0], b) <= 64 * EPS[dtype]
        assert np.isnan(x[1]).all()
        assert np.isfinite(cb[0]).all()
        assert np.isnan(cb[1, 2]).all()


def test_singular(backend: Backend) -> None:
    module = backend.package.scipy
    ab = np.ones((4, 8))
    ab[:, 3] = 0
    text = scipys_error(lambda module: module.solve_banded((2, 1), ab, np.ones(8)))
    with pytest.raises(module.LinAlgError, match=f"^{text}$"):
        module.solve_banded((2, 1), backend.array(ab), backend.array(np.ones(8)))
    if backend.name == "jax":
        assert np.isnan(jax.jit(module.solve_banded, static_argnums=0)((2, 1), ab, np.ones(8))).all()


def test_torch_error_is_both() -> None:
    error = BACKENDS["torch"].package.scipy.LinAlgError
    assert issubclass(error, np.linalg.LinAlgError)
    assert issubclass(error, torch.linalg.LinAlgError)
    assert BACKENDS["jax"].package.scipy.LinAlgError is np.linalg.LinAlgError
