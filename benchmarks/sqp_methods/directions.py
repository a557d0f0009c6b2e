# ruff: noqa: E501
"""Directions of the interior point method: Newton's for the barrier problem, and those of negative curvature."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from barrier import EPS, Barrier, Local, Mode, Point, Step
from system import Condensed, largest


class Directions(Barrier):
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
