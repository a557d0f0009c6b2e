"""The drop-ins for `scipy.linalg`: SciPy's own tests, and both forms, complex bands, failures and derivatives."""

import inspect
import re
from collections.abc import Iterator
from types import FunctionType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import scipy.linalg
import torch
from backends import BACKENDS, Backend
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import general_band, general_dense
from scipy.linalg.tests import test_basic, test_batch, test_decomp_cholesky

settings.load_profile("parity")  # SciPy's test modules load their own

NAMES = ("solveh_banded", "cholesky_banded", "cho_solve_banded", "solve_banded")

# --- SciPy's tests, with the drop-ins in their place -----------------------------------------------------------------


class DropIns:
    """SciPy's test modules see the backend's functions, their results as NumPy. Each test must call one."""

    @pytest.fixture(autouse=True)
    def _replace(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        calls = []

        def adapted(name: str) -> Any:
            def function(*args: Any, **kwargs: Any) -> np.ndarray:
                calls.append(name)
                x = getattr(backend.package.scipy, name)(*args, **kwargs)
                assert backend.is_array(x)
                return backend.numpy(x)

            function.__signature__ = inspect.signature(getattr(backend.package.scipy, name))
            return function

        functions = {name: adapted(name) for name in NAMES}
        for module in (test_basic, test_decomp_cholesky):
            for name in NAMES:
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, functions[name])
        monkeypatch.setattr(test_batch, "linalg", SimpleNamespace(**functions))
        jax.config.update("jax_disable_most_optimizations", True)  # a program for each of some 150 shapes and dtypes
        yield
        jax.config.update("jax_disable_most_optimizations", False)
        assert calls


class TestSolveBanded(DropIns, test_basic.TestSolveBanded):
    pass


class TestSolveHBanded(DropIns, test_basic.TestSolveHBanded):
    pass


class TestCholeskyBanded(DropIns, test_decomp_cholesky.TestCholeskyBanded):
    pass


class TestOverwrite(DropIns):
    test_solve_banded = test_basic.TestOverwrite.test_solve_banded
    test_solveh_banded = test_basic.TestOverwrite.test_solveh_banded
    test_cholesky_banded = test_decomp_cholesky.TestOverwrite.test_cholesky_banded
    test_cho_solve_banded = test_decomp_cholesky.TestOverwrite.test_cho_solve_banded


class TestBatchTorch(DropIns):
    backend = pytest.fixture(lambda self: BACKENDS["torch"])
    batch_test = test_batch.TestBatch.batch_test
    test_cholesky_banded = test_batch.TestBatch.test_cholesky_banded
    test_solve_banded = test_batch.TestBatch.test_solve_banded
    test_cho_solve_banded = test_batch.TestBatch.test_cho_solve_banded
    test_solveh_banded = test_batch.TestBatch.test_solveh_banded


def in_complex128(function: FunctionType) -> FunctionType:
    """SciPy's test in one of its four dtypes.

    In single precision it asks that a batch equal a loop to the last bit, which SciPy's loop does and one program for
    the batch need not; test_batches has a tolerance. In float64 JAX would compile all of it once more.
    """
    copy = FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__qualname__ = function.__qualname__
    for mark in reversed(function.pytestmark):
        values = [np.complex128] if mark.args[0] == "dtype" else mark.args[1]
        copy = pytest.mark.parametrize(mark.args[0], values)(copy)
    return copy


class TestBatchJax(DropIns):
    backend = pytest.fixture(lambda self: BACKENDS["jax"])
    batch_test = test_batch.TestBatch.batch_test
    test_cholesky_banded = in_complex128(test_batch.TestBatch.test_cholesky_banded)
    test_solve_banded = in_complex128(test_batch.TestBatch.test_solve_banded)
    test_cho_solve_banded = in_complex128(test_batch.TestBatch.test_cho_solve_banded)
    test_solveh_banded = in_complex128(test_batch.TestBatch.test_solveh_banded)


@pytest.mark.parametrize("batch", [TestBatchTorch, TestBatchJax])
def test_all_of_scipys_tests_are_here(batch: type) -> None:
    theirs = set()
    for module in (test_basic, test_decomp_cholesky, test_batch):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            for name, function in inspect.getmembers(cls, inspect.isfunction):
                if name.startswith("test") and re.search(rf"\b({'|'.join(NAMES)})\b", inspect.getsource(function)):
                    theirs.add(f"{module.__name__}.{function.__qualname__}")
    ours = {
        f"{function.__module__ if cls is not batch else test_batch.__name__}.{function.__qualname__}"
        for cls in (TestSolveBanded, TestSolveHBanded, TestCholeskyBanded, TestOverwrite, batch)
        for name, function in inspect.getmembers(cls, inspect.isfunction)
        if name.startswith("test")
    }
    assert len(theirs) > 40
    assert theirs == ours


# --- By definition ---------------------------------------------------------------------------------------------------

EPS = {name: float(np.finfo(name).eps) for name in ("float32", "float64", "complex64", "complex128")}
dtypes = pytest.mark.parametrize("dtype", sorted(EPS))


def random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if dtype.startswith("complex") else x).astype(dtype)


def positive_dense(n: int, w: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Hermitian, positive definite, of half-bandwidth w."""
    L = random((n, n), dtype, seed) / np.sqrt(w + 1)
    L = np.where(np.subtract.outer(np.arange(n), np.arange(n)) > w, 0, np.tril(L))
    np.fill_diagonal(L, 1.5)
    return (L @ L.conj().T).astype(dtype)


def hermitian_band(H: np.ndarray, w: int, lower: bool) -> np.ndarray:
    return general_band(H, w, 0) if lower else general_band(H, 0, w)


def backward_error(A: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(A @ x - b).max() / (np.abs(A).max() * np.abs(x).max() + np.abs(b).max()))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(backend: Backend, name: str) -> None:
    def parameters(function: Any) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(backend.package.scipy, name)) == parameters(getattr(scipy.linalg, name))
    assert name in backend.package.scipy.__all__


@dtypes
def test_hermitian(backend: Backend, dtype: str) -> None:
    """In either form, unused cells never read: against the definition and SciPy."""
    n, w = 6, 2
    module, tolerance = backend.package.scipy, 64 * EPS[dtype]
    H, b = positive_dense(n, w, dtype), random((n, 2), dtype, 1)
    for lower in (True, False) if dtype == "complex128" else (dtype == "float32",):
        ab = hermitian_band(H, w, lower)
        x = backend.numpy(module.solveh_banded(backend.array(ab), backend.array(b), lower=lower, check_finite=False))
        assert (x.shape, x.dtype) == (b.shape, b.dtype)
        assert backward_error(H, x, b) <= tolerance
        clean = np.nan_to_num(ab)
        np.testing.assert_allclose(x, scipy.linalg.solveh_banded(clean, b, lower=lower), rtol=0, atol=16 * tolerance)

        cb = backend.numpy(module.cholesky_banded(backend.array(ab), lower=lower, check_finite=False))
        assert (cb.shape, cb.dtype) == (ab.shape, ab.dtype)
        factor = general_dense(cb, w, 0) if lower else general_dense(cb, 0, w)
        np.testing.assert_allclose(factor @ factor.conj().T if lower else factor.conj().T @ factor, H, atol=tolerance)
        np.testing.assert_array_equal(cb[np.isnan(ab)], 0)
        expected = scipy.linalg.cholesky_banded(clean, lower=lower)
        np.testing.assert_allclose(cb, np.where(np.isnan(ab), 0, expected), rtol=0, atol=4 * tolerance)

        poisoned = backend.array(np.where(np.isnan(ab), np.nan, cb))
        x = backend.numpy(module.cho_solve_banded((poisoned, lower), backend.array(b), check_finite=False))
        assert x.dtype == b.dtype
        assert backward_error(H, x, b) <= 4 * tolerance


@pytest.mark.parametrize(
    ("n", "l", "u", "columns", "dtype"),
    [
        (1, 0, 0, 2, "float64"),
        (1, 2, 1, 2, "float64"),
        (7, 0, 2, 2, "float64"),
        (7, 2, 0, 2, "complex64"),
        (7, 1, 1, 2, "float32"),
        (3, 4, 5, 2, "float64"),
        (20, 3, 2, 2, "complex128"),
        (20, 3, 2, None, "float64"),
    ],
)
def test_general(backend: Backend, n: int, l: int, u: int, columns: int | None, dtype: str) -> None:
    A = general_dense(random((l + u + 1, n), dtype), l, u)
    b = random((n,) if columns is None else (n, columns), dtype, 1)
    ab = general_band(A, l, u)
    arrays = backend.array(ab), backend.array(b)
    x = backend.numpy(backend.package.scipy.solve_banded((l, u), *arrays, check_finite=False))
    assert (x.shape, x.dtype) == (b.shape, b.dtype)
    assert backward_error(A, x, b) <= 16 * EPS[dtype]
    expected = scipy.linalg.solve_banded((l, u), np.nan_to_num(ab), b)
    np.testing.assert_allclose(x, expected, rtol=0, atol=64 * EPS[dtype] * np.linalg.cond(A) * np.abs(x).max())


def test_pivots_are_needed(backend: Backend) -> None:
    """A diagonal of exact zeros, then of tiny entries: without row interchanges NaN, or no digit right."""
    for diagonal in (0.0, 1e-20):
        A = general_dense(random((4, 8), "float64"), 2, 1)
        np.fill_diagonal(A, diagonal)
        b = A @ np.arange(1.0, 9)
        ab = backend.array(np.nan_to_num(general_band(A, 2, 1)))
        x = backend.numpy(backend.package.scipy.solve_banded((2, 1), ab, backend.array(b)))
        np.testing.assert_allclose(x, np.arange(1.0, 9), rtol=1e-10)


@given(seed=st.integers(0, 999), exponent=st.integers(-12, 12))
def test_general_is_backward_stable(backend: Backend, seed: int, exponent: int) -> None:
    """Whatever the scaling of the columns, which partial pivoting does not see."""
    scale = 10.0 ** np.linspace(0, exponent, 8)
    A = general_dense(random((4, 8), "float64", seed), 2, 1) * scale
    b = random((8,), "float64", seed + 1)
    ab = backend.array(np.nan_to_num(general_band(A, 2, 1)))
    x = backend.numpy(backend.package.scipy.solve_banded((2, 1), ab, backend.array(b)))
    assert backward_error(A / scale, x * scale, b) <= 32 * EPS["float64"]


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


# --- Derivatives and transformations ---------------------------------------------------------------------------------


def basis(l: int, u: int, n: int) -> np.ndarray:
    """`[d, j]`: the dense matrix of a band that is 1 in that cell, 0 for unused cells."""
    cells = np.eye((l + u + 1) * n).reshape(l + u + 1, n, l + u + 1, n)
    return np.array([[general_dense(cell, l, u) for cell in row] for row in cells])


def banded(backend: Backend, name: str) -> Any:
    """A real function of reals `(2, 3, 5)` and `(2, 5)`: of a complex band, in upper form or l = u = 1, and b."""
    xp, module = backend.xp, backend.package.scipy

    def function(ab: Any, b: Any) -> Any:
        ab, b = ab[0] + 1j * ab[1], b[0] + 1j * b[1]
        if name == "solve_banded":
            return weigh(module.solve_banded((1, 1), ab, b, check_finite=False))
        ab = xp.stack([ab[0], ab[1], ab[2] + 8])
        if name == "solveh_banded":
            return weigh(module.solveh_banded(ab, b, check_finite=False))
        cb = module.cholesky_banded(ab, check_finite=False)
        return weigh(cb) + weigh(module.cho_solve_banded((cb, False), b, check_finite=False))

    return function


def weigh(x: Any) -> Any:
    return (abs(x) ** 2).sum() + (x.real**3 * x.imag).sum()


def dense(name: str) -> Any:
    """The same by torch's dense algebra."""
    cells = torch.tensor(basis(1, 1, 5) if name == "solve_banded" else basis(0, 2, 5), dtype=torch.complex128)

    def function(ab: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ab, b = ab[0] + 1j * ab[1], b[0] + 1j * b[1]
        A = torch.einsum("dj,djik->ik", ab, cells)
        if name == "solve_banded":
            return weigh(torch.linalg.solve(A, b))
        upper = A.triu(1)
        H = upper + upper.mH + torch.diag(A.diagonal().real + 8)
        x = torch.linalg.solve(H, b)
        return weigh(x) if name == "solveh_banded" else weigh(torch.linalg.cholesky(H.conj()).mT) + weigh(x)

    return function


@pytest.mark.parametrize("name", ["solve_banded", "solveh_banded", "cholesky_banded"])
def test_derivatives(backend: Backend, name: str) -> None:
    """Value, gradient and its directional derivative (forward over reverse), of complex bands, in a batch."""
    arrays = [random((2, 2, *shape), "float64", seed) for seed, shape in enumerate([(3, 5), (5,)] * 2)]

    def derivatives(backend: Backend, function: Any) -> list[np.ndarray]:
        gradient = backend.grad(function, (0, 1))

        def one(ab: Any, b: Any, dab: Any, db: Any) -> Any:
            return function(ab, b), backend.jvp(gradient, (ab, b), (dab, db))

        leaves = backend.leaves(backend.jit(backend.vmap(one))(*map(backend.array, arrays)))
        return [backend.numpy(leaf) for leaf in leaves]

    expected = derivatives(BACKENDS["torch"], dense(name))
    assert len(expected) == 5
    for ours, leaf in zip(derivatives(backend, banded(backend, name)), expected, strict=True):
        np.testing.assert_allclose(ours, leaf, rtol=0, atol=1e-10 * np.abs(leaf).max())


@pytest.mark.parametrize("name", ["solve_banded", "solveh_banded", "cholesky_banded"])
def test_autograd_without_functorch(name: str) -> None:
    """torch's own checks: plain autograd, forward mode and twice."""
    point = random((2, 3, 5), "float64"), random((2, 5), "float64", 1)
    BACKENDS["torch"].check_derivatives(banded(BACKENDS["torch"], name), *point)
