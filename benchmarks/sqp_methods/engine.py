"""The engine that `sqp` runs, compiled, on a problem of `problems.py`: no framework, derivatives by CasADi."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp
from cases import Problem
from model import Model

from bandhess_common.interior_point.constants import constants_of_engine
from bandhess_common.kernels import call, view
from bandhess_common.kernels.interior import DERIVATIVES, DONE, REGISTERS, Layout, words
from bandhess_common.status import Status


class Structure:
    """Where rows of the Jacobian begin, and how wide they and the band of the Hessian are."""

    def __init__(self, model: Model) -> None:
        _, J, W = model.derivatives(model.problem.x0, 1.0, np.ones(model.m + model.k))
        n, r = model.n, model.m + model.k
        span = np.diff(J.indptr) > 0
        low, high = np.zeros(r, int), np.zeros(r, int)
        low[span] = np.minimum.reduceat(J.indices, J.indptr[:-1][span]) if span.any() else 0
        high[span] = np.maximum.reduceat(J.indices, J.indptr[:-1][span]) if span.any() else 0
        W = W.tocoo()
        self.rows = int(max((high - low).max(initial=0), np.abs(W.row - W.col).max(initial=0))) + 1
        self.layout = Layout(n, r, self.rows)
        self.first = np.minimum(low, n - self.layout.window).astype(np.int32)

    def windows(self, J: sp.csr_matrix) -> np.ndarray:
        out = np.zeros((J.shape[0], self.layout.window))
        row = np.repeat(np.arange(J.shape[0]), np.diff(J.indptr))
        out[row, J.indices - self.first[row]] = J.data
        return out

    def band(self, W: sp.csr_matrix) -> np.ndarray:
        out = np.zeros((self.rows, W.shape[0]))
        W = W.tocoo()
        below = W.row >= W.col
        out[(W.row - W.col)[below], W.col[below]] = W.data[below]
        return out


def solve(p: Problem, verbose: bool = False, tol: float = 1e-8, max_steps: int = 500, dtype: str = "float64") -> Any:
    """What run.py prints, by attributes."""
    model, problem = Model(p), p
    structure = Structure(model)
    layout, n, r = structure.layout, model.n, model.m + model.k
    state, head, zero = np.empty(layout.size), np.empty(layout.head, dtype), np.zeros
    word = words(dtype, 1)[0]
    both = [view(state.view(word)), view(head)]

    def arrays(*parts: Any) -> list:
        with np.errstate(over="ignore"):
            return [np.array(a, dtype, order="C") for a in parts]

    fixed = (p.lower == p.upper).astype(float)
    eps = float(np.finfo(dtype).eps)
    operands = arrays(p.lower, p.upper, fixed, p.x0, zero(r), zero(n), zero(n), [tol, max_steps, 0, 0, not verbose])
    operands += [np.array(constants_of_engine(eps)).view(word), state.view(word)]
    call("interior_start", list(map(view, operands)), both, rows=structure.rows, m=model.m, shared=0)

    def register(name: str) -> float:
        return float(state[REGISTERS.index(name)])

    def vector(name: str) -> np.ndarray:
        at, count = layout.place(name)
        return state[at : at + count].astype(float)

    values = factorisations = restorations = 0
    elastic = 0.0
    while register("request") != DONE:
        x = vector("x_request")
        f, h = model.values(x)
        if register("request") == DERIVATIVES:
            sigma, y = register("sigma"), vector("y_request")
            g, J, W = model.derivatives(x, sigma, y)
            found = arrays(f, h, sigma * g + J.T @ y, structure.windows(J), structure.band(W), 0.0)
            found.insert(3, structure.first)
            call("interior_begin", [both[0], *map(view, found)], both, shared=0)
            factorisations += 1
            restorations += int(register("elastic") > elastic)
            elastic = register("elastic")
            if verbose and register("fresh"):
                names = ("steps", "value", "violation", "grad_norm", "barrier", "delta", "alpha", "alpha_z", "elastic")
                print(" ".join(f"{name} {register(name):.3g}" for name in names))
        else:
            values += 1
            found = arrays(f, h)
            call("interior_trial", [both[0], *map(view, found)], both, n=n, rows=structure.rows, shared=0)
    status = Status(int(register("status")))
    return SimpleNamespace(
        problem=problem, status=status.name, steps=int(register("steps")), value=register("value"),
        violation=register("violation"), error=register("grad_norm"), factorisations=factorisations,
        evaluations=values, passes=0.0, restorations=restorations, x=vector("unit") * vector("x"),
    )  # fmt: skip
