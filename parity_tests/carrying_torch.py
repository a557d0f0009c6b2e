"""Linear programs in PyTorch, and their diagonals beside their columns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandhess_common.diagonals.values import LIMIT
from bandhess_torch.extraction.diagonals import Program, carry
from bandhess_torch.extraction.linearise import linearize_gradient

N = 12
BUDGET = LIMIT


def coefficients(shape: Any, seed: int = 0) -> Tensor:
    """No two alike, of either sign."""
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.uniform(0.5, 2, tuple(shape)) * rng.choice([-1, 1], tuple(shape)))


C = coefficients((N,), 7)


def carried(product: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor | None:
    return carry(Program(product, x.dtype, x.device), len(x), rows, BUDGET)


def assert_carried(product: Callable[[Tensor], Tensor], n: int, may_give_up: bool = False) -> None:
    """Against column by column, by the definition."""
    ab = carried(product, coefficients((n,)), n)
    if ab is None and may_give_up:
        return
    assert ab is not None
    h = torch.stack([product(column) for column in torch.eye(n, dtype=torch.float64)], 1).numpy()
    expected = np.array([[h[j + r, j] if j + r < n else 0 for j in range(n)] for r in range(n)])
    np.testing.assert_allclose(ab, expected, rtol=1e-12, atol=1e-13 * np.max(abs(h), initial=1))


def gram(g: Callable[[Tensor], Tensor], n: int) -> Callable[[Tensor], Tensor]:
    """v -> g^T (D g(v)) by double backward, D with no two entries alike."""
    weights = coefficients(g(torch.zeros(n, dtype=torch.float64)).shape, 1)
    _, product, _ = linearize_gradient(lambda x: (torch.sum(weights * g(x) ** 2) / 2, None), coefficients((n,)))
    return product
