"""The Newton system of a problem with constraints, condensed to one positive definite band.

The step solves, with A the Jacobian of c and H the (shifted) Hessian of the Lagrangian plus what the barrier adds,

    [ H  A^T ] [ dx ]   [ b1 ]       as      M ex = r1 + A^T r2 / gamma,   M = H + A^T A / gamma,
    [ A   0  ] [ dy ] = [ b2 ]               ey = (A ex - r2) / gamma,

repeated on the residuals r1, r2 of the uncondensed system. One pass alone solves the system with -gamma I in its lower
right corner; every further pass is a step of the method of multipliers on the linear system, which also removes the
rounding errors that 1/gamma brings. M is positive definite exactly when the regularised matrix has inertia
(n, m, 0), so Cholesky's failure is the inertia test and nothing is pivoted.

H and A^T A are extracted apart, by the same probes on one linearisation: gamma follows from their sizes, and an entry
of H outside the band would not show beside A^T A / gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._bandwidth import hash_noise, too_narrow
from ._hessian import Extraction, extract
from ._solve import Factor, factor
from ._stages import Layout
from ._storage import matvec

# gamma, relative to |A|^2 / |W|: rounding errors in M against the work of further passes
GAMMA = {torch.float64: 1e-8, torch.float32: 1e-5}
PASSES = 8  # of refinement, at most
STEP = 1e-8  # relative residual with which a step is content
SHIFTS = 60  # factorisations spent on one shift before giving up
POOR = 12  # of them, those that succeed but give a poor step
NULL = 6  # products that single out a null vector of A^T

Functions = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # x -> f, c (equalities), g (inequalities)


class Linearisation(NamedTuple):
    """f, c, g at x and the first and second derivatives of L = f + y^T c - z^T g, from graphs built once."""

    value: Tensor
    grad: Tensor  # of L
    grad_f: Tensor
    c: Tensor
    g: Tensor
    push: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # v -> W v, A v, B v
    pull: Callable[[Tensor, Tensor], Tensor]  # u, w -> A^T u + B^T w

    @property
    def finite(self) -> bool:
        parts = (self.value, self.grad, self.c, self.g)
        return all(bool(part.isfinite().all()) for part in parts)


def linearise(functions: Functions, x: Tensor, y: Tensor, z: Tensor) -> Linearisation:
    def lagrangian(x: Tensor) -> tuple[Tensor, Tensor]:
        f, c, g = functions(x)
        return f + y @ c - z @ g, f

    def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        grad, (_, f) = torch.func.grad_and_value(lagrangian, has_aux=True)(x)
        return grad, f

    grad, curve, f = torch.func.vjp(gradient, x, has_aux=True)  # type: ignore[misc]
    (c, g), backward, *_ = torch.func.vjp(lambda x: functions(x)[1:], x)
    # A v is the transpose of u -> A^T u, which is linear: pulled back in its turn, at any u.
    zeros = (torch.zeros_like(c), torch.zeros_like(g))
    _, forward, *_ = torch.func.vjp(lambda u, w: backward((u, w))[0], *zeros)

    def pull(u: Tensor, w: Tensor) -> Tensor:
        return backward((u, w))[0]

    return Linearisation(f, grad, grad - pull(y, -z), c, g, lambda v: (curve(v)[0], *forward(v)), pull)


class Bands(NamedTuple):
    """H (without shift) and A^T A, with zeros for held variables (dummies and fixed ones), and their sizes."""

    h: Tensor
    a: Tensor
    hold: Tensor
    size_w: float  # of W, root mean square of W v
    size_a: float  # of A^T A, mean of its diagonal

    @property
    def gamma(self) -> float:
        return GAMMA[self.h.dtype] * self.size_a / self.size_w


def extract_bands(
    push: Callable[[Tensor], tuple],
    pull: Callable[[Tensor, Tensor], Tensor],
    sigma: Tensor,
    hold: Tensor,
    layout: Layout,
    extraction: Extraction,
    check: bool,
    context: tuple[int, Tensor, Tensor],
) -> tuple[Bands, bool]:
    """The bands, for barrier weights sigma of the inequalities, and (where `check`) whether they are too narrow.

    push and pull are the products of a `Linearisation`; context is (m, grad f, x).
    """
    m, grad_f, x = context

    def hessian(v: Tensor) -> Tensor:
        Wv, Av, Bv = push(v)
        return Wv + pull(torch.zeros_like(Av), sigma * Bv) if len(sigma) else Wv

    def gram(v: Tensor) -> Tensor:
        _, Av, Bv = push(v)
        return pull(Av, torch.zeros_like(Bv))

    def band(product: Callable[[Tensor], Tensor]) -> Tensor:
        ab = extract(product, layout, extraction)
        if layout.ragged:
            ab[0] -= layout.dummies()
        return ab

    h = band(hessian)
    a = band(gram) if m else torch.zeros_like(h)
    noise = hash_noise(x, 1) * (1 - hold)
    curved = push(noise)[0] if len(sigma) else matvec(h, noise)
    length = float(torch.linalg.vector_norm(noise))
    size_w = float(torch.linalg.vector_norm(curved)) / length if length else 0.0
    # Where the Lagrangian is linear, its gradient over the size of x stands in.
    size_w = max(size_w, torch.finfo(x.dtype).eps ** 0.25 * largest(grad_f) / max(1.0, largest(x))) or 1.0
    size_a = float(a[0].mean()) or size_w
    level = size_w / size_a  # puts both bands on one scale
    narrow = check and too_narrow(lambda v: hessian(v) + level * gram(v), h + level * a)
    return Bands(h, a, hold, size_w, size_a), bool(narrow)


def factor_shifted(
    bands: Bands, last: float, step: Callable[[Factor, float], tuple[bool, Any]], tries: int = SHIFTS
) -> tuple[Factor, float, Any]:
    """M with the first shift at which it factors and `step(factored, shift) -> (good, parts)` is good: 0, or a third of
    the last one, or eightfold steps from there. Returns factor, shift and parts."""
    m = bands.h + bands.a / bands.gamma
    m[0] += bands.hold * bands.size_w
    shift, poor = 0.0, 0
    for _ in range(tries):
        shifted = torch.cat([m[:1] + (1 - bands.hold) * shift, m[1:]])
        factored = factor(shifted)
        good, parts = step(factored, shift)
        poor += bool(factored.ok)
        if good or poor >= POOR:
            break
        last_shift = shift
        shift = 8 * shift if shift > 0 else last / 3 if last > 0 else 1e-3 * bands.size_w
    else:
        shift = last_shift
    return factored, shift, parts


class System(NamedTuple):
    """[[H, A^T], [A, 0]] as products, and the factored M."""

    apply_h: Callable[[Tensor], Tensor]
    push: Callable[[Tensor], Tensor]  # A v
    pull: Callable[[Tensor], Tensor]  # A^T u
    factored: Factor
    gamma: float
    size_a: float

    def solve(self, b1: Tensor, b2: Tensor, target: float = STEP) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dy and what is left of b2, with H dx + A^T dy = b1 and A dx = b2, to the relative residual target.

        A pass that does not halve the residual is dropped: A is rank-deficient then (the first pass has solved the
        regularised system, which has a solution all the same), or rounding allows no better.
        """
        target = max(target, torch.finfo(b1.dtype).eps ** 0.75)
        dx, dy, r1, r2 = torch.zeros_like(b1), torch.zeros_like(b2), b1, b2
        forces, size = 0.0, 1.0  # bound of A^T dy; the residuals, relative
        for count in range(PASSES if self.factored.ok else 0):
            ex = self.factored.solve(r1 + self.pull(r2 / self.gamma))
            Aex = self.push(ex)
            ey = (Aex - r2) / self.gamma
            force = self.pull(ey)
            new1, new2 = r1 - self.apply_h(ex) - force, r2 - Aex
            unit1 = largest(b1) + forces + largest(force)
            unit2 = largest(b2) + self.size_a**0.5 * largest(dx + ex)
            new_size = max(_ratio(largest(new1), unit1), _ratio(largest(new2), unit2))
            if count and not new_size <= size / 2:
                break
            dx, dy, r1, r2, size, forces = dx + ex, dy + ey, new1, new2, new_size, forces + largest(force)
            if not size > target:
                break
        return dx, dy, r2

    def correction(self, b1: Tensor, b2: Tensor) -> Tensor:
        """dx alone, unrefined."""
        return self.factored.solve(b1 + self.pull(b2 / self.gamma))

    def null_size(self, like: Tensor) -> float:
        """|A^T u| / |u| for nearly the u that A^T shrinks most: I - A M^-1 A^T / gamma leaves null vectors of A^T as
        they are and takes all others to about gamma of their size."""
        u = hash_noise(like, 2)
        for _ in range(NULL):
            u = u / torch.linalg.vector_norm(u)
            force = self.pull(u)
            u = u - self.push(self.factored.solve(force / self.gamma))
        return float(torch.linalg.vector_norm(force))


def largest(a: Tensor) -> float:
    return float(a.abs().max()) if a.numel() else 0.0


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0
