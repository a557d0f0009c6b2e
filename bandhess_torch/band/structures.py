"""What optimisers and extraction ask of a band: its product (`storage.matvec`), and what stands here.

They never look into a row of its array, so that another storage needs these few functions only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .storage import matvec


def diagonal(ab: Tensor) -> Tensor:
    """H's diagonal `(n,)`."""
    return ab[0]


def shifted(ab: Tensor, shift: Tensor | float) -> Tensor:
    """The band of H + shift I, or of H + diag(shift) for a shift `(n,)`."""
    return torch.cat([ab[:1] + shift, ab[1:]])


def scaled(ab: Tensor, scale: Tensor) -> Tensor:
    """The band of S H S for a diagonal S `(n,)`."""
    rows, n = ab.shape
    return ab * scale * torch.stack([pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def row_sums(ab: Tensor) -> Tensor:
    """sum_j |H[i, j]| `(n,)`."""
    return matvec(ab.abs(), torch.ones_like(ab[0]))
