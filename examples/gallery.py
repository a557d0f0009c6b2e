"""What the scripts of the gallery share: their options, and how a picture is saved.

Each script is run as `python examples/NAME.py --out FOLDER`; `--quick` takes small sizes, to see that it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter

plt.switch_backend("Agg")


def options(text: str) -> argparse.Namespace:
    """`out`, a folder that exists, and `quick`."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the picture")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def axes(columns: int = 1, width: float = 7, height: float = 3.6, **more: Any) -> tuple:
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **more)


def save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=90)
    plt.close(figure)
    print(f"Picture: {file}")


def save_movie(figure: Any, draw: Callable[[int], Any], frames: int, seconds: float, file: Path) -> None:
    """draw(k) changes the figure for frame k."""
    FuncAnimation(figure, draw, frames=frames).save(file, writer=PillowWriter(fps=round(frames / seconds)), dpi=60)
    plt.close(figure)
    print(f"Picture: {file}")
