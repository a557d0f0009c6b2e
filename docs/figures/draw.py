"""What the pictures of the explanation share. Each script: python docs/figures/NAME.py, into docs/images/NAME.svg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

plt.switch_backend("Agg")
plt.rcParams.update({"svg.hashsalt": "bandhess", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"})

IMAGES = Path(__file__).parents[1] / "images"
COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"]  # Tol's bright ones


def axes(columns: int, width: float = 8, height: float = 3, **more: Any) -> tuple:
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **more)


def cells(ax: Any, colours: np.ndarray, texts: np.ndarray | None = None) -> None:
    """A matrix of cells: colours (rows, columns) of strings, "" for none; texts likewise."""
    rows, columns = colours.shape
    for i in range(rows):
        for j in range(columns):
            if colours[i, j]:
                ax.add_patch(plt.Rectangle((j, i), 1, 1, facecolor=colours[i, j], edgecolor="white", linewidth=0.8))
            if texts is not None and texts[i, j]:
                ax.text(j + 0.5, i + 0.55, texts[i, j], ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.1, columns + 0.1), ylim=(rows + 0.1, -0.1), aspect="equal")
    ax.axis("off")


def band(n: int, w: int) -> np.ndarray:
    """Where a band of n columns has entries."""
    i = np.arange(n)
    return np.abs(i[:, None] - i) <= w


def save(figure: Any, script: str) -> None:
    file = IMAGES / f"{Path(script).stem}.svg"
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    print(file)
