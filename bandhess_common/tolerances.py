"""Numbers that decide what `sqp` returns, one for both backends."""

from __future__ import annotations

# gamma, relative to |A|^2 / |W|: rounding errors in M against the work of further passes
GAMMA = {"float64": 1e-8, "float32": 1e-5}
NULL = 6  # products that single out a null vector of A^T
REFINEMENTS = 12  # passes of a derivative's solve, at most


def dependent_rows(eps: float) -> float:
    """Rows of A are dependent where |A^T u| <= this |A| |u| for some u: well above the rounding errors of A^T u, about
    eps, and below rows that are merely small or nearly parallel."""
    return eps ** (2 / 3)
