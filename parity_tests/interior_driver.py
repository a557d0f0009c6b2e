"""The compiled interior-point engine driven from NumPy: problems by functions with exact derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bandhess_common.interior_point.constants import constants_of_engine
from bandhess_common.kernels import call, view
from bandhess_common.kernels.interior import DERIVATIVES, REGISTERS, VALUES, Layout, words
from bandhess_common.status import Status


class Problem(NamedTuple):
    """min f(x), h = (c, g), c = 0, g >= 0, lower <= x <= upper; everything dense."""

    values: Callable  # x -> f, h
    derivatives: Callable  # x, sigma, y -> f, h, gradient and W of sigma f + y . h, J
    x0: Any
    m: int = 0
    lower: Any = -np.inf
    upper: Any = np.inf
    rows: int = 0  # diagonals of W, 0 for all
    fixed: Any = 0.0
    shared: int = 0  # variables, the last


class End(NamedTuple):
    status: Status
    steps: int
    x: np.ndarray
    y: np.ndarray
    z_lower: np.ndarray
    z_upper: np.ndarray
    mu: float
    registers: dict[str, float]
    history: list[dict[str, float]]
    begins: int
    trials: int
    row_scales: np.ndarray


def banded(W: np.ndarray, rows: int, p: int = 0) -> np.ndarray:
    """Lower storage, with a border of p; NaN where a kernel must not read."""
    n = len(W) - p
    out = np.full((rows + p, n + p), np.nan)
    for i in range(min(rows, n)):
        out[i, : n - i] = np.diagonal(W[:n, :n], -i)
    out[0] = np.diagonal(W)
    out[rows:] = (W - np.diag(np.diagonal(W)))[n:]
    return out


def windows(J: np.ndarray, L: int, p: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`first` and the rows' entries from there on, then those of p shared variables; for any x, so J's pattern must
    not vanish at the x given."""
    n = J.shape[1] - p
    first = np.array([np.flatnonzero(a)[0] if a.any() else 0 for a in J[:, :n]], np.int32)
    first = np.minimum(first, n - L).astype(np.int32)
    return first, cut(J, first, L, p)


def cut(J: np.ndarray, first: np.ndarray, L: int, p: int = 0) -> np.ndarray:
    shared = J[:, J.shape[1] - p :]
    return np.hstack([np.array([a[f : f + L] for a, f in zip(J, first, strict=True)]).reshape(len(J), L), shared])


class Engine:
    """A state, of doubles, and the kernels on it, which take words of it where functions are of another dtype."""

    def __init__(self, n: int, r: int, m: int, rows: int, dtype: str = "float64", p: int = 0) -> None:
        self.layout, self.m, self.dtype = Layout(n, r, rows, p), m, dtype
        self.state, self.head = np.empty(self.layout.size), np.empty(self.layout.head, dtype)
        self.first = np.zeros(r, np.int32)

    def words(self, doubles: np.ndarray) -> np.ndarray:
        return doubles.view(words(self.dtype, 1)[0])

    @property
    def both(self) -> list:
        return [view(self.words(self.state)), view(self.head)]

    def _call(self, name: str, operands: list, results: list, **options: float) -> None:
        kept = [
            np.ascontiguousarray(a, np.int32 if getattr(a, "dtype", 0) == np.int32 else self.dtype) for a in operands
        ]
        call(name, [view(a) for a in kept], [view(a) for a in results], **options)

    def start(self, vectors: list, first: np.ndarray, numbers: list[float], alone: bool = False) -> None:
        """first goes with each `begin`. alone: quadratic programs pass over points without a request."""
        self.first = np.ascontiguousarray(first, np.int32)
        eps = float(np.finfo(self.dtype).eps)
        fixed = self.words(np.array(constants_of_engine(eps)))
        operands = [*vectors, np.array([*numbers, alone]), fixed, self.words(self.state)]
        results = [self.words(self.state), self.head]
        self._call("interior_start", operands, results, rows=self.layout.rows, m=self.m, shared=self.layout.p)

    def begin(self, f: float, h: Any, gradient: Any, rows: Any, W: Any, narrow: float = 0.0) -> None:
        with np.errstate(over="ignore"):
            arrays = [np.array(a, self.dtype) for a in (f, h, gradient, rows, W, narrow)]
        operands = [self.both[0], *map(view, [*arrays[:3], self.first, *arrays[3:]])]
        call("interior_begin", operands, self.both, shared=self.layout.p)

    def trial(self, f: float, h: Any) -> None:
        with np.errstate(over="ignore"):
            arrays = [np.array(a, self.dtype) for a in (f, h)]
        operands = [self.both[0], *map(view, arrays)]
        n, _, rows, p = self.layout
        call("interior_trial", operands, self.both, n=n, rows=rows, shared=p)

    def register(self, name: str) -> float:
        return float(self.state[REGISTERS.index(name)])

    def vector(self, name: str) -> np.ndarray:
        start, count = self.layout.place(name)
        return self.state[start : start + count].astype(float)

    def solution(self) -> list[np.ndarray]:
        n, r, rows, p = self.layout
        results = [np.empty(k, self.dtype) for k in (n, r, n, n)] + [np.empty((), self.dtype)]
        self._call("interior_solution", [self.words(self.state)], results, n=n, r=r, rows=rows, shared=p)
        return results


def solve(
    p: Problem, *, dtype: str = "float64", tol: float = 1e-8, max_steps: int = 500, warm: End | None = None,
    y: Any = None, x0: Any = None, narrow: float = 0.0, alone: bool = False,
) -> End:  # fmt: skip
    x0 = np.array(p.x0 if warm is None else warm.x, float) if x0 is None else np.array(x0, float)
    n = len(x0)
    noise = np.random.default_rng(0).normal(size=n)
    with np.errstate(all="ignore"):
        h, J = (
            np.asarray(a, float) for a in np.array(p.derivatives(x0 + 1e-3 * noise, 1.0, np.ones(1000)), object)[[1, 4]]
        )
    r, rows, shared = len(h), p.rows or n - p.shared, p.shared
    layout = Layout(n, r, rows, shared)
    first, _ = windows(np.where(np.isfinite(J), J, 1), layout.window, shared)
    engine = Engine(n, r, p.m, rows, dtype, shared)
    spread = lambda a: np.broadcast_to(np.asarray(a, float), (n,))  # noqa: E731
    given = [np.zeros(r), np.zeros(n), np.zeros(n)] if warm is None else [warm.y, warm.z_lower, warm.z_upper]
    if y is not None:
        given[0] = np.array(y, float)
    kind = 2 if warm is not None else 1 if y is not None else 0
    engine.start(
        [spread(p.lower), spread(p.upper), spread(p.fixed), x0, *given], first,
        [tol, max_steps, kind, 0.0 if warm is None else warm.mu], alone,
    )  # fmt: skip
    history: list[dict[str, float]] = []
    begins = trials = 0
    with np.errstate(all="ignore"):
        while engine.register("request"):
            x = engine.vector("x_request")
            if engine.register("request") == DERIVATIVES:
                f, h, g, W, J = p.derivatives(x, engine.register("sigma"), engine.vector("y_request"))
                J = cut(np.asarray(J, float), first, layout.window, shared)
                engine.begin(f, h, g, J, banded(W, rows, shared), narrow)
                begins += 1
                if engine.register("fresh"):
                    history.append({name: engine.register(name) for name in REGISTERS})
            elif engine.register("request") == VALUES:
                engine.trial(*p.values(x))
                trials += 1
            assert begins + trials < 20 * max_steps + 1000
    status = Status(int(engine.register("status")))
    registers = {name: engine.register(name) for name in REGISTERS}
    x, y, low, up, mu = engine.solution()
    return End(
        status,
        int(engine.register("steps")),
        x,
        y,
        low,
        up,
        float(mu),
        registers,
        history,
        begins,
        trials,
        engine.vector("h_scale"),
    )
