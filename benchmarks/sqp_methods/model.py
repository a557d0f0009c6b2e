# ruff: noqa: E501
"""A problem's functions with explicit sparse derivatives (CasADi), and IPOPT on the same expressions."""

from __future__ import annotations

import casadi as ca
import numpy as np
import scipy.sparse as sp
from cases import Problem


def matrix(m: ca.DM) -> sp.csr_matrix:
    pattern = m.sparsity()
    return sp.csc_matrix(
        (np.array(m.nonzeros()), np.array(pattern.row()), np.array(pattern.colind())), shape=m.shape
    ).tocsr()


class Model:
    """f, h = (c, g) at x: `values`; gradient, Jacobian of h and Hessian of sigma f + y . h: `derivatives`."""

    def __init__(self, p: Problem) -> None:
        self.problem = p
        self.n, self.m = p.x.numel(), p.c.numel()
        self.k = p.g.numel()  # inequalities
        h = ca.vertcat(p.c, p.g)
        sigma, y = ca.SX.sym("sigma"), ca.SX.sym("y", h.numel())
        gradient = ca.gradient(p.f, p.x)
        hessian, _ = ca.hessian(sigma * p.f + ca.dot(y, h), p.x)
        self._values = ca.Function("v", [p.x], [p.f, h])
        self._derivatives = ca.Function("d", [p.x, sigma, y], [gradient, ca.jacobian(h, p.x), hessian])
        self.evaluations = 0

    def values(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluations += 1
        f, h = self._values(x)
        return float(f), np.array(h).ravel()

    def derivatives(
        self, x: np.ndarray, sigma: float, y: np.ndarray
    ) -> tuple[np.ndarray, sp.csr_matrix, sp.csr_matrix]:
        g, J, W = self._derivatives(x, sigma, y)
        return np.array(g).ravel(), matrix(J), matrix(W)


def ipopt(p: Problem, max_iter: int = 1000, **options: object) -> tuple[str, int, float, float]:
    """Status, iterations, value and violation of IPOPT with exact derivatives, tol 1e-8. The violation is in units of
    the rows' gradients where these are small: a row times 1e-8 is met to 1e-8 anywhere."""
    solver = ca.nlpsol(
        "s", "ipopt", {"x": p.x, "f": p.f, "g": ca.vertcat(p.c, p.g)},
        {"print_time": False, "error_on_fail": False, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": max_iter, **options}},
    )  # fmt: skip
    low = np.zeros(p.c.numel() + p.g.numel())
    up = np.concatenate([np.zeros(p.c.numel()), np.full(p.g.numel(), np.inf)])
    result = solver(x0=p.x0, lbg=low, ubg=up, lbx=p.lower, ubx=p.upper)
    stats = solver.stats()
    h = ca.vertcat(p.c, p.g)
    left, J = ca.Function("h", [p.x], [h, ca.jacobian(h, p.x)])(result["x"])
    left, size = np.array(left).ravel(), np.abs(matrix(J)).max(axis=1).toarray().ravel()
    left[p.c.numel() :] = np.minimum(left[p.c.numel() :], 0)
    off = float(np.max(np.abs(left) / np.clip(size, 1e-300, 1), initial=0))
    return stats["return_status"], int(stats["iter_count"]), float(result["f"]), off
