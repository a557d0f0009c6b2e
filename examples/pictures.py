"""The demo's two pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from first_order import Run
from problems import BUMPS, DISASTERS, YEARS, path_start

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"Newton, JAX": "tab:blue", "Newton, PyTorch": "tab:red", "L-BFGS-B": "tab:green", "Adam": "tab:orange"}


def draw_path(file: Path, runs: dict[int, dict[str, Run]], band: np.ndarray) -> None:
    """Paths, a corner of H from its band (w + 1, n), and f against time for each n."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 10), layout="constrained")
    n = max(runs)
    draw_paths(axes[0, 0], n, runs[n])
    draw_corner(figure, axes[0, 1], band)
    for ax, (n, solved) in zip(axes[1], runs.items(), strict=True):
        draw_convergence(ax, n, solved)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_paths(ax: Any, n: int, solved: dict[str, Run]) -> None:
    grid = np.linspace(-0.15, 1.15, 200)
    x, y = np.meshgrid(grid, grid)
    height = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) for a, b, s in BUMPS)
    ax.contourf(x, y, height, levels=np.linspace(0.05, 1.1, 12), cmap="Greys", alpha=0.6)
    # The paths of the gradient methods lie on each other and near the start: each must show through the next.
    styles: dict[str, dict[str, Any]] = {
        "L-BFGS-B": {"linewidth": 6, "alpha": 0.5},
        "Adam": {"linewidth": 2.5},
        "Newton, JAX": {"linewidth": 2.5},
        "Newton, PyTorch": {"linewidth": 2.5, "linestyle": (0, (4, 4))},
    }
    for method, style in styles.items():
        ax.plot(*solved[method].x.reshape(-1, 2).T, color=COLOURS[method], label=method, **style)
    ax.plot(*path_start(n).reshape(-1, 2).T, ":k", linewidth=1.2, label="start")
    ax.plot([0, 1], [0, 1], "ko", markersize=5)
    ax.set(title=f"Where each method ends, n = {n}", xlabel="x", ylabel="y", aspect="equal")
    ax.legend(loc="lower right")


def draw_corner(figure: Any, ax: Any, band: np.ndarray, size: int = 24) -> None:
    corner = np.full((size, size), np.nan)
    for d, row in enumerate(band):
        for j in range(size - d):
            corner[j + d, j] = corner[j, j + d] = np.abs(row[j]) or np.nan
    image = ax.imshow(np.log10(corner), cmap="viridis")
    ax.set(title=f"H at the minimum: corner of {size} rows (white: exactly 0)", xlabel="column", ylabel="row")
    figure.colorbar(image, ax=ax, label="log10 |H[i, j]|", shrink=0.8)


def draw_convergence(ax: Any, n: int, solved: dict[str, Run]) -> None:
    least = min(min(run.values) for run in solved.values())
    for method, run in solved.items():
        marker = "o" if method.startswith("Newton") else ""
        seconds, excess = np.maximum(run.seconds, 1e-3), np.maximum(np.array(run.values) - least, 1e-12)
        ax.loglog(seconds, excess, color=COLOURS[method], label=method, marker=marker, markersize=4)
    ax.set(title=f"Convergence, n = {n}", xlabel="seconds, compiling not counted", ylabel="f - f*  (at least 1e-12)")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")


def draw_coal(file: Path, log_rate: np.ndarray, deviation: np.ndarray) -> None:
    figure, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    ax.bar(YEARS, DISASTERS, color="0.8", width=0.8, label="disasters in the year")
    ax.fill_between(
        YEARS, np.exp(log_rate - 2 * deviation), np.exp(log_rate + 2 * deviation), color="tab:blue", alpha=0.25,
        label="two standard deviations of the log-rate, from the inverse of H",
    )  # fmt: skip
    ax.plot(YEARS, np.exp(log_rate), color="tab:blue", linewidth=2, label="smoothed rate")
    ax.set(
        title="Coal-mining disasters in Great Britain: counts and the rate Newton's method finds",
        xlabel="year",
        ylabel="disasters per year",
    )
    ax.legend()
    figure.savefig(file, dpi=110)
    plt.close(figure)
