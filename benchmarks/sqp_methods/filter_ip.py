# ruff: noqa: B023, E501
"""Primal-dual interior point with a filter line search and restoration (Wächter and Biegler 2006) on the condensed band:
modes and the loop. The barrier problem is in `barrier.py`, its directions in `directions.py`."""

from __future__ import annotations

import math
from typing import Any

import casadi as ca
import numpy as np
import scipy.sparse as sp
from barrier import EPS, Mode, Point, Result, Step, Values
from cases import Problem
from directions import Directions
from system import largest


class FilterIP(Directions):
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
