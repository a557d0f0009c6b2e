"""Bands from what a program may have at hand: diagonals, blocks, a sparse matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.checks import as_index, check_block_shapes, check_diagonal_lengths

from .structures import Cyclic, as_structure


def from_diagonals(*diagonals: Tensor, periodic: bool = False) -> Tensor | Cyclic:
    """The band with these diagonals, the main one first, then those below it.

    Args:
      diagonals: `(n,)`, `(n - 1,)`, `(n - 2,)`, ...
      periodic: each has n entries, entry j of diagonal r being H[(j + r) mod n, j]: give a `Cyclic`.

    Returns: ab `(w + 1, n)` for w + 1 diagonals.

    >>> from_diagonals(torch.tensor([2.0, 2.0, 2.0]), torch.tensor([-1.0, -1.0]))
    tensor([[ 2.,  2.,  2.],
            [-1., -1.,  0.]])
    """
    n = check_diagonal_lengths([tuple(row.shape) for row in diagonals], periodic)
    ab = torch.stack([pad(row, (0, n - row.shape[0])) for row in diagonals])
    return as_structure(Cyclic(ab)) if periodic else ab  # type: ignore[return-value]


def from_blocks(diagonal: Tensor, *below: Tensor, periodic: bool = False) -> Tensor | Cyclic:
    """The band of a block-banded matrix of T stages, d scalars each.

    Args:
      diagonal: `(T, d, d)`, the blocks H[t, t], of which the lower triangles are read.
      below: `(T - 1, d, d)`, the blocks H[t + 1, t]; `(T - 2, d, d)`, those two stages below; and so on.
      periodic: each has T blocks, the last ones those around the ring: give a `Cyclic`.

    Returns: ab `((k + 1) d, T d)` for k arrays of blocks below the diagonal.

    >>> diagonal, below = torch.tensor([[[4.0, 1], [1, 4]], [[5, 2], [2, 5]]]), torch.tensor([[[7.0, 8], [0, 9]]])
    >>> from_blocks(diagonal, below)
    tensor([[4., 4., 5., 5.],
            [1., 8., 2., 0.],
            [7., 9., 0., 0.],
            [0., 0., 0., 0.]])
    """
    blocks = [diagonal, *below]
    T, d = check_block_shapes([tuple(block.shape) for block in blocks], periodic)
    every = torch.stack([pad(block, (0, 0, 0, 0, 0, T - block.shape[0])) for block in blocks])
    # Cell (r, t d + b) lies r + b scalars below the begin of stage t: in row a of the block e stages down.
    k, (r, b) = len(below), np.indices(((len(below) + 1) * d, d))
    e, a = np.divmod(r + b, max(d, 1))
    index = [torch.as_tensor(x, device=diagonal.device) for x in (np.minimum(e, k), a, b, e <= k)]
    cells = torch.where(index[3][..., None], every.movedim(1, -1)[index[0], index[1], index[2]], 0)
    ab = cells.permute(0, 2, 1).reshape((k + 1) * d, T * d)
    return as_structure(Cyclic(ab)) if periodic else ab  # type: ignore[return-value]


def from_sparse(matrix: Any, w: int | None = None) -> Tensor:
    """The band of a sparse symmetric matrix, of which the lower triangle is read.

    Args:
      matrix: `(n, n)`: of SciPy's sparse arrays and matrices one, or a sparse tensor.
      w: the number of subdiagonals; None finds it.

    Returns: ab `(w + 1, n)`. Raises ValueError where `matrix` is not square, or has an entry that is not zero further
    than w from the diagonal.

    >>> import scipy.sparse
    >>> from_sparse(scipy.sparse.diags_array([[1.0, 2], [4, 5, 6], [1, 2]], offsets=[-1, 0, 1]))
    tensor([[4., 5., 6.],
            [1., 2., 0.]], dtype=torch.float64)
    """
    if isinstance(matrix, Tensor) and matrix.layout != torch.strided:
        coo = matrix.to_sparse_coo().coalesce()
        (i, j), values, shape = coo.indices(), coo.values(), tuple(coo.shape)
    elif hasattr(matrix, "tocoo"):
        coo = matrix.tocoo()
        i, j, values = (
            torch.as_tensor(part) for part in (coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data)
        )
        shape = coo.shape
    else:
        raise TypeError(f"matrix must be sparse, of SciPy or PyTorch, got {type(matrix).__name__}; use from_dense")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"matrix must be square, (n, n), got shape {tuple(shape)}")
    off = (i - j).abs()[values.detach() != 0]
    reach = int(off.max()) if len(off) else 0
    w = reach if w is None else as_index(w, "w")
    if reach > w:
        raise ValueError(f"matrix has an entry {reach} off its diagonal, outside a band of w = {w}")
    inside = (i >= j) & (i - j <= w)
    ab = values.new_zeros((w + 1, shape[0]))
    return ab.index_put((torch.where(inside, i - j, 0), j), torch.where(inside, values, 0), accumulate=True)
