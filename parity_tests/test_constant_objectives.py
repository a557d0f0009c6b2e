"""Objectives that depend on nothing: every point is a minimum."""

from typing import Any

import numpy as np
import pytest
from backends import Backend


def test_a_python_float(backend: Backend) -> None:
    package, x = backend.package, backend.array(np.ones(4))
    for result in (package.newton(lambda x: 1.5, x, 1), package.sqp(lambda x: 1.5, None, x, 1)):
        assert result.status.name == "CONVERGED"
        assert float(result.value) == 1.5
        assert result.value.dtype == x.dtype
        assert float(result.grad_norm) == 0
        np.testing.assert_array_equal(backend.numpy(result.x), np.ones(4))


def test_its_dtype_is_that_of_the_argument(backend: Backend) -> None:
    x = backend.array(np.ones(4), "float32")
    parts = backend.package.value_grad_hessian(lambda x: 1.5, 1)(x)
    assert [str(part.dtype).split(".")[-1] for part in parts] == ["float32"] * 3


def test_constant_residuals(backend: Backend) -> None:
    result = backend.package.newton(
        lambda x: backend.array(np.full(3, 2.0)), backend.array(np.ones(4)), 1, hessian="gauss_newton"
    )
    assert (result.status.name, float(result.value)) == ("CONVERGED", 6.0)


@pytest.mark.parametrize("value", [3, True, None, "0"])
def test_other_values_are_refused(backend: Backend, value: Any) -> None:
    with pytest.raises(TypeError, match="fun must return a"):
        backend.package.newton(lambda x: value, backend.array(np.ones(4)), 1)
