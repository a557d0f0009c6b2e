# ruff: noqa: E501
"""The Newton system of every method here, condensed to one positive definite band.

    [ H   J^T ] [ dx ]   [ b1 ]        H = W + Sigma_x + delta D,   E = diag(e) >= 0
    [ J   -E  ] [ dy ] = [ b2 ]

e is 0 for an equality, s / z for an inequality with slack s, p / z_p + n / z_n (added) for a row with elastic variables.
With gamma_i > 0 added to every e_i the rows are eliminated,

    M ex = r1 + J^T G r2,   M = H + J^T G J,   G = 1 / (e + gamma),   ey = G (J ex - r2),

and the residuals r1, r2 of the system without gamma are solved for again until they are small. M is positive definite
exactly when the regularised matrix has inertia (n, m, 0): Cholesky's failure is the inertia test.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve_banded
from scipy.linalg.lapack import dpbtrf

GAMMA = 1e-10
LOCAL = True
CG = 6
FLAT = 1e-10
PASSES = 10
MODE = "passes"
LOG = None


def largest(a: np.ndarray) -> float:
    return float(np.max(np.abs(a), initial=0))


class Solution(NamedTuple):
    dx: np.ndarray
    dy: np.ndarray
    r1: np.ndarray
    r2: np.ndarray
    passes: int
    error: float  # relative residual of the system without gamma


class Condensed:
    """H (sparse, symmetric, without shift), J, e and what is needed to factor with any shift."""

    def __init__(self, H: sp.csr_matrix, J: sp.csr_matrix, e: np.ndarray, size_w: float, D: np.ndarray, band: int):
        self.H, self.J, self.e, self.D, self.band = H, J, e, D, band
        rows = np.asarray(J.multiply(J).sum(1)).ravel()
        self.rows = np.sqrt(rows)
        top = np.max(rows, initial=0)
        h = np.asarray(abs(H).sum(1)).ravel()
        h = np.maximum(h, size_w * np.where(D > 0, D, 1)) if LOCAL else np.full(len(h), size_w)
        self.gamma = GAMMA * np.maximum(J.multiply(J) @ (1 / h), (1e-16 * top if top > 0 else 1) / size_w)
        self.G = 1 / (e + self.gamma)
        M = (H + J.T @ sp.diags(self.G) @ J).tocoo()
        low = M.row >= M.col
        self.ab = np.zeros((band + 1, H.shape[0]))
        np.add.at(self.ab, (M.row[low] - M.col[low], M.col[low]), M.data[low])
        self.factorisations = 0
        self.delta = 0.0

    def factor(self, delta: float) -> bool:
        ab = self.ab.copy()
        ab[0] += delta * self.D
        self.cb, info = dpbtrf(ab, lower=1)
        self.factorisations += 1
        self.delta = delta
        return info == 0 and bool(np.isfinite(self.cb).all())

    def apply(self, v: np.ndarray) -> np.ndarray:
        return self.H @ v + self.delta * self.D * v

    def once(self, r1: np.ndarray, r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ex = cho_solve_banded((self.cb, True), r1 + self.J.T @ (self.G * r2))
        return ex, self.G * (self.J @ ex - r2)

    def direct(self, b1: np.ndarray, b2: np.ndarray) -> Solution:
        """By a pivoted sparse factorisation of the whole matrix: what the condensed one is measured against."""
        import scipy.sparse.linalg as sla

        n, m = len(b1), len(b2)
        K = (
            sp.bmat(
                [
                    [self.H + self.delta * sp.diags(self.D), self.J.T],
                    [self.J, -sp.diags(self.e + 1e-20 * self.gamma / GAMMA)],
                ],
                format="csc",
            )
            if m
            else (self.H + self.delta * sp.diags(self.D)).tocsc()
        )
        lu = sla.splu(K)
        b = np.concatenate([b1, b2])
        v = lu.solve(b)
        v += lu.solve(b - K @ v)
        dx, dy = v[:n], v[n:]
        return Solution(dx, dy, b1 - self.apply(dx) - self.J.T @ dy, b2 - self.J @ dx + self.e * dy, 1, 0.0)

    def solve(self, b1: np.ndarray, b2: np.ndarray, target: float = 1e-10) -> Solution:
        if MODE == "direct":
            return self.direct(b1, b2)
        return self.conjugate(b1, b2, target) if MODE == "cg" else self.passes(b1, b2, target)

    def residual(self, b1: np.ndarray, b2: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> tuple:
        force = self.J.T @ dy
        r1 = b1 - self.apply(dx) - force
        r2 = b2 - self.J @ dx + self.e * dy
        unit1 = largest(b1) + largest(force)
        unit2 = largest(b2) + 1e-3 * float(np.max(abs(self.J) @ np.abs(dx), initial=0))
        error = max(largest(r1) / unit1 if unit1 > 0 else 0, largest(r2) / unit2 if unit2 > 0 else 0)
        return r1, r2, error

    def passes(self, b1: np.ndarray, b2: np.ndarray, target: float) -> Solution:
        """Passes until the residual is small or no longer halved."""
        dx, dy = np.zeros_like(b1), np.zeros_like(b2)
        r1, r2, taken = b1, b2, 0
        best = Solution(dx, dy, r1, r2, 0, np.inf)
        for taken in range(1, PASSES + 1):
            ex, ey = self.once(r1, r2)
            dx, dy = dx + ex, dy + ey
            r1, r2, error = self.residual(b1, b2, dx, dy)
            if not np.isfinite(error) or (taken > 1 and error > best.error / 2):
                break
            best = Solution(dx, dy, r1, r2, taken, error)
            if error <= target:
                break
        return best._replace(passes=taken)

    def conjugate(self, b1: np.ndarray, b2: np.ndarray, target: float) -> Solution:
        """Conjugate gradients on (J M^-1 J^T + E (E + gamma) / gamma) w = J M^-1 (b1 + J^T G b2) - b2, y = (E + gamma) w / gamma."""
        dx, dy = np.zeros_like(b1), np.zeros_like(b2)
        r1, r2, taken = b1, b2, 0
        best = Solution(dx, dy, r1, r2, 0, np.inf)
        shift, precondition = self.e * (self.e + self.gamma) / self.gamma, self.gamma * self.G**2
        for outer in range(3):
            x = cho_solve_banded((self.cb, True), r1 + self.J.T @ (self.G * r2))
            taken += 1
            w = np.zeros_like(b2)
            rho = self.J @ x - r2
            z = precondition * rho
            d, rz, first = z, rho @ z, rho @ z
            for _ in range(CG):
                if not rz > 1e-20 * first:
                    break
                mx = cho_solve_banded((self.cb, True), self.J.T @ d)
                taken += 1
                q = self.J @ mx + shift * d
                curvature = d @ q
                if not curvature > FLAT * (d @ (d / precondition)):
                    break  # a dependent row
                step = rz / curvature
                w, x, rho = w + step * d, x - step * mx, rho - step * q
                z = precondition * rho
                new = rho @ z
                d, rz = z + new / rz * d, new
                if largest(rho) <= target * (
                    largest(b2) + 1e-3 * float(np.max(abs(self.J) @ np.abs(dx + x), initial=0))
                ):
                    break
            tx, ty = dx + x, dy + w * (self.e + self.gamma) / self.gamma
            t1, t2, error = self.residual(b1, b2, tx, ty)
            if outer == 0 and not error < 10:
                tx, ty = self.once(r1, r2)
                t1, t2, plain = self.residual(b1, b2, tx, ty)
                taken += 1
                if not plain < error:
                    break
                error = plain
            if not np.isfinite(error) or (outer > 0 and error > best.error / 2):
                break
            dx, dy, r1, r2 = tx, ty, t1, t2
            best = Solution(dx, dy, r1, r2, taken, error)
            if error <= target:
                break
        return best._replace(passes=taken)
