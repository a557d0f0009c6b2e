"""The live table of `verbose=True`: plain text, in colour where `rich` is installed and a terminal listens."""

from __future__ import annotations

import sys
import time
from typing import Any

from .status import StepInfo


def _console() -> Any:
    """rich's console, or None: then `print` does."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, soft_wrap=True)


class ProgressTable:
    """Prints a line per step; time counts from the line of step 0."""

    start = 0.0
    last = float("inf")  # |grad| in the line before
    console: Any = None

    def __call__(self, info: StepInfo) -> None:
        if int(info.step) == 0:
            self.start, self.last, self.console = time.perf_counter(), float("inf"), _console()
            self._line(f"{'step':>5} {'f':>20} {'|grad|':>10} {'shift':>10} {'radius':>10} {'seconds':>9}", "bold")
        size = float(info.grad_norm)
        self._line(
            f"{int(info.step):5d} {float(info.value):20.12g} {size:10.2e} "
            f"{float(info.shift):10.2e} {float(info.radius):10.2e} {time.perf_counter() - self.start:9.3f}",
            "green" if size < self.last else "yellow",
        )
        self.last = size

    def _line(self, text: str, style: str) -> None:
        if self.console is None:
            print(text, flush=True)
        else:
            self.console.print(text, style=style)


print_progress = ProgressTable()
