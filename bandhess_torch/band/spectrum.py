"""Where the eigenvalues of a band or structure lie (Gershgorin)."""

from __future__ import annotations

from torch import Tensor

from .structures import Structure, diagonal, row_sums


def gershgorin_discs(ab: Tensor | Structure) -> tuple[Tensor, Tensor]:
    """The ends `(n,)` of the intervals, one per row, whose union holds the spectrum."""
    centres = diagonal(ab)
    radii = row_sums(ab) - centres.abs()
    return centres - radii, centres + radii


def gershgorin(ab: Tensor | Structure) -> tuple[Tensor, Tensor]:
    """Bounds of the spectrum."""
    low, high = gershgorin_discs(ab)
    return low.min(), high.max()
