"""What PyTorch's extraction makes of diagonals: which objectives it carries, and which it probes."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from carrying_torch import C, N, carried, coefficients
from oracles import store
from torch import Tensor, nn
from torch.nn.functional import pad

import bandhess_torch as bh
from bandhess_torch.extraction import products
from bandhess_torch.extraction.diagonals import carry


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Diagonals are tried however short x is: which attempts were successful."""
    seen: list[bool] = []

    def spy(*args: Any) -> Tensor | None:
        ab = carry(*args)
        seen.append(ab is not None)
        return ab

    monkeypatch.setattr(products, "LONG", 0)
    monkeypatch.setattr(products, "carry", spy)
    return seen


def dense(f: Callable[[Tensor], Tensor], x: Tensor, k: int) -> np.ndarray:
    """Row by row: torch.func.hessian warns where it has no batching rule."""
    h = torch.autograd.functional.hessian(f, x).reshape(x.numel(), x.numel())  # type: ignore[no-untyped-call]
    return store(h.numpy(), k)


LINEAR = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double().requires_grad_(False)
for i, parameter in enumerate(LINEAR.parameters()):
    parameter.copy_(coefficients(parameter.shape, i))
TARGET, STAGE = coefficients((N,), 5), coefficients((2, 2), 6)

# (function, bandwidth, whether x is (6, 2), and else (12,))
CARRIED: dict[str, tuple[Callable[[Tensor], Tensor], int, bool]] = {
    "steps": (lambda x: torch.sum(torch.sin(x[::2] * x[1::2])) + torch.sum(x[1::3] ** 3 * x[2::3]), 1, False),
    "stack": (lambda x: torch.sum(torch.stack([x[1:], x[:-1], x[1:] * x[:-1]], 1) ** 3), 1, False),
    "cat": (lambda x: torch.sum(torch.sin(torch.cat([x[3:], x[:1], torch.zeros(2)]) * x) * TARGET), 11, False),
    "diff": (lambda x: torch.sum(torch.diff(x, 2) ** 4), 2, False),
    "pad": (lambda x: torch.sum(pad(x, (1, 0)) ** 2 * pad(x, (0, 1))), 1, False),
    "unfold": (lambda x: torch.sum(torch.sin(x.unfold(0, 3, 1) @ TARGET[:3]) ** 2), 2, False),
    "roll": (lambda x: torch.sum(x.roll(1)[1:] ** 2 * x[1:]), 1, False),
    "flip": (lambda x: torch.sum(torch.sin(x.flip(0)[1:] * x.flip(0)[:-1]) * TARGET[1:]), 1, False),
    "split": (lambda x: sum(torch.sum(p[1:] * p[:-1] ** 2) for p in x.split([5, 7])), 1, False),
    "where": (lambda x: torch.sum(torch.where(x > 0, x**3, torch.sin(x))[1:] * x[:-1]), 1, False),
    "relu": (lambda x: torch.sum(torch.relu(x[1:] * x[:-1]) ** 2), 1, False),
    "sigmoid": (lambda x: torch.sum(torch.sigmoid(x[1:] - 2 * x[:-1]) ** 2), 1, False),
    "tanh": (lambda x: torch.sum(torch.tanh(x[1:] - 2 * x[:-1]) ** 2), 1, False),
    "maximum": (lambda x: torch.sum(torch.maximum(x[1:] ** 2, x[:-1] ** 3)), 1, False),
    "norm": (lambda x: torch.sum(torch.linalg.norm(x[1:] - x[:-1], dim=1) * x[1:, 0]), 1, True),
    "mse_loss": (lambda x: nn.functional.mse_loss(torch.sin(x[1:]), x[:-1] ** 2), 1, False),
    "huber_loss": (lambda x: nn.functional.huber_loss(torch.sin(x[1:]) * x[:-1], TARGET[1:]), 1, False),
    "einsum": (lambda x: torch.einsum("ti,ij,tj->", torch.sin(x[1:]), STAGE, x[:-1] ** 2), 1, True),
    "matmul": (lambda x: torch.sum((x[1:] - torch.sin(x[:-1] @ STAGE.T)) ** 2), 1, True),
    "bmm": (lambda x: torch.sum(torch.bmm(coefficients((5, 2, 2)), x[1:, :, None])[..., 0] ** 2 * x[:-1]), 1, True),
    "linear": (lambda x: torch.sum(LINEAR(x.unfold(0, 3, 1)) ** 2), 2, False),
    "by truth": (lambda x: torch.sum((x * (x > 0))[1:] ** 2 * x[:-1] / torch.arange(3, 14)), 1, False),
}  # fmt: skip
PROBED: dict[str, tuple[Callable[[Tensor], Tensor], int, bool]] = {
    "cumsum": (lambda x: torch.sum((torch.cumsum(x, 0) * TARGET) ** 2), 11, False),
    "index": (lambda x: torch.sum(x[torch.tensor([0, 1, 1, 3, 2])] ** 3) + torch.sum(x[1:] ** 2 * x[:-1]), 1, False),
    "conv1d": (lambda x: torch.sum(nn.functional.conv1d(x[None, None], TARGET[None, None, :3]) ** 4), 2, False),
    "complex": (lambda x: torch.sum(torch.abs(torch.exp(1j * x[1:]) - x[:-1]) ** 2), 1, False),
}


@pytest.mark.parametrize("name", CARRIED | PROBED)
def test_objective(name: str, taken: list[bool]) -> None:
    f, k, stages = (CARRIED | PROBED)[name]
    x = coefficients((N,)).reshape(6, 2) if stages else coefficients((N,))
    ab = bh.hessian(f, k)(x)
    np.testing.assert_allclose(ab, dense(f, x, len(ab) - 1), rtol=1e-12, atol=1e-12)
    assert taken == [name in CARRIED]


def test_trees_with_ragged_leaves(taken: list[bool]) -> None:
    z = {"q": coefficients((5, 2)), "u": coefficients((4,), 1)}

    def cost(z: Any) -> Tensor:
        q, u = z["q"], z["u"]
        return torch.sum(torch.sin(q[1:] - q[:-1] ** 2 - 0.1 * u[:, None]) ** 2) + torch.sum(u**4)

    ab = bh.hessian(cost, 1)(z)
    assert taken == [True]
    np.testing.assert_allclose(ab, bh.hessian(cost, 1, probing="substitution")(z), rtol=1e-12, atol=1e-13)
    assert bh.band_error(cost)(ab, z) < 1e-12


def window(x: Tensor) -> Tensor:
    """Half-bandwidth 3."""
    return torch.sum(torch.sin(x[3:] * x[1:-2] + 2 * x[:-3]) ** 2)


class Twice(bh.Direct):
    """A probing of the user's own, which shows itself."""

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        return 2 * super().decode(kept, T, d, k)


def test_single_precision(taken: list[bool]) -> None:
    x = coefficients((N,)).float()
    double = torch.tensor(2.0, dtype=torch.float64)  # without axes: no conversion
    for f in (window, lambda x: window(x * double) / double):
        ab = bh.hessian(f, 3)(x)
        assert ab.dtype == torch.float32
        np.testing.assert_allclose(ab, bh.hessian(f, 3)(x.double()), rtol=1e-4, atol=1e-4)
    assert all(taken)
    np.testing.assert_allclose(
        bh.hessian(lambda x: window(x * C), 3)(x), dense(lambda x: window(x * C), x, 3), rtol=1e-5
    )
    assert not taken[-1]  # which converts
    for factor in (C, 1j * C, C.to_sparse()):
        assert carried(lambda v, factor=factor: v * factor, x, 1) is None
    wide = carried(lambda v: v * 1e30 * 1e30, x, 1)
    assert wide is None or torch.isinf(wide).all()


def test_not_a_number_and_infinity_stay_in_their_places(taken: list[bool]) -> None:
    c = torch.arange(1.0, N, dtype=torch.float64)
    c[2], c[5] = torch.nan, torch.inf
    ab = carried(lambda v: pad(c * v[1:], (0, 1)) + pad(c * v[:-1], (1, 0)), C, N)
    assert ab is not None
    np.testing.assert_array_equal(ab[1], [*c, 0])
    assert torch.count_nonzero(ab) == N - 1
    masked = carried(lambda v: torch.where(c.isfinite(), c * v, 0), C[1:], 1)
    np.testing.assert_array_equal(masked, torch.nan_to_num(c, posinf=0)[None])
    assert carried(lambda v: torch.where(C > 0, v * torch.inf, 0), C, 1) is None
    x = torch.where(torch.arange(N) == 4, torch.nan, C)  # what is no number passes a relu
    rectified = lambda x: torch.sum(torch.relu(x) ** 2)  # noqa: E731
    np.testing.assert_array_equal(bh.hessian(rectified, 0)(x), dense(rectified, x, 0))
    assert taken == [True]


def test_long_chains(taken: list[bool]) -> None:
    """Longer than the interpreter's stack."""

    def chain(x: Tensor) -> Tensor:
        y = x
        for i in range(240):
            y = y * (1 + C / (i + 9))
        return torch.sum(y**2)

    np.testing.assert_allclose(bh.hessian(chain, 0)(C), dense(chain, C, 0), rtol=1e-11)
    assert taken == [True]


class Own(torch.autograd.Function):
    """x^3, whose backward keeps what it multiplies with where torch sees no writing."""

    shared = np.zeros(N)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if not x.requires_grad:
            Own.shared[:] = x**2
        return 3 * grad * x**2


def test_own_functions_probe(taken: list[bool]) -> None:
    f = lambda x: torch.sum(Own.apply(x[1:]) * x[:-1])  # noqa: E731
    ab = bh.hessian(f, 1, chunk_size=1)(C)
    np.testing.assert_allclose(ab, dense(lambda x: torch.sum(x[1:] ** 3 * x[:-1]), C, 1), rtol=1e-12)
    assert taken == []


def test_other_probings_and_attached_graphs_probe(taken: list[bool]) -> None:
    ab, weights = bh.hessian(window, 3)(C), coefficients((4, N), 1)
    assert taken == [True]
    np.testing.assert_allclose(bh.hessian(window, 3, probing=Twice())(C), 2 * ab, rtol=1e-12, atol=1e-13)
    for probing in ("substitution", "fourier", "random"):
        np.testing.assert_allclose(bh.hessian(window, 3, probing=probing)(C), ab, rtol=1e-9, atol=1e-9)

    def plain(x: Tensor) -> Tensor:
        h = torch.func.hessian(window)(x)
        return torch.stack([pad(torch.diagonal(h, -r), (0, r)) for r in range(4)])

    x = C.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch.sum(weights * plain(x)), x)
    (third,) = torch.autograd.grad(torch.sum(weights * bh.hessian(window, 3)(x)), x)
    np.testing.assert_allclose(third, expected, rtol=1e-11, atol=1e-12)
    third = torch.func.grad(lambda x: torch.sum(weights * bh.hessian(window, 3)(x)))(C)
    np.testing.assert_allclose(third, expected, rtol=1e-11, atol=1e-12)
    batch = torch.func.vmap(bh.hessian(window, 3))(torch.stack([C, 2 * C]))
    np.testing.assert_allclose(batch[0], ab, rtol=1e-12, atol=1e-13)
    assert taken == [True]
    with torch.no_grad():
        np.testing.assert_array_equal(bh.hessian(window, 3)(x), ab)
    assert taken == [True, True]


def test_too_narrow_a_bandwidth(taken: list[bool]) -> None:
    """As probing has it, folded into the band; `band_error` sees it, entries of another stage's block too."""
    for k in (0, 2):
        ab = bh.hessian(window, k)(C)
        np.testing.assert_allclose(bh.hessian(window, k, probing=Twice())(C), 2 * ab, rtol=1e-12, atol=1e-13)
        assert bh.band_error(window)(ab, C) > 1e-3
    assert not any(taken)

    def neighbours(z: Tensor) -> Tensor:  # one off the diagonal, from stage to stage
        return torch.sum(C[:5] * z[:-1, 1] * z[1:, 0]) + torch.sum(z**2)

    z = C.reshape(6, 2)
    assert bh.band_error(neighbours)(bh.hessian(neighbours, 0)(z), z) > 1e-3
    assert bh.band_error(neighbours)(bh.hessian(neighbours, 1)(z), z) < 1e-12
    assert taken[2:] == [True, True]


def test_nothing_is_kept_alive(taken: list[bool]) -> None:
    gc.collect()
    gc.disable()
    try:
        for f, _k, _ in (CARRIED["relu"], PROBED["index"], PROBED["cumsum"]):
            kept: list[weakref.ref] = []

            def noted(x: Tensor, f: Callable = f, kept: list = kept) -> Tensor:
                y = 2 * x
                y.register_hook(lambda grad: kept.append(weakref.ref(grad)))
                kept.append(weakref.ref(y))
                return f(y)

            bh.hessian(noted, 1)(C)
            assert kept
            assert all(ref() is None for ref in kept)
    finally:
        gc.enable()
    assert len(taken) == 3
