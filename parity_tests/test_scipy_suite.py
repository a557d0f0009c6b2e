"""SciPy's own tests, with the drop-ins in their place."""

import inspect
import re
from collections.abc import Iterator
from types import FunctionType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hypothesis import settings
from scipy.linalg.tests import test_basic, test_batch, test_decomp_cholesky
from scipy_cases import NAMES

settings.load_profile("parity")  # SciPy's test modules load their own


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
