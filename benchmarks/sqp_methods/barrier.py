# ruff: noqa: E501, SIM300, C408
"""The barrier problem: variables, scaling, residuals and measures of the interior point method of `filter_ip.py`.

Every bound and inequality has a slack of its own: G(x) + relax - s = 0, s > 0, with G = (x - lower, upper - x, g(x)).
Restoration is a mode of the same loop: every row of h = (c, g) gets elastic variables, h - s - p + n = 0, and the
objective becomes rho sum (p + n) + zeta / 2 |D (x - x_R)|^2. Eliminated, p and n only change e in `system.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from cases import Problem
from model import Model
from system import Solution, largest

EPS = 2.0**-52
OPTIONS = dict(
    tol=1e-8, max_steps=500, mu0=0.1, kappa_eps=10.0, kappa_mu=0.2, theta_mu=1.5, tau_min=0.99, s_max=100.0,
    kappa_1=1e-2, kappa_2=1e-2, gamma_theta=1e-5, gamma_phi=1e-8, delta=1.0, s_theta=1.1, s_phi=2.3, eta=1e-8,
    gamma_alpha=0.05, soc=4, kappa_soc=0.99, kappa_sigma=1e10, y_max=1e3, rho=1e3, g_max=100.0,
    relax=1e-8, kappa_relax=1e-4, reduction=0.9, verbose=False, curvature=True, raises=1, short=0.05, saddle=0.1, seed=1e-2, g_low=1e-2, f_low=0.0, scaled_shift=0.0,
)  # fmt: skip


class Result(NamedTuple):
    x: np.ndarray
    value: float
    violation: float
    status: str
    steps: int
    factorisations: int
    evaluations: int
    passes: float
    restorations: int
    error: float


class Point(NamedTuple):
    """d are the positive variables, z their multipliers: slacks of x - lower, upper - x (n each), of g (rows of h, 1
    and 0 where not active), and in restoration p and n."""

    x: np.ndarray
    y: np.ndarray
    d: list
    z: list


class Values(NamedTuple):
    f: float
    h: np.ndarray


@dataclass
class Mode:
    """The problem in hand: the user's, or restoration from `x_r`."""

    elastic: bool = False
    rho: float = 0.0
    zeta: float = 0.0
    x_r: np.ndarray | None = None
    D: np.ndarray | None = None
    filter: list = field(default_factory=list)
    theta_max: float = math.inf
    theta_min: float = 0.0


class Local(NamedTuple):
    """What one linearisation gives."""

    g: np.ndarray  # gradient of the objective in x
    J: sp.csr_matrix
    W: sp.csr_matrix
    rb: list  # residuals of the bounds' slacks
    r: np.ndarray  # of the rows
    dual: list  # gradient of the Lagrangian in x, s of g, p, n


class Step(NamedTuple):
    dx: np.ndarray
    dy: np.ndarray
    dd: list
    dz: list
    sol: Solution


class Barrier:
    def __init__(self, p: Problem, **options: Any) -> None:
        self.o = {**OPTIONS, **options}
        self.problem, self.model = p, Model(p)
        self.m, self.k, self.n = self.model.m, self.model.k, self.model.n
        self.rows = self.m + self.k
        self.fixed = p.lower == p.upper
        self.has_l, self.has_u = np.isfinite(p.lower) & ~self.fixed, np.isfinite(p.upper) & ~self.fixed
        self.low, self.up = np.where(self.has_l, p.lower, 0), np.where(self.has_u, p.upper, 0)
        self.free = sp.diags((~self.fixed).astype(float))
        self.inequality = np.arange(self.rows) >= self.m
        self.unit = [np.maximum(1, np.abs(self.low)), np.maximum(1, np.abs(self.up)), np.ones(self.rows)]
        self.f_scale, self.h_scale = 1.0, np.ones(self.rows)
        self.n_passes = self.n_solves = self.n_factor = self.n_restorations = 0
        self.band: int | None = None
        self.shifted = 0  # successive shifted steps near the constraints
        self.noise = np.random.default_rng(2).uniform(-1, 1, self.n)

    # --- The user's functions, scaled --------------------------------------------------------------------------------

    def values(self, x: np.ndarray) -> Values:
        f, h = self.model.values(x)
        return Values(self.f_scale * f, self.h_scale * h)

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        g, J, W = self.model.derivatives(x, sigma * self.f_scale, self.h_scale * y)
        if self.band is None:
            one, two = W.copy(), J.copy()
            one.data[:], two.data[:] = 1, 1
            pattern = (one + two.T @ two).tocoo()
            self.band = int(np.max(pattern.row - pattern.col, initial=0))
        J = sp.diags(self.h_scale) @ J @ self.free
        return self.f_scale * (~self.fixed) * g, J.tocsr(), (self.free @ W @ self.free).tocsr()

    def scale(self, x: np.ndarray) -> None:
        """Gradients near the start, of rows and objective (Wächter and Biegler 2006, 3.8, which only shrinks)."""
        far = x + 1e-2 * np.maximum(1, np.abs(x)) * self.noise * ~self.fixed
        top, top_f = np.zeros(self.rows), 0.0
        for point in (x, self.inside(far)):
            g, J, _ = self.derivatives(point, 1.0, np.zeros(self.rows))
            here = np.asarray(abs(J).max(axis=1).todense()).ravel() if self.rows else top
            top = np.maximum(top, np.where(np.isfinite(here), here, 0))
            top_f = max(top_f, largest(g) if np.isfinite(g).all() else 0)
        self.D = np.ones(self.n)
        columns = np.zeros(self.n)
        g_max, low, low_f = self.o["g_max"], self.o["g_low"], self.o["f_low"]
        self.h_scale = np.minimum(1, g_max / np.maximum(top, 1e-300)) * np.clip(low / np.maximum(top, 1e-300), 1, 1e8)
        if self.rows and self.o["scaled_shift"]:
            for point in (x, self.inside(far)):
                _, J, _ = self.model.derivatives(point, 1.0, np.zeros(self.rows))
                J = sp.diags(self.h_scale) @ J
                columns = np.maximum(columns, np.nan_to_num(np.asarray(abs(J).max(axis=0).todense()).ravel()))
            typical = np.exp(np.mean(np.log(columns[columns > 0])))
            self.D = np.where(columns > 0, np.clip(columns / typical, 1e-4, 1e4) ** 2, 1)
            o = self.o["scaled_shift"]
            self.D = np.where((self.D < 1 / o) | (self.D > o), self.D, 1)
        self.f_scale = min(1, g_max / max(top_f, 1e-300)) * min(max(low_f / max(top_f, 1e-300), 1), 1e8)

    # --- Start ---------------------------------------------------------------------------------------------------------

    def inside(self, x: np.ndarray) -> np.ndarray:
        k1, k2 = self.o["kappa_1"], self.o["kappa_2"]
        width = np.where(self.has_l & self.has_u, self.up - self.low, np.inf)
        x = np.where(self.has_l, np.maximum(x, self.low + np.minimum(k1 * self.unit[0], k2 * width)), x)
        x = np.where(self.has_u, np.minimum(x, self.up - np.minimum(k1 * self.unit[1], k2 * width)), x)
        return np.where(self.fixed, self.problem.lower, x)

    def masks(self, elastic: bool) -> list:
        return [self.has_l, self.has_u, self.inequality] + [np.ones(self.rows, bool)] * (2 if elastic else 0)

    def start(self, x: np.ndarray, v: Values) -> Point:
        d = [x - self.low, self.up - x, np.maximum(v.h, self.o["kappa_1"])]
        masks = self.masks(False)
        d = [np.where(m, a, 1) for a, m in zip(d, masks, strict=True)]
        return Point(x, np.zeros(self.rows), d, [m.astype(float) for m in masks])

    def relaxation(self, mu: float) -> float:
        return min(self.o["relax"], self.o["kappa_relax"] * mu)

    # --- Residuals and measures ----------------------------------------------------------------------------------------

    def residuals(self, v: Values, q: Point, mu: float) -> tuple[list, np.ndarray]:
        relax = self.relaxation(mu)
        rb = [
            np.where(self.has_l, q.x - self.low + relax * self.unit[0] - q.d[0], 0),
            np.where(self.has_u, self.up - q.x + relax * self.unit[1] - q.d[1], 0),
        ]
        r = v.h + np.where(self.inequality, relax - q.d[2], 0)
        return rb, r - (q.d[3] - q.d[4] if len(q.d) > 3 else 0)

    def objective(self, v: Values, q: Point, mode: Mode) -> float:
        if not mode.elastic:
            return v.f
        far = mode.D * (q.x - mode.x_r)
        return mode.rho * float(np.sum(q.d[3] + q.d[4])) + mode.zeta / 2 * float(far @ far)

    def phi(self, v: Values, q: Point, mode: Mode, mu: float) -> float:
        logs = sum(float(np.sum(np.log(a[m]))) for a, m in zip(q.d, self.masks(mode.elastic), strict=True))
        return self.objective(v, q, mode) - mu * logs

    def theta(self, v: Values, q: Point, mu: float) -> float:
        rb, r = self.residuals(v, q, mu)
        return float(np.sum(np.abs(r)) + sum(np.sum(np.abs(b)) for b in rb))

    def error(self, at: Local, q: Point, mode: Mode, mu: float) -> float:
        masks = self.masks(mode.elastic)
        zs = sum(float(np.sum(z[m])) for z, m in zip(q.z, masks, strict=True))
        count = sum(int(np.sum(m)) for m in masks)
        s_max = self.o["s_max"]
        s_d = max(s_max, (float(np.sum(np.abs(q.y))) + zs) / max(1, count + self.rows)) / s_max
        s_c = max(s_max, zs / max(1, count)) / s_max
        comp = max(largest((a * z - mu)[m]) for a, z, m in zip(q.d, q.z, masks, strict=True))
        primal = max(largest(at.r), *(largest(b) for b in at.rb))
        return max(max(largest(a) for a in at.dual) / s_d, primal, comp / s_c)

    def violation(self, v: Values, x: np.ndarray, J: sp.csr_matrix | None = None) -> float:
        """The largest, unscaled; given J, beyond what rounding hides."""
        h = v.h / self.h_scale
        if J is not None:
            h = np.sign(h) * np.maximum(np.abs(h) - 16 * EPS * (abs(J) @ np.abs(x)) / self.h_scale, 0)
        out = np.where(self.has_l, self.low - x, 0), np.where(self.has_u, x - self.up, 0)
        return max(
            largest(h[: self.m]), float(np.max(-h[self.m :], initial=0)), *(float(np.max(o, initial=0)) for o in out)
        )

    def local(self, v: Values, q: Point, mode: Mode, mu: float) -> Local:
        g, J, W = self.derivatives(q.x, 0.0 if mode.elastic else 1.0, q.y)
        if mode.elastic:
            g = mode.zeta * mode.D**2 * (q.x - mode.x_r)
            W = W + sp.diags(mode.zeta * mode.D**2 * np.ones(self.n))
        rb, r = self.residuals(v, q, mu)
        dual = [g + J.T @ q.y - q.z[0] + q.z[1], np.where(self.inequality, -q.y - q.z[2], 0)]
        if mode.elastic:
            dual += [mode.rho - q.y - q.z[3], mode.rho + q.y - q.z[4]]
        return Local(g, J, W, rb, r, dual)
