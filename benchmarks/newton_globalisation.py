"""Globalisations of Newton's method: prototypes on LAPACK's pbtrf beside what is shipped, all with the same derivatives
and the same stopping rule. `newton.py` prints the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import table, torch_ops
from newton_problems import Case, error, functions
from scipy.linalg import lapack

import bandhess_torch
from bandhess_torch.optimise.newton import point, subproblem


class Count(NamedTuple):
    steps: int
    values: int
    factorisations: int
    value: float


def shifted_step(g: np.ndarray, ab: np.ndarray, last: float) -> tuple[np.ndarray, float, int]:
    """-(H + shift I)^-1 g with the shift that IPOPT would take: 0, else a third of the last one, grown eightfold."""
    shift, tries = 0.0, 0
    while True:
        shifted = ab.copy(order="F")
        shifted[0] += shift
        factor, info = lapack.dpbtrf(shifted, lower=1, overwrite_ab=1)
        tries += 1
        if info == 0:
            return -lapack.dpbtrs(factor, g, lower=1)[0], shift, tries
        shift = 8 * shift if shift else max(last / 3, 1e-8 * np.abs(ab[0]).max())


class Armijo:
    """f must fall by 1e-4 of what the slope promises."""

    def __init__(self, f: float, _: float) -> None:
        self.reference = f

    def accepts(self, f: float, slope: float, gradient: Callable[[], float], convex: bool) -> bool:
        return f <= self.reference + 1e-4 * slope

    def arrived(self, f: float, _: float) -> None:
        self.reference = f


class NonMonotone(Armijo):
    """As Armijo, below the largest of the last ten values (Grippo, Lampariello, Lucidi 1986)."""

    def __init__(self, f: float, _: float) -> None:
        self.reference, self.values = f, [f]

    def arrived(self, f: float, _: float) -> None:
        self.values = [*self.values, f][-10:]
        self.reference = max(self.values)


class Filter(Armijo):
    """A step may raise f where H is positive definite, if no point met had both a smaller f and a smaller gradient; it
    is forgotten where H is not (after Gould, Sainvitu, Toint 2005, who filter the gradient's entries)."""

    def __init__(self, f: float, size: float) -> None:
        self.reference, self.points = f, [(f, size)]

    def accepts(self, f: float, slope: float, gradient: Callable[[], float], convex: bool) -> bool:
        if not convex:
            self.points = []
        if super().accepts(f, slope, gradient, convex):
            return True
        size = gradient() if convex else np.inf
        return convex and all(f < f0 - 1e-3 * size or size < 0.999 * size0 for f0, size0 in self.points)

    def arrived(self, f: float, size: float) -> None:
        self.reference = f
        self.points = [(f0, size0) for f0, size0 in self.points if f0 < f or size0 < size] + [(f, size)]


def line_search(case: Case, rule: type[Armijo], max_steps: int = 3000) -> Count:
    """Newton's method with shifts and backtracking."""
    value, value_grad, derivatives = functions(case)
    x, shift, values, factorisations = case.start.copy(), 0.0, 0, 0
    f, g, ab = (np.asarray(part) for part in derivatives(x))
    largest, acceptance = np.abs(g).max(), rule(float(f), float(np.abs(g).max()))
    for step in range(max_steps):
        p, now, tries = shifted_step(g, ab, shift)
        shift, factorisations = now or shift, factorisations + tries
        slope = float(g @ p)
        noise = np.finfo(float).eps * (np.abs(ab[0]) * np.abs(x)).max()
        if now == 0 and np.abs(g).max() <= max(1.5e-8 * largest, 32 * noise) and -slope <= 1e-11 * max(abs(f), 1e-4):
            return Count(step, values, factorisations, float(f))
        t = 1.0
        while t > 1e-12:
            trial = x + t * p
            values += 1
            if acceptance.accepts(
                float(value(trial)), t * slope, lambda at=trial: float(np.abs(value_grad(at)[1]).max()), now == 0
            ):
                break
            t /= 2
        else:
            return Count(step, values, factorisations, float(f))
        x = trial
        f, g, ab = (np.asarray(part) for part in derivatives(x))
        acceptance.arrived(float(f), float(np.abs(g).max()))
        largest = max(largest, np.abs(g).max())
    return Count(max_steps, values, factorisations, float(f))


def trust_region(case: Case) -> Count:
    """What is shipped, in torch, where calls can be counted."""
    calls = {"factor": 0, "fun": 0}
    shifted, kernel = subproblem._Shifted, subproblem.kernel
    factorise, fun = shifted.factorise, case.build(torch_ops())

    def counted_factorise(self: Any, shift: float) -> bool:
        calls["factor"] += 1
        return factorise(self, shift)

    def counted_fun(x: torch.Tensor) -> torch.Tensor:
        calls["fun"] += 1
        return fun(x)

    shifted.factorise = counted_factorise  # type: ignore[method-assign]
    subproblem.kernel = lambda name, plain, *operands: plain(*operands)  # the compiled search counts nothing
    visits, point.VISIT, point.EARLY = (point.VISIT, point.EARLY), 0, 0  # nothing is written down: fun counts its calls
    try:
        result = bandhess_torch.newton(counted_fun, torch.tensor(case.start), case.w)
    finally:
        shifted.factorise = factorise  # type: ignore[method-assign]
        subproblem.kernel = kernel
        point.VISIT, point.EARLY = visits
    return Count(result.steps, calls["fun"] - result.steps - 1, calls["factor"], float(result.value))


def globalisation(cases: list[Case]) -> None:
    methods = {
        "trust region (shipped)": trust_region,
        "shift, Armijo": lambda case: line_search(case, Armijo),
        "shift, non-monotone": lambda case: line_search(case, NonMonotone),
        "shift, filter": lambda case: line_search(case, Filter),
    }
    rows = []
    for case in cases:
        for name, method in methods.items():
            count = method(case)
            rows.append([case.name, case.n, name, *count[:3], error(case, count.value)])
    table(["problem", "n", "method", "steps = Hessians", "trial values", "factorisations", "error"], rows)
