"""Primal-dual interior point with a filter line search and restoration (Wächter and Biegler 2006) on the condensed band.

Restoration is a mode of the same loop: every row gets elastic variables, h(x) - s - p + n = 0, and the objective becomes
rho sum (p + n) + zeta / 2 |D (x - x_R)|^2. Eliminated, p and n only change e in the condensed matrix (`system.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from model import Model
from problems import Problem
from system import Condensed, largest

EPS = 2.0**-52
OPTIONS = dict(
    tol=1e-8, max_steps=500, mu0=0.1, kappa_eps=10.0, kappa_mu=0.2, theta_mu=1.5, tau_min=0.99, s_max=100.0,
    kappa_1=1e-2, kappa_2=1e-2, gamma_theta=1e-5, gamma_phi=1e-8, delta=1.0, s_theta=1.1, s_phi=2.3, eta=1e-4,
    gamma_alpha=0.05, soc=4, kappa_soc=0.99, kappa_sigma=1e10, y_max=1e3, rho=1e3, g_max=100.0, verbose=False,
    curvature=True,
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


@dataclass
class Point:
    """All variables; d are the distances that must stay positive and z their multipliers: of x - lower, upper - x, s,
    p, n in this order, 1 and 0 where there is no bound."""

    x: np.ndarray
    s: np.ndarray
    p: np.ndarray
    n: np.ndarray
    y: np.ndarray
    z: list


class Values(NamedTuple):
    f: float
    h: np.ndarray


class Solver:
    def __init__(self, p: Problem, **options: Any) -> None:
        self.o = {**OPTIONS, **options}
        self.problem, self.model = p, Model(p)
        self.m, self.k, self.n = self.model.m, self.model.k, self.model.n
        self.rows = self.m + self.k
        self.fixed = p.lower == p.upper
        self.has_l, self.has_u = np.isfinite(p.lower) & ~self.fixed, np.isfinite(p.upper) & ~self.fixed
        self.free = sp.diags((~self.fixed).astype(float))
        self.inequality = np.arange(self.rows) >= self.m
        self.f_scale, self.h_scale = 1.0, np.ones(self.rows)
        self.n_passes = self.n_solves = self.n_factor = self.n_restorations = 0
        self.band = None

    # --- The user's functions, scaled --------------------------------------------------------------------------------

    def values(self, x: np.ndarray) -> Values:
        f, h = self.model.values(x)
        return Values(self.f_scale * f, self.h_scale * h)

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        g, J, W = self.model.derivatives(x, sigma * self.f_scale, self.h_scale * y)
        J = sp.diags(self.h_scale) @ J @ self.free
        if self.band is None:
            pattern = (abs(W) + abs(J).T @ abs(J)).tocoo()
            self.band = int(np.max(pattern.row - pattern.col, initial=0))
        return self.f_scale * (~self.fixed) * g, J.tocsr(), (self.free @ W @ self.free).tocsr()

    def scale(self, x: np.ndarray) -> None:
        g, J, _ = self.derivatives(x, 1.0, np.zeros(self.rows))
        top = np.asarray(abs(J).max(axis=1).todense()).ravel() if self.rows else np.zeros(0)
        self.f_scale = min(1.0, self.o["g_max"] / max(largest(g), 1e-300))
        self.h_scale = np.minimum(1.0, self.o["g_max"] / np.maximum(top, 1e-300))

    # --- Parts ---------------------------------------------------------------------------------------------------------

    def inside(self, x: np.ndarray) -> np.ndarray:
        l, u = self.problem.lower, self.problem.upper
        k1, k2 = self.o["kappa_1"], self.o["kappa_2"]
        both = self.has_l & self.has_u
        width = np.where(both, u - l, np.inf)
        with np.errstate(invalid="ignore"):
            pl = np.minimum(k1 * np.maximum(1, np.abs(l)), k2 * width)
            pu = np.minimum(k1 * np.maximum(1, np.abs(u)), k2 * width)
            x = np.where(self.has_l, np.maximum(x, l + pl), x)
            x = np.where(self.has_u, np.minimum(x, u - pu), x)
        return np.where(self.fixed, l, x)

    def distances(self, q: Point, elastic: bool) -> list:
        with np.errstate(invalid="ignore"):
            d = [
                np.where(self.has_l, q.x - self.problem.lower, 1),
                np.where(self.has_u, self.problem.upper - q.x, 1),
                np.where(self.inequality, q.s, 1),
            ]
        return d + ([q.p, q.n] if elastic else [])

    def masks(self, elastic: bool) -> list:
        masks = [self.has_l, self.has_u, self.inequality]
        return masks + ([np.ones(self.rows, bool)] * 2 if elastic else [])


@dataclass
class Mode:
    """The problem in hand: the user's, or restoration from `x_r`."""

    elastic: bool = False
    rho: float = 0.0
    zeta: float = 0.0
    x_r: np.ndarray | None = None
    D: np.ndarray | None = None
    filter: list = field(default_factory=list)
    theta_max: float = np.inf
    theta_min: float = 0.0


class FilterIP(Solver):
    def residual(self, v: Values, q: Point, mode: Mode) -> np.ndarray:
        return v.h - q.s - (q.p - q.n if mode.elastic else 0)

    def objective(self, v: Values, q: Point, mode: Mode) -> float:
        if not mode.elastic:
            return v.f
        return mode.rho * float(np.sum(q.p + q.n)) + mode.zeta / 2 * float(np.sum((mode.D * (q.x - mode.x_r)) ** 2))

    def phi(self, v: Values, q: Point, mode: Mode, mu: float) -> float:
        total = self.objective(v, q, mode)
        for d, mask in zip(self.distances(q, mode.elastic), self.masks(mode.elastic), strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                total -= mu * float(np.sum(np.log(d[mask])))
        return total

    def theta(self, v: Values, q: Point, mode: Mode) -> float:
        return float(np.sum(np.abs(self.residual(v, q, mode))))

    def dual(self, g: np.ndarray, J: sp.csr_matrix, q: Point, mode: Mode) -> list:
        """Gradient of the Lagrangian in x, s, p, n."""
        gx = g + J.T @ q.y - q.z[0] + q.z[1]
        gs = np.where(self.inequality, -q.y - q.z[2], 0)
        if not mode.elastic:
            return [gx, gs]
        return [gx, gs, mode.rho - q.y - q.z[3], mode.rho + q.y - q.z[4]]

    def error(self, dual: list, r: np.ndarray, d: list, q: Point, masks: list, mu: float) -> float:
        zs = sum(float(np.sum(z[m])) for z, m in zip(q.z, masks, strict=True))
        count = sum(int(np.sum(m)) for m in masks)
        s_max = self.o["s_max"]
        s_d = max(s_max, (float(np.sum(np.abs(q.y))) + zs) / max(1, count + self.rows)) / s_max
        s_c = max(s_max, zs / max(1, count)) / s_max
        comp = max((largest((a * z - mu)[m]) for a, z, m in zip(d, q.z, masks, strict=True)), default=0)
        return max(max(largest(a) for a in dual) / s_d, largest(r), comp / s_c)

    def violation(self, v: Values) -> float:
        h = v.h / self.h_scale
        return max(largest(h[: self.m]), float(np.max(-h[self.m :], initial=0)))

    # --- The linear system ---------------------------------------------------------------------------------------------

    def system(self, W: sp.csr_matrix, J: sp.csr_matrix, d: list, q: Point, mode: Mode) -> Condensed:
        sx = np.where(self.has_l, q.z[0] / d[0], 0) + np.where(self.has_u, q.z[1] / d[1], 0)
        prox = mode.zeta * mode.D**2 if mode.elastic else 0
        noise = np.random.default_rng(0).standard_normal(self.n) * ~self.fixed
        base = W + sp.diags(prox * np.ones(self.n)) if mode.elastic else W
        size_w = float(np.linalg.norm(base @ noise) / max(np.linalg.norm(noise), 1e-300))
        size_w = max(size_w, self.least_w)
        self.size_w = size_w
        H = base + sp.diags(np.where(self.fixed, size_w, sx))
        e = np.where(self.inequality, d[2] / np.maximum(q.z[2], 1e-300), 0)
        if mode.elastic:
            e = e + d[3] / q.z[3] + d[4] / q.z[4]
        return Condensed(H.tocsr(), J, e, size_w, np.where(self.fixed, 0.0, 1.0), self.band)

    def direction(self, K: Condensed, dual: list, r: np.ndarray, d: list, q: Point, mode: Mode, mu: float) -> tuple:
        """Steps of x, s, p, n, y, z for row residual r."""
        b1 = -(dual[0] + np.where(self.has_l, q.z[0] - mu / d[0], 0) - np.where(self.has_u, q.z[1] - mu / d[1], 0))
        b1 = np.where(self.fixed, 0, b1)
        # Where eliminated, each of s, p, n gives a step (sign dy + force) / Sigma.
        zs = np.maximum(q.z[2], 1e-300)
        inv_s = np.where(self.inequality, d[2] / zs, 0)
        fs = np.where(self.inequality, q.y + mu / d[2], 0)
        b2 = -r + inv_s * fs
        if mode.elastic:
            fp, fn = q.y - mode.rho + mu / d[3], -q.y - mode.rho + mu / d[4]
            b2 = b2 + d[3] / q.z[3] * fp - d[4] / q.z[4] * fn
        sol = K.solve(b1, b2)
        self.n_passes += sol.passes
        self.n_solves += 1
        dx, dy = sol.dx, sol.dy
        ds = inv_s * (dy + fs)
        # The linearised row, exactly: what the solve left goes to the slack.
        steps = [dx, -dx, ds]
        if mode.elastic:
            steps += [d[3] / q.z[3] * (dy + fp), d[4] / q.z[4] * (-dy + fn)]
        dz = [np.where(m, mu / a - z - z / a * da, 0) for a, z, da, m in zip(d, q.z, steps, self.masks(mode.elastic), strict=True)]
        return steps, dy, dz, sol

    def fraction(self, v: list, dv: list, masks: list, tau: float) -> float:
        alpha = 1.0
        for a, da, m in zip(v, dv, masks, strict=True):
            down = m & (da < 0)
            if down.any():
                alpha = min(alpha, float(np.min(-tau * a[down] / da[down])))
        return alpha

    def moved(self, q: Point, steps: list, alpha: float) -> Point:
        p, n = (q.p + alpha * steps[3], q.n + alpha * steps[4]) if len(steps) > 3 else (q.p, q.n)
        return replace(q, x=q.x + alpha * steps[0], s=q.s + alpha * steps[2], p=p, n=n)

    # --- The loop --------------------------------------------------------------------------------------------------------

    def least_squares(self, g: np.ndarray, J: sp.csr_matrix, q: Point) -> np.ndarray:
        if not self.rows:
            return q.y
        one = sp.identity(self.n, format="csr")
        K = Condensed(one, J, np.where(self.inequality, 1.0, 0), 1.0, np.ones(self.n), self.band)
        K.factor(0.0)
        self.n_factor += 1
        sol = K.solve(-(g - q.z[0] + q.z[1]), np.where(self.inequality, q.z[2], 0))
        return sol.dy if np.isfinite(sol.dy).all() and largest(sol.dy) <= self.o["y_max"] else np.zeros(self.rows)

    def acceptable(self, filter: list, theta: float, phi: float) -> bool:
        return all(theta < t or phi < f for t, f in filter)

    def start(self, x: np.ndarray) -> tuple[Point, Values]:
        v = self.values(x)
        s = np.where(self.inequality, np.maximum(v.h, self.o["kappa_1"]), 0)
        zero = np.zeros(self.rows)
        z = [m.astype(float) for m in self.masks(False)]
        return Point(x, s, zero, zero, zero, z), v

    def restore(self, q: Point, v: Values, mu: float) -> tuple[Point, Mode, float]:
        """Enter restoration at q."""
        o = self.o
        r = v.h - q.s
        mu = max(mu, largest(r))
        rho = o["rho"]
        a = (mu - rho * r) / (2 * rho)
        n = a + np.sqrt(a**2 + mu * r / (2 * rho))
        n = np.maximum(n, 1e-20)
        p = r + n
        p = np.maximum(p, 1e-20)
        D = np.minimum(1, 1 / np.maximum(np.abs(q.x), 1e-300))
        mode = Mode(True, rho, np.sqrt(mu), q.x.copy(), D)
        z = [np.minimum(zz, rho) for zz in q.z[:3]] + [mu / p, mu / n]
        self.n_restorations += 1
        new = replace(q, p=p, n=n, y=np.zeros(self.rows), z=z)
        theta = self.theta(v, new, mode)
        mode.theta_max, mode.theta_min = 1e4 * max(1, theta), 1e-4 * max(1, theta)
        return new, mode, mu

    def solve(self) -> Result:
        o = self.o
        tol = o["tol"]
        x = self.inside(self.problem.x0)
        self.scale(x)
        q, v = self.start(x)
        g, J, W = self.derivatives(x, 1.0, q.y)
        self.least_w = EPS**0.25 * max(largest(g), 1e-8) / max(1, largest(x))
        q = replace(q, y=self.least_squares(g, J, q))
        main = mode = Mode()
        theta0 = self.theta(v, q, mode)
        main.theta_max, main.theta_min = 1e4 * max(1, theta0), 1e-4 * max(1, theta0)
        mu = mu_main = o["mu0"]
        mu_min = tol / 10
        last_delta, steps, status, tiny = 0.0, 0, "MAX_STEPS", 0
        theta_r = 0.0
        curved = 0
        while True:
            elastic = mode.elastic
            g, J, W = self.derivatives(q.x, 0.0 if elastic else 1.0, q.y)
            if elastic:
                g = mode.zeta * mode.D**2 * (q.x - mode.x_r)
            d, masks = self.distances(q, elastic), self.masks(elastic)
            r, dual = self.residual(v, q, mode), self.dual(g, J, q, mode)
            error = self.error(dual, r, d, q, masks, 0.0)
            finite = np.isfinite(error)
            if not finite:
                status = "NONFINITE"
                break
            # Where does this end?
            stationary = error <= tol and (elastic or self.violation(v) <= 1e-9 * 1)
            # Barrier.
            while self.error(dual, r, d, q, masks, mu) <= o["kappa_eps"] * mu and mu > mu_min and not stationary:
                mu = max(mu_min, min(o["kappa_mu"] * mu, mu ** o["theta_mu"]))
                mode.filter = []
                if elastic:
                    mode.zeta = np.sqrt(mu)
                    g = mode.zeta * mode.D**2 * (q.x - mode.x_r)
                    dual = self.dual(g, J, q, mode)
            tau = max(o["tau_min"], 1 - mu)
            K = self.system(W, J, d, q, mode)
            delta, tries = 0.0, 0
            while not K.factor(delta):
                if delta == 0:
                    delta = 1e-4 * self.size_w if last_delta == 0 else max(1e-20, last_delta / 3)
                else:
                    delta *= 100 if last_delta == 0 else 8
                tries += 1
                if delta > 1e40:
                    break
            self.n_factor += K.factorisations
            if delta > 0:
                last_delta = delta
            if stationary:
                if elastic:
                    status = "INFEASIBLE"
                    break
                flat = delta <= EPS**0.5 * self.size_w
                if flat or not o["curvature"]:
                    status = "CONVERGED"
                    break
            if steps >= o["max_steps"]:
                break
            phi, theta = self.phi(v, q, mode, mu), self.theta(v, q, mode)
            dx, dy, dz, sol = self.direction(K, dual, r, d, q, mode, mu)
            # Slope of the barrier objective.
            grads = [g, np.zeros(self.n), np.zeros(self.rows)] + ([np.full(self.rows, mode.rho)] * 2 if elastic else [])
            slope = 0.0
            for a, da, gr, mask in zip(d, dx, grads, masks, strict=True):
                slope += float(gr @ da) - mu * float(np.sum((da / a)[mask]))
            a_max = self.fraction(d, dx, masks, tau)
            a_z = self.fraction(q.z, dz, masks, tau)
            # Line search.
            a_min = o["gamma_theta"]
            if slope < 0:
                a_min = min(o["gamma_theta"], -o["gamma_phi"] * theta / slope)
                if theta <= mode.theta_min:
                    a_min = min(a_min, o["delta"] * theta ** o["s_theta"] / (-slope) ** o["s_phi"])
            a_min *= o["gamma_alpha"]
            alpha, accepted, augment = a_max, False, False
            slack = 10 * EPS * abs(phi)
            first = True
            is_tiny = largest(dx[0] / (1 + np.abs(q.x))) < 10 * EPS

            def test(alpha: float, new: Point, w: Values) -> tuple[bool, bool, float]:
                """Accepted, to augment the filter, theta."""
                t, f = self.theta(w, new, mode), self.phi(w, new, mode, mu)
                if not (np.isfinite(t) and np.isfinite(f)) or t > mode.theta_max:
                    return False, False, np.inf
                if not self.acceptable(mode.filter, t, f - slack):
                    return False, False, t
                switching = slope < 0 and alpha * (-slope) ** o["s_phi"] > o["delta"] * theta ** o["s_theta"]
                armijo = f <= phi + o["eta"] * alpha * slope + slack
                if theta <= mode.theta_min and switching:
                    return armijo, False, t
                good = t <= (1 - o["gamma_theta"]) * theta or f <= phi - o["gamma_phi"] * theta + slack
                return good, not (switching and armijo), t

            backtracks = 0
            while alpha >= a_min:
                new = self.moved(q, dx, alpha)
                w = self.values(new.x)
                accepted, augment, t = test(alpha, new, w)
                if accepted:
                    break
                if first and t >= theta and np.isfinite(t) and o["soc"]:
                    r_soc, t_old = alpha * r + self.residual(w, new, mode), theta
                    for _ in range(o["soc"]):
                        dx2, dy2, dz2, _ = self.direction(K, dual, r_soc, d, q, mode, mu)
                        a2 = self.fraction(d, dx2, masks, tau)
                        new2 = self.moved(q, dx2, a2)
                        w2 = self.values(new2.x)
                        accepted, augment, t2 = test(alpha, new2, w2)
                        if accepted:
                            new, w, alpha = new2, w2, a2
                            dy, dz = dy2, dz2
                            a_z = self.fraction(q.z, dz, masks, tau)
                            break
                        if not np.isfinite(t2) or t2 > o["kappa_soc"] * t_old:
                            break
                        r_soc, t_old = a2 * r_soc + self.residual(w2, new2, mode), t2
                    if accepted:
                        break
                first = False
                alpha /= 2
                backtracks += 1
            if o["verbose"]:
                print(f"{steps:3d}{'r' if elastic else ' '} f {v.f:12.5e} th {theta:8.1e} err {error:8.1e} mu {mu:7.1e} d {delta:7.1e} "
                      f"|dx| {largest(dx[0]):7.1e} |y| {largest(q.y):7.1e} a {alpha:7.1e} az {a_z:7.1e} {'A' if accepted else '-'} sol {sol.passes} {sol.error:7.1e}")
            if is_tiny and not accepted:
                new = self.moved(q, dx, a_max)
                w, accepted, augment, alpha = self.values(new.x), True, False, a_max
                tiny += 1
                if mu > mu_min:
                    mu = max(mu_min, min(o["kappa_mu"] * mu, mu ** o["theta_mu"]))
                    mode.filter = []
                if tiny > 3:
                    status = "PRECISION_FLOOR" if not elastic else "STALLED"
                    break
            if not accepted:
                if elastic:
                    status = "STALLED in restoration"
                    break
                if theta <= tol * 1e-2:
                    status = "STALLED feasible"
                    break
                main.filter.append(((1 - o["gamma_theta"]) * theta, phi - o["gamma_phi"] * theta))
                theta_r, mu_main = theta, mu
                q, mode, mu = self.restore(q, v, mu)
                steps += 1
                continue
            if augment:
                mode.filter.append(((1 - o["gamma_theta"]) * theta, phi - o["gamma_phi"] * theta))
            z = [zz + a_z * dd for zz, dd in zip(q.z, dz, strict=True)]
            q, v = replace(new, y=q.y + alpha * dy, z=z), w
            d = self.distances(q, elastic)
            ks = o["kappa_sigma"]
            q.z = [np.where(m, np.clip(zz, mu / (ks * a), ks * mu / a), 0) for zz, a, m in zip(q.z, d, masks, strict=True)]
            steps += 1
            if elastic:
                back = replace(q, z=q.z[:3])
                t, f = self.theta(v, back, main), self.phi(v, back, main, mu_main)
                if t <= 0.9 * theta_r and self.acceptable(main.filter, t, f):
                    mode, mu = main, mu_main
                    g, J, _ = self.derivatives(q.x, 1.0, 0 * q.y)
                    z = [zz if largest(zz) <= 1e3 else m.astype(float) for zz, m in zip(q.z[:3], self.masks(False), strict=True)]
                    q = replace(back, z=z)
                    q = replace(q, y=self.least_squares(g, J, q))
        f, h = self.model.values(q.x)
        return Result(
            q.x, f, self.violation(v), status, steps, self.n_factor, self.model.evaluations,
            self.n_passes / max(1, self.n_solves), self.n_restorations, error,
        )  # fmt: skip


def solve(p: Problem, **options: Any) -> Result:
    return FilterIP(p, **options).solve()
