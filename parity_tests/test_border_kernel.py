"""The kernel that solves a band with a border in one call: against dense algebra, LAPACK and the array operations."""

from typing import Any

import numpy as np
import pytest
import torch
from arrowheads import definite, stored, structure
from backends import Backend
from matrices import lapack_solve

from bandhess_common.kernels import call, view

pytestmark = pytest.mark.usefixtures("compiled_kernels")

BANDS = [(0, 0), (1, 0), (1, 2), (7, 1), (33, 3), (32, 8), (40, 20), (65, 40)]
BORDERS = [0, 1, 4, 5, 9]  # less than a vector, one, more
SIZES = [(*band, p) for band in BANDS for p in BORDERS if band[0] + p]


def run(parts: Any, b: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x, info = np.empty_like(b), np.empty(parts[0].shape[:-2], np.int32)
    operands = [np.ascontiguousarray(a, b.dtype) for a in (*parts, b)]
    call("solve_bordered", list(map(view, operands)), [view(x), view(info)], threads=threads)
    return x, info


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "w", "p"), SIZES)
def test_against_dense(n: int, w: int, p: int, dtype: str) -> None:
    """A vector, and no, one and some columns; what storage does not use is NaN and not read."""
    h = definite(n, w, p, False).astype(dtype).astype(float)
    for columns in ((), (0,), (1,), (9,)):
        b = np.random.default_rng(1).normal(size=(n + p, *columns)).astype(dtype)
        x, info = run(stored(h, n, w, p, False), b)
        assert info == 0
        expected = np.linalg.solve(h, b) if b.size else b
        scale = np.finfo(dtype).eps * np.abs(expected).max(initial=1)
        np.testing.assert_allclose(x, expected, rtol=0, atol=200 * scale)


def large(n: int, w: int, p: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Diagonally dominant but for the border, whose Schur complement keeps half of the corner."""
    rng = np.random.default_rng(0)
    ab, border = rng.normal(size=(w + 1, n)), rng.normal(size=(p, n))
    ab[0] = 4 * w + 4
    corner = rng.normal(size=(p, p)) + n / w * np.eye(p)
    return [ab, border, corner], rng.normal(size=n + p)


# Over `Twisted::kLong` cells: of which the border is one vector, two, and a width without a kernel of its own.
LARGE = [(9001, 8, 4, ()), (20001, 2, 9, (3,)), (3000, 20, 5, ())]


@pytest.mark.parametrize(("n", "w", "p", "columns"), LARGE)
def test_from_both_ends(n: int, w: int, p: int, columns: tuple[int, ...]) -> None:
    """LAPACK's band and block elimination by the book; the same bits with and without threads."""
    (ab, border, corner), _ = large(n, w, p)
    b = np.random.default_rng(1).normal(size=(n + p, *columns))
    x, info = run((ab, border, corner), b)
    assert info == 0
    W, U = lapack_solve(ab, border.T), lapack_solve(ab, b[:n])
    z = np.linalg.solve((corner + corner.T) / 2 - border @ W, b[n:] - border @ U)
    np.testing.assert_allclose(x, np.concatenate([U - W @ z, z]), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(run((ab, border, corner), b, threads=2)[0], x)


@pytest.mark.parametrize("value", [-1e6, np.nan, np.inf])
@pytest.mark.parametrize("n", [40, 9001])
def test_failing_minors(n: int, value: float) -> None:
    """info is the first bad minor, the border's being the last: at either end of the band, between, in the corner."""
    for minor in (1, n // 2, n, n + 1, n + 4):
        (ab, border, corner), b = large(n, 8, 4)
        diagonal, at = (ab[0], minor - 1) if minor <= n else (np.einsum("ii->i", corner), minor - n - 1)
        diagonal[at] = value
        if minor < n + 4:
            corner[-1, -1] = -1  # of several the first
        x, info = run((ab, border, corner), b)
        assert info == minor
        assert np.isnan(x).all()


def test_a_batch() -> None:
    """A failed system spoils no other; threads do not change bits."""
    n, w, p = 600, 3, 4
    systems = [large(n, w, p) for _ in range(9)]
    parts = [np.stack(part) for part in zip(*(system[0] for system in systems), strict=True)]
    parts[0][:, 0] += np.arange(9.0)[:, None]
    parts[0][4, 0, 77] = -1
    b = np.stack([system[1] for system in systems])
    x, info = run(parts, b)
    assert info.tolist() == [0, 0, 0, 0, 78, 0, 0, 0, 0]
    for lane in range(9):
        alone, _ = run([part[lane] for part in parts], b[lane])
        np.testing.assert_array_equal(x[lane], alone)
    np.testing.assert_array_equal(run(parts, b, threads=3)[0], x)


def test_against_the_array_operations(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves without compiled kernels gives the same, failures too."""
    case = (9, 2, 4, True)
    h = definite(*case)
    H, b = structure(backend, stored(h, *case), True), backend.array(np.arange(13.0))
    solve = backend.package.solve
    compiled = solve(H, b)
    if backend.name == "jax":
        with backend.package.portable():
            plain = solve(H, b)
    else:
        monkeypatch.setattr(backend.package.framework.kernels, "served", lambda dtype: False)
        plain = solve(H, b)
        H = H._replace(corner=-H.corner)
        with pytest.raises(torch.linalg.LinAlgError, match="leading minor of order 10 is not positive definite"):
            solve(H, b)
    np.testing.assert_allclose(backend.numpy(compiled), backend.numpy(plain), rtol=1e-13)


def test_one_matrix_for_a_batch_of_right_hand_sides(backend: Backend) -> None:
    case = (9, 2, 4, False)
    h = definite(*case)
    H, B = structure(backend, stored(h, *case), False), np.random.default_rng(0).normal(size=(3, 13))
    x = backend.numpy(backend.vmap(lambda b: backend.package.solve(H, b))(backend.array(B)))
    np.testing.assert_allclose(x, np.linalg.solve(h, B.T).T, rtol=1e-12)
