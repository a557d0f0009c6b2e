"""How extraction stands in PyTorch's graph: attached where something asks for it, free of it elsewhere."""

import numpy as np
import pytest
import torch
from torch import Tensor

import bandhess_torch as bh
from bandhess_torch.band.stages import Layout
from bandhess_torch.extraction.linearise import linearize_gradient
from bandhess_torch.extraction.probing import direct as _direct
from bandhess_torch.extraction.probing.direct import Cells
from bandhess_torch.extraction.probing.protocol import Kept, make_probes
from bandhess_torch.extraction.products import Extraction

N = 8


def point() -> Tensor:
    return torch.linspace(-1, 2, N, dtype=torch.float64)


def cost(x: Tensor, scale: Tensor) -> Tensor:
    return torch.sum(torch.exp(scale * x[1:] * x[:-1])) + torch.sum(scale * x**4)


def dense(x: Tensor, scale: Tensor) -> Tensor:
    return torch.func.hessian(cost)(x, scale)


def test_argument_that_requires_a_gradient() -> None:
    x = point().requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64)
    value, grad, ab = bh.value_grad_hessian(cost, 1)(x, scale)
    for mine, theirs in ((value, cost(x, scale)), (ab[0].sum(), torch.trace(dense(x, scale)))):
        expected = torch.autograd.grad(theirs, x, retain_graph=True)[0]
        torch.testing.assert_close(torch.autograd.grad(mine, x, retain_graph=True)[0], expected)
    # The gradient's own derivative is the row sums of H.
    torch.testing.assert_close(torch.autograd.grad(grad.sum(), x)[0], dense(x, scale).sum(0))


@pytest.mark.parametrize("how", ["argument", "closure", "module"])
def test_parameter_that_requires_a_gradient(how: str) -> None:
    """The band is attached to it, as torch.func.hessian's result would be; x itself needs no gradient."""
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    if how == "argument":
        ab = bh.hessian(cost, 1)(point(), scale)
    elif how == "closure":
        ab = bh.hessian(lambda x: cost(x, scale), 1)(point())
    else:
        layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        scale = layer.weight
        ab = bh.hessian(lambda x: cost(x, layer(torch.ones(1, dtype=torch.float64))[0]), 1)(point())
    expected = torch.autograd.grad(torch.trace(dense(point(), scale.reshape(()))), scale)[0]
    torch.testing.assert_close(torch.autograd.grad(ab[0].sum(), scale)[0], expected)


def test_nothing_is_attached_without_need() -> None:
    scale = torch.tensor(0.7, dtype=torch.float64)
    outputs = [*bh.value_grad_hessian(cost, 1)(point(), scale)]
    with torch.no_grad():
        outputs += bh.value_grad_hessian(cost, 1)(point().requires_grad_(), scale.requires_grad_())
    assert not any(output.requires_grad for output in outputs)
    torch.testing.assert_close(outputs[2], outputs[5])


def test_aux_is_as_the_function_gave_it() -> None:
    def with_aux(x: Tensor) -> tuple[Tensor, dict]:
        return cost(x, torch.ones((), dtype=x.dtype)), {"twice": 2 * x, "name": "cost"}

    ab, aux = bh.hessian(with_aux, 1, has_aux=True)(point())
    assert ab.shape == (2, N)
    assert aux["name"] == "cost"
    assert not aux["twice"].requires_grad
    torch.testing.assert_close(aux["twice"], 2 * point())


@pytest.mark.parametrize("fun", [lambda x: x.sum(), lambda x: torch.ones((), dtype=x.dtype), lambda x: x[0] * 3])
def test_functions_without_curvature(fun) -> None:
    value, grad, ab = bh.value_grad_hessian(fun, 1)(point())
    assert float(value) == float(fun(point()))
    torch.testing.assert_close(grad, torch.func.grad(fun)(point()))
    torch.testing.assert_close(ab, torch.zeros(2, N, dtype=torch.float64), rtol=0, atol=0)


def test_a_parameter_alone_is_a_function_too() -> None:
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value, _, ab = bh.value_grad_hessian(lambda x: scale, 1)(point())
    assert float(torch.autograd.grad(value, scale)[0]) == 1
    torch.testing.assert_close(ab, torch.zeros(2, N, dtype=torch.float64), rtol=0, atol=0)


def test_probes_may_be_written_to() -> None:
    """The library's own share memory; a user's matvec gets some of its own."""
    for chunk_size in (None, 1):
        ab = bh.from_matvec(lambda v: v.mul_(3), point(), 1, chunk_size=chunk_size)
        np.testing.assert_array_equal(ab, [[3] * N, [0] * N])


@pytest.mark.parametrize("probing", ["direct", "substitution", "fourier"])
def test_products_may_share_a_buffer(probing: str) -> None:
    h, buffer = torch.diag(torch.arange(1.0, N + 1)) + torch.diag(torch.ones(N - 1), 1), torch.empty(N)
    h = h + torch.diag(torch.ones(N - 1), -1)
    ab = bh.from_matvec(lambda v: torch.mv(h, v, out=buffer), torch.zeros(N), 1, probing=probing, chunk_size=1)
    torch.testing.assert_close(ab, bh.from_dense(h, 1))


def test_decode_leaves_what_it_reads() -> None:
    kept = torch.arange(1.0, 17).reshape(4, 4, 1)
    before = kept.clone()
    bh.Direct().decode(kept, 2, 2, 1)
    torch.testing.assert_close(kept, before, rtol=0, atol=0)


def test_inference_mode_is_refused() -> None:
    """Where autograd records nothing, and all curvature would be 0."""
    attempts = (
        lambda x: bh.hessian(lambda x: torch.sum(x**3), 0)(x),
        lambda x: bh.gauss_newton(lambda x: x**3, 0)(x),
        lambda x: bh.newton(lambda x: torch.sum(x**4), x, 0),
        lambda x: bh.sqp(lambda x: torch.sum(x**4), None, x, 0),
    )
    for attempt in attempts:
        with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
            attempt(point())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_without_lapack_are_refused(dtype: torch.dtype) -> None:
    ab, b = torch.ones(2, 4, dtype=dtype), torch.ones(4, dtype=dtype)
    for attempt in (lambda: bh.cholesky(ab), lambda: bh.solve(ab, b), lambda: bh.cho_solve(ab, b)):
        with pytest.raises(TypeError, match=f"take float32 and float64, got {dtype}"):
            attempt()


def test_batches_count_what_the_function_holds() -> None:
    """As many probes at a time as stay in cache, whether it is the argument that is long or what is made of it."""
    x = torch.ones(12_000, dtype=torch.float64)
    for width, batches in ((1, [3]), (64, [1, 1, 1])):
        sizes = torch.linspace(1, 2, width, dtype=x.dtype)
        _, product, _ = linearize_gradient(lambda x, sizes=sizes: (torch.sin(x[:, None] * sizes).sum(), None), x)
        parts = Extraction.of(1, "direct", "auto").batches(3, Layout.of(x), product)
        assert [len(part) for part in parts] == batches


def test_inside_forward_mode() -> None:
    """A dual argument's tangent passes through, as it does through torch.func.jvp."""
    x, v, scale = point(), torch.cos(point()), torch.tensor(0.7, dtype=torch.float64)
    _, expected = torch.func.jvp(lambda x: bh.hessian(cost, 1)(x, scale), (x,), (v,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        tangent = torch.autograd.forward_ad.unpack_dual(bh.hessian(cost, 1)(dual, scale)).tangent
    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("probing", [bh.Direct(), bh.Substitution()], ids=["direct", "substitution"])
def test_batches_of_probes_are_the_single_ones(probing) -> None:
    T, d, k = 7, 2, 1
    count = probing.count(T, d, k)
    for colours in (range(count), range(1, count - 1), range(2, 3)):
        probes = make_probes(probing, colours, T, d, k, point())
        stage = np.arange(T * d) % count
        np.testing.assert_array_equal(probes, [stage == c for c in colours])


@pytest.mark.parametrize("short", [0, 10**6], ids=["long", "short"])
@pytest.mark.parametrize(
    ("T", "d", "k"), [(1, 1, 0), (5, 1, 0), (4, 1, 3), (11, 1, 2), (12, 1, 2), (29, 2, 1), (10, 3, 2)]
)
def test_cells_are_what_keep_and_decode_give(monkeypatch, short: int, T: int, d: int, k: int) -> None:
    """Direct probing's way of its own through the products, in batches of colours, against that of any probing."""
    monkeypatch.setattr(_direct, "SHORT", short)
    direct, n = bh.Direct(), T * d
    count = direct.count(T, d, k)
    Y = torch.arange(1.0, 1 + count * n, dtype=torch.float64).reshape(count, n)
    kept, expected = Kept(direct, T, d, k), torch.zeros((k + 1) * d, n, dtype=torch.float64)
    kept.add(range(count), Y)
    for r in range((k + 1) * d):  # the definition
        for j in range(n - r):
            if j % d + r < (k + 1) * d:
                expected[r, j] = Y[j % count, j + r]
    torch.testing.assert_close(kept.band()[0], expected, rtol=0, atol=0)
    for step in {1, 2, count}:
        cells = Cells(T, d, k)
        for first in range(0, count, step):
            colours = range(first, min(first + step, count))
            cells.add(colours, Y[colours.start : colours.stop])
        torch.testing.assert_close(cells.band()[0], expected, rtol=0, atol=0)
