"""The compiled CPU kernels against dense algebra and the pure programs: widths, sizes, dtypes, batches, failures."""

import contextlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import general_band, general_dense, naive_lu, poisoned, positive_band, rhs
from oracles import store, unstore

import bandhess_jax as bj
from bandhess_jax.linalg.lu import Elimination, eliminate, solve_general, substitute

pytestmark = pytest.mark.usefixtures("compiled_kernels")

# 33 columns and more take several tiles; 17, 32 and 70 have no kernel of their own width, 5 and 9 run in a wider one.
WIDTHS = [(w, 3 if w == 5 else 40 + w) for w in range(18)] + [(2, 0), (0, 1), (32, 100), (70, 150)]


@jax.jit
def everything(ab: Any, b: Any, B: Any) -> dict[str, Any]:
    cb, info = bj.cholesky_ex(ab)
    factored = bj.factor(ab)
    ldb = bj.ldl(ab)
    return {
        "cholesky": cb,
        "info": info,
        "ldl": ldb,
        "solve": bj.solve(ab, b),
        "solve many": bj.solve(ab, B),
        "factor": factored.solve(b),
        "factor many": factored.solve(B),
        "ok": factored.ok,
        "logdet": factored.logdet(),
        "forward": bj.solve_triangular(cb, b),
        "forward many": bj.solve_triangular(cb, B),
        "backward": bj.solve_triangular(cb, b, transpose=True),
        "backward many": bj.solve_triangular(cb, B, transpose=True),
        "ldl_solve": bj.ldl_solve(ldb, b),
        "inverse": bj.inverse_band(cb),
    }


batched = jax.jit(jax.vmap(everything))


def dense(ab: np.ndarray, b: np.ndarray, B: np.ndarray) -> dict[str, Any]:
    """The same by NumPy's dense algebra."""
    w = ab.shape[0] - 1
    H = unstore(ab)
    L = np.linalg.cholesky(H)
    d = np.diag(L)
    return {
        "cholesky": store(L, w),
        "info": np.int32(0),
        "ldl": store(L / d + np.diag(d**2 - 1), w),
        "solve": np.linalg.solve(H, b),
        "solve many": np.linalg.solve(H, B),
        "factor": np.linalg.solve(H, b),
        "factor many": np.linalg.solve(H, B),
        "ok": np.bool_(True),
        "logdet": 2 * np.log(d).sum(),
        "forward": np.linalg.solve(L, b),
        "forward many": np.linalg.solve(L, B),
        "backward": np.linalg.solve(L.T, b),
        "backward many": np.linalg.solve(L.T, B),
        "ldl_solve": np.linalg.solve(H, b),
        "inverse": store(np.linalg.inv(H), w),
    }


def compare(got: dict[str, Any], expected: dict[str, Any], dtype: str, w: int) -> None:
    """Backward stable, and the bands are well conditioned: equal to a small multiple of eps."""
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        assert got[name].dtype == (dtype if value.dtype.kind == "f" else value.dtype), name
        atol = 32 * (w + 2) * float(np.finfo(dtype).eps) * np.max(np.abs(value), initial=1)
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol, err_msg=name)


def operands(n: int, w: int) -> tuple[np.ndarray, ...]:
    return positive_band(n, w) if n else np.zeros((w + 1, 0)), rhs(n, None), rhs(n, 2)


def arrays(operands: Any, dtype: str = "float64") -> list[Any]:
    ab, *others = operands
    return [jax.device_put(a.astype(dtype)) for a in (poisoned(ab), *others)]


@pytest.mark.parametrize(("w", "n"), WIDTHS)
def test_by_definition(w: int, n: int) -> None:
    dtype = "float32" if w % 3 == 2 else "float64"
    args = operands(n, w)
    got = jax.tree.map(np.asarray, everything(*arrays(args, dtype)))  # each slice would be a program of its own
    compare(got, dense(*args), dtype, w)
    # Unused cells are exact zeros.
    for name in ("cholesky", "ldl", "inverse"):
        assert not any(got[name][d, n - d :].any() for d in range(1, min(w + 1, n))), name


def test_as_pure() -> None:
    args = arrays(operands(40, 2))
    got = everything(*args)
    with bj.portable():
        assert bj.cpu_kernels() == "pure: inside portable()"
        compare(got, everything(*args), "float64", 2)
    assert bj.cpu_kernels() == "compiled"


@pytest.mark.parametrize(
    ("w", "n", "dtype"), [(1, 40, "float64"), (4, 40, "float32"), (9, 70, "float64"), (20, 50, "float64")]
)
def test_batches(w: int, n: int, dtype: str) -> None:
    """Eleven systems: full and part groups of lanes. One bad system leaves the bits of the others alone."""
    systems = [[a * scale for a in operands(n, w)] for scale in np.linspace(1, 2, 11)]
    batch = [np.stack(column) for column in zip(*[arrays(system, dtype) for system in systems], strict=True)]
    good = jax.tree.map(np.asarray, batched(*batch))
    for i, system in enumerate(systems):
        compare({name: value[i] for name, value in good.items()}, dense(*system), dtype, w)
    for bad_value in (-1.0, np.nan, np.inf):
        bad = batch[0].copy()
        bad[6, 0, n // 2] = bad_value
        spoilt = jax.tree.map(np.asarray, batched(bad, *batch[1:]))
        assert int(spoilt["info"][6]) == n // 2 + 1
        assert not bool(spoilt["ok"][6])
        for name in good:
            np.testing.assert_array_equal(
                np.delete(spoilt[name], 6, axis=0), np.delete(good[name], 6, axis=0), err_msg=name
            )
            if name not in ("info", "ok", "ldl", "ldl_solve", "inverse"):
                assert np.isnan(spoilt[name][6]).all(), name


@pytest.mark.parametrize(("w", "n"), [(1, 40), (4, 40), (20, 50)])
def test_failing_minors(w: int, n: int) -> None:
    ab, *others = arrays(operands(n, w))
    for minor in (1, 2, n // 2, n):
        results = everything(ab.at[0, minor - 1].add(-100), *others)
        assert int(results["info"]) == minor
        assert not bool(results["ok"])
        for name in ("cholesky", "solve", "solve many", "factor", "factor many", "logdet"):
            assert np.isnan(results[name]).all(), name


def test_zero_column_stays_apart() -> None:
    """`ldl` of an indefinite band with a row and column of zeros: the others are factorised as if it were not there."""
    ab = jnp.asarray([[2.0, 0.0, -3.0, 1.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    with bj.portable():
        pure = bj.ldl(ab)
    np.testing.assert_allclose(bj.ldl(ab), pure, rtol=0, atol=1e-15)
    assert jnp.isfinite(bj.ldl(ab)).all()


def test_derivatives_and_control_flow() -> None:
    ab, b = map(jnp.asarray, operands(12, 2)[:2])

    def fun(ab: Any, b: Any) -> Any:
        cb = bj.cholesky(ab)
        x = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, bj.solve(ab, s[1])), (0, b))[1]
        y = bj.solve(ab, b)
        z = solve_general(ab, b, 2, 0)[0]
        return (
            jnp.sum(y**2)
            + jnp.sum(z**2)
            + bj.logdet(cb)
            + jnp.sum(bj.inverse_band(cb) ** 2)
            + jnp.sum(jax.lax.stop_gradient(x))
        )

    programs = [
        jax.jit(jax.value_and_grad(fun, (0, 1))),
        jax.jit(jax.vmap(jax.hessian(lambda b: jnp.sum(bj.solve(ab, b) ** 3)))),
    ]
    for program, args in zip(programs, [(ab, b), (jnp.stack([b, 2 * b]),)], strict=True):
        compiled = program(*args)
        with bj.portable():
            pure = program(*args)
        for got, expected in zip(jax.tree.leaves(compiled), jax.tree.leaves(pure), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def general(n: int, l: int, u: int, seed: int = 0) -> np.ndarray:
    """A matrix that needs interchanges; the candidates for its first pivot are equal in size."""
    A = general_dense(np.random.default_rng(seed).normal(size=(l + u + 1, n)), l, u)
    A[: l + 1, 0] = -1.5 * (-1.0) ** np.arange(min(l + 1, n))
    return A


@partial(jax.jit, static_argnums=(0, 1))
def all_of_lu(l: int, u: int, ab: Any, b: Any, B: Any) -> tuple[Elimination, dict[str, Any]]:
    lu = eliminate(ab, l, u)
    solutions = {
        "solve": substitute(lu, b, False),
        "solve many": substitute(lu, B, False),
        "transposed": substitute(lu, b, True),
        "transposed many": substitute(lu, B, True),
    }
    return lu, solutions


@pytest.mark.parametrize("tier", ["compiled", "pure"])
@pytest.mark.parametrize(
    ("l", "u", "n", "dtype"),
    [
        (1, 1, 40, "float64"),
        (2, 2, 40, "float32"),
        (0, 2, 9, "float64"),
        (2, 0, 9, "float64"),
        (4, 5, 3, "float32"),
        (9, 4, 45, "float64"),
    ],
)
def test_lu(l: int, u: int, n: int, dtype: str, tier: str) -> None:
    A, b, B = general(n, l, u), rhs(n, None), rhs(n, 3)
    args = [jax.device_put(x.astype(dtype)) for x in (general_band(A, l, u), b, B)]
    with bj.portable() if tier == "pure" else contextlib.nullcontext():
        lu, solutions = all_of_lu(l, u, *args)
    U, multipliers, swaps = naive_lu(A, l)
    by_rows = [np.pad(U[i, i : i + l + u + 1], (0, max(0, i + l + u + 1 - n))) for i in range(n)]
    tolerance = 16 * np.finfo(dtype).eps * np.linalg.cond(A)
    assert lu.swaps.tolist() == swaps
    assert sum(swaps) > 0 or l == 0
    np.testing.assert_allclose(lu.upper, by_rows, rtol=0, atol=tolerance * np.abs(U).max())
    np.testing.assert_allclose(lu.multipliers, multipliers, rtol=0, atol=tolerance)
    for name, got in solutions.items():
        expected = np.linalg.solve(A.T if "transposed" in name else A, B if "many" in name else b)
        assert (got.shape, got.dtype) == (expected.shape, dtype)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


def test_lu_in_batches() -> None:
    """One bad system leaves the bits of the others alone; it is NaN, and known for singular if a pivot vanishes."""
    l, u, n = 2, 1, 150
    ab = jnp.stack([jnp.asarray(general_band(general(n, l, u, seed), l, u)) for seed in range(40)])
    b = jnp.stack([rhs(n, 2)] * 40)
    program = jax.jit(jax.vmap(partial(solve_general, l=l, u=u)))
    good, singular = program(ab, b)
    assert not singular.any()
    for i in (0, 6, 39):
        np.testing.assert_array_equal(good[i], jax.jit(solve_general, static_argnums=(2, 3))(ab[i], b[i], l, u)[0])
    for bad_value in (0.0, np.nan):
        x, singular = program(ab.at[6, :, n // 2].set(bad_value), b)
        assert singular.tolist() == [i == 6 and bad_value == 0 for i in range(40)]
        np.testing.assert_array_equal(np.delete(x, 6, axis=0), np.delete(good, 6, axis=0))
        assert jnp.isnan(x[6]).any(0).all()
        assert bad_value != 0 or jnp.isnan(x[6]).all()


def test_export() -> None:
    """Exported programs hold no custom call, whatever was compiled before in the same process."""
    args = arrays(operands(8, 2))[:2]
    solve = jax.jit(bj.solve)
    x = solve(*args)
    with bj.portable():
        exported = jax.export.export(solve)(*args)
    assert "@bandhess" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(*args), x, rtol=1e-14)
    assert "@bandhess_solve" in solve.lower(*args).as_text()


def test_other_dtypes_take_the_pure_path() -> None:
    ab = jnp.asarray([[4.0, 10.0], [2.0, 0.0]], jnp.bfloat16)
    np.testing.assert_array_equal(bj.cholesky(ab).astype(float), [[2, 3], [1, 0]])
