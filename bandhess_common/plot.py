"""Pictures of bands, matrices, convergence and trajectories, from NumPy arrays.

matplotlib (extra `plot`) is imported by the first picture; `spy_text` needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Cells(NamedTuple):
    """The entries of a matrix that its storage has, both triangles."""

    order: int
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def cells(ab: Any, numpy: Callable[[Any], np.ndarray]) -> Cells:
    """Of a lower band `(w + 1, n)`, a closed one, or one with a border; numpy makes an array of a field."""
    if hasattr(ab, "corner"):
        inner, border, corner = cells(ab.band, numpy), numpy(ab.border), numpy(ab.corner)
        p, n = border.shape
        i, j = np.indices((p, n)).reshape(2, -1)
        k, l = np.indices((p, p)).reshape(2, -1)
        rows, columns = [inner.rows, i + n, j, k + n], [inner.columns, j, i + n, l + n]
        values = [inner.values, border.ravel(), border.ravel(), corner.ravel()]
        return Cells(n + p, *map(np.concatenate, (rows, columns, values)))
    closed = hasattr(ab, "_fields")
    band = numpy(ab.ab if closed else ab)
    if band.ndim != 2:
        raise ValueError(f"ab must have shape (w + 1, n), in lower band storage, got {band.shape}")
    n = band.shape[1]
    d, j = np.indices(band.shape).reshape(2, -1)
    used = np.full(d.shape, True) if closed else d + j < n
    i, j, values, below = ((d + j) % max(n, 1))[used], j[used], band.ravel()[used], d[used] > 0
    return Cells(
        n, np.concatenate([i, j[below]]), np.concatenate([j, i[below]]), np.concatenate([values, values[below]])
    )


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "bandhess[plot]"; spy_text needs nothing') from None
    return plt.subplots()[1]


def spy(of: Cells, ax: Any, options: dict[str, Any]) -> Any:
    ax = _axes(ax)
    filled = of.values != 0
    size = max(0.5, 200 / max(of.order, 1))
    style = {"marker": "s", "linestyle": "none", "markersize": size, "color": "black"} | options
    ax.plot(of.columns[filled], of.rows[filled], **style)
    ax.set(xlim=(-0.5, of.order - 0.5), ylim=(of.order - 0.5, -0.5), aspect="equal")
    ax.set_title(f"n = {of.order}, {np.count_nonzero(filled)} entries")
    return ax


def spy_text(of: Cells, width: int) -> str:
    """Half blocks, two rows a line: at most `width` columns; a block is filled where an entry of its part is not 0."""
    size = min(of.order, width)
    if size == 0:
        return ""
    scale = size / of.order
    grid = np.zeros((size + size % 2, size), bool)
    filled = of.values != 0
    grid[(of.rows[filled] * scale).astype(int), (of.columns[filled] * scale).astype(int)] = True
    blocks = np.array([" ", "▀", "▄", "█"])
    return "\n".join("".join(line).rstrip() for line in blocks[grid[::2] + 2 * grid[1::2]])


def band(ab: np.ndarray, ax: Any, options: dict[str, Any]) -> Any:
    ax = _axes(ax)
    with np.errstate(divide="ignore"):
        sizes = np.log10(np.abs(ab))
    d, j = np.indices(ab.shape)
    shown = np.ma.masked_array(sizes, (d + j >= ab.shape[1]) | ~np.isfinite(sizes))
    image = ax.imshow(shown, **{"aspect": "auto", "interpolation": "none"} | options)
    ax.figure.colorbar(image, ax=ax, label="log10 |entry|")
    ax.set(xlabel="column", ylabel="diagonal")
    return ax


def convergence(way: Mapping[str, np.ndarray], ax: Any, options: dict[str, Any]) -> Any:
    """way: the fields of a `History` or an `SQPHistory`."""
    ax = _axes(ax)
    kept = np.isfinite(way["value"])
    value = way["value"][kept]
    lines = {"f - last f": np.abs(value - value[-1:]), "max|gradient|": way["grad_norm"][kept]}
    if "constraint_norm" in way:
        lines["violation"] = way["constraint_norm"][kept]
    for label, line in lines.items():
        ax.plot(np.where(line > 0, line, np.nan), **{"marker": ".", "label": label} | options)
    ax.set(yscale="log", xlabel="step")
    ax.legend()
    return ax


def trajectory(leaves: Mapping[str, np.ndarray], ax: Any, options: dict[str, Any]) -> Any:
    ax = _axes(ax)
    for name, leaf in leaves.items():
        if leaf.ndim == 0:
            continue
        flat = leaf.reshape(len(leaf), -1)
        for i, line in enumerate(flat.T):
            label = f"{name}[{i}]" if flat.shape[1] > 1 else name
            ax.plot(line, **{"label": label} | options)
    ax.set(xlabel="stage")
    ax.legend()
    return ax


def history_of(result: Any, numpy: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    if getattr(result, "history", None) is None:
        raise ValueError("convergence needs the way of the iteration: call the optimiser with history=True")
    return {name: numpy(rows) for name, rows in result.history._asdict().items()}


def named_leaves(tree: Any, numpy: Callable[[Any], np.ndarray], name: str = "x") -> dict[str, np.ndarray]:
    """The leaves of a tree of dicts, lists and tuples, by the path that leads to each."""
    if isinstance(tree, Mapping):
        parts = tree.items()
    elif isinstance(tree, tuple | list):
        parts = ((f"{name}[{i}]", part) for i, part in enumerate(tree))  # type: ignore[assignment]
    else:
        return {name: numpy(tree)}
    found: dict[str, np.ndarray] = {}
    for key, part in parts:
        found |= named_leaves(part, numpy, str(key))
    return found
