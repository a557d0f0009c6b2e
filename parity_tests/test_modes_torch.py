"""What PyTorch lets a user switch on or hand over: anomaly detection, writes in place, tensors whose sign is pending, a
default dtype of another precision."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bandhess_torch as bh
from bandhess_torch.framework.autograd import Pullback

N = 12


def array(*shape: int, seed: int = 0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape))


def cost(x: Tensor, p: Tensor | float = 1.0) -> Tensor:
    return ((x[1:] - p * x[:-1]) ** 2).sum() + (x**4).sum() - (p * x).sum()


X = array(N)
AB = torch.stack([array(N) + 4, array(N, seed=1), array(N, seed=2)])


def dense_band(fun: Callable[[Tensor], Tensor], x: Tensor, w: int) -> Tensor:
    return bh.from_dense(torch.func.hessian(fun)(x), w)


# --- Anomaly detection ------------------------------------------------------------------------------------------------


@pytest.fixture
def anomalies() -> Iterator[None]:
    """On, and silent but for what happens in the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = torch.autograd.detect_anomaly()
    with mode:
        yield


ANYWHERE: dict[str, Callable[[], Any]] = {
    "hessian": lambda: bh.hessian(cost, 1)(X),
    "hessian, long": lambda: bh.hessian(cost, 1)(array(2**13)),
    "hessian, all at once": lambda: bh.hessian(cost, 1, chunk_size=None)(X),
    "gauss_newton": lambda: bh.gauss_newton(lambda x: x[1:] ** 2 - x[:-1], 1)(X),
    "detect_bandwidth": lambda: torch.tensor(bh.detect_bandwidth(cost)(X)),
    "newton": lambda: bh.newton(cost, X, 1).x,
    "sqp": lambda: bh.sqp(cost, lambda x: x[:2] - 1, X, 1).x,
    "solve": lambda: bh.solve(AB, X),
    "vmap": lambda: torch.func.vmap(bh.hessian(cost, 1))(torch.stack([X, X])),
}


@pytest.mark.parametrize("name", ANYWHERE)
def test_anomaly_detection_changes_nothing(name: str, anomalies: None) -> None:
    found = ANYWHERE[name]()
    with torch.autograd.set_detect_anomaly(False):
        torch.testing.assert_close(found, ANYWHERE[name]())


def test_anomalies_are_still_found(anomalies: None) -> None:
    """One after the other, the products are looked at as any other backward pass is."""
    with pytest.warns(UserWarning, match="Error detected in"), pytest.raises(RuntimeError, match="returned nan values"):
        bh.hessian(lambda x: torch.sum(torch.where(x > 0, x, 0).sqrt() ** 3), 0)(X - 1)


def test_products_of_a_graph_are_formed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    product = Pullback.__call__

    def counted(self: Pullback, v: Tensor) -> Tensor:
        shapes.append(tuple(v.shape))
        return product(self, v)

    monkeypatch.setattr(Pullback, "__call__", counted)
    bh.hessian(cost, 1)(X)
    assert shapes == [(3, len(X))]


# --- Writes in place --------------------------------------------------------------------------------------------------


def into_a_strided_clone(x: Tensor) -> Tensor:
    y = x[3:9:3].clone()
    y[0:1] *= 1.5
    return (y**3).sum() + cost(x)


def into_a_column(x: Tensor) -> Tensor:
    y = x.reshape(-1, 2).T.clone()
    y[1] *= x[::2]
    return (y**2).sum() + cost(x)


@pytest.mark.parametrize("chunk_size", ["auto", None, 2, 1])
@pytest.mark.parametrize("fun", [into_a_strided_clone, into_a_column])
def test_writes_into_clones(fun: Callable, chunk_size: Any) -> None:
    torch.testing.assert_close(bh.hessian(fun, 1, chunk_size=chunk_size)(X), dense_band(fun, X, 1))
    assert bh.newton(fun, X, 1, chunk_size=chunk_size).status == bh.Status.CONVERGED


def test_a_product_that_vmap_refuses_is_formed_one_by_one() -> None:
    calls = []

    def product(v: Tensor) -> Tensor:
        calls.append(v.sum().item())  # which vmap does not allow
        out = memory
        out.copy_(bh.matvec(AB, v))
        v.zero_()
        return out

    memory = torch.empty_like(X)
    torch.testing.assert_close(bh.from_matvec(product, X, 2), bh.from_dense(bh.to_dense(AB), 2))
    assert len(calls) == 5


def test_the_product_s_own_error_is_raised() -> None:
    def product(v: Tensor) -> Tensor:
        raise RuntimeError("of the user's own")

    with pytest.raises(RuntimeError, match="of the user's own"):
        bh.from_matvec(product, X, 2)


# --- Signs and conjugates that are pending ----------------------------------------------------------------------------


def pending(x: Tensor) -> Tensor:
    """x as a view whose numbers stand in memory with the other sign."""
    y = torch.complex(x, -x).conj().imag
    assert y.is_neg()
    return y


LINEAR: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "solve": bh.solve,
    "solve, refined": lambda ab, b: bh.solve(ab, b, refine=1),
    "cholesky": lambda ab, b: bh.cholesky(ab),
    "cholesky_ex": lambda ab, b: bh.cholesky_ex(ab)[0],
    "cho_solve": bh.cho_solve,
    "solve_triangular": bh.solve_triangular,
    "ldl": lambda ab, b: bh.ldl(ab),
    "ldl_solve": bh.ldl_solve,
    "factor": lambda ab, b: bh.factor(ab).solve(b),
    "inverse_band": lambda ab, b: bh.inverse_band(ab),
    "rcond": lambda ab, b: bh.rcond(ab, ab),
    "solveh_banded": lambda ab, b: bh.scipy.solveh_banded(ab, b, lower=True),
    "solve_banded": lambda ab, b: bh.scipy.solve_banded((2, 0), ab, b),
    "ravel_stages": lambda ab, b: bh.ravel_stages([ab.T, b])[0],
    "band_error": lambda ab, b: bh.band_error(cost)(ab, b),
    "hessian": lambda ab, b: bh.hessian(cost, 1)(b),
    "newton": lambda ab, b: bh.newton(cost, b, 1, args=(ab[0].mean(),), scale=b)[:2],
    "sqp": lambda ab, b: bh.sqp(cost, lambda x: x[:1] - 1, b, 1, bounds=(-10 * b, 10 * b)).x,
}


@pytest.mark.parametrize("name", LINEAR)
def test_pending_signs(name: str) -> None:
    torch.testing.assert_close(LINEAR[name](pending(AB), pending(X)), LINEAR[name](AB, X))


@pytest.mark.parametrize("name", ["solve", "cholesky", "cho_solve", "ldl", "solve_banded", "inverse_band"])
def test_pending_signs_of_cotangents(name: str) -> None:
    def pull(through: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        ab, b = AB.clone().requires_grad_(), X.clone().requires_grad_()
        out = through(LINEAR[name](ab, b))
        return torch.autograd.grad((out**3).sum(), (ab, b), allow_unused=True)

    torch.testing.assert_close(pull(pending), pull(lambda out: out))


def test_pending_conjugates() -> None:
    """In SciPy's functions, which take complex bands."""
    ab = torch.complex(AB, torch.cat([torch.zeros_like(AB[:1]), AB[1:] / 2]))
    b = torch.complex(X, X.flip(0))
    for general in (False, True):
        solve = (lambda ab, b: bh.scipy.solve_banded((2, 0), ab, b)) if general else LINEAR["solveh_banded"]
        assert ab.conj().is_conj()
        torch.testing.assert_close(solve(ab.conj(), b.conj()), solve(ab.conj().resolve_conj(), b.conj().resolve_conj()))


# --- A default dtype of another precision -----------------------------------------------------------------------------


@pytest.fixture(params=[torch.float16, torch.float32, torch.bfloat16], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


def bounded() -> Any:
    result = bh.sqp(cost, lambda x: x[:2] * x[1:3] - 1, X, 1, bounds=(0.2, 5.0), inequalities=lambda x: x[4:] - 0.3)
    return result.x, int(result.status), result.steps, result.bound_multipliers, result.inequality_multipliers


def newton_derivative() -> Tensor:
    p = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(bh.newton(cost, X, 1, args=(p,), scale="diagonal").x.sum(), p)[0]


PRECISE: dict[str, Callable[[], Any]] = ANYWHERE | {
    "sqp, bounded": bounded,
    "newton, differentiated": newton_derivative,
    "rcond": lambda: bh.rcond(bh.cholesky(AB), AB),
    "rcond, long": lambda: bh.rcond(bh.cholesky(AB.repeat(1, 100)), AB.repeat(1, 100)),
    "inverse_band": lambda: bh.inverse_band(bh.cholesky(AB)),
    "inertia": lambda: bh.inertia(bh.ldl(AB)),
    "solve, refined": lambda: bh.solve(AB, X, refine=2),
    "to_sparse": lambda: bh.to_sparse(AB).values(),
    "from_matvec, substitution": lambda: bh.from_matvec(lambda v: bh.matvec(AB, v), X, 2, probing="substitution"),
    "from_matvec, fourier": lambda: bh.from_matvec(lambda v: bh.matvec(AB, v), X, 2, probing="fourier"),
    "from_matvec, random": lambda: bh.from_matvec(lambda v: bh.matvec(AB, v), X, 2, probing="random"),
    "scipy": lambda: bh.scipy.solveh_banded(AB.numpy(), X.numpy(), lower=True),
    "scipy, lists": lambda: bh.scipy.solve_banded((0, 0), [[2.0, 3.0]], [1.0, 1.0]),
    "band_error": lambda: bh.band_error(cost)(bh.hessian(cost, 1)(X), X) < 1e-14,
    "constant": lambda: bh.hessian(lambda x: 0.1, 1)(X),
}


@pytest.fixture(scope="module")
def precise() -> dict[str, Any]:
    """In float64, as a default: nothing is lost where it is used by mistake."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return {name: make() for name, make in PRECISE.items()}
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", PRECISE)
def test_the_default_dtype_changes_no_bit(name: str, precise: dict[str, Any], default: None) -> None:
    torch.testing.assert_close(PRECISE[name](), precise[name], rtol=0, atol=0)
