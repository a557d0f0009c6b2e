"""The list of the kernels for Python; kernels.h is the same list for C++, and `library.load` compares the two."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from .. import trust_region
from .newton import NUMBERS, VECTORS, Settings

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

# Bytes for the columns of one large system; those that find none are eliminated twice (twisted.h). With what goes along
# they fit the block of memory that stays between calls (dispatch.h).
ROOM: dict[str, float] = {"room": 56 * 2**20}

NEWTON_STATE = f"numbers ({NUMBERS})", f"vectors ({VECTORS}, n)", "band (r, n)"

KERNELS = {
    # [d, d m] of H = M D M^T, column by column, for ab (w + 1, n); info: the first pivot that is not in (0, inf), or 0.
    "columns": Kernel(("ab (r, n)",), ("columns (n, r)", "info ()"), 1),
    # L with H = L L^T, NaN where info is not 0.
    "cholesky": Kernel(("ab (r, n)",), ("cb (r, n)", "info ()"), 2),
    # H^-1 b, NaN where info is not 0; [d, m] for more solves.
    "solve": Kernel(("ab (r, n)", "b (n, k)"), ("x (n, k)", "info ()", "columns (n, r)"), 1, ROOM),
    # The same of [[ab, border^T], [border, corner]]; info counts the corner's minors after the band's.
    "solve_bordered": Kernel(
        ("ab (r, n)", "border (p, n)", "corner (p, p)", "b (m, k)"), ("x (m, k)", "info ()"), 1, ROOM
    ),
    # (M D M^T)^-1 b, for columns [d, m], or raw: [d, d m].
    "substitute": Kernel(("columns (n, r)", "b (n, k)"), ("x (n, k)",), 1, {"raw": GIVEN}),
    # L^-1 b, or L^-T b.
    "triangular": Kernel(("cb (r, n)", "b (n, k)"), ("x (n, k)",), 1, {"transpose": GIVEN}),
    # The band of H^-1 by columns, for the m_j and 1 / d_j.
    "inverse": Kernel(("unit (n, r - 1)", "reciprocals (n)"), ("columns (n, r)",), 1),
    # The diagonal of H^-1 for columns [d, d m].
    "variances": Kernel(("columns (n, r)",), ("variances (n)",), 1),
    # General bands with l diagonals below the main one: U by rows, multipliers, and how far below the pivots stood.
    "lu": Kernel(("ab (r, n)",), ("upper (n, r)", "multipliers (n, l)", "swaps (n)"), 3, {"l": GIVEN}),
    # A^-1 b, or A^-T b.
    "lu_solve": Kernel(
        ("upper (n, r)", "multipliers (n, l)", "swaps (n)", "b (n, k)"), ("x (n, k)",), 1, {"transpose": GIVEN}
    ),
    # The trust-region step, for `Query` and `Answer` in a row (optimise/newton/subproblem.py).
    "subproblem": Kernel(("g (n)", "ab (r, n)", "start (n)", "query (9)"), ("p (n)", "answer (9)"), 2, SEARCH),
    # That method by requests (newton.py): a state, for the limits of `limits_of` (optimise/newton/state.py), and sizes
    # of the variables and dummies where there are any; begun: the state before goes on. Something is asked for at x.
    "newton_start": Kernel(
        (
            "x (n)",
            "limits (3)",
            f"settings ({len(Settings._fields)})",
            "sizes (u)",
            "dummies (v)",
            "begun ()",
            *NEWTON_STATE,
        ),
        (*NEWTON_STATE, "x (n)", "probe (n)"),
        5,
    ),
    # After a request for f.
    "newton_trial": Kernel((*NEWTON_STATE, "f ()"), (*NEWTON_STATE, "x (n)", "probe (n)"), 5),
    # After one for derivatives: of H the band, and the products with the probe and with pi times it.
    "newton_begin": Kernel(
        (*NEWTON_STATE, "gradient (n)", "ab (r, n)", "products (2, n)"), (*NEWTON_STATE, "x (n)", "probe (n)"), 5
    ),
    # The band from the products of substitution's probes, with d scalars a stage.
    "symmetry": Kernel(("products (r, n)",), ("band (r, n)",), 1, {"d": GIVEN}),
    # The interior point by requests (interior.py): a state s, for m equalities among r rows, W's band of `rows`
    # diagonals, and so many shared variables, the last of the n.
    # numbers: tol, max_steps, start (0 multipliers by least squares, 1 y, 2 y, z and mu of a previous end, below 0 none
    # of them: the state before goes on), mu, alone (1: nobody asks for each iterate). The head is
    # what callers read of a state.
    "interior_start": Kernel(
        (
            "lower (n)",
            "upper (n)",
            "fixed (n)",
            "x (n)",
            "y (r)",
            "z_lower (n)",
            "z_upper (n)",
            "numbers (5)",
            "constants (c)",
            "before (s)",
        ),
        ("state (s)", "head (q)"),
        2,
        {"rows": GIVEN, "m": GIVEN, "shared": GIVEN},
    ),
    # After a request for derivatives, of sigma f + y . h: rows of dh/dx from `first` on, then of the shared variables;
    # W, its band and its border; narrow 0, or which is.
    "interior_begin": Kernel(
        ("state (s)", "f ()", "h (r)", "gradient (n)", "first (r)", "rows (r, l)", "W (w, n)", "narrow ()"),
        ("state (s)", "head (q)"),
        2,
        {"shared": GIVEN},
    ),
    # After a request for values.
    "interior_trial": Kernel(
        ("state (s)", "f ()", "h (r)"),
        ("state (s)", "head (q)"),
        2,
        {"n": GIVEN, "rows": GIVEN, "shared": GIVEN},
    ),
    # Whether noise v meets entries outside the band W or outside the rows: narrow, from the product (W v, J v), and the
    # same rounded otherwise.
    "interior_narrow": Kernel(
        ("W (w, n)", "rows (r, l)", "first (r)", "v (n)", "product (t)", "again (t)"),
        ("narrow ()",),
        1,
        {"shared": GIVEN},
    ),
    # What the state has, unscaled.
    "interior_solution": Kernel(
        ("state (s)",),
        ("x (n)", "y (r)", "z_lower (n)", "z_upper (n)", "mu ()"),
        5,
        {"n": GIVEN, "r": GIVEN, "rows": GIVEN, "shared": GIVEN},
    ),
}
"""info, swaps, first and begun are int32; all other arrays are float32, or all are float64. The interior point's state
and constants are doubles for either: beside float32 they come as int32, two for each."""

_INTEGERS = ("info", "swaps")


def _dims(text: str) -> tuple[tuple[str, int], ...]:
    """Of "unit (n, r - 1)": the letter of each dimension, and what is added to it."""
    dims = text.split("(", 1)[1].rstrip(")").split(",")
    parts = (dim.split("-") for dim in dims if dim.strip())
    return tuple((first.strip(), -sum(map(int, rest))) for first, *rest in parts)


class Shape(NamedTuple):
    """Of a result."""

    integers: bool
    dims: tuple[int, ...]


@functools.lru_cache(4096)
def result_shapes(
    name: str, operands: tuple[tuple[int, ...], ...], results: int | None, options: tuple[tuple[str, float], ...]
) -> list[Shape]:
    """The results of the kernel `name`, the first so many, for operands of these shapes with one batch in front; a
    right-hand side without columns, b `(n,)`, gives such a solution."""
    table = KERNELS[name]
    dims = [_dims(text) for text in table.operands]
    batch = operands[0][: len(operands[0]) - len(dims[0])]
    sizes: dict[str, float | None] = dict(options)
    for letters, shape in zip(dims, operands, strict=True):
        given = shape[len(batch) :]
        for (letter, added), size in zip(letters, (*given, *[None] * (len(letters) - len(given))), strict=True):
            sizes[letter] = None if size is None else size - added
    shapes = []
    for text in table.results[:results]:
        found = [(int(letter) if letter.isdigit() else sizes[letter], added) for letter, added in _dims(text)]
        whole = tuple(int(size) + added for size, added in found if size is not None)
        shapes.append(Shape(text.split(" ")[0] in _INTEGERS, (*batch, *whole)))
    return shapes
