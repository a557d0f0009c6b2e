# ruff: noqa: B023, E501, SIM300, C408
"""Primal-dual interior point with a filter line search and restoration (Wächter and Biegler 2006) on the condensed band.

Every bound and inequality has a slack of its own: G(x) + relax - s = 0, s > 0, with G = (x - lower, upper - x, g(x)).
Restoration is a mode of the same loop: every row of h = (c, g) gets elastic variables, h - s - p + n = 0, and the
objective becomes rho sum (p + n) + zeta / 2 |D (x - x_R)|^2. Eliminated, p and n only change e in `system.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import casadi as ca
import numpy as np
import scipy.sparse as sp
from model import Model
from problems import Problem
from system import Condensed, Solution, largest

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


class FilterIP:
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

    # --- The linear system ---------------------------------------------------------------------------------------------

    def system(self, at: Local, q: Point, mode: Mode) -> Condensed:
        noise = np.random.default_rng(0).standard_normal(self.n) * ~self.fixed
        noise, weight = noise / np.sqrt(self.D), 1 / np.sqrt(self.D)
        size_w = float(np.linalg.norm(weight * (at.W @ noise)) / max(float(np.linalg.norm(noise / weight)), 1e-300))
        self.size_w = size_w = max(size_w, self.least_w)
        sigma = q.z[0] / q.d[0] + q.z[1] / q.d[1]
        H = at.W + sp.diags(np.where(self.fixed, size_w * self.D, sigma))
        e = np.where(self.inequality, q.d[2] / np.maximum(q.z[2], 1e-300), 0)
        if mode.elastic:
            e = e + q.d[3] / q.z[3] + q.d[4] / q.z[4]
        return Condensed(H.tocsr(), at.J, e, size_w, np.where(self.fixed, 0.0, self.D), self.band or 0)

    def direction(self, K: Condensed, at: Local, rb: list, r: np.ndarray, q: Point, mode: Mode, mu: float) -> Step:
        """The Newton step for residuals rb, r. Where eliminated, s, p and n give (sign dy + force) d / z each."""
        masks = self.masks(mode.elastic)
        d, z = q.d, [np.maximum(a, 1e-300) for a in q.z]
        inverse = [np.where(m, a / b, 0) for a, b, m in zip(d, z, masks, strict=True)]
        b1 = -at.dual[0]
        for sign, i in ((1, 0), (-1, 1)):
            b1 = b1 - sign * np.where(masks[i], q.z[i] - mu / d[i] + q.z[i] / d[i] * rb[i], 0)
        if self.shifted >= 4:  # leaves symmetric saddles: what is added grows along negative curvature alone
            b1 = b1 + self.o["seed"] * largest(b1) * self.noise
        force = [np.where(self.inequality, q.y + mu / d[2], 0)]
        b2 = -r + inverse[2] * force[0]
        if mode.elastic:
            force += [q.y - mode.rho + mu / d[3], -q.y - mode.rho + mu / d[4]]
            b2 = b2 + inverse[3] * force[1] - inverse[4] * force[2]
        sol = K.solve(np.where(self.fixed, 0, b1), b2)
        self.n_passes += sol.passes
        self.n_solves += 1
        dd = [sol.dx + rb[0], -sol.dx + rb[1], inverse[2] * (sol.dy + force[0])]
        if mode.elastic:
            dd += [inverse[3] * (sol.dy + force[1]), inverse[4] * (force[2] - sol.dy)]
        dd = [np.where(m, a, 0) for a, m in zip(dd, masks, strict=True)]
        dz = [np.where(m, mu / a - b - b / a * c, 0) for a, b, c, m in zip(d, q.z, dd, masks, strict=True)]
        return Step(sol.dx, sol.dy, dd, dz, sol)

    def fraction(self, v: list, dv: list, tau: float) -> float:
        alpha = 1.0
        for a, da in zip(v, dv, strict=True):
            down = da < 0
            if down.any():
                alpha = min(alpha, float(np.min(-tau * a[down] / da[down])))
        return alpha

    def least_squares(self, at: Local, q: Point) -> np.ndarray:
        """Multipliers that leave the least gradient, 0 where they are large."""
        if not self.rows:
            return q.y
        one = sp.identity(self.n, format="csr")
        K = Condensed(one, at.J, np.where(self.inequality, 1.0, 0), 1.0, np.ones(self.n), self.band or 0)
        K.factor(0.0)
        self.n_factor += 1
        y = K.solve(-(at.g - q.z[0] + q.z[1]), np.where(self.inequality, q.z[2], 0)).dy
        return y if np.isfinite(y).all() and largest(y) <= self.o["y_max"] else np.zeros(self.rows)

    def factored(self, K: Condensed, last: float) -> float:
        """The least shift of the sequence 0, last / 3 (or 1e-4 size), x8 (x100 the first time) that factors."""
        delta = 0.0
        while not K.factor(delta) and delta < 1e40:
            first = 1e-4 * self.size_w if last == 0 else max(1e-20, last / 3)
            delta = first if delta == 0 else delta * (100 if last == 0 else 8)
        self.n_factor += K.factorisations
        return delta

    # --- Curvature ---------------------------------------------------------------------------------------------------------

    def curved(self, K: Condensed, at: Local, q: Point, mode: Mode, mu: float, slope: Any) -> tuple[Step, float] | None:
        """A direction of negative curvature by inverse iteration with the shifted matrix, and its curvature."""
        v = np.random.default_rng(1).standard_normal(self.n) * ~self.fixed
        zero = np.zeros(self.rows)
        for _ in range(4):
            v = v / np.linalg.norm(v)
            sol = K.solve(v, zero, 1e-6)
            curvature = float(sol.dx @ v) - K.delta * float(sol.dx @ (K.D * sol.dx))
            square = float(sol.dx @ sol.dx)
            v = sol.dx
        if not curvature < -(EPS**0.5) * self.size_w * square:
            return None
        length = 0.1 * max(1.0, largest(q.x)) / largest(v)
        v, w, curvature = length * v, length * sol.dy, curvature * length**2
        masks = self.masks(mode.elastic)
        e = [np.where(m, a / np.maximum(b, 1e-300), 0) for a, b, m in zip(q.d, q.z, masks, strict=True)]
        dd = [v, -v, e[2] * w] + ([e[3] * w, -e[4] * w] if mode.elastic else [])
        dd = [np.where(m, a, 0) for a, m in zip(dd, masks, strict=True)]
        step = Step(v, zero, dd, [np.zeros_like(a) for a in q.z], sol)
        if slope(step) > 0:
            step = step._replace(dx=-v, dd=[-a for a in dd])
        return step, curvature

    # --- Modes ---------------------------------------------------------------------------------------------------------

    def limits(self, mode: Mode, theta: float) -> None:
        mode.theta_max, mode.theta_min = 1e4 * max(1, theta), 1e-4 * max(1, theta)

    def restore(self, q: Point, v: Values, mu: float) -> tuple[Point, Mode, float]:
        """Enter restoration at q: p and n minimise rho (p + n) - mu log p n for r - p + n = 0."""
        rho = self.o["rho"]
        _, r = self.residuals(v, q, mu)
        mu = max(mu, largest(r))
        _, r = self.residuals(v, q, mu)
        a = (mu - rho * r) / (2 * rho)
        n = np.maximum(a + np.sqrt(a**2 + mu * r / (2 * rho)), 1e-20)
        p = np.maximum(r + n, 1e-20)
        mode = Mode(True, rho, math.sqrt(mu), q.x, np.minimum(1, 1 / np.maximum(np.abs(q.x), 1e-300)))
        z = [np.minimum(a, rho) for a in q.z[:3]] + [mu / p, mu / n]
        new = Point(q.x, np.zeros(self.rows), [*q.d[:3], p, n], z)
        self.limits(mode, self.theta(v, new, mu))
        self.n_restorations += 1
        return new, mode, mu

    def begin(self, q: Point, v: Values, mu: float, mode: Mode) -> tuple[Point, Mode]:
        return q, mode

    def grown(self, q: Point, v: Values, mode: Mode) -> bool:
        return False

    def acceptable(self, mode: Mode, theta: float, phi: float) -> bool:
        return theta <= mode.theta_max and all(theta < t or phi < f for t, f in mode.filter)

    # --- The loop ------------------------------------------------------------------------------------------------------

    def solve(self) -> Result:
        o, tol = self.o, self.o["tol"]
        x = self.inside(self.problem.x0)
        self.scale(x)
        v = self.values(x)
        q = self.start(x, v)
        mu = o["mu0"]
        main = mode = Mode()
        at = self.local(v, q, mode, mu)
        self.least_w = EPS**0.25 * max(largest(at.g), 1e-8) / max(1, largest(x))
        q = q._replace(y=self.least_squares(at, q))
        q, main = self.begin(q, v, mu, main)
        mode = main
        self.limits(main, self.theta(v, q, mu))
        count = sum(int(np.sum(a)) for a in self.masks(False))
        value_unit = abs(v.f) if v.f else 1.0
        last, steps, status, tiny = 0.0, 0, "MAX_STEPS", 0
        theta_r = mu_main = 0.0

        while True:
            elastic, masks = mode.elastic, self.masks(mode.elastic)
            at = self.local(v, q, mode, mu)
            error = self.error(at, q, mode, 0.0)
            unit = max(abs(v.f), EPS**0.25 * min(1.0, value_unit))
            if not np.isfinite(error):
                status = "NONFINITE"
                break
            if not elastic and (v.f < -1e20 * max(1, value_unit) or largest(q.x) > 1e20):
                status = "UNBOUNDED"
                break
            relax = self.relaxation(mu)
            gap = sum(
                float(np.sum(((a + relax * u) * z)[m]))
                for a, z, m, u in zip(q.d, q.z, masks, [*self.unit, 0, 0], strict=False)
            )
            least = tol / 10 * min(1, 10 * unit / max(1, count))
            met = mode is not main or (self.violation(v, q.x, at.J) <= tol / 2 and gap <= 20 * tol * unit)
            if self.error(at, q, mode, mu) <= o["kappa_eps"] * mu and self.grown(q, v, mode):
                continue
            if elastic and mode is main and error <= tol and mode.rho >= 1e10:
                status = "INFEASIBLE"
                break
            stationary = error <= tol and met
            K = self.system(at, q, mode)
            delta = self.factored(K, last)
            last = delta if delta > 0 else last
            self.shifted = self.shifted + 1 if delta > 0 and largest(at.r) <= 10 * mu else 0

            def slope_of(s: Step) -> float:
                total = float(at.g @ s.dx) - mu * sum(
                    float(np.sum((a / b)[m])) for a, b, m in zip(s.dd, q.d, masks, strict=True)
                )
                return total + (mode.rho * float(np.sum(s.dd[3] + s.dd[4])) if elastic else 0)

            curved = None
            if (
                o["curvature"]
                and (stationary or self.error(at, q, mode, mu) <= o["saddle"] * mu)
                and delta > EPS**0.5 * self.size_w
            ):
                curved = self.curved(K, at, q, mode, mu, slope_of)
            if stationary and curved is None:
                if mode is main:
                    status = "CONVERGED"
                    break
                # The proximal term may hold x where the violation alone would not: centre it and look again.
                if largest(at.g) > 1e-9 * mode.rho:
                    mode.x_r, mode.filter = q.x, []
                    continue
                status = "INFEASIBLE" if self.violation(v, q.x, at.J) > 1e3 * tol else "STALLED"
                break
            if steps >= o["max_steps"]:
                break
            if curved is None:
                while self.error(at, q, mode, mu) <= o["kappa_eps"] * mu and mu > least:
                    mu = max(least, min(o["kappa_mu"] * mu, mu ** o["theta_mu"]))
                    mode.filter = []
                    if mode is not main:
                        mode.zeta = math.sqrt(mu)
                    rb, r = self.residuals(v, q, mu)
                    at = at._replace(rb=rb, r=r)
            tau = max(o["tau_min"], 1 - mu)
            phi, theta = self.phi(v, q, mode, mu), self.theta(v, q, mu)
            curvature = 0.0
            if curved is None:
                step = self.direction(K, at, at.rb, at.r, q, mode, mu)
            else:
                step, curvature = curved
            slope = slope_of(step)
            a_max, a_z = self.fraction(q.d, step.dd, tau), self.fraction(q.z, step.dz, tau)
            a_min = o["gamma_theta"]
            if slope < 0:
                a_min = min(a_min, -o["gamma_phi"] * theta / slope)
                if theta <= mode.theta_min:
                    a_min = min(a_min, o["delta"] * theta ** o["s_theta"] / (-slope) ** o["s_phi"])
            a_min *= o["gamma_alpha"]
            if curved is not None:
                a_min = 1e-10
            slack = 10 * EPS * abs(phi)

            def trial(s: Step, alpha: float) -> tuple[Point, Values]:
                new = q._replace(x=q.x + alpha * s.dx, d=[a + alpha * b for a, b in zip(q.d, s.dd, strict=True)])
                return new, self.values(new.x)

            def test(alpha: float, new: Point, w: Values) -> tuple[bool, bool, float]:
                """Accepted, to augment the filter, theta."""
                t, f = self.theta(w, new, mu), self.phi(w, new, mode, mu)
                if not (np.isfinite(t) and np.isfinite(f)) or not self.acceptable(mode, t, f - slack):
                    return False, False, t
                if curved is not None:
                    return f <= phi + 1e-4 * (alpha * slope + alpha**2 / 2 * curvature) + slack, False, t
                switching = slope < 0 and alpha * (-slope) ** o["s_phi"] > o["delta"] * theta ** o["s_theta"]
                armijo = f <= phi + o["eta"] * alpha * slope + slack
                if theta <= mode.theta_min and switching:
                    return armijo, False, t
                good = t <= (1 - o["gamma_theta"]) * theta or f <= phi - o["gamma_phi"] * theta + slack
                return good, not (switching and armijo), t

            alpha, accepted, augment, first, raised = a_max, False, False, True, 0
            while alpha >= a_min:
                if curved is None and not elastic and raised < o["raises"] and alpha < o["short"] * a_max:
                    raised += 1
                    delta = max(8 * delta, last, 1e-4 * self.size_w)
                    K.factor(delta)
                    self.n_factor += 1
                    last = delta
                    step = self.direction(K, at, at.rb, at.r, q, mode, mu)
                    slope = slope_of(step)
                    alpha = a_max = self.fraction(q.d, step.dd, tau)
                    a_z, first = self.fraction(q.z, step.dz, tau), True
                new, w = trial(step, alpha)
                accepted, augment, t = test(alpha, new, w)
                if accepted:
                    break
                if first and t >= theta and np.isfinite(t) and curved is None:
                    rb2, r2, t_old, a2 = at.rb, at.r, theta, alpha
                    more = self.residuals(w, new, mu)
                    for _ in range(o["soc"]):
                        rb2, r2 = [a2 * a + b for a, b in zip(rb2, more[0], strict=True)], a2 * r2 + more[1]
                        second = self.direction(K, at, rb2, r2, q, mode, mu)
                        a2 = self.fraction(q.d, second.dd, tau)
                        new, w = trial(second, a2)
                        accepted, augment, t = test(alpha, new, w)
                        if accepted or not t <= o["kappa_soc"] * t_old:
                            break
                        more, t_old = self.residuals(w, new, mu), t
                    if accepted:
                        step, alpha, a_z = second, a2, self.fraction(q.z, second.dz, tau)
                        break
                first = False
                alpha /= 2
            if o["verbose"]:
                print(
                    f"{steps:3d}{'r' if elastic else ' '}{'c' if curved else ' '} f {v.f:12.5e} th {theta:8.1e} err {error:8.1e} mu {mu:7.1e} d {delta:7.1e} "
                    f"|dx| {largest(step.dx):7.1e} |y| {largest(q.y):7.1e} a {alpha:7.1e} az {a_z:7.1e} {'A' if accepted else '-'} sol {step.sol.passes} {step.sol.error:7.1e}"
                )
            if not accepted and curved is None and largest(step.dx / (1 + np.abs(q.x))) < 10 * EPS:
                # Rounding hides any progress: take the step and lower mu.
                alpha, accepted = a_max, True
                new, w = trial(step, alpha)
                tiny += 1
                if mu > least:
                    mu, mode.filter = max(least, min(o["kappa_mu"] * mu, mu ** o["theta_mu"])), []
                if tiny > 3:
                    status = "STALLED in restoration" if elastic else "PRECISION_FLOOR"
                    break
            if not accepted:
                if elastic or theta <= tol / 100:
                    status = "STALLED in restoration" if elastic else "STALLED"
                    break
                mode.filter.append(((1 - o["gamma_theta"]) * theta, phi - o["gamma_phi"] * theta))
                theta_r, mu_main = theta, mu
                q, mode, mu = self.restore(q, v, mu)
                steps += 1
                continue
            if augment:
                mode.filter.append(((1 - o["gamma_theta"]) * theta, phi - o["gamma_phi"] * theta))
            ks = o["kappa_sigma"]
            z = [a + a_z * b for a, b in zip(q.z, step.dz, strict=True)]
            z = [
                np.where(m, np.clip(a, mu / (ks * b), ks * mu / b), 0) for a, b, m in zip(z, new.d, masks, strict=True)
            ]
            q, v = new._replace(y=q.y + alpha * step.dy, z=z), w
            steps += 1
            if mode is not main:
                back = q._replace(d=q.d[:3], z=q.z[:3])
                t, f = self.theta(v, back, mu_main), self.phi(v, back, main, mu_main)
                if t <= o["reduction"] * theta_r and self.acceptable(main, t, f):
                    mode, mu = main, mu_main
                    if max(largest(a) for a in back.z) > 1e3:
                        back = back._replace(z=[m.astype(float) for m in self.masks(False)])
                    q = back._replace(y=np.zeros(self.rows))
                    q = q._replace(y=self.least_squares(self.local(v, q, mode, mu), q))
        f, _ = self.model.values(q.x)
        return Result(
            q.x, f, self.violation(v, q.x), status, steps, self.n_factor, self.model.evaluations,
            self.n_passes / max(1, self.n_solves), self.n_restorations, error,
        )  # fmt: skip


def column_sizes(p: Problem) -> np.ndarray:
    """Sizes of the columns after equilibrating rows and columns in turn (Ruiz 2001), relative to their median."""
    ip = FilterIP(p)
    x = ip.inside(p.x0)
    size = np.ones(ip.n)
    if not ip.rows:
        return size
    ip.scale(x)
    A: Any = 0
    for point in (x, ip.inside(x + 1e-2 * np.maximum(1, np.abs(x)) * ip.noise)):
        A = A + abs(ip.model.derivatives(point, 1.0, np.zeros(ip.rows))[1])
    for _ in range(8):
        row = np.asarray(A.max(axis=1).todense()).ravel()
        A = sp.diags(1 / np.sqrt(np.where(row > 0, row, 1))) @ A
        column = np.sqrt(np.asarray(A.max(axis=0).todense()).ravel())
        column = np.where(column > 0, column, 1)
        A, size = A @ sp.diags(1 / column), size * column
    return np.clip(size / np.median(size), 1e-6, 1e6)


def solve(p: Problem, columns: float = 0.0, **options: Any) -> Result:
    """`columns`: variables whose columns are off by more than this factor from 1 are measured in other units (0: none)."""
    if columns:
        size = column_sizes(p)
        size = np.where((size > columns) | (size < 1 / columns), size, 1)
        new = ca.SX.sym("x", len(size))
        parts = ca.substitute([p.f, p.c, p.g], [p.x], [new / ca.DM(size)])
        p = p._replace(
            x=new, f=parts[0], c=parts[1], g=parts[2], lower=p.lower * size, upper=p.upper * size, x0=p.x0 * size
        )
        r = FilterIP(p, **options).solve()
        return r._replace(x=r.x / size)
    return FilterIP(p, **options).solve()
