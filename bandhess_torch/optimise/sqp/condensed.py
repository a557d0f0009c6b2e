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

from bandhess_common.tolerances import GAMMA, NULL, PASSES, POOR, SHIFTS, dependent_rows

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.storage import matvec
from ...band.structures import diagonal, shifted
from ...extraction.bandwidth import too_narrow
from ...extraction.products import Extraction, extract
from ...framework.autograd import check_recorded
from ...linalg.solve import Factor, factor

Functions = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # x -> f, c (equalities), g (inequalities)


class Linearisation(NamedTuple):
    """f, c, g at x and the first and second derivatives of L = f + y^T c - z^T g, from one graph."""

    value: Tensor
    grad: Tensor  # of L
    grad_f: Tensor
    c: Tensor
    g: Tensor
    curve: Callable[[Tensor], Tensor]  # v -> W v
    push: Callable[[Tensor], tuple[Tensor, Tensor]]  # v -> A v, B v
    pull: Callable[[Tensor, Tensor], Tensor]  # u, w -> A^T u + B^T w

    @property
    def finite(self) -> bool:
        parts = (self.value, self.grad, self.c, self.g)
        return all(bool(part.isfinite().all()) for part in parts)


def linearise(functions: Functions, x: Tensor, y: Tensor, z: Tensor) -> Linearisation:
    """Plain autograd: calls bound the time, and torch.func makes more of them."""
    check_recorded()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        f, c, g = functions(x)
        grad = _pullback((f + y @ c - z @ g,), x, None, create_graph=True)
        # A v is the transpose of u -> A^T u, which is linear: pulled back in its turn, at any u.
        u, w = torch.zeros_like(c).requires_grad_(), torch.zeros_like(g).requires_grad_()
        forces = _pullback((c, g), x, (u, w), create_graph=True)

    def pull(u: Tensor, w: Tensor) -> Tensor:
        return _pullback((c, g), x, (u, w))

    def push(v: Tensor) -> tuple[Tensor, Tensor]:
        if not forces.requires_grad:
            return torch.zeros_like(u), torch.zeros_like(w)
        Av, Bv = torch.autograd.grad(forces, (u, w), v, retain_graph=True, allow_unused=True, materialize_grads=True)
        return Av, Bv

    value, grad_of_l, c_here, g_here = f.detach(), grad.detach(), c.detach(), g.detach()
    grad_f = grad_of_l - pull(y, -z)
    return Linearisation(value, grad_of_l, grad_f, c_here, g_here, lambda v: _pullback((grad,), x, (v,)), push, pull)


def _pullback(outputs: tuple, x: Tensor, cotangents: Any, create_graph: bool = False) -> Tensor:
    """The cotangents of those outputs that depend on x, pulled back to it."""
    which = [i for i, out in enumerate(outputs) if out.requires_grad]
    if not which:
        return torch.zeros_like(x)
    given = None if cotangents is None else [cotangents[i] for i in which]
    return torch.autograd.grad(
        [outputs[i] for i in which], x, given, retain_graph=True, create_graph=create_graph, allow_unused=True,
        materialize_grads=True,
    )[0]  # fmt: skip


class Bands(NamedTuple):
    """H (without shift) and A^T A, with zeros for held variables (dummies and fixed ones), and their sizes."""

    h: Tensor
    a: Tensor
    held: Tensor
    size_w: float  # of W, root mean square of W v
    size_a: float  # of A^T A, mean of its diagonal

    @property
    def gamma(self) -> float:
        return GAMMA[str(self.h.dtype).removeprefix("torch.")] * self.size_a / self.size_w


def extract_bands(
    lin: Linearisation,
    sigma: Tensor,
    held: Tensor,
    layout: Layout,
    extraction: Extraction,
    check: bool,
    x: Tensor,
) -> tuple[Bands, bool]:
    """The bands, for barrier weights sigma of the inequalities, and (where `check`) whether they are too narrow."""
    zero_c, zero_g = torch.zeros_like(lin.c), torch.zeros_like(lin.g)

    def hessian(v: Tensor) -> Tensor:
        Wv = lin.curve(v)
        return Wv + lin.pull(zero_c, sigma * lin.push(v)[1]) if len(sigma) else Wv

    def gram(v: Tensor) -> Tensor:
        return lin.pull(lin.push(v)[0], zero_g)

    def band(product: Callable[[Tensor], Tensor]) -> Tensor:
        ab = extract(product, layout, extraction)
        return shifted(ab, -layout.dummies()) if layout.ragged else ab

    h = band(hessian)
    a = band(gram) if len(lin.c) else torch.zeros_like(h)
    noise = hash_noise(x, 1) * (1 - held)
    curved = lin.curve(noise) if len(sigma) else matvec(h, noise)
    length = float(torch.linalg.vector_norm(noise))
    size_w = float(torch.linalg.vector_norm(curved)) / length if length else 0.0
    # Where the Lagrangian is linear, its gradient over the size of x stands in.
    size_w = max(size_w, torch.finfo(x.dtype).eps ** 0.25 * largest(lin.grad_f) / max(1.0, largest(x))) or 1.0
    size_a = float(diagonal(a).mean()) or size_w
    level = size_w / size_a  # puts both bands on one scale
    narrow = check and too_narrow(lambda v: hessian(v) + level * gram(v), h + level * a)
    return Bands(h, a, held, size_w, size_a), bool(narrow)


def factor_shifted(
    bands: Bands, last: float, step: Callable[[Factor, float], tuple[bool, Any]], tries: int = SHIFTS
) -> tuple[Factor, float, Any]:
    """M with the first shift at which it factors and `step(factored, shift) -> (good, parts)` is good: 0, or a third of
    the last one, or eightfold steps from there. Returns factor, shift and parts."""
    m = shifted(bands.h + bands.a / bands.gamma, bands.held * bands.size_w)
    shift, poor = 0.0, 0
    for _ in range(tries):
        factored = factor(shifted(m, (1 - bands.held) * shift))
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

    def solve(self, b1: Tensor, b2: Tensor, target: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dx, dy and what is left of b1 and b2, with H dx + A^T dy = b1 and A dx = b2, to the relative residual target.

        A pass that does not halve the residual is dropped: A is rank-deficient then (the first pass has solved the
        regularised system, which has a solution all the same), or rounding allows no better.
        """
        target = max(target, torch.finfo(b1.dtype).eps ** 0.75)
        dx, dy, r1, r2 = torch.zeros_like(b1), torch.zeros_like(b2), b1, b2
        forces, size = 0.0, 1.0  # bound of A^T dy; the residuals, relative
        force = self.pull(-b2 / self.gamma)
        for count in range(PASSES if self.factored.ok else 0):
            ex = self.factored.solve(r1 - force)
            Aex = self.push(ex)
            ey = (Aex - r2) / self.gamma
            force = self.pull(ey)  # of -r2 / gamma, for the next pass
            new1, new2 = r1 - self.apply_h(ex) - force, r2 - Aex
            unit1 = largest(b1) + forces + largest(force)
            unit2 = largest(b2) + self.size_a**0.5 * largest(dx + ex)
            new_size = max(_ratio(largest(new1), unit1), _ratio(largest(new2), unit2))
            if count and not new_size <= size / 2:
                break
            dx, dy, r1, r2, size, forces = dx + ex, dy + ey, new1, new2, new_size, forces + largest(force)
            if not size > target:
                break
        return dx, dy, r1, r2

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

    def deficient(self, like: Tensor) -> bool:
        """True where rows of A are dependent."""
        return self.null_size(like) <= dependent_rows(torch.finfo(like.dtype).eps) * self.size_a**0.5


def largest(a: Tensor) -> float:
    return float(a.abs().max()) if a.numel() else 0.0


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0
