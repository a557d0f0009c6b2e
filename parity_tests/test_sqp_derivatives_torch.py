"""Derivatives of a step of `sqp` in PyTorch: windows, rows of the Jacobian and the band, against dense ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bandhess_torch.band.stages import Layout
from bandhess_torch.band.storage import to_dense
from bandhess_torch.extraction.products import Extraction
from bandhess_torch.optimise.sqp import derivatives as room
from bandhess_torch.optimise.sqp.rows import stages_in_window, windows

TREES = {
    "vector": {"x": torch.zeros(7)},
    "stages": {"x": torch.zeros(6, 3)},
    "ragged": {"x": torch.zeros(6, 2), "u": torch.zeros(5)},
    "short": {"x": torch.zeros(2, 2)},
    "one stage": {"x": torch.zeros(1, 3)},
}


def flat(tree: Any) -> Tensor:
    """`(T, d)`, dummies left out as zeros."""
    T = tree["x"].shape[0]
    parts = [tree["x"].reshape(T, -1)]
    if "u" in tree:
        parts.append(torch.cat([tree["u"], tree["u"].new_zeros(1)])[:, None])
    return torch.cat(parts, 1)


def functions(layout: Layout, k: int) -> Callable:
    """f and h = (c, g), whose rows touch up to k + 1 stages, in an order of their own; one is linear, one constant."""

    def of(x: Tensor) -> tuple[Tensor, Tensor]:
        z = flat(layout.unravel(x))
        T = len(z)
        f = (torch.sin(z) * z**2).sum()
        far = min(k, T - 1)
        sums = z.sum(1)
        f = f + (z[: T - far].prod(1) * sums[far:] ** 2).sum()
        own = torch.cos(z).sum(1).flip(0)
        pairs = sums[: T - far] * torch.exp(z[far:, 0]) + z[: T - far, -1] ** 2
        return f, torch.cat([own, z[-1:, 0], pairs.flip(0), 3 * z[0, :1] - 1, z.new_ones(1)])

    return of


def start(layout: Layout) -> Tensor:
    x = torch.tensor(np.random.default_rng(0).uniform(0.3, 1.2, layout.n), dtype=layout.dtype)
    return x * (1 - layout.dummies())


def plan_of(of: Callable, layout: Layout, k: int, check: bool = True, **options: Any) -> room.Plan:
    extraction = Extraction.of(k, options.get("probing", "direct"), options.get("chunk_size", "auto"))
    plan, x = room.Plan(layout, extraction, check), start(layout)
    plan.place(found_windows(plan, of, [x, 1.1 * x]))
    return plan


def found_windows(plan: room.Plan, of: Callable, points: list[Tensor]) -> Tensor:
    products = [room.prepare(room.record(of, x), plan).of_windows for x in points]
    return windows(products, plan.layout, plan.k)


def windows_of(rows: Callable, points: list[Tensor], layout: Layout, k: int) -> Tensor:
    plan = room.Plan(layout, Extraction.of(k, "direct", "auto"), True)
    return found_windows(plan, lambda x: (x.sum(), rows(x)), points)


def dense_rows(rows: Tensor, first: Tensor, n: int) -> Tensor:
    J = rows.new_zeros(len(rows), n)
    for i, (row, column) in enumerate(zip(rows, first.tolist(), strict=True)):
        J[i, column : column + len(row)] = row
    return J


def compare(of: Callable, layout: Layout, plan: room.Plan) -> None:
    x, y, sigma = start(layout), None, 0.7
    first = found_windows(plan, of, [x, 1.1 * x])
    r = len(first)
    y = torch.linspace(-1, 2, r, dtype=layout.dtype)
    found = room.derivatives(room.record(of, x), sigma, y, plan)
    single = layout.dtype == torch.float32
    tolerance = {"rtol": 2e-4 if single else 1e-10, "atol": 2e-4 if single else 1e-11}
    lagrangian = lambda x: sigma * of(x)[0] + y @ of(x)[1]  # noqa: E731
    free = 1 - layout.dummies()
    np.testing.assert_allclose(found.value, of(x)[0], **tolerance)
    np.testing.assert_allclose(found.h, of(x)[1], **tolerance)
    np.testing.assert_allclose(found.grad, torch.func.grad(lagrangian)(x), **tolerance)
    J = torch.func.jacrev(lambda x: of(x)[1])(x)
    np.testing.assert_allclose(dense_rows(found.rows, first, layout.n), J, **tolerance)
    W = torch.func.hessian(lagrangian)(x)
    assert found.band.shape == (plan.width, layout.n)
    np.testing.assert_allclose(to_dense(found.band) * free * free[:, None], W, **tolerance)
    assert (found.narrow, found.outside) == (0, -1)
    assert found.rows.dtype == found.band.dtype == layout.dtype
    without = room.prepared_derivatives(room.prepare(room.record(of, x), plan), sigma, y, plan)
    np.testing.assert_allclose(without.rows, found.rows, **tolerance)
    np.testing.assert_allclose(without.grad, found.grad, **tolerance)
    assert (without.value, without.h.tolist()) == (found.value, found.h.tolist())
    assert not without.band.any()
    assert (without.narrow, without.outside) == (0, -1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("tree", TREES)
def test_against_dense_derivatives(tree: str, k: int, dtype: torch.dtype) -> None:
    layout = Layout.of({name: leaf.to(dtype) for name, leaf in TREES[tree].items()})
    of = functions(layout, k)
    compare(of, layout, plan_of(of, layout, k))


@pytest.mark.parametrize(
    "options", [{"probing": "substitution"}, {"probing": "fourier"}, {"chunk_size": 1}, {"chunk_size": 4}], ids=str
)
def test_other_probes(options: dict) -> None:
    layout = Layout.of({name: leaf.double() for name, leaf in TREES["ragged"].items()})
    of = functions(layout, 1)
    compare(of, layout, plan_of(of, layout, 1, **options))


def test_by_diagonals(monkeypatch: pytest.MonkeyPatch) -> None:
    """On long vectors the Hessian comes without products, the Jacobian by its own."""
    for module in (room, __import__("bandhess_torch.extraction.products", fromlist=["LONG"])):
        monkeypatch.setattr(module, "LONG", 0)
    layout = Layout.of({name: leaf.double() for name, leaf in TREES["stages"].items()})
    of = functions(layout, 1)
    compare(of, layout, plan_of(of, layout, 1))


def test_where_torch_has_no_batches() -> None:
    """A function that looks at values of what is pulled back."""

    class Looks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g if float(g.detach().abs().sum()) >= 0 else 0 * g

    layout = Layout.of({"x": torch.zeros(5, 2, dtype=torch.float64)})
    plain = functions(layout, 1)
    looking = lambda x: plain(Looks.apply(x))  # noqa: E731
    x, y = start(layout), torch.ones(len(plain(start(layout))[1]), dtype=torch.float64)
    for fun in (plain, looking):
        found = room.derivatives(room.record(fun, x), 1.0, y, plan_of(fun, layout, 1))
        expected = room.derivatives(room.record(plain, x), 1.0, y, plan_of(plain, layout, 1))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_few_rows_and_little_graph() -> None:
    """No rows at all; constant and linear functions; an objective without a graph."""
    layout = Layout.of({"x": torch.zeros(4, 2, dtype=torch.float64)})
    one, none = torch.ones((), dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    cases = {
        "no rows": lambda x: ((x**3).sum(), none),
        "all constant": lambda x: (one, torch.ones(3, dtype=torch.float64)),
        "linear": lambda x: (x.sum(), x[1:3] - x[:2]),
        "linear, no rows": lambda x: (x.sum(), none),
        "constant objective": lambda x: (one, x[:4] * x[2:6]),
    }
    for of in cases.values():
        compare(of, layout, plan_of(of, layout, 1))


def test_windows() -> None:
    """The first stage that a row touches, pulled in at the end; far apart, past what one digit holds."""
    T = 300
    layout = Layout.of(torch.zeros(T, 2, dtype=torch.float32))

    def rows(x: Tensor) -> Tensor:
        z = x.reshape(T, 2)
        return torch.stack([z[7, 1] * z[8, 0], z[299, 0], z[0, 1] ** 2, z[150, 0] - z[152, 1], z[296].sum()])

    first = windows_of(rows, [torch.ones(2 * T), torch.ones(2 * T) * 2], layout, 2)
    assert first.dtype == torch.int32
    np.testing.assert_array_equal(first, np.array([7, 297, 0, 150, 296]) * 2)
    assert stages_in_window(layout, 1000) == T


def test_windows_of_rows_that_vanish_in_one_point() -> None:
    layout = Layout.of(torch.zeros(9, dtype=torch.float64))
    rows = lambda x: torch.stack([x[3] * x[4], (x[5] - 1) ** 2 + x[6]])  # noqa: E731
    one = torch.ones(9, dtype=torch.float64)
    first = windows_of(rows, [one, one + 0.1], layout, 1)
    np.testing.assert_array_equal(first, [3, 5])
    np.testing.assert_array_equal(windows_of(rows, [one * np.nan, one + 0.1], layout, 1), [3, 5])


@pytest.mark.parametrize("probing", ["direct", "substitution"])
def test_entries_outside(probing: str) -> None:
    """The Hessian's, and the Jacobian's with the first row that has one; not where the check is off."""
    layout = Layout.of(torch.zeros(12, 2, dtype=torch.float64))

    def of(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[0] * x[6] * x[12], torch.stack([x[0] * x[3], x[8] - x[9]])

    def far(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x**2).sum(), torch.stack([x[0] * x[3], x[8] - x[14], x[2] + x[20]])

    y = torch.ones(3, dtype=torch.float64)
    for fun, expected in ((of, (1, -1)), (far, (2, 1))):
        r = len(fun(start(layout))[1])
        for check in (True, False):
            plan = plan_of(fun, layout, 1, check, probing=probing)
            found = room.derivatives(room.record(fun, start(layout)), 1.0, y[:r], plan)
            assert (found.narrow, found.outside) == (expected if check else (0, -1))
            before = room.prepared_derivatives(room.prepare(room.record(fun, start(layout)), plan), 1.0, y[:r], plan)
            assert (before.narrow, before.outside) == ((2, 1) if check and fun is far else (0, -1))
