"""Whether noise meets entries outside a band or outside rows' windows: by the kernel, and by the portable program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import unstore

from bandhess_common.kernels import call, view
from bandhess_jax.optimise.sqp.derivatives import _verdict

verdict = jax.jit(_verdict, static_argnames="shared")
N, R, L = 9, 6, 4  # banded variables, rows, columns of a window


class Found(NamedTuple):
    """What was extracted, with p shared variables, and the operators that gave it."""

    W: np.ndarray
    rows: np.ndarray
    first: np.ndarray
    H: np.ndarray
    J: np.ndarray


def found(p: int, diagonals: int) -> Found:
    rng = np.random.default_rng(p)
    n = N + p
    band, border = np.zeros((diagonals, n)), rng.normal(size=(p, n))
    for i in range(diagonals):
        band[i, : N - i] = rng.normal(size=N - i)
    first, rows = np.array([0, 1, 1, 3, 5, 2], np.int32), rng.normal(size=(R, L + p))
    H, J = np.zeros((n, n)), np.zeros((R, n))
    H[:N, :N] = unstore(band[:, :N])
    band[0, N:] = rng.normal(size=p)
    border[:, N:] = np.tril(border[:, N:], -1) + np.tril(border[:, N:], -1).T
    H[N:], H[:, N:] = border, border.T
    H[np.arange(N, n), np.arange(N, n)] = band[0, N:]
    for i, start in enumerate(first):
        J[i, start : start + L] = rows[i, :L]
    J[:, N:] = rows[:, L:]
    return Found(np.concatenate([band, border]), rows, first, H, J)


def verdicts(of: Found, p: int, H: Any, J: Any, again: float = 0.0) -> tuple[float, float]:
    """By the kernel and by the portable program, where the second product is off by this part of the first."""
    v = np.random.default_rng(9).normal(size=N + p)
    product = np.concatenate([H @ v, J @ v])
    operands = [of.W, of.rows, of.first, v, product, product * (1 + again)]
    out = np.zeros(())
    call("interior_narrow", list(map(view, operands)), [view(out)], shared=p)
    return float(out), float(verdict(*map(jnp.asarray, operands), shared=p))


@pytest.mark.parametrize(("p", "diagonals"), [(0, L), (0, 1), (2, 2)])
def test_what_noise_meets(p: int, diagonals: int) -> None:
    """Nothing; an entry of the Hessian beyond the band; of a row outside its window; and what rounding explains."""
    of = found(p, diagonals)
    assert verdicts(of, p, of.H, of.J) == (0, 0)
    H, J = of.H.copy(), of.J.copy()
    H[0, 8] = H[8, 0] = 1e-3
    assert verdicts(of, p, H, of.J) == (1, 1)
    J[3, 8] = 1e-3
    assert verdicts(of, p, of.H, J) == verdicts(of, p, H, J) == (5, 5)
    assert verdicts(of, p, H, J, again=1e-2) == (0, 0)
    H[0, 8] = H[8, 0] = 1e-12
    assert verdicts(of, p, H, of.J) == (0, 0)
