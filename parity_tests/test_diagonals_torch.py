"""Diagonals carried through the gradient's graph, without probes. PyTorch alone: JAX's are in test_diagonals.py."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import store
from torch import Tensor, nn
from torch.nn.functional import pad

import bandhess_torch as bh
from bandhess_torch.extraction import hessian as _hessian
from bandhess_torch.extraction.diagonals import rules as _rules
from bandhess_torch.extraction.diagonals import values as _parts
from bandhess_torch.extraction.diagonals import walk as _diagonals
from bandhess_torch.extraction.diagonals.values import Part, Value
from bandhess_torch.extraction.diagonals.walk import Carried, Program, diagonals

aten = torch.ops.aten
MOST = 24  # entries of a value of the random programs: they may then be taken apart along every axis
N = 12


def coefficients(shape: Any, seed: int = 0) -> Tensor:
    """No two alike, of either sign."""
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.uniform(0.5, 2, tuple(shape)) * rng.choice([-1, 1], tuple(shape)))


C = coefficients((N,), 7)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Diagonals are tried however short x is: which attempts were successful."""
    seen: list[bool] = []

    def spy(*args: Any) -> Tensor | None:
        ab = diagonals(*args)
        seen.append(ab is not None)
        return ab

    monkeypatch.setattr(_hessian, "LONG", 0)
    monkeypatch.setattr(_hessian, "diagonals", spy)
    monkeypatch.setattr(_hessian, "_left_to_probing", set())
    return seen


def assert_carried(product: Callable[[Tensor], Tensor], n: int) -> None:
    """Against column by column, by the definition."""
    ab = diagonals(product, coefficients((n,)), n)
    assert ab is not None
    h = torch.stack([product(column) for column in torch.eye(n, dtype=torch.float64)], 1).numpy()
    expected = np.array([[h[j + r, j] if j + r < n else 0 for j in range(n)] for r in range(n)])
    np.testing.assert_allclose(ab, expected, rtol=1e-12, atol=1e-13 * np.max(abs(h), initial=1))


def mixed(g: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """(N,) -> (N,): every entry of g(v), few as they are, with a weight of its own in the last of the result."""

    def product(v: Tensor) -> Tensor:
        flat = g(v).reshape(1, -1)
        return (flat @ coefficients((flat.shape[1], N), 1))[0]

    return product


def gram(g: Callable[[Tensor], Tensor], n: int) -> Callable[[Tensor], Tensor]:
    """v -> g^T (D g(v)) by double backward, D with no two entries alike."""
    weights = coefficients(g(torch.zeros(n, dtype=torch.float64)).shape, 1)
    _, product, _ = _hessian.linearize_gradient(
        lambda x: (torch.sum(weights * g(x) ** 2) / 2, None), coefficients((n,))
    )
    return product


def in_place(v: Tensor) -> Tensor:
    a, b = v * 1, torch.sub(v[1:], v[:-1], alpha=3)
    a.add_(v, alpha=2).sub_(C * v).mul_(C).div_(coefficients((N,), 2))
    b.masked_fill_(C[1:] > 0, 0)
    return torch.cat([aten.div_.Scalar(aten.mul_.Scalar(a, 3), 7), b])


# One rule at a time: each maps (12,) to at most 32 numbers.
RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "add, sub": lambda v: torch.add(v[3:], v[:-3], alpha=-2) - 3 * (v[2:-1] - v[0]) + torch.zeros(2, 9).double(),
    "neg, mul, div": lambda v: (-v * C / coefficients((N,)) * C[3] / C[4] / 3)[1:] * coefficients((2, 1)),
    "mul, div of scalars": lambda v: aten.div.Scalar(aten.mul.Scalar(v * C, 5), 3) + v / torch.tensor(7),
    "integers and truth": lambda v: v * (C > 0) + v * (C > -9) / torch.arange(3, 15) + (v * torch.arange(12)) / 3,
    "backward": lambda v: (
        aten.tanh_backward(v, C) + 2 * aten.sigmoid_backward(v, C) - aten.threshold_backward(3 * v, C, 0.7)
    ),
    "where": lambda v: torch.where(C > 0, v, 0) / 3 - torch.where(C[:2, None] > 0, v[3], v * C),
    "where of two": lambda v: torch.where(C[1:] > 0, v[1:], 3 * v[:-1]) + torch.where(C[1:] < 1, 0.0, v[0]) * 0.1,
    "masked_fill": lambda v: v.masked_fill(C > 0, 0) / 3 + v,
    "zeros_like, clone": lambda v: torch.zeros_like(v) + v.clone() + v.detach() + aten.alias.default(2 * v),
    "expand": lambda v: v[:3].reshape(3, 1).expand(2, -1, 4) * coefficients((2, 3, 4)),
    "permute": lambda v: v.reshape(2, 3, 2).permute(-1, 0, 1) * coefficients((2, 2, 3)),
    "transpose": lambda v: v.reshape(2, 3, 2).transpose(-1, -3).flatten() + v.t() + v.reshape(4, 3).t().reshape(-1),
    "slice": lambda v: torch.cat([v[-5:-1:3], v[10:99], v[7:3], v.reshape(3, 4)[::2, 1:-1].flatten(), v[::5]]),
    "slice of gaps": lambda v: aten.slice_backward(v[:7], (22,), 0, 1, 22, 3)[2::2] * coefficients((10,)),
    "select": lambda v: v.reshape(3, 4)[-1] * 2 + v.reshape(3, 4)[:, 1][0] + v[-1],
    "flip": lambda v: v.reshape(3, 4).flip(0, -1) - v.reshape(3, 4).flip(-1) * coefficients((3, 4)),
    "squeeze": lambda v: v.reshape(1, 12, 1).squeeze(-1)[:, 1:].squeeze() - v[:1].reshape(1, 1, 1).squeeze((0, -1)),
    "unsqueeze": lambda v: v[:5].unsqueeze(-1).unsqueeze(0) + v[5:9].unsqueeze(-2),
    "slice_backward": lambda v: aten.slice_backward(v.reshape(3, 4), (3, 9), -1, -8, 2**62, 2),
    "select_backward": lambda v: aten.select_backward(v[:4], (3, 4), 0, -2) - aten.select_backward(v[:3], (3, 4), 1, 3),
    "strides that do not divide": lambda v: aten.slice_backward(v[:5], (12,), 0, 1, 11, 2) + C * v,
    "pad": lambda v: pad(v.reshape(3, 4), (2, -1, -1, 3)) + pad(v[:1].reshape(1, 1), (0, 4, 2, 2)),
    "empty": lambda v: pad(v[3:3].unsqueeze(1).expand(0, 2), (0, 0, 1, 2)) + v[:2],
    "cat": lambda v: torch.cat([v[7:], torch.zeros(2), torch.zeros(0), v[4:5], 2 * v[::2], v[:0]], -1),
    "stack": lambda v: torch.stack([v[2:], torch.zeros(10), 2 * v[:-2]], -1),
    "roll": lambda v: torch.cat([v.roll(3), v.reshape(3, 4).roll((1, -1), (0, -1)).reshape(-1), v.roll(-1, 0)[:5]]),
    "unfold": lambda v: v.unfold(-1, 4, 3) * coefficients((3, 4)) + v.reshape(4, 3).unfold(0, 2, 2).sum((0, 1)).sum(),
    "unfold_backward": lambda v: aten.unfold_backward(v.reshape(3, 4), (12,), -1, 4, 3) * C,
    "unbind": lambda v: (lambda a, b, c: a - 2 * b.flip(0) + 3 * c)(*v.reshape(4, 3).unbind(-1)),
    "sum": lambda v: v.reshape(2, 3, 2).sum((0, -1), True) * coefficients((3, 2)) + v.sum() - v[2].expand(2, 4).sum(1),
    "sum of all": lambda v: (v * C).sum() + v.sum(()) + v.sum(0, True),
    "mm": lambda v: (v.reshape(4, 3)[1:, :2] @ coefficients((2, 3))) + coefficients((3, 4)) @ v.reshape(4, 3),
    "mm of many": lambda v: torch.cat([v[3].expand(1, 10), (C[3] * v[4]).expand(2, 10)]) @ coefficients((10, 3)),
    "mm of masks": lambda v: torch.where(C[0] < 9, v[3], 0).expand(2, 10) @ coefficients((10, 3)),
    "bmm": lambda v: torch.bmm(coefficients((2, 4, 3)), v.reshape(2, 3, 2)) @ coefficients((2, 2, 2)),
    "reshape": lambda v: pad(v.reshape(4, 3), (0, 1, 1, 0)).reshape(2, -1, 1, 10)[..., 1:].reshape(9, 2),
    "reshape across rows": lambda v: v.reshape(6, 2).T.reshape(4, 3) * coefficients((4, 3)) + v.view(4, -1),
    "0-d": lambda v: torch.stack([v[3] - 2 * v[5], (v[4] * C[3]) / C[5], v[2] * torch.tensor(2), v[6].reshape(1)[0]]),
    "in place": in_place,
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    assert_carried(mixed(RULES[name]), N)


def test_every_rule_has_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    class Recorded(dict):
        def get(self, func: Any, default: Any = None) -> Any:
            asked.add(func)
            return super().get(func, default)

    monkeypatch.setattr(_diagonals, "OPERATIONS", Recorded(_rules.OPERATIONS))
    for g in RULES.values():
        assert diagonals(mixed(g), C, N) is not None
    # What only the engine asks for, or another version of torch.
    others = {aten.is_same_size.default, aten.t.default, aten.reshape.default, aten.div.Scalar}
    assert _rules.OPERATIONS.keys() == asked | others


def test_the_definition() -> None:
    """value[i] = sum of part[i] v[o + strides . i] over the parts, entry by entry."""
    value = Value((N,), (1,), C.dtype, {(0, ((0, N, 1),)): Part(1.0, None)})
    v = torch.as_tensor(coefficients((N,), 3))

    def program(v: Tensor) -> Tensor:  # every other row from the back; (2, 3), padded with gaps
        grid = coefficients((4, 3), 2) * v.reshape(4, 3)
        return pad(grid.flip(0)[::2] / 3 + 2 * grid[:2], (1, 2)).unsqueeze(1)

    assert_carried(lambda v: 2 * v + pad(3 * v[1:] - v[:-1] / 4, (1, 0)), N)  # no arrays
    out, expected = program(Carried(value, Program(C))).value, program(v)
    got = torch.zeros(out.shape, dtype=C.dtype)
    assert got.shape == expected.shape
    for (o, grid), (scale, array) in out.parts.items():
        ones = torch.ones(_parts.sizes_of(grid)) if array is None else _parts.formed(array)
        for where in np.ndindex(*ones.shape):
            i = tuple(start + step * k for (start, _, step), k in zip(grid, where, strict=True))
            at = o + sum(stride * k for stride, k in zip(out.strides, i, strict=True))
            assert 0 <= at < N
            got[i] += scale * ones[where] * v[at]
    np.testing.assert_allclose(got, expected, rtol=1e-13)


# Of (100,): too long to be taken apart entry by entry, so that grids stay grids.
LONG: dict[str, Callable[[Tensor], Tensor]] = {
    "gaps": lambda x: aten.slice_backward(x[1::4], (99,), 0, 1, 99, 4)[3:98:6],
    "gaps, reversed": lambda x: aten.slice_backward(x[::2], (103,), 0, 2, 102, 2).flip(0) * coefficients((103,)),
    "crop": lambda x: pad(2 * x, (5, -3)) + pad(x, (0, 2)),
    "stages": lambda x: x.view(50, 2)[1:] @ coefficients((2, 2)) - x.view(50, 2)[:-1].T.flip(0).T,
    "windows": lambda x: x.unfold(0, 4, 2) @ coefficients((4, 3)),
    "steps": lambda x: torch.stack([x[1::3] * x[::3][:33], x[2::3]], 1) @ coefficients((2, 2)),
}


@pytest.mark.parametrize("name", LONG)
def test_long_rule(name: str) -> None:
    assert_carried(gram(LONG[name], 100), 100)


# --- Random programs: (value, random numbers) -> value ---------------------------------------------------------------


def _shape(size: int, rng: Any) -> list[int]:
    """Some factors of a size, and ones."""
    out = [1] * int(rng.integers(2))
    while size > 1:
        out.append(int(rng.choice([f for f in range(2, size + 1) if size % f == 0])))
        size //= out[-1]
    return [*out, *[1] * int(rng.integers(2))]


def _axis(x: Tensor, rng: Any) -> int:
    return int(rng.integers(-x.ndim, x.ndim))


def _scaled(x: Tensor, rng: Any) -> Tensor:
    return x * coefficients([d if rng.integers(3) else 1 for d in x.shape], int(rng.integers(99)))


def _sliced(x: Tensor, rng: Any) -> Tensor:
    return x[tuple(slice(int(rng.integers(d)), None, int(rng.integers(1, 4))) for d in x.shape)]


def _joined(x: Tensor, rng: Any) -> Tensor:
    cases = [x, torch.zeros_like(x), _scaled(x, rng), 3 * x]
    picked = [cases[i] for i in rng.permutation(4)[: rng.integers(2, 4)]]
    return (torch.stack if rng.integers(2) else torch.cat)([x, *picked], _axis(x, rng))


def _windows(x: Tensor, rng: Any) -> Tensor:
    axis = _axis(x, rng)
    return x.unfold(axis, int(rng.integers(1, x.shape[axis] + 1)), int(rng.integers(1, 4)))


def _mixed(x: Tensor, rng: Any) -> Tensor:
    x = x.movedim(_axis(x, rng), -1)
    return x @ coefficients((x.shape[-1], int(rng.integers(1, 3))), 4)


OPERATIONS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "scale": _scaled,
    "divide": lambda x, rng: -x / _scaled(torch.ones_like(x), rng),
    "square": lambda x, rng: x**2 + 2 * x,
    "tanh": lambda x, rng: torch.tanh(x) + torch.relu(_scaled(x, rng)),
    "slice": _sliced,
    "pad": lambda x, rng: pad(x, [int(rng.integers(3)) for _ in range(2 * x.ndim)]),
    "flip": lambda x, rng: x.flip([axis for axis in range(x.ndim) if rng.integers(2)]) + 2 * x,
    "roll": lambda x, rng: x.roll(int(rng.integers(9)), _axis(x, rng)),
    "permute": lambda x, rng: x.permute([int(i) for i in rng.permutation(x.ndim)]),
    "reshape": lambda x, rng: x.reshape(_shape(x.numel(), rng)),
    "expand": lambda x, rng: x.expand(2, *x.shape) - x.unsqueeze(0),
    "sum": lambda x, rng: x.sum(_axis(x, rng), bool(rng.integers(2))),
    "squeeze": lambda x, rng: x.squeeze(),
    "join": _joined,
    "unbind": lambda x, rng: sum((k + 2) * row for k, row in enumerate(x.unbind(_axis(x, rng)))),
    "unfold": _windows,
    "where": lambda x, rng: torch.where(torch.as_tensor(rng.integers(0, 2, x.shape)) > 0, x, _scaled(x, rng)),
    "matmul": _mixed,
}
steps = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 999)), min_size=3, max_size=8)


@settings(max_examples=100)
@given(n=st.sampled_from([1, 2, 3, 5, 7]), steps=steps)
def test_random_programs(n: int, steps: list[tuple[str, int]]) -> None:
    def g(x: Tensor) -> Tensor:
        for name, seed in steps:
            after = OPERATIONS[name](torch.atleast_1d(x), np.random.default_rng(seed))
            x = after if 0 < after.numel() <= MOST and after.ndim < 5 else x
        return x

    assert_carried(gram(g, n), n)


# --- Objectives ------------------------------------------------------------------------------------------------------


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


# --- Types and what is no number -------------------------------------------------------------------------------------


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
        assert diagonals(lambda v, factor=factor: v * factor, x, 1) is None
    wide = diagonals(lambda v: v * 1e30 * 1e30, x, 1)
    assert wide is None or torch.isinf(wide).all()


def test_saturated_units_round_as_torch_has_it() -> None:
    ones, out = torch.ones(N, dtype=C.dtype), torch.tanh(7 + C)
    ab = diagonals(lambda v: aten.tanh_backward(v, out), C, 1)
    np.testing.assert_array_equal(ab, aten.tanh_backward(ones, out)[None])
    ab = diagonals(lambda v: aten.sigmoid_backward(v, out), C, 1)
    np.testing.assert_array_equal(ab, aten.sigmoid_backward(ones, out)[None])


def test_not_a_number_and_infinity_stay_in_their_places(taken: list[bool]) -> None:
    c = torch.arange(1.0, N, dtype=torch.float64)
    c[2], c[5] = torch.nan, torch.inf
    ab = diagonals(lambda v: pad(c * v[1:], (0, 1)) + pad(c * v[:-1], (1, 0)), C, N)
    assert ab is not None
    np.testing.assert_array_equal(ab[1], [*c, 0])
    assert torch.count_nonzero(ab) == N - 1
    masked = diagonals(lambda v: torch.where(c.isfinite(), c * v, 0), C[1:], 1)
    np.testing.assert_array_equal(masked, torch.nan_to_num(c, posinf=0)[None])
    assert diagonals(lambda v: torch.where(C > 0, v * torch.inf, 0), C, 1) is None
    x = torch.where(torch.arange(N) == 4, torch.nan, C)  # what is no number passes a relu
    rectified = lambda x: torch.sum(torch.relu(x) ** 2)  # noqa: E731
    np.testing.assert_array_equal(bh.hessian(rectified, 0)(x), dense(rectified, x, 0))
    assert taken == [True]


# --- What is left to probing -----------------------------------------------------------------------------------------


def test_what_is_no_product_or_not_seen() -> None:
    buffer = C.clone()

    def scratch(v: Tensor) -> Tensor:
        out = v * buffer
        buffer.mul_(2)
        return out + v * buffer

    def through_a_view(v: Tensor) -> Tensor:
        v = v * 1
        v[1:].mul_(2)
        return v

    programs = [scratch, through_a_view]
    programs += [lambda v: v * v, lambda v: 1 / v, lambda v: torch.where(v > 0, v, 2 * v), lambda v: v.float()]
    programs += [lambda v: C, lambda v: v.masked_fill(C > 0, 3.0), lambda v: pad(v[1:], (1, 0), value=1.0)]
    programs += [lambda v: torch.sum(v, dtype=torch.float32) * C, lambda v: torch.as_tensor(v.numpy()), lambda v: v / 0]
    for program in programs:
        assert diagonals(program, C, N) is None


VIEWS: list[Callable[[Tensor], Any]] = [
    lambda v: v[1:], lambda v: v[0, :1], lambda v: v.expand(2, 2, 6), lambda v: v.permute(1, 0), lambda v: v.t(),
    lambda v: v.transpose(0, 1), lambda v: v.squeeze(), lambda v: v.squeeze(0), lambda v: v.squeeze((0, 1)),
    lambda v: v.unsqueeze(0), lambda v: v.unbind(), lambda v: v.unfold(1, 2, 1), lambda v: v.view(-1),
    lambda v: v.reshape(-1), lambda v: v.detach(), aten.alias.default,
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_written_under_a_view(view: Callable[[Tensor], Any]) -> None:
    def program(v: Tensor, copied: bool) -> Tensor:
        v = v.reshape(2, 6) * 1
        view(v.clone() if copied else v)
        return v.mul_(2).reshape(-1)

    assert diagonals(lambda v: program(v, True), C, N) is not None
    assert diagonals(lambda v: program(v, False), C, N) is None


def test_axes_too_long_to_be_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over all of v is n diagonals: unrolled where it is short, and no program of many thousands of parts."""
    for n in (_parts.SHORT, _parts.SHORT + 1, 500):
        c = coefficients((n,))
        ab = diagonals(lambda v, c=c: c * torch.sum(c * v), c, n)
        assert (ab is None) == (n > _parts.SHORT)
    pieces, apart = [], _parts.apart
    monkeypatch.setattr(_parts, "apart", lambda *args: (pieces.append(1) or each for each in apart(*args)))
    c = coefficients((32**3,))
    assert diagonals(lambda v: torch.sum(v.reshape(32, 32, 32)) * c, c, 1) is None
    assert 0 < len(pieces) < 2 * _parts.LIMIT
    assert diagonals(lambda v: c * v.reshape(32, 32, 32).permute(2, 1, 0).reshape(-1), c, 1) is None
    assert len(pieces) < 4 * _parts.LIMIT


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


def test_tried_once(taken: list[bool]) -> None:
    f, k, _ = PROBED["cumsum"]
    for scale in (1, 2, 3):
        np.testing.assert_allclose(bh.hessian(f, k)(scale * C), dense(f, C, k), rtol=1e-12)
    assert taken == [False]
    bh.hessian(window, 1)(C)  # of another graph; too narrow
    bh.hessian(window, 1)(C)
    bh.hessian(window, 3)(C)
    assert taken == [False, False, True]


# --- The extraction --------------------------------------------------------------------------------------------------


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
