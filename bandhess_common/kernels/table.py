"""The list of the kernels for Python; kernels.h is the same list for C++, and `library.load` compares the two."""

from __future__ import annotations

import math
from typing import NamedTuple

from .. import trust_region

GIVEN = math.nan  # which every kernel refuses


class Kernel(NamedTuple):
    """What a kernel takes and gives. Every array may have the same batch dimensions in front.

    Of the results those after `least` may be left out, from the last on. Options are numbers: constants, or GIVEN with
    the call.
    """

    operands: tuple[str, ...]
    results: tuple[str, ...]
    least: int
    options: dict[str, float] = {}  # noqa: RUF012

    def line(self, name: str) -> str:
        """As kernels.h has it."""
        numbers = f"{name}, {len(self.operands)}, {self.least}, {len(self.results)}"
        return ", ".join([numbers, *(f'"{option}"' for option in self.options)])


SEARCH: dict[str, float] = {
    "near": trust_region.NEAR,
    "hard": trust_region.HARD,
    "grow": trust_region.GROW,
    "tries": trust_region.TRIES,
}

KERNELS = {
    # [d, d m] of H = M D M^T, column by column, for ab (w + 1, n); info: the first pivot that is not in (0, inf), or 0.
    "columns": Kernel(("ab (r, n)",), ("columns (n, r)", "info ()"), 1),
    # L with H = L L^T, NaN where info is not 0.
    "cholesky": Kernel(("ab (r, n)",), ("cb (r, n)", "info ()"), 2),
    # H^-1 b, NaN where info is not 0; [d, m] for more solves.
    "solve": Kernel(("ab (r, n)", "b (n, k)"), ("x (n, k)", "info ()", "columns (n, r)"), 1),
    # (M D M^T)^-1 b, for columns [d, m], or raw: [d, d m].
    "substitute": Kernel(("columns (n, r)", "b (n, k)"), ("x (n, k)",), 1, {"raw": GIVEN}),
    # L^-1 b, or L^-T b.
    "triangular": Kernel(("cb (r, n)", "b (n, k)"), ("x (n, k)",), 1, {"transpose": GIVEN}),
    # The band of H^-1 by columns, for the m_j and 1 / d_j.
    "inverse": Kernel(("unit (n, r - 1)", "reciprocals (n)"), ("columns (n, r)",), 1),
    # General bands with l diagonals below the main one: U by rows, multipliers, and how far below the pivots stood.
    "lu": Kernel(("ab (r, n)",), ("upper (n, r)", "multipliers (n, l)", "swaps (n)"), 3, {"l": GIVEN}),
    # A^-1 b, or A^-T b.
    "lu_solve": Kernel(
        ("upper (n, r)", "multipliers (n, l)", "swaps (n)", "b (n, k)"), ("x (n, k)",), 1, {"transpose": GIVEN}
    ),
    # The trust-region step, for `Query` and `Answer` in a row (optimise/newton/subproblem.py).
    "subproblem": Kernel(("g (n)", "ab (r, n)", "start (n)", "query (9)"), ("p (n)", "answer (9)"), 2, SEARCH),
    # The band from the products of substitution's probes, with d scalars a stage.
    "symmetry": Kernel(("products (r, n)",), ("band (r, n)",), 1, {"d": GIVEN}),
    # The interior point by requests (interior.py): a state s, for m equalities among r rows, W of `rows` diagonals.
    # numbers: tol, max_steps, start (0 multipliers by least squares, 1 y, 2 y, z and mu of a previous end), mu.
    "interior_start": Kernel(
        (
            "lower (n)",
            "upper (n)",
            "fixed (n)",
            "first (r)",
            "x (n)",
            "y (r)",
            "z_lower (n)",
            "z_upper (n)",
            "numbers (4)",
            "constants (c)",
        ),
        ("state (s)",),
        1,
        {"rows": GIVEN, "m": GIVEN},
    ),
    # After a request for derivatives, of sigma f + y . h: rows of dh/dx from `first` on, W; narrow 0, or which is.
    "interior_begin": Kernel(
        ("state (s)", "f ()", "h (r)", "gradient (n)", "rows (r, l)", "W (w, n)", "narrow ()"), ("state (s)",), 1
    ),
    # After a request for values.
    "interior_trial": Kernel(("state (s)", "f ()", "h (r)"), ("state (s)",), 1, {"n": GIVEN, "rows": GIVEN}),
    # What the state has, unscaled.
    "interior_solution": Kernel(
        ("state (s)",),
        ("x (n)", "y (r)", "z_lower (n)", "z_upper (n)", "mu ()"),
        5,
        {"n": GIVEN, "r": GIVEN, "rows": GIVEN},
    ),
}
"""info, swaps and first are int32; all other arrays are float32, or all are float64."""
