"""The compiled kernels as both fronts call them: through ctypes without a framework, and what either refuses."""

import subprocess
import sys
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrices import break_minor, cleared, general_band, general_dense, lapack_factor, lapack_solve, positive_band, rhs
from oracles import store, unstore

import bandhess_jax
from bandhess_common import kernels, trust_region
from bandhess_common.interior_point.constants import Constants
from bandhess_common.kernels import KERNELS, call, view
from bandhess_common.kernels.interior import Layout

INT = np.int32


@pytest.fixture(autouse=True)
def _built() -> None:
    if kernels.why_not():
        pytest.skip(kernels.why_not())


def run(
    name: str, operands: list[np.ndarray], shapes: list[tuple[int, ...] | None], threads: int = 1, **options: float
) -> list[Any]:
    """The results, which have these shapes; None: of int32, one number a system."""
    batch = operands[0].shape[: operands[0].ndim - (1 if name == "subproblem" else 2)]
    results = [np.empty(batch, INT) if s is None else np.empty(batch + s, operands[0].dtype) for s in shapes]
    operands = [np.ascontiguousarray(a) for a in operands]
    call(name, [view(a) for a in operands], [view(a) for a in results], threads=threads, **options)
    return results


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "w", "batch"), [(40, 0, ()), (40, 1, ()), (40, 3, (9,)), (50, 20, (2, 2)), (3, 5, ())])
def test_by_ctypes(n: int, w: int, batch: tuple[int, ...], dtype: str) -> None:
    ab = np.broadcast_to(positive_band(n, w), (*batch, w + 1, n)).astype(dtype)
    b, B = (np.broadcast_to(rhs(n, k), (*batch, *rhs(n, k).shape)).astype(dtype) for k in (None, 3))
    H = unstore(positive_band(n, w))
    L = np.linalg.cholesky(H)
    close = {"rtol": 0, "atol": 200 * np.finfo(dtype).eps * max(1, np.abs(np.linalg.inv(H)).max())}

    x, info, columns = run("solve", [ab, B], [(n, 3), None, (n, w + 1)])
    assert (info == 0).all()
    np.testing.assert_allclose(x, np.broadcast_to(np.linalg.solve(H, rhs(n, 3)), x.shape), **close)
    np.testing.assert_allclose(
        run("solve", [ab, b], [(n,)])[0], run("substitute", [columns, b], [(n,)], raw=0)[0], **close
    )
    raw, info = run("columns", [ab], [(n, w + 1), None])
    np.testing.assert_allclose(run("substitute", [raw, B], [(n, 3)], raw=1)[0], x, **close)
    cb, info = run("cholesky", [ab], [(w + 1, n), None])
    np.testing.assert_allclose(cb, np.broadcast_to(store(L, w), cb.shape), **close)
    (y,) = run("triangular", [cb, b], [(n,)], transpose=1)
    np.testing.assert_allclose(y, np.broadcast_to(np.linalg.solve(L.T, rhs(n, None)), y.shape), **close)
    if w:
        unit, r = np.ascontiguousarray(columns[..., 1:]), 1 / columns[..., 0]
        (z,) = run("inverse", [unit, r], [(n, w + 1)])
        np.testing.assert_allclose(z, np.broadcast_to(store(np.linalg.inv(H), w).T, z.shape), **close)


def test_general_bands_by_ctypes() -> None:
    n, l, u = 30, 2, 3
    A = general_dense(np.random.default_rng(0).normal(size=(l + u + 1, n)), l, u)
    b = rhs(n, 2)
    upper, multipliers, swaps = np.empty((n, l + u + 1)), np.empty((n, l)), np.empty(n, INT)
    ab = general_band(A, l, u)
    call("lu", [view(ab)], [view(upper), view(multipliers), view(swaps)], l=l)
    for transpose in (0, 1):
        x = np.empty_like(b)
        factors = [view(upper), view(multipliers), view(swaps)]
        call("lu_solve", [*factors, view(b)], [view(x)], transpose=transpose)
        np.testing.assert_allclose((A.T if transpose else A) @ x, b, rtol=0, atol=1e-11)


# Wide enough to be cut in two; a width with a kernel of its own, one that runs in a wider one, one without.
LARGE = [(2, 20_001), (5, 9000), (20, 3000)]  # over `Twisted::kLong` cells


def large(w: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ab = cleared(rng.normal(size=(w + 1, n)))
    ab[0] += 4 * w + 2
    return ab, rng.normal(size=n)


@pytest.mark.parametrize(("w", "n"), LARGE)
def test_from_both_ends(w: int, n: int) -> None:
    """A large system, eliminated from both ends: LAPACK's solution, and the same bits with and without threads."""
    ab, b = large(w, n)
    (alone,) = run("solve", [ab, b], [(n,)])
    np.testing.assert_allclose(alone, lapack_solve(ab, b), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(run("solve", [ab, b], [(n,)], threads=2)[0], alone)
    np.testing.assert_array_equal(jax.jit(bandhess_jax.solve)(jnp.asarray(ab), jnp.asarray(b)), alone)


@pytest.mark.parametrize(("w", "n"), LARGE)
def test_failing_minors_of_large_systems(w: int, n: int) -> None:
    """info is the first bad minor in the order of the columns, at whichever end it stands."""
    ab, b = large(w, n)
    for minor in (5, n // 2, n - 3, n):
        spoilt = ab.copy()
        spoilt[0, minor - 1] -= 100 * w
        x, info = run("solve", [spoilt, b], [(n,), None], threads=2)
        assert info == minor == lapack_factor(spoilt)[1]
        assert np.isnan(x).all()


def test_threads_do_not_change_bits() -> None:
    ab, b = np.stack([positive_band(400, 3, seed) for seed in range(30)]), np.stack([rhs(400, None)] * 30)
    alone = run("solve", [ab, b], [(400,), None])
    for one, other in zip(alone, run("solve", [ab, b], [(400,), None], threads=3), strict=True):
        np.testing.assert_array_equal(one, other)
    Z = np.random.default_rng(0).normal(size=(4, 40_000))
    np.testing.assert_array_equal(
        run("symmetry", [Z], [Z.shape], d=2)[0], run("symmetry", [Z], [Z.shape], d=2, threads=3)[0]
    )


def good(name: str, dtype: str = "float64") -> tuple[list[np.ndarray], list[np.ndarray], dict[str, float]]:
    """Arrays that fit, by the shapes in the table."""
    sizes = {"r": 3, "n": 8, "k": 2, "l": 1, "r - 1": 2, "t": 11, "u": 8, "v": 8}
    sizes |= {
        "w": 1,
        "p": 2,
        "m": 10,
        "s": Layout(8, 3, 1).size,
        "q": Layout(8, 3, 1).head,
        "c": len(Constants._fields),
    }

    def make(text: str) -> np.ndarray:
        what, shape = text.rstrip(")").split(" (")
        whole = what in ("info", "swaps", "first", "begun")
        return np.zeros([int(sizes.get(s, s)) for s in shape.split(", ") if s], INT if whole else dtype)

    options = {"raw": 1, "transpose": 0, "l": 1, "d": 1, "n": 8, "r": 3, "rows": 1, "m": 1, "shared": 0}
    kernel = KERNELS[name]
    given = {name: options[name] for name, value in kernel.options.items() if value != value}
    return [make(a) for a in kernel.operands], [make(a) for a in kernel.results], given


def shortened(a: np.ndarray) -> np.ndarray:
    """With one row or column less of the n that all arrays share, or of the query's or the answer's numbers."""
    if a.ndim == 0:
        return np.zeros(2, a.dtype)
    return np.ascontiguousarray(np.delete(a, 0, axis=int(np.argmax(a.shape))))


@pytest.mark.parametrize("name", KERNELS)
def test_every_array_is_checked(name: str) -> None:
    """Another shape, another dtype, a missing array, a wrong option: an error that says which, and no crash."""
    operands, results, options = good(name)
    call(name, [view(a) for a in operands], [view(a) for a in results], **options)
    arrays = [*operands, *results]
    for i, array in enumerate(arrays):
        for other in (shortened(array), array[None], array.astype("float32" if array.dtype != INT else "int64")):
            views = [view(other if j == i else a) for j, a in enumerate(arrays)]
            with pytest.raises(ValueError, match=rf"bandhess_{name}: (operand|result) \d+ must be .*, got "):
                call(name, views[: len(operands)], views[len(operands) :], **options)
    with pytest.raises(ValueError, match="number of operands or results"):
        call(name, [view(a) for a in operands[:-1]], [view(a) for a in results], **options)
    for option in options:
        for value in (-1, 0.5, 1e9, float("nan")):
            with pytest.raises(ValueError, match="must be a whole number"):
                call(name, [view(a) for a in operands], [view(a) for a in results], **{option: value})


@pytest.mark.parametrize("name", KERNELS)
def test_xla_front_checks_too(name: str) -> None:
    operands, results, options = good(name)
    for i in range(1, len(operands)):
        for other in (shortened(operands[i]), operands[i].astype("float32")):
            args = [jnp.asarray(other if j == i else a) for j, a in enumerate(operands)]
            shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in results]
            numbers = {key: np.float64(value) for key, value in {**KERNELS[name].options, **options}.items()}
            with pytest.raises(Exception, match=rf"bandhess_{name}: (operand|result) \d+ must be"):
                jax.block_until_ready(jax.ffi.ffi_call(f"bandhess_{name}", shapes)(*args, **numbers))


def test_constants_of_the_search_come_from_one_place() -> None:
    """The kernel takes them with the call: any length is near the radius where `near` says so."""
    ab, g = positive_band(8, 1), rhs(8, None)
    query = np.array([1e-6, 0, 0, 1e9, 0, 0, -1, 0, 0.0])  # a radius of 1e-6
    (p, _), (whole, _) = (
        run("subproblem", [g, ab, g, query], [(8,), (9,)], **constants) for constants in ({}, {"near": 1e9})
    )
    np.testing.assert_allclose(np.linalg.norm(p), 1e-6, rtol=trust_region.NEAR)
    np.testing.assert_allclose(whole, -np.linalg.solve(unstore(ab), g), rtol=1e-12)
    constants = {name: getattr(trust_region, name.upper()) for name in ("near", "hard", "grow", "tries")}
    assert KERNELS["subproblem"].options == constants


def test_interchanges_stay_within_the_matrix() -> None:
    operands, results, options = good("lu_solve")
    for swap in (-1, 2, 10**9):
        operands[2][3] = swap
        with pytest.raises(ValueError, match="bandhess_lu_solve: swaps must"):
            call("lu_solve", [view(a) for a in operands], [view(a) for a in results], **options)


def test_no_framework_is_needed() -> None:
    program = """
import sys
import numpy as np
from bandhess_common.kernels import call, view, why_not
assert why_not() == ""
x = np.zeros(2)
call("solve", [view(np.array([[2.0, 2.0], [1.0, 0.0]])), view(np.array([3.0, 3.0]))], [view(x)])
assert np.allclose(x, 1)
assert not {"jax", "jaxlib", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_minor_by_ctypes() -> None:
    ab = break_minor(positive_band(20, 2), 7, -1.0)
    for name, shapes in (("columns", [(20, 3), None]), ("cholesky", [(3, 20), None])):
        assert run(name, [ab], shapes)[1] == 7


@pytest.mark.parametrize(
    ("w", "n", "batch"), [(1, 20, 1), (2, 20, 1), (2, 20, 9), (40, 50, 2), *((*big, 1) for big in LARGE)]
)
def test_a_call_says_whether_all_are_definite(w: int, n: int, batch: int) -> None:
    """Without info, too, whichever system it is, on any thread; LDL^T exists for an indefinite matrix."""
    good = np.stack([large(w, n)[0]] * batch)
    bad = good.copy()
    bad[-1, 0, n // 2] *= -1
    b, border, corner = np.ones((batch, n)), np.zeros((batch, 1, n)), np.ones((batch, 1, 1))
    more = np.ones((batch, n + 1, 1))

    def definite(name: str, operands: list[np.ndarray], like: list[np.ndarray], threads: int) -> bool:
        results = [np.empty_like(a) for a in like]
        said = call(name, [view(a) for a in operands], [view(a) for a in results], threads=threads)
        assert said == (not np.isnan(results[0]).any())
        return said

    for ab, threads in product((good, bad), (1, 2)):
        expected = ab is good
        assert definite("solve", [ab, b], [b], threads) is expected
        assert definite("cholesky", [ab], [ab, np.empty(batch, INT)], threads) is expected
        assert definite("solve_bordered", [ab, border, corner, more], [more], threads) is expected
        assert definite("columns", [ab], [np.empty((batch, n, w + 1))], threads)
    corner[-1] = -1
    assert not definite("solve_bordered", [good, border, corner, more], [more], 1)
