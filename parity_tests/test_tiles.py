"""How the compiled kernels divide a solve: lanes of systems, blocks of columns, segments of a factor, kept memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from matrices import lapack_solve, rounding
from oracles import unstore

import bandhess_torch
from bandhess_common.kernels import call, view

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def band(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Diagonally dominant, with unique values: (..., w + 1, n)."""
    ab = np.random.default_rng(seed).uniform(-1, 1, size=shape)
    ab[..., 0, :] += 2 * shape[-2] + 1
    return ab


def solve(ab: np.ndarray, b: np.ndarray, threads: int = 1, **room: float) -> tuple[np.ndarray, np.ndarray]:
    x, info = np.empty_like(b), np.empty(ab.shape[:-2], np.int32)
    call("solve", [view(ab), view(b)], [view(x), view(info)], threads=threads, **room)
    return x, info


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("w", range(34))
def test_every_width_in_lanes_and_alone(w: int, dtype: str) -> None:
    """Less than a tile and more, a column more or less than whole blocks; less than a register of systems, one, two,
    more. What storage does not use is NaN and not read."""
    for n in (1, w + 1, w + 2, 31 + w, 37):
        ab = band((18, w + 1, n), n).astype(dtype)
        H = np.stack([unstore(one.astype(float)) for one in ab])
        b = np.random.default_rng(w).normal(size=(18, n)).astype(dtype)
        expected = np.linalg.solve(H, b[..., None].astype(float))[..., 0]
        for d in range(w + 1):
            ab[:, d, max(0, n - d) :] = np.nan
        close = {"rtol": 0, "atol": rounding(w, dtype) * np.abs(expected).max()}
        abt, bt = torch.tensor(ab), torch.tensor(b)
        for batch in (1, 3, 4, 5, 8, 9, 18):
            x = torch.func.vmap(bandhess_torch.solve)(abt[:batch], bt[:batch])
            np.testing.assert_allclose(x, expected[:batch], **close)
        cb = torch.func.vmap(bandhess_torch.cholesky)(abt[:9])
        product = np.stack([np.tril(unstore(np.nan_to_num(one.numpy().astype(float)))) for one in cb])
        product = product @ product.transpose(0, 2, 1)
        np.testing.assert_allclose(product, H[:9], rtol=0, atol=rounding(w, dtype) * np.abs(H).max())


@pytest.mark.parametrize("lane", range(9))
def test_the_first_bad_pivot_of_each_lane(lane: int) -> None:
    """Of systems side by side the others are solved; later pivots that are bad, too, do not count."""
    ab, b = band((9, 3, 70)), np.ones((9, 70))
    expected = solve(ab, b)[0]
    ab[lane, 0, [40, 65]] = -1
    x, info = solve(ab, b)
    assert info.tolist() == [41 if i == lane else 0 for i in range(9)]
    assert np.isnan(x[lane]).all()
    np.testing.assert_array_equal(np.delete(x, lane, 0), np.delete(expected, lane, 0))


# Of 320 columns an end, ten tiles: no column more, one more, one less than whole segments; less than a tile in the
# first; one segment and a column.
ENDS = [3200, 3201, 3199, 3210, 3500]


def room(w: int, dtype: str, columns: int) -> float:
    """Bytes for so many columns an end."""
    return 2 * columns * (w + 1) * np.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("columns", [(), (3,)])
def test_segments(columns: tuple[int, ...], dtype: str) -> None:
    """The same bits as without, for one right-hand side and several, in one thread and two; and LAPACK's solution."""
    w = 16
    for end in ENDS:
        n = 2 * end + w + (end == 3201)  # of an odd number the end from below has one more
        ab = band((w + 1, n)).astype(dtype)
        b = np.random.default_rng(1).normal(size=(n, *columns)).astype(dtype)
        whole, info = solve(ab, b)
        assert info == 0
        expected = lapack_solve(ab.astype(float), b.astype(float))
        np.testing.assert_allclose(whole, expected, rtol=0, atol=rounding(w, dtype) * np.abs(expected).max())
        for threads, held in ((1, 320), (2, 320), (1, end - 1), (1, 1)):
            x, info = solve(ab, b, threads, room=room(w, dtype, held))
            assert info == 0
            np.testing.assert_array_equal(x, whole)


@pytest.mark.parametrize("where", [5, 3300, 6611])
def test_a_bad_pivot_in_segments(where: int) -> None:
    ab = band((17, 6616))
    ab[0, where - 1] = -1
    x, info = solve(ab, np.ones(6616), room=room(16, "float64", 320))
    assert info == where
    assert np.isnan(x).all()


@pytest.mark.parametrize("columns", [(), (3,)])
def test_segments_beside_a_border(columns: tuple[int, ...]) -> None:
    n, w, p = 6700, 8, 5
    rng = np.random.default_rng(2)
    parts = [band((w + 1, n)), rng.normal(size=(p, n)), n * np.eye(p), rng.normal(size=(n + p, *columns))]

    def bordered(**given: float) -> np.ndarray:
        x, info = np.empty_like(parts[-1]), np.empty((), np.int32)
        call("solve_bordered", list(map(view, parts)), [view(x), view(info)], threads=2, **given)
        assert info == 0
        return x

    np.testing.assert_array_equal(bordered(room=room(w, "float64", 320)), bordered())


def test_kept_memory_is_nobody_elses() -> None:
    """Calls at the same time, of sizes that find the block of the one before large enough, too small, or too large to
    stay: each has the bits that it has alone, twice in a row."""
    sizes = [(2, 3, 50), (5, 40, 300), (1, 8, 40000), (64, 4, 2000), (1, 32, 300000)]
    cases = [(band((m, w + 1, n)), np.ones((m, n))) for m, w, n in sizes]
    alone = [solve(*case)[0] for case in cases]
    order = [*range(4), 4, *range(4)] * 3
    with ThreadPoolExecutor(4) as pool:
        for i, (x, info) in zip(order, pool.map(lambda i: solve(*cases[i], threads=2), order), strict=True):
            assert (info == 0).all()
            np.testing.assert_array_equal(x, alone[i])
