"""`scipy.optimize.minimize` with Newton's method as its `method`."""

import numpy as np
import pytest
import scipy.optimize
from backends import Backend


def chain(x, target=1.0):
    return ((x[1:] - x[:-1]) ** 2).sum() + ((x - target) ** 4).sum() + ((x - target) ** 2).sum()


def test_minimize(backend: Backend) -> None:
    method = backend.package.scipy.newton(1, history=True)
    found = scipy.optimize.minimize(chain, np.zeros(6), args=(2.0,), method=method, tol=1e-6, options={"maxiter": 50})
    assert isinstance(found, scipy.optimize.OptimizeResult)
    assert isinstance(found.x, np.ndarray)
    np.testing.assert_allclose(found.x, 2.0, atol=1e-6)
    assert found.success is True
    assert found.status == 0
    assert found.message.startswith("converged")
    assert found.nit == len(found.history.value) - 1 > 0
    assert found.grad_norm < 1e-5 and found.fun < 1e-10  # noqa: PT018
    one = scipy.optimize.minimize(chain, np.zeros(6), args=(2.0,), method=method, tol=1e-6, options={"maxiter": 1})
    assert (one.nit, one.success, int(one.status)) == (1, False, backend.package.Status.MAX_STEPS)
    assert "max_steps" in one.message


def test_what_does_not_belong_here(backend: Backend) -> None:
    method, x0 = backend.package.scipy.newton(1), np.zeros(6)
    for name, value in (("bounds", [(0, 1)] * 6), ("callback", lambda xk: None)):
        with pytest.raises(ValueError, match=f"{name} is not for this method"):
            scipy.optimize.minimize(chain, x0, method=method, **{name: value})
    with pytest.raises(ValueError, match="constraints is not for this method: bandhess_"):
        scipy.optimize.minimize(chain, x0, method=method, constraints={"type": "eq", "fun": chain})
    with pytest.warns(RuntimeWarning, match="jac is not used"):
        scipy.optimize.minimize(chain, x0, args=(2.0,), method=method, jac=lambda x, target: 2 * x)
