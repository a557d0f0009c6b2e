"""Checks of arguments that need no framework, and the texts of their errors: what came, what was expected, what to do.

Where a value belongs to a framework, its shape is given as a tuple and its entries as numbers.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from .options import ChunkSize


def as_index(value: Any, name: str, least: int = 0) -> int:
    """`value` as a Python int that is at least `least`, or an error that names the argument."""
    try:
        if isinstance(value, bool) or hasattr(value, "requires_grad"):  # a tensor: on a GPU, reading it would wait
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int >= {least}, got {value!r} of type {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be an int >= {least}, got {number}")
    return number


def as_positive(value: Any, name: str) -> float:
    """`value` as a Python float that is positive (infinity included), or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, float | int) or not value > 0:
        raise ValueError(f"{name} must be positive, a number, got {value!r}")
    return float(value)


def as_chunk_size(value: Any) -> ChunkSize:
    """`value` as an int >= 1, None or "auto"."""
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    try:
        return as_index(value, "chunk_size", least=1)
    except TypeError:
        raise TypeError(f'chunk_size must be an int >= 1, None or "auto", got {value!r}') from None


def check_argnums(value: Any) -> int:
    """`value` as the place of one argument, negative from the end."""
    try:
        return as_index(value, "argnums", least=-(2**31))
    except TypeError:
        raise TypeError(f"argnums must be one int, got {value!r}; ravel several arguments into one pytree") from None


def check_stages(stages: int, shared: int) -> None:
    """An error where all variables are shared."""
    if shared and not stages:
        raise ValueError(
            f"x0 has no stages, only {shared} shared variables; such a small dense problem is scipy.optimize.minimize's"
        )


def check_args(args: Any) -> None:
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write args=(value,) for one argument")


def check_function_or_none(fun: Any, name: str) -> None:
    if fun is not None and not callable(fun):
        raise TypeError(f"{name} must be a function or None, got {type(fun).__name__}")


def check_band_shape(shape: tuple[int, ...], name: str, batches: str) -> None:
    """batches: the transformation by which the framework forms batches."""
    if len(shape) != 2 or shape[0] == 0:
        raise ValueError(
            f"{name} must be 2-D, shape (w + 1, n) in lower band storage, got shape {shape}; use {batches} for batches"
        )


def check_general_shape(shape: tuple[int, ...], l: int, u: int, batches: str) -> None:
    """batches: the transformation by which the framework forms batches."""
    if len(shape) != 2 or shape[0] != l + u + 1:
        raise ValueError(
            f"ab must be 2-D, shape (l + u + 1, n) = ({l + u + 1}, n) in diagonal ordered form, got shape {shape}; use "
            f"{batches} for batches"
        )


def check_rhs_shape(shape: tuple[int, ...], ab: tuple[int, ...], name: str) -> None:
    n = ab[1]
    if len(shape) not in (1, 2) or shape[0] != n:
        raise ValueError(f"{name} must have shape ({n},) or ({n}, k) to match ab of shape {ab}, got {shape}")


def check_plain(ab: Any, name: str) -> None:
    """Not one of `band/structures`, where a plain band is expected."""
    if hasattr(ab, "_fields"):
        raise TypeError(
            f"{name} must be a plain band (w + 1, n) here, got {type(ab).__name__}; structures have no factor in "
            "natural order: factorise them with factor"
        )


def check_closed(shape: tuple[int, ...]) -> None:
    """The shape of a closed band: n > 2 w, or T > 2 k for stages of d scalars, n = T d and w + 1 = (k + 1) d."""
    w, n = shape[0] - 1, shape[1]
    if w > 0 and n < 2 * (w + 1) - math.gcd(n, w + 1):  # d divides both
        raise ValueError(
            f"a closed band needs n > 2 w, got n = {n} and w = {w}, where entries meet on both ways round; such a "
            "matrix is dense: store and solve it as one"
        )


def check_border(border: tuple[int, ...], corner: tuple[int, ...], n: int) -> None:
    if len(border) != 2 or border[1] != n or corner != (border[0], border[0]):
        raise ValueError(
            f"border must have shape (p, {n}) to match a band of n = {n}, and corner (p, p), got {border} and {corner}"
        )


def check_vector(shape: tuple[int, ...], n: int, name: str) -> None:
    if len(shape) not in (1, 2) or shape[0] != n:
        raise ValueError(f"{name} must have shape ({n},) or ({n}, k), one entry a row of H, got {shape}")


def wrong_bounds(i: int, low: float, high: float) -> str:
    """What is wrong with the bounds of flat entry i; right are low <= high, low < inf, high > -inf."""
    if math.isnan(low) or math.isnan(high):
        expected = "have lower <= upper, not NaN (None or an infinite one where nothing bounds)"
    elif low > high:
        expected = "have lower <= upper"
    else:
        expected = "have lower < inf and upper > -inf (where nothing bounds: -inf or None below, inf or None above)"
    return f"bounds must {expected}, got lower {low} and upper {high} (flat entry {i})"


def too_dense(limit: int, T: int, hint: str | None, advice: str) -> str:
    """What an error says of a Hessian whose bandwidth is past the limit of what is looked at."""
    found = f"the Hessian has entries more than {limit} stages off its diagonal (T = {T})"
    if hint:
        return f"{found}: {hint}"
    return (
        f"{found}. Is the order of the stages the natural one? {advice}; a variable that all stages share is marked in "
        "stage_axes, a closed curve by periodic=True; "
        f"detect_bandwidth(fun, max_bandwidth={T - 1})(x) finds the bandwidth of a denser one"
    )


def stage_count(shapes: list[tuple[int, ...]], shared: list[bool], periodic: bool, name: str) -> int:
    """T, the length of the stage axis that the leaves have, or an error that says which leaf does not fit."""
    own = [shape for shape, alone in zip(shapes, shared, strict=True) if not alone]
    if not own:
        raise ValueError(f"stage_axes must leave some leaf of {name} its stage axis (0); None throughout says: no band")
    if () in own:
        raise ValueError(
            f"every leaf of {name} needs a leading stage axis, got shapes {shapes}; a variable that all stages share "
            'is marked by None in stage_axes, as in stage_axes={"q": 0, "tf": None}; a single one alone takes the '
            "shape (1,)"
        )
    T = max(shape[0] for shape in own)
    if any(shape[0] not in (T, T - 1) for shape in own):
        raise ValueError(
            f"the leaves of {name} must share a leading stage axis of length T (T - 1 is allowed), got shapes "
            f"{shapes}; stack what belongs to one stage along the first axis, or mark a leaf that all stages share by "
            "None in stage_axes"
        )
    if periodic and any(shape[0] != T for shape in own):
        raise ValueError(
            f"with periodic=True every leaf of {name} must have all T stages: a closed curve has as many intervals as "
            f"knots; got shapes {shapes}"
        )
    return T


def check_ring(T: int, d: int, k: int) -> None:
    """T stages of d scalars, around a ring, of which each meets the k on its either side."""
    if (k + 1) * d > 1 and 2 * k >= T:
        raise ValueError(
            f"periodic=True with bandwidth {k} needs T > {2 * k} stages, got {T}, where every stage meets every other, "
            "and some on both ways round: that Hessian is dense; take the framework's own, and a dense solver"
        )


def check_axis(axis: Any) -> bool:
    """Whether a leaf of stage_axes says that a variable is shared."""
    if axis is None:
        return True
    if isinstance(axis, bool) or axis != 0:
        raise ValueError(f"stage_axes must hold 0 (the leading axis is the stages') or None (shared), got {axis!r}")
    return False


def check_exact(exact: bool) -> None:
    """A ring's colours are those of direct probes."""
    if not exact:
        raise ValueError('periodic=True takes probing="direct" alone; leave probing out')


def check_diagonal_lengths(shapes: list[tuple[int, ...]], periodic: bool) -> int:
    """n, the length of the first diagonal; each below is one shorter, or as long around a ring."""
    if not shapes or any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"diagonals must be vectors, the main one first, got shapes {shapes}")
    n = shapes[0][0]
    expected = [(n if periodic else max(n - r, 0),) for r in range(len(shapes))]
    if shapes != expected:
        raise ValueError(f"diagonals must have shapes {expected}{' around a ring' if periodic else ''}, got {shapes}")
    return n


def check_block_shapes(shapes: list[tuple[int, ...]], periodic: bool) -> tuple[int, int]:
    """T and d of blocks `(T, d, d)`, each array below one shorter, or as long around a ring."""
    if any(len(shape) != 3 or shape[1] != shape[2] for shape in shapes):
        raise ValueError(f"blocks must have shapes (T, d, d), (T - 1, d, d), ..., got {shapes}")
    T, d = shapes[0][:2]
    expected = [(T if periodic else max(T - e, 0), d, d) for e in range(len(shapes))]
    if shapes != expected:
        raise ValueError(f"blocks must have shapes {expected}{' around a ring' if periodic else ''}, got {shapes}")
    if periodic:
        check_ring(T, d, len(shapes) - 1)
    return T, d


def check_rows(shape: tuple[int, ...], rows: int, n: int) -> None:
    """Rows of T stages, `(T, r, d)`, on a band of so many rows and n = T d columns."""
    if len(shape) != 3 or shape[0] * shape[2] != n or shape[2] > rows:
        raise ValueError(
            f"A must have shape (T, r, d), r rows for each of T stages of d scalars, with T d = {n} and d <= {rows} "
            f"(the band's rows), got {shape}"
        )


def check_residuals(T: int, d: int, missing: int, variables_T: int, variables_d: int, variables_missing: int) -> None:
    """As many residuals as variables, stage by stage: then the Jacobian's band is square."""
    if (T, d, missing) != (variables_T, variables_d, variables_missing):
        count, expected = T * d - missing, variables_T * variables_d - variables_missing
        raise ValueError(
            f"fun must return as many residuals a stage as its argument has variables, T = {variables_T} stages of d = "
            f"{variables_d} ({expected} in all), got {T} stages of {d} ({count}); reshape what belongs together to "
            "(T, d); for more residuals than variables gauss_newton gives the band of J^T J"
        )


def check_cyclic_reach(l: int, u: int, n: int) -> None:
    """Each entry of a general closed band has one cell where n > l + u."""
    if 0 < n <= l + u:
        raise ValueError(
            f"a periodic band needs l + u < n, got l + u = {l + u} and n = {n}, where entries meet on both ways round; "
            "such a matrix is dense: store and solve it as one"
        )
