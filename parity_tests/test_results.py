"""Results read well: by name, with what is known, whether they are numbers, batches or traced."""

from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, Backend

from bandhess_common.messages import newton_message, sqp_message
from bandhess_common.status import Status


def kind(backend: Backend, name: str) -> Any:
    return getattr(backend.package, name)


def test_a_result_reads(backend: Backend) -> None:
    x = {"q": backend.array(np.zeros((5, 2))), "u": [backend.array(np.zeros(4))]}
    result = kind(backend, "NewtonResult")(x, backend.array(1.5), backend.array(1e-9), 7, Status.CONVERGED)
    assert result.success is True
    assert result.message.startswith("converged")
    assert str(result).splitlines() == [
        "NewtonResult: CONVERGED after 7 steps",
        "  value            1.5",
        "  grad_norm        1e-09",
        "  x                {'q': float64[5, 2], 'u': [float64[4]]}",
        f"  message          {result.message}",
    ]
    assert repr(result) == str(result)
    worse = result._replace(status=Status.BAND_TOO_NARROW, steps=1)
    assert worse.success is False
    assert "detect_bandwidth" in worse.message
    assert str(worse).startswith("NewtonResult: BAND_TOO_NARROW after 1 step\n")
    sqp = kind(backend, "SQPResult")(x["u"], 1.0, 0.0, 3, Status.INFEASIBLE, None, 0.25)
    assert sqp.success is False
    assert str(sqp).splitlines()[0] == "SQPResult: INFEASIBLE after 3 steps"
    assert [line.split()[:2] for line in str(sqp).splitlines()[3:]] == [
        ["constraint_norm", "0.25"], ["x", "[float64[4]]"], ["message", "the"],
    ]  # fmt: skip


NO_DERIVATIVES = "Derivatives of x and value are NaN"


@pytest.mark.parametrize("status", Status)
def test_the_message_says_why_derivatives_are_nan(status: Status) -> None:
    """Of all ends but two: of constraints outside the band, and of the Hessian, too."""
    solved = status in (Status.CONVERGED, Status.PRECISION_FLOOR)
    texts = [sqp_message(status, outside) for outside in ("", "constraints(x)[0]")]
    if status not in (Status.INFEASIBLE, Status.RANK_DEFICIENT):
        texts.append(newton_message(status))
    assert all((NO_DERIVATIVES in text) != solved for text in texts)


@pytest.mark.parametrize("max_steps", [1, 50])
@pytest.mark.parametrize("name", ["newton", "sqp"])
def test_derivatives_are_nan_where_the_message_says_so(backend: Backend, name: str, max_steps: int) -> None:
    def solve(p: Any) -> Any:
        fun = lambda x, p: ((x[1:] - x[:-1] ** 2) ** 2).sum() + ((x - p) ** 2).sum()  # noqa: E731
        constraints = [lambda x, p: x[:1] - 0.5] if name == "sqp" else []
        return getattr(backend.package, name)(fun, *constraints, start, 1, args=(p,), max_steps=max_steps)

    start, p = backend.array(np.linspace(2.0, 3.0, 5)), backend.array(np.array(2.0))
    slopes = [backend.grad(of)(p) for of in (lambda p: solve(p).value, lambda p: solve(p).x.sum())]
    message = solve(p).message
    assert [bool(np.isnan(backend.numpy(slope))) for slope in slopes] == 2 * [NO_DERIVATIVES in message]
    assert (NO_DERIVATIVES in message) == (max_steps == 1)


@pytest.mark.parametrize("status", set(Status) - {Status.INFEASIBLE, Status.RANK_DEFICIENT})
def test_every_end_of_newton_has_a_message(status: Status, backend: Backend) -> None:
    message = kind(backend, "NewtonResult")(None, 0.0, 0.0, 0, status).message
    assert len(message) > 20


def test_batches(backend: Backend) -> None:
    codes, numbers = backend.array([0, 3, 0], "int32"), backend.array([1.0, 2.0, 3.0])
    result = kind(backend, "NewtonResult")(backend.array(np.zeros((3, 4))), numbers, numbers, codes, codes)
    assert backend.numpy(result.success).tolist() == [True, False, True]
    assert result.message == "CONVERGED 2, STALLED 1"
    assert str(result).splitlines()[:3] == [
        "NewtonResult of 3: CONVERGED 2, STALLED 1",
        "  steps            0 .. 3, shape (3,)",
        "  value            1 .. 3, shape (3,)",
    ]


def test_traced(backend: Backend) -> None:
    """Inside jit and vmap there is no value to show: nothing raises, and success is an array."""
    shown = []

    def inside(status: Any) -> Any:
        result = kind(backend, "NewtonResult")(status, status, status, status, status)
        shown.append((str(result), result.message))
        return result.success

    codes = backend.array([0, 1], "int32")
    found = (backend.jit if backend.name == "jax" else BACKENDS["torch"].vmap)(inside)(codes)
    assert backend.numpy(found).tolist() == [True, False]
    assert shown[0][0].startswith("NewtonResult: traced\n")
    assert shown[0][1] is None
