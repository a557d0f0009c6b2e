"""How the result of an optimiser reads: `print(result)`, `result.success`, `result.message`.

Numbers may be Python's, arrays of either framework, batches of a vmap, or traced, which have no values to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .messages import newton_message
from .status import Status


def known(value: Any) -> np.ndarray | None:
    """The numbers, or None where they cannot be looked at: inside jit, vmap and other transformations."""
    try:
        numbers = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        return None if numbers.dtype == object else numbers  # such as a shape alone
    except Exception:  # each framework, and each of its transformations, has an error of its own for this
        return None


def succeeded(status: Any) -> Any:
    """Whether the status is CONVERGED: a bool, or an array of them."""
    return status == Status.CONVERGED if np.ndim(status) or known(status) is None else bool(status == Status.CONVERGED)


def message_of(status: Any, text: Callable[[Status], str] = newton_message) -> str | None:
    """What the end of an optimiser means; of a batch, how often each end came. None where the status is traced."""
    codes = known(status)
    if codes is None:
        return None
    return text(Status(int(codes))) if codes.ndim == 0 else tally(codes)


def tally(codes: np.ndarray) -> str:
    """Such as "CONVERGED 3, STALLED 1"."""
    found, counts = np.unique(codes, return_counts=True)
    return ", ".join(f"{Status(int(code))} {count}" for code, count in zip(found, counts, strict=True))


def _number(value: Any) -> str:
    numbers = known(value)
    if numbers is None:
        return str(value)
    if numbers.ndim == 0:
        return f"{numbers:.13g}" if numbers.dtype.kind == "f" else str(numbers)
    if numbers.size == 0:
        return f"shape {numbers.shape}"
    return f"{numbers.min():.6g} .. {numbers.max():.6g}, shape {numbers.shape}"


def structure(tree: Any) -> str:
    """The shapes and types of a tree's leaves, in its own form."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key!r}: {structure(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, tuple | list):
        parts = ", ".join(map(structure, tree))
        return f"[{parts}]" if isinstance(tree, list) else f"({parts})"
    if not hasattr(tree, "shape"):
        return type(tree).__name__
    return f"{str(tree.dtype).removeprefix('torch.')}{list(tree.shape)}"


def _head(result: Any) -> str:
    name, codes, steps = type(result).__name__, known(result.status), known(result.steps)
    if codes is None:
        return f"{name}: traced"
    if codes.ndim:
        return f"{name} of {codes.size}: {tally(codes)}"
    count = "" if steps is None else f" after {int(steps)} step{'' if steps == 1 else 's'}"
    return f"{name}: {Status(int(codes))}{count}"


def describe(result: Any) -> str:
    """A line with the status by name and the steps, and one for each number."""
    lines = [_head(result)]
    codes = known(result.status)
    if codes is None or codes.ndim:
        lines.append(f"  steps            {_number(result.steps)}")
    for name in ("value", "grad_norm", "constraint_norm"):
        if hasattr(result, name):
            lines.append(f"  {name:15}  {_number(getattr(result, name))}")
    lines.append(f"  {'x':15}  {structure(result.x)}")
    if result.message and not (codes is not None and codes.ndim):
        lines.append(f"  {'message':15}  {result.message}")
    return "\n".join(lines)
