# ruff: noqa: E501
"""Interior point on a primal-dual augmented Lagrangian (Gill and Robinson 2012; Armand and Omheni 2017), no restoration.

The Newton matrix is the same with e + sigma instead of e. The merit, decreased by an Armijo search along its own Newton
step, is  phi + y_e . r + |r|^2 / (2 sigma) + |r + sigma (y_e - y)|^2 / (2 sigma).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from barrier import EPS, Local, Mode, Point, Result, Step, Values
from cases import Problem
from filter_ip import FilterIP
from system import Condensed, largest


class AugmentedIP(FilterIP):
    sigma = 0.1
    y_e: np.ndarray

    def system(self, at: Local, q: Point, mode: Mode) -> Condensed:
        K = super().system(at, q, mode)
        return Condensed(K.H, K.J, K.e + self.sigma, self.size_w, K.D, self.band or 0)

    def step(self, K: Condensed, at: Local, q: Point, mode: Mode, mu: float) -> Step:
        # J dx - ds - sigma dy = -(r + sigma (y_e - y)).
        return self.direction(K, at, at.rb, at.r + self.sigma * (self.y_e - q.y), q, mode, mu)

    def merit(self, v: Values, q: Point, mode: Mode, mu: float) -> float:
        rb, r = self.residuals(v, q, mu)
        w = r + self.sigma * (self.y_e - q.y)
        bounds = sum(float(b @ b) for b in rb) / (2 * self.sigma)
        return (
            self.phi(v, q, mode, mu) + float(self.y_e @ r) + (float(r @ r) + float(w @ w)) / (2 * self.sigma) + bounds
        )

    def solve(self) -> Result:
        o, tol, mode = self.o, self.o["tol"], Mode()
        x = self.inside(self.problem.x0)
        self.scale(x)
        v, mu = self.values(x), o["mu0"]
        q = self.start(x, v)
        at = self.local(v, q, mode, mu)
        self.least_w = EPS**0.25 * max(largest(at.g), 1e-8) / max(1, largest(x))
        q = q._replace(y=self.least_squares(at, q))
        self.y_e, best = q.y, math.inf
        count = sum(int(np.sum(a)) for a in self.masks(False))
        value_unit = abs(v.f) if v.f else 1.0
        last, steps, status, error, idle = 0.0, 0, "MAX_STEPS", math.inf, 0
        masks = self.masks(False)
        while True:
            at = self.local(v, q, mode, mu)
            error = self.error(at, q, mode, 0.0)
            if not np.isfinite(error):
                status = "NONFINITE"
                break
            unit = max(abs(v.f), EPS**0.25 * min(1.0, value_unit))
            gap = sum(float(np.sum((a * z)[m])) for a, z, m in zip(q.d, q.z, masks, strict=True))
            least = tol / 10 * min(1, 10 * unit / max(1, count))
            if error <= tol and self.violation(v, q.x, at.J) <= tol / 2 and gap <= 20 * tol * unit:
                status = "CONVERGED"
                break
            if v.f < -1e20 * max(1, value_unit):
                status = "UNBOUNDED"
                break
            if steps >= o["max_steps"]:
                break
            # Estimates follow wherever the violation falls; mu and sigma where the subproblem is solved.
            inner = self.error(at._replace(r=at.r + self.sigma * (self.y_e - q.y)), q, mode, mu)
            now = largest(at.r)
            if now <= 0.5 * best:
                self.y_e, best = q.y, max(now, 1e-16)
            if inner <= o["kappa_eps"] * max(mu, 1e-9):
                if now > tol and now > 0.1 * self.previous:
                    self.sigma = max(self.sigma / 10, 1e-12)
                self.previous = now
                self.y_e = np.clip(q.y, -1e8, 1e8)
                if self.sigma <= 1e-12 and now > 1e-4:
                    status = "INFEASIBLE"
                    break
            while self.error(at, q, mode, mu) <= o["kappa_eps"] * mu and mu > least:
                mu = max(least, min(o["kappa_mu"] * mu, mu ** o["theta_mu"]))
                rb, r = self.residuals(v, q, mu)
                at = at._replace(rb=rb, r=r)
            tau = max(o["tau_min"], 1 - mu)
            K = self.system(at, q, mode)
            delta = self.factored(K, last)
            last = delta if delta > 0 else last
            step = self.step(K, at, q, mode, mu)
            a_max, a_z = self.fraction(q.d, step.dd, tau), self.fraction(q.z, step.dz, tau)
            base = self.merit(v, q, mode, mu)
            w0 = at.r + self.sigma * (self.y_e - q.y)
            Js = at.J @ step.dx - step.dd[2]
            slope = float(at.g @ step.dx) - mu * sum(
                float(np.sum((a / b)[m])) for a, b, m in zip(step.dd, q.d, masks, strict=True)
            )
            slope += float((self.y_e + (at.r + w0) / self.sigma) @ Js) - float(w0 @ step.dy)
            slope -= sum(float(b @ b) for b in at.rb) / self.sigma
            slack, alpha, accepted = 10 * EPS * abs(base), a_max, False
            while alpha > 1e-10:
                new = q._replace(
                    x=q.x + alpha * step.dx,
                    y=q.y + alpha * step.dy,
                    d=[a + alpha * b for a, b in zip(q.d, step.dd, strict=True)],
                )
                w = self.values(new.x)
                if self.merit(w, new, mode, mu) <= base + 1e-4 * alpha * min(slope, 0) + slack:
                    accepted = True
                    break
                alpha /= 2
            if o["verbose"]:
                print(
                    f"{steps:3d} f {v.f:12.5e} r {now:8.1e} err {error:8.1e} in {inner:8.1e} mu {mu:7.1e} sg {self.sigma:7.1e} d {delta:7.1e} |dx| {largest(step.dx):7.1e} |y| {largest(q.y):7.1e} a {alpha:7.1e} slope {slope:8.1e} {'A' if accepted else '-'}"
                )
            if not accepted:
                idle += 1
                if idle > 3:
                    status = "STALLED"
                    break
                self.y_e, self.sigma = q.y, self.sigma / 10
                continue
            idle = 0
            ks = o["kappa_sigma"]
            z = [a + a_z * b for a, b in zip(q.z, step.dz, strict=True)]
            z = [
                np.where(m, np.clip(a, mu / (ks * b), ks * mu / b), 0) for a, b, m in zip(z, new.d, masks, strict=True)
            ]
            q, v = new._replace(z=z), w
            steps += 1
        f, _ = self.model.values(q.x)
        return Result(
            q.x,
            f,
            self.violation(v, q.x),
            status,
            steps,
            self.n_factor,
            self.model.evaluations,
            self.n_passes / max(1, self.n_solves),
            0,
            error,
        )

    previous = math.inf


def solve(p: Problem, **options: Any) -> Result:
    return AugmentedIP(p, **options).solve()
