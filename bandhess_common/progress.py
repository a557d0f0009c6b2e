"""The live table of `verbose=True`."""

from __future__ import annotations

import time

from .status import StepInfo


class ProgressTable:
    """Prints a line per step; time counts from the line of step 0."""

    start = 0.0

    def __call__(self, info: StepInfo) -> None:
        if int(info.step) == 0:
            self.start = time.perf_counter()
            print(f"{'step':>5} {'f':>20} {'|grad|':>10} {'shift':>10} {'radius':>10} {'seconds':>9}")
        print(
            f"{int(info.step):5d} {float(info.value):20.12g} {float(info.grad_norm):10.2e} "
            f"{float(info.shift):10.2e} {float(info.radius):10.2e} {time.perf_counter() - self.start:9.3f}",
            flush=True,
        )


print_progress = ProgressTable()
