"""The band as a general sparse matrix, for libraries that take one."""

from __future__ import annotations

import torch
from torch import Tensor

from .storage import as_band


def to_sparse(ab: Tensor, *, layout: torch.layout = torch.sparse_coo) -> Tensor:
    """The symmetric `(n, n)` matrix that `ab` `(w + 1, n)` stores, as a sparse tensor.

    Args:
      ab: `(w + 1, n)`, lower band storage.
      layout: `torch.sparse_coo` (coalesced) or `torch.sparse_csr`.

    Returns: both triangles, row by row, every cell of the band included though it be 0: n + v (2 n - v - 1) entries,
      with v = min(w, n - 1). Differentiable by `backward`. RuntimeError inside `torch.func.vmap`, which has no
      sparse tensors.

    >>> to_sparse(torch.tensor([[4.0, 4, 4], [1, 1, 0]])).to_dense()
    tensor([[4., 1., 0.],
            [1., 4., 1.],
            [0., 1., 4.]])
    """
    if layout not in (torch.sparse_coo, torch.sparse_csr):
        raise ValueError(f"layout must be torch.sparse_coo or torch.sparse_csr, got {layout!r}")
    ab = as_band(ab)
    if torch._C._functorch.is_batchedtensor(ab):
        raise RuntimeError(
            "to_sparse does not run inside torch.func.vmap, which has no sparse tensors; call it per band"
        )
    n = ab.shape[1]
    w = max(min(ab.shape[0], n) - 1, 0)
    column = torch.arange(n, device=ab.device)[:, None] + torch.arange(-w, w + 1, device=ab.device)
    inside = (column >= 0) & (column < n)
    i, k = torch.nonzero(inside, as_tuple=True)
    j = column[i, k]
    cells = ab[(i - j).abs(), torch.minimum(i, j)]
    if layout == torch.sparse_coo:
        return torch.sparse_coo_tensor(torch.stack([i, j]), cells, (n, n), is_coalesced=True, check_invariants=False)
    starts = torch.nn.functional.pad(inside.sum(1).cumsum(0), (1, 0))
    return torch.sparse_csr_tensor(starts, j, cells, (n, n), check_invariants=False)
