"""The filter forgets its entries after steps, one after the other, that it has cut to next to nothing."""

from __future__ import annotations

from typing import Any

import interior_driver
import numpy as np
import pytest
from interior_problems import chain
from interior_quadratics import BACKENDS, CASES, backends, setup

from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.constants import Constants
from bandhess_common.interior_point.search import forgetful
from bandhess_common.kernels.interior import REGISTERS
from bandhess_common.status import Status

AFTER, TIMES = Constants().barred, Constants().forgotten


def expected(cuts: list[bool]) -> list[tuple[int, int]]:
    """After each step: how many were cut in a row, and how often the filter was emptied."""
    seen, row, times = [], 0, 0
    for cut in cuts:
        row = row + 1 if cut else 0
        if row >= AFTER and times < TIMES:
            row, times = 0, times + 1
        seen.append((row, times))
    return seen


def cuts(count: int) -> list[bool]:
    return [i % 9 != 3 for i in range(count)]


@pytest.mark.usefixtures("compiled_kernels")
def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is told to have been cut by the filter or not; what was in it goes."""
    seen: list[tuple[int, int]] = []

    class Cut(interior_driver.Engine):
        def write(self, name: str, value: float) -> None:
            self.state[REGISTERS.index(name)] = value

        def begin(self, *args: Any) -> None:
            stepped = self.register("pending") == 1
            if stepped:
                short = cuts(len(seen) + 1)[-1]
                self.write("barred", short)
                self.write("alpha_max", 100 * self.register("alpha"))
                self.write("augment", 0)
                before = self.register("main_count")
            super().begin(*args)
            if stepped:
                emptied = len(seen) > 0 and self.register("forgotten") > seen[-1][1]
                lowered = self.register("main_count") == 0  # a lower mu empties it, too
                assert self.register("main_count") == (0 if emptied or lowered else before)
                seen.append((int(self.register("barred_steps")), int(self.register("forgotten"))))

    monkeypatch.setattr(interior_driver, "Engine", Cut)
    end = interior_driver.solve(chain(20, 2.0))
    assert end.status is Status.CONVERGED
    assert len(seen) > 2 * AFTER
    assert seen == expected(cuts(len(seen)))
    assert seen[-1][1] > 0


@backends
def test_portable(name: str) -> None:
    to, problem = setup(name, CASES["active"], np.float64, None, 200)
    ops, p = BACKENDS[name].ops, CASES["active"]
    zero = to(np.zeros(len(p.x0)))
    given = state.Solution(to(p.x0), to(np.zeros(len(p.first))), zero, zero, to(0.0))
    k, s = loop.kit(ops, problem), loop.start(ops, problem, given.x, state.ESTIMATED, given)
    count = AFTER * (TIMES + 2) + 9
    mode, row, times, was = s.mode, [], [], 0
    for cut in cuts(count):
        entry = to(np.arange(len(np.asarray(mode.filter.theta)), dtype=float))
        mode = mode._replace(filter=mode.filter._replace(theta=entry))
        short = to(0.01 if cut else 1.0)
        u = s.search._replace(barred=short < 2, tried_alpha=short, alpha_most=to(1.0))
        mode = forgetful(k, mode, u)
        row.append(int(mode.barred_steps))
        times.append(int(mode.forgotten))
        assert bool(np.isinf(np.asarray(mode.filter.theta)).all()) == (times[-1] > was)
        was = times[-1]
    assert list(zip(row, times, strict=True)) == expected(cuts(count))
    not_barred = forgetful(k, mode, u._replace(barred=u.tried_alpha > 2))
    assert int(not_barred.barred_steps) == 0
