# ruff: noqa: E501
"""Interior point with l1-elastic variables throughout: h - s - p + n = 0, objective f + rho sum (p + n), no restoration.

The filter method's own machinery with rho instead of the proximal objective; rho grows where p, n stay at a solution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from barrier import Local, Mode, Point, Result, Values
from cases import Problem
from filter_ip import FilterIP
from system import largest


class ElasticIP(FilterIP):
    def objective(self, v: Values, q: Point, mode: Mode) -> float:
        return v.f + mode.rho * float(np.sum(q.d[3] + q.d[4]))

    def local(self, v: Values, q: Point, mode: Mode, mu: float) -> Local:
        g, J, W = self.derivatives(q.x, 1.0, q.y)
        rb, r = self.residuals(v, q, mu)
        dual = [g + J.T @ q.y - q.z[0] + q.z[1], np.where(self.inequality, -q.y - q.z[2], 0)]
        if mode.elastic:
            dual += [mode.rho - q.y - q.z[3], mode.rho + q.y - q.z[4]]
        return Local(g, J, W, rb, r, dual)

    def begin(self, q: Point, v: Values, mu: float, mode: Mode) -> tuple[Point, Mode]:
        rho = 10 * max(1.0, largest(q.y))
        _, r = self.residuals(v, q, mu)
        a = (mu - rho * r) / (2 * rho)
        n = np.maximum(a + np.sqrt(a**2 + mu * r / (2 * rho)), 1e-20)
        p = np.maximum(r + n, 1e-20)
        return q._replace(d=[*q.d, p, n], z=[*q.z, mu / p, mu / n]), Mode(True, rho, 0.0, q.x, np.zeros(self.n))

    def grown(self, q: Point, v: Values, mode: Mode) -> bool:
        """rho grows where the barrier problem is solved and multipliers come near it."""
        if largest(q.y) < 0.5 * mode.rho or mode.rho >= 1e10:
            return False
        mode.rho *= 10
        mode.filter = []
        return True


def solve(p: Problem, **options: Any) -> Result:
    return ElasticIP(p, **options).solve()
