"""The GPU's paths of `factor` and `solve`, forced on a CPU: against LAPACK, dense algebra, and the serial path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from matrices import cleared, lower_factor, poisoned, positive_band, rhs
from oracles import store, unstore
from scipy.linalg import lapack

import bandhess_jax
import bandhess_torch
from bandhess_jax.linalg import partition as jax_partition
from bandhess_torch.linalg import partition as torch_partition

EPS = np.finfo("float64").eps


@pytest.fixture
def forced(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The backend with the partition on every platform."""
    for module in (bandhess_jax.linalg.solve, bandhess_torch.linalg.solve):
        monkeypatch.setattr(module, "PARTITION_EVERYWHERE", True)
    return backend


def lapack_solve(ab: np.ndarray, b: np.ndarray) -> np.ndarray:
    double = ab.dtype == np.float64
    cb, info = (lapack.dpbtrf if double else lapack.spbtrf)(ab, lower=1)
    assert info == 0
    return (lapack.dpbtrs if double else lapack.spbtrs)(cb, b, lower=1)[0]


def band_product(ab: np.ndarray, x: np.ndarray) -> np.ndarray:
    """H x, in long double."""
    ab, x, n = ab.astype("longdouble"), x.astype("longdouble"), len(x)
    y = ab[0] * x
    for d in range(1, min(len(ab), n)):
        y[d:] += ab[d, : n - d] * x[: n - d]
        y[: n - d] += ab[d, : n - d] * x[d:]
    return y


def backward_error(ab: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    """max|H x - b| / (|H| |x| + |b|), the norm-wise error that LAPACK's theorems bound."""
    scale = np.max(band_product(np.abs(ab), np.abs(x)) + np.abs(b), initial=0)
    residual = np.max(np.abs(band_product(ab, x) - b), initial=0)
    return float(residual / scale) if scale else float(residual)


def assert_as_good_as_lapack(ab: np.ndarray, x: np.ndarray, b: np.ndarray) -> None:
    assert x.dtype == ab.dtype
    floor = float(np.finfo(ab.dtype).eps)
    assert backward_error(ab, x, b) <= 10 * max(backward_error(ab, lapack_solve(ab, b), b), floor / 4)


def parts_solve(ab: np.ndarray, b: np.ndarray, q: int) -> tuple[np.ndarray, np.ndarray]:
    """JAX's solve on parts of q columns. Padded here, so that one program serves all n of a number of parts."""
    (rows, n), P = ab.shape, -(-ab.shape[1] // q)
    columns = np.zeros((rows, P * q))
    columns[0, n:] = 1
    columns[:, :n] = ab
    padded = np.pad(b, ((0, P * q - n), (0, 0)))
    x, pivots = jax_partition._solve_parts(
        columns.reshape(rows, P, q).transpose(2, 0, 1), padded.reshape(P, q, -1).transpose(1, 2, 0)
    )
    return np.asarray(x).transpose(2, 0, 1).reshape(P * q, -1)[:n], np.asarray(pivots).T.reshape(-1)[:n]


@pytest.mark.parametrize("w", range(1, 6))
def test_every_size(w: int) -> None:
    """n = 1 .. 60: one part and several, each with every number of columns in the last one; odd and even counts."""
    for n in range(1, 61):
        ab, b = positive_band(n, w, n), rhs(n, 2, n)
        x, pivots = parts_solve(ab, b, 20 if w < 5 else 15)
        parts, ok = torch_partition.reduce(BACKENDS["torch"].array(ab))
        y = BACKENDS["torch"].numpy(torch_partition.substitute(parts, BACKENDS["torch"].array(b)))
        assert bool(ok)
        H = unstore(ab)
        logdet = np.linalg.slogdet(H)[1]
        np.testing.assert_allclose(np.log(pivots).sum(), logdet, rtol=0, atol=64 * EPS * max(n, abs(logdet)))
        np.testing.assert_allclose(
            float(torch_partition.logdet(parts)), logdet, rtol=0, atol=64 * EPS * max(n, abs(logdet))
        )
        for c in range(2):
            assert_as_good_as_lapack(ab, x[:, c], b[:, c])
            assert_as_good_as_lapack(ab, y[:, c], b[:, c])
        scale = np.linalg.cond(H) * np.abs(x).max() * 16 * (w + 2) * EPS
        np.testing.assert_allclose(x, np.linalg.solve(H, b), rtol=0, atol=scale)
        np.testing.assert_allclose(y, np.linalg.solve(H, b), rtol=0, atol=scale)


@pytest.mark.parametrize(
    ("n", "w", "columns"),
    [(0, 0, None), (0, 3, 2), (1, 0, None), (7, 0, 3), (3, 6, None), (65, 2, None), (129, 17, 2)],
)
def test_solve(forced: Backend, n: int, w: int, columns: int | None) -> None:
    """Through the public names: shapes, unused cells, no columns at all, fewer rows than the band has."""
    ab, b = positive_band(n, w), rhs(n, columns)

    def everything(ab: Any, b: Any) -> tuple:
        factored = forced.package.factor(ab)
        return factored.ok, factored.logdet(), forced.package.solve(ab, b), factored.solve(b)

    ok, logdet, *solutions = map(forced.numpy, forced.jit(everything)(forced.array(poisoned(ab)), forced.array(b)))
    for x in solutions:
        assert x.shape == b.shape
        if n:
            for c in range(columns or 1):
                assert_as_good_as_lapack(ab, x.reshape(n, -1)[:, c], b.reshape(n, -1)[:, c])
    assert ok
    np.testing.assert_allclose(logdet, np.linalg.slogdet(unstore(ab))[1], rtol=0, atol=64 * EPS * max(n, 1))


def stiff(n: int, w: int) -> np.ndarray:
    """Differences of order w, squared, and a shift: condition about 1e12."""
    c = np.ones(1)
    for _ in range(w):
        c = np.convolve(c, [1, -1])
    full = np.convolve(c, c[::-1])
    ab = np.tile(full[w:, None], (1, n))
    ab[0] += 4e-12 * full[w]
    return cleared(ab)


def scaled(n: int, w: int) -> np.ndarray:
    """Rows and columns of very different size, condition about 1e12."""
    ab, s = positive_large(n, w), 10.0 ** np.random.default_rng(n).uniform(-3, 3, n)
    for d in range(w + 1):
        ab[d, : n - d] *= s[: n - d] * s[d:]
    return ab


def positive_large(n: int, w: int) -> np.ndarray:
    rng = np.random.default_rng(n + w)
    ab = rng.uniform(-1, 1, (w + 1, n))
    ab[0] = 2 * w + 1 + rng.random(n)
    return cleared(ab)


@pytest.mark.parametrize("make", [positive_large, stiff, scaled])
@pytest.mark.parametrize(("n", "w"), [(10000, 1), (10000, 4), (2000, 16)])
def test_large(forced: Backend, n: int, w: int, make: Callable) -> None:
    """Backward errors within 10 times LAPACK's, up to condition 1e12."""
    solve = forced.jit(forced.package.solve)
    ab, b = make(n, w), rhs(n, None)
    assert_as_good_as_lapack(ab, forced.numpy(solve(forced.array(ab), forced.array(b))), b)
    if make is positive_large and w == 4:
        ab, b = ab.astype("float32"), b.astype("float32")
        x = forced.numpy(solve(forced.array(ab), forced.array(b)))
        assert_as_good_as_lapack(ab, x, b)


# --- Failure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minor", "pivot"), [(1, -1.0), (20, 0.0), (40, -1.0), (33, np.nan)])
def test_failure(forced: Backend, minor: int, pivot: float) -> None:
    """An interior, a separator, the first and the last; torch's exception names the minor of the natural order."""
    n, w = 40, 2
    ab = positive_band(n, w)
    L = lower_factor(n, w)
    if pivot == 0:  # uncoupled, so that it is 0 however a machine rounds
        ab[:, minor - 1] = ab[[1, 2], [minor - 2, minor - 3]] = 0
    else:
        ab[0, minor - 1] += pivot * 1e-3 - L[minor - 1, minor - 1] ** 2
    factored = forced.package.factor(forced.array(ab))
    assert not bool(factored.ok)
    assert np.isnan(forced.numpy(factored.solve(forced.array(rhs(n, None))))).all()
    assert np.isnan(float(factored.logdet()))
    if forced.name == "torch":
        with pytest.raises(torch.linalg.LinAlgError, match=f"leading minor of order {minor} is"):
            forced.package.solve(forced.array(ab), forced.array(rhs(n, None)))
    else:
        assert np.isnan(forced.package.solve(ab, rhs(n, None))).all()


def test_one_bad_system(forced: Backend) -> None:
    """In a batch it leaves the others alone, to the last bit."""
    lanes = np.stack([positive_band(40, 2, seed) for seed in range(4)])
    b = rhs(40, 4).T.copy()
    solve = forced.jit(forced.vmap(lambda ab, b: forced.package.factor(ab).solve(b)))
    good = forced.numpy(solve(forced.array(lanes), forced.array(b)))
    lanes[1, 0, 7] = -1
    b[2] = np.nan
    mixed = forced.numpy(solve(forced.array(lanes), forced.array(b)))
    assert np.isnan(mixed[1]).all()
    assert np.isnan(mixed[2]).any()
    np.testing.assert_array_equal(mixed[[0, 3]], good[[0, 3]])
    if forced.name == "torch":
        with pytest.raises(torch.linalg.LinAlgError, match=r"leading minor of order 8 .*\(matrix 1 of the batch\)"):
            forced.vmap(forced.package.solve)(forced.array(lanes), forced.array(b))


# --- Derivatives and transforms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["solve", "logdet"])
def test_derivatives(forced: Backend, name: str) -> None:
    """First and second order, both modes, against finite differences."""
    p = forced.package
    if name == "solve":
        forced.check_derivatives(forced.jit(p.solve), positive_band(5, 1), rhs(5, 2))
    else:
        forced.check_derivatives(forced.jit(lambda ab: p.factor(ab).logdet()), positive_band(5, 2))


@pytest.mark.cpu_only("the serial path is one of the two")
def test_gradients_of_both_paths(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across several parts, under vmap: those of the serial path."""
    lanes, b = np.stack([positive_band(70, 3, seed) for seed in range(2)]), rhs(70, 2).T.copy()
    p = backend.package
    module, names = {
        "jax": (bandhess_jax.linalg.solve, ["ldl_columns", "_solve_serial"]),
        "torch": (bandhess_torch.framework.kernels, ["call"]),
    }[backend.name]

    def gradients() -> tuple[np.ndarray, ...]:
        def loss(ab, b):
            return backend.xp.sum(p.solve(ab, b) ** 2)

        def both(ab, b):
            value = p.factor(ab).logdet()
            return backend.grad(loss)(ab, b), backend.grad(lambda b: loss(ab, b))(b), value

        return tuple(backend.numpy(g) for g in backend.jit(backend.vmap(both))(backend.array(lanes), backend.array(b)))

    def recorded() -> tuple[tuple[np.ndarray, ...], list[str]]:
        """The gradients, and which routines of the serial path were called for them."""
        calls = []
        with monkeypatch.context() as patch:
            for name in names:  # functions new each time: JAX remembers the programs of those it knows
                routine = getattr(module, name)
                record = lambda *args, name=name, routine=routine, **options: (  # noqa: E731
                    calls.append(name),
                    routine(*args, **options),
                )[1]
                patch.setattr(module, name, record)
            return gradients(), calls

    serial, calls = recorded()
    assert calls
    for each in (bandhess_jax.linalg.solve, bandhess_torch.linalg.solve):
        monkeypatch.setattr(each, "PARTITION_EVERYWHERE", True)
    parallel, calls = recorded()
    assert not calls, "the partition was not used throughout"
    for mine, expected in zip(parallel, serial, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=4096 * EPS * np.abs(expected).max())


# --- How it gets there -----------------------------------------------------------------------------------------------


def test_chosen_by_platform() -> None:
    """One traced program: the serial scans on CPU; a fixed number of steps and reductions where a GPU runs it."""
    ab, b = jnp.asarray(positive_large(4096, 4)), jnp.asarray(rhs(4096, None))
    with bandhess_jax.portable():
        traced = jax.jit(lambda ab, b: bandhess_jax.factor(ab).solve(b)).trace(ab, b)
    cpu, cuda = (traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda"))
    assert "cholesky" not in cpu
    assert "cholesky" in cuda
    for text, steps in [(cpu, 4096), (cuda, 28)]:
        assert f"dense<{steps}> : tensor<i64>" in text
    assert "dense<4096> : tensor<i64>" not in cuda


def test_factor_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tree of the same shapes, so that a jitted or exported caller need not know."""
    ab = jnp.asarray(positive_band(40, 2))
    serial = jax.eval_shape(bandhess_jax.factor, ab)
    monkeypatch.setattr(bandhess_jax.linalg.solve, "PARTITION_EVERYWHERE", True)
    assert jax.tree.structure(jax.eval_shape(lambda ab: bandhess_jax.factor(ab), ab)) == jax.tree.structure(serial)
    assert jax.tree.leaves(jax.eval_shape(lambda ab: bandhess_jax.factor(ab), ab)) == jax.tree.leaves(serial)


def test_rounds() -> None:
    """log2 many: no loop over the columns."""
    parts, _ = torch_partition.reduce(torch.tensor(positive_large(8 * 1000, 1)))
    assert len(parts) == 2 * 9 + 1


def test_backends_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bandhess_jax.linalg.solve, bandhess_torch.linalg.solve):
        monkeypatch.setattr(module, "PARTITION_EVERYWHERE", True)
    ab, b = positive_large(65, 2), rhs(65, None)
    x, y = (backend.numpy(backend.package.solve(backend.array(ab), backend.array(b))) for backend in BACKENDS.values())
    np.testing.assert_allclose(x, y, rtol=0, atol=64 * EPS * np.abs(y).max())


def test_store_roundtrip() -> None:
    """`stiff` is as stiff as it says."""
    assert 1e11 < np.linalg.cond(unstore(stiff(200, 4))) < 1e13
    np.testing.assert_array_equal(store(unstore(stiff(9, 2)), 2), stiff(9, 2))
