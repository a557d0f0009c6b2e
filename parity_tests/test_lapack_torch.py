"""PyTorch without the compiled kernels: LAPACK serves, with the same results to rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matrices import break_minor, poisoned, positive_band, rhs
from torch import Tensor

import bandhess_torch as bh
from bandhess_torch.framework import kernels
from bandhess_torch.linalg.lu import solve_general
from bandhess_torch.optimise.newton.subproblem import Query, minimise_model

EPS = np.finfo("float64").eps


def tensors(n: int, w: int, dtype: str = "float64") -> tuple[Tensor, Tensor]:
    ab, b = poisoned(positive_band(n, w)), rhs(n, 3)
    return torch.from_numpy(ab.astype(dtype)), torch.from_numpy(b.astype(dtype))


def general(ab: Tensor, b: Tensor) -> Tensor:
    ab, w = torch.nan_to_num(ab), len(ab) - 1
    return solve_general(torch.cat([ab[1:].flip(0) / 3, ab]), b, w, w)


def triangular(ab: Tensor, b: Tensor) -> Tensor:
    cb = bh.cholesky(ab)
    return bh.solve_triangular(cb, b) + bh.solve_triangular(cb, b, transpose=True)


PROGRAMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "solve": bh.solve,
    "refined": lambda ab, b: bh.solve(ab, b, refine=2),
    "factor": lambda ab, b: bh.factor(ab).solve(b),
    "logdet": lambda ab, b: bh.factor(ab).logdet(),
    "cholesky": lambda ab, b: bh.cholesky(ab),
    "triangular": triangular,
    "ldl": lambda ab, b: bh.ldl(ab),
    "inverse": lambda ab, b: bh.inverse_band(bh.cholesky(ab)),
    "general": general,
    "batch": lambda ab, b: torch.func.vmap(bh.solve)(torch.stack([ab, 2 * ab]), torch.stack([b, b])),
}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def leave() -> None:
        monkeypatch.setattr(kernels, "why_not", lambda: "not built")

    return leave


@pytest.mark.parametrize("w", [0, 1, 3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_results(name: str, w: int, without: Callable[[], None]) -> None:
    ab, b = tensors(17, w)
    compiled = PROGRAMS[name](ab, b)
    assert bh.cpu_kernels() == "compiled"
    without()
    assert bh.cpu_kernels() == "pure: not built"
    plain = PROGRAMS[name](ab, b)
    assert torch.isfinite(plain).all()
    scale = float(compiled.abs().max())
    np.testing.assert_allclose(plain, compiled, rtol=0, atol=64 * EPS * scale)


def test_the_same_failure(without: Callable[[], None]) -> None:
    ab = torch.from_numpy(break_minor(positive_band(9, 2), 5, -1.0))
    for leave in (lambda: None, without):
        leave()
        cb, info = bh.cholesky_ex(ab)
        assert int(info) == 5
        assert torch.isnan(cb).all()
        with pytest.raises(torch.linalg.LinAlgError, match="order 5"):
            bh.solve(ab, ab[0])
        assert not bh.factor(ab).ok


def test_the_same_derivatives(without: Callable[[], None]) -> None:
    ab, b = tensors(9, 2)
    ab = torch.nan_to_num(ab)

    def loss(ab: Tensor) -> Tensor:
        factored = bh.factor(ab)
        return factored.logdet() + (factored.solve(b) ** 2).sum() + (bh.solve(ab, b) ** 3).sum()

    compiled = torch.func.grad(loss)(ab)
    without()
    np.testing.assert_allclose(torch.func.grad(loss)(ab), compiled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("radius", [0.1, 100.0])
def test_the_same_trust_region_step(radius: float, without: Callable[[], None]) -> None:
    ab, b = tensors(17, 2)
    ab = torch.nan_to_num(ab)
    ab[0] -= 3  # indefinite
    query = Query(radius, 0.0, 0.0, 100.0, 1.0, 1e-7, -1.0, False)
    p, answer = minimise_model(b[:, 0].contiguous(), ab, torch.cos(b[:, 1] * 40), query)
    assert answer.found
    without()
    plain, by_lapack = minimise_model(b[:, 0].contiguous(), ab, torch.cos(b[:, 1] * 40), query)
    np.testing.assert_allclose(plain, p, rtol=0, atol=1e-8 * radius)
    np.testing.assert_allclose(np.array(by_lapack), np.array(answer), rtol=1e-7)


def test_other_dtypes_are_refused() -> None:
    ab, b = tensors(5, 1)
    with pytest.raises(TypeError, match="float32 and float64"):
        bh.solve(torch.nan_to_num(ab).half(), b.half())
