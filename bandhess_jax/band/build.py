"""Bands from what a program may have at hand: diagonals, blocks, a sparse matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bandhess_common.checks import as_index, check_block_shapes, check_diagonal_lengths

from .structures import Cyclic, as_structure


def from_diagonals(*diagonals: ArrayLike, periodic: bool = False) -> Array | Cyclic:
    """The band with these diagonals, the main one first, then those below it.

    Args:
      diagonals: `(n,)`, `(n - 1,)`, `(n - 2,)`, ...
      periodic: each has n entries, entry j of diagonal r being H[(j + r) mod n, j]: give a `Cyclic`.

    Returns: ab `(w + 1, n)` for w + 1 diagonals.

    >>> from_diagonals(jnp.array([2.0, 2.0, 2.0]), jnp.array([-1.0, -1.0]))
    Array([[ 2.,  2.,  2.],
           [-1., -1.,  0.]], dtype=float32)
    """
    rows = [jnp.asarray(each) for each in diagonals]
    n = check_diagonal_lengths([row.shape for row in rows], periodic)
    ab = jnp.stack([jnp.pad(row, (0, n - row.shape[0])) for row in rows])
    return as_structure(Cyclic(ab)) if periodic else ab  # type: ignore[return-value]


def from_blocks(diagonal: ArrayLike, *below: ArrayLike, periodic: bool = False) -> Array | Cyclic:
    """The band of a block-banded matrix of T stages, d scalars each.

    Args:
      diagonal: `(T, d, d)`, the blocks H[t, t], of which the lower triangles are read.
      below: `(T - 1, d, d)`, the blocks H[t + 1, t]; `(T - 2, d, d)`, those two stages below; and so on.
      periodic: each has T blocks, the last ones those around the ring: give a `Cyclic`.

    Returns: ab `((k + 1) d, T d)` for k arrays of blocks below the diagonal.

    >>> diagonal, below = jnp.array([[[4.0, 1], [1, 4]], [[5, 2], [2, 5]]]), jnp.array([[[7.0, 8], [0, 9]]])
    >>> from_blocks(diagonal, below)
    Array([[4., 4., 5., 5.],
           [1., 8., 2., 0.],
           [7., 9., 0., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    blocks = [jnp.asarray(each) for each in (diagonal, *below)]
    T, d = check_block_shapes([block.shape for block in blocks], periodic)
    every = jnp.stack([jnp.pad(block, ((0, T - block.shape[0]), (0, 0), (0, 0))) for block in blocks])
    # Cell (r, t d + b) lies r + b scalars below the begin of stage t: in row a of the block e stages down.
    k, (r, b) = len(below), np.indices(((len(below) + 1) * d, d))
    e, a = np.divmod(r + b, max(d, 1))
    cells = jnp.where(jnp.asarray(e <= k)[..., None], every[np.minimum(e, k), :, a, b], 0)
    ab = cells.transpose(0, 2, 1).reshape((k + 1) * d, T * d)
    return as_structure(Cyclic(ab)) if periodic else ab  # type: ignore[return-value]


def from_sparse(matrix: Any, w: int | None = None) -> Array:
    """The band of a sparse symmetric matrix, of which the lower triangle is read.

    Args:
      matrix: `(n, n)`: of SciPy's sparse arrays and matrices one, or a `jax.experimental.sparse.BCOO`.
      w: the number of subdiagonals; None finds it, outside jit.

    Returns: ab `(w + 1, n)`. Raises ValueError where `matrix` is not square, and outside jit where an entry that is not
    zero lies further than w from the diagonal (under jit it is dropped).

    >>> import scipy.sparse
    >>> from_sparse(scipy.sparse.diags_array([[1.0, 2], [4, 5, 6], [1, 2]], offsets=[-1, 0, 1]))
    Array([[4., 5., 6.],
           [1., 2., 0.]], dtype=float32)
    """
    from jax.experimental.sparse import BCOO  # which brings much of SciPy with it

    if isinstance(matrix, BCOO):
        i, j, values, shape = matrix.indices[:, 0], matrix.indices[:, 1], matrix.data, matrix.shape
    elif hasattr(matrix, "tocoo"):
        coo = matrix.tocoo()
        i, j, values, shape = coo.row, coo.col, jnp.asarray(coo.data), coo.shape
    else:
        raise TypeError(f"matrix must be sparse, of SciPy or BCOO, got {type(matrix).__name__}; use from_dense")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"matrix must be square, (n, n), got shape {tuple(shape)}")
    known = not any(isinstance(part, jax.core.Tracer) for part in (i, j, values))
    reach = int(np.max(np.abs(np.asarray(i) - np.asarray(j))[np.asarray(values) != 0], initial=0)) if known else 0
    if w is None and not known:
        raise TypeError("w must be given under jit: it decides the shape of ab")
    w = reach if w is None else as_index(w, "w")
    if reach > w:
        raise ValueError(f"matrix has an entry {reach} off its diagonal, outside a band of w = {w}")
    inside = (i >= j) & (i - j <= w)
    ab = jnp.zeros((w + 1, shape[0]), values.dtype)
    return ab.at[jnp.where(inside, i - j, 0), j].add(jnp.where(inside, values, 0))
