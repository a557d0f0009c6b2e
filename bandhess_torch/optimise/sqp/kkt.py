"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there.

With L = f + y^T c - z^T G, the conditions grad L = 0, c = 0, mu / z - G = 0 have the symmetric Jacobian

        [  W   A^T  -B^T ]      W: Hessian of L         D = mu / z^2 = G / z
    K = [  A    0     0  ]      A: Jacobian of c
        [ -B    0    -D  ]      B: Jacobian of G

mu is what z G has come to. K is solved as `condensed.py` says: a factorisation of M = W + A^T A / gamma +
B^T (D + gamma_b)^-1 B, which belongs to the matrix with -gamma and -gamma_b added on its lower right, and passes of
refinement, which remove them again. Without gamma_b the entries of D, of rounding size where an inequality is active,
would divide rounding errors.

Active rows may depend on each other: N^T (A, B) = 0 for the active rows of B, whose D is 0. Then K has no inverse, but
K v = b has solutions where b has no part along N, x is the same in all of them, and the passes converge to one: each
takes from b what M reaches, and adds nothing along N. A part along N stays, and each pass divides it by gamma anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.tolerances import GAMMA, REFINEMENTS

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import shifted
from ...extraction.products import Extraction
from ...linalg.solve import factor
from .condensed import Bands, Functions, Linearisation, extract_bands, largest, linearise

Triple = tuple[Tensor, Tensor, Tensor]


class Terms(NamedTuple):
    """What the conditions consist of, for given args and bounds."""

    functions: Functions
    held: Tensor  # 1 on dummies and fixed variables
    resting: Tensor  # where those are
    active: Tensor  # the entries of G that bound


def conditions(terms: Terms, v: Triple) -> Triple:
    """Zero at a solution v = (x, y, z), as a function of all that v depends on. K is its Jacobian, with 1 on the
    diagonal for a held variable and -1 for an entry of G that bounds nothing."""
    functions, held, resting, active = terms
    x, y, z = v

    def lagrangian(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        f, c, g = functions(x)
        return f + y @ c - z @ g, (c, g)

    grad, (c, g) = torch.func.grad(lagrangian, has_aux=True)(x)
    mu = (z * g).detach()
    bounding = active & (z > 0)
    gap = torch.where(bounding, mu / torch.where(bounding, z, 1) - g, -z)
    return grad + held * (x - resting), c, gap


class Implicit(NamedTuple):
    """What `solution` needs.

    minimise takes tensors and returns `(x, y, z, status, value, *rest)`, tensors all; build takes the same and returns
    the terms of the conditions that (x, y, z) meets.
    """

    minimise: Callable[[list[Tensor]], tuple]
    build: Callable[[list[Tensor]], Terms]
    layout: Layout
    extraction: Extraction

    def product(self, tight: Tensor, v: Tensor, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        """K v at (x, y, z), without D in rows that are tight; K is symmetric, so a pull back."""
        terms, sizes = self.build(list(tensors)), [len(x), len(y), len(z)]
        pull = torch.func.vjp(lambda *point: conditions(terms, point), x, y, z)[1]
        minus_D = pull((0 * x, 0 * y, torch.ones_like(z)))[2]
        Kx, Ky, Kz = pull(tuple(v.split(sizes)))
        return torch.cat([Kx, Ky, Kz - tight * minus_D * v.split(sizes)[2]])

    def residuals(self, point: Triple, tensors: list[Tensor]) -> Tensor:
        return torch.cat(conditions(self.build(tensors), point))


class System(NamedTuple):
    """K at a solution, and what solves with it."""

    lin: Linearisation
    held: Tensor
    tight: Tensor  # 1 for a row of G that is an equality, to rounding: without its entry of D
    D: Tensor  # without those
    d: Tensor  # D + gamma_b
    bands: Bands
    factored: Any
    sizes: list[int]  # of x, y, z

    @classmethod
    def of(cls, implicit: Implicit, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> System:
        functions, held, _, active = implicit.build([tensor.detach() for tensor in tensors])
        lin = linearise(functions, x, y, z)
        bounding = active & (z > 0)
        entries = torch.where(bounding, lin.g / torch.where(bounding, z, 1), 1)
        tight, d = regular(lin, entries, held)
        bands = extract_bands(lin, 1 / d, held, implicit.layout, implicit.extraction)
        factored = factor(shifted(bands.condensed, held * bands.size_w))
        return cls(lin, held, tight.to(d), torch.where(tight, 0, entries), d, bands, factored, [len(x), len(y), len(z)])

    def correct(self, r: Tensor) -> tuple[Tensor, Tensor, float]:
        """e with K e = r, nearly; what is left of r; and the size of e."""
        lin, bands, (r1, r2, r3) = self.lin, self.bands, r.split(self.sizes)
        unit = torch.where(self.held > 0, bands.size_w, 1).to(r)  # M has this on the diagonal, and K 1
        ex = self.factored.solve(unit * r1 + lin.pull(r2 / bands.gamma, -r3 / self.d))
        Aex, Bex = lin.push(ex)
        ey, ez = (Aex - r2) / bands.gamma, -(r3 + Bex) / self.d
        size = max(bands.size_w * largest(ex), bands.size_a**0.5 * largest(ey), largest(ez))
        Ke = (lin.curve(ex) + self.held * ex + lin.pull(ey, -ez), Aex, -Bex - self.D * ez)
        return torch.cat([ex, ey, ez]), r - torch.cat(Ke), size

    def solve(self, b: Tensor) -> Tensor:
        """v with K v = b. NaN where M is not positive definite, or the passes do not converge, as where b has a part
        that dependent rows cannot take."""
        if not self.factored.ok:
            return torch.full_like(b, torch.nan)
        v, r = torch.zeros_like(b), b
        size, greatest, eps = 1.0, 0.0, torch.finfo(b.dtype).eps
        for count in range(REFINEMENTS):
            last, (e, left, size) = size, self.correct(r)
            greatest = max(size, greatest)
            if count and not size <= last / 2:
                break
            v, r = v + e, left
            if not size > eps * greatest:
                break
        return v if size <= eps**0.25 * greatest else torch.full_like(b, torch.nan)

    def undetermined(self) -> Tensor:
        """Which of (y, z) are not unique: what is left there of numbers without a pattern, which rows that do not
        depend on each other take whole."""
        n, rows = self.sizes[0], self.held.new_zeros(sum(self.sizes[1:]))
        if not self.factored.ok:
            return torch.ones_like(rows, dtype=torch.bool)
        r, least = torch.cat([torch.zeros_like(self.held), hash_noise(rows, 2)]), torch.finfo(rows.dtype).eps ** 0.25
        for _ in range(REFINEMENTS):
            if largest(r[n:]) <= least:
                break
            _, r, _ = self.correct(r)
        return ~(r[n:].abs() <= least)


def implicit_solve(
    implicit: Implicit, shown: bool, b: Tensor, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """v with K v = b; 0 for b = 0, which is what comes where nothing asks for derivatives of the solution. Then which
    rows of G are tight, and which multipliers are to be shown as not unique: their part of v is one choice of many."""
    none = torch.zeros(len(y) + len(z), dtype=torch.bool, device=b.device)
    if not bool(b.any()):
        return torch.zeros_like(b), torch.zeros_like(z), none
    if implicit.layout.n == 0:  # no multipliers are better than others
        return torch.full_like(b, torch.nan), torch.zeros_like(z), none
    system = System.of(implicit, x, y, z, *tensors)
    return system.solve(b), system.tight, system.undetermined() if shown else none


def regular(lin: Linearisation, d: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows of G are equalities, and D + gamma_b without their entries of D; gamma_b is to |B|^2 / |W| as gamma is
    to |A|^2 / |W|.

    A row is one where its entry of D is small against its own |B|^2 / |W|: the barrier has left it between 0 and that.
    Where active rows depend on each other, the passes of refinement would share out b among their multipliers as D
    says, and take gamma / D of them."""
    noise = hash_noise(held, 1)
    noise = (noise + noise.sign()) / 2 * (1 - held)  # nowhere next to 0
    Wv, Bv = lin.curve(noise), lin.push(noise)[1]
    length, size_w = (float(torch.linalg.vector_norm(a)) for a in (noise, Wv))
    weight = length / ((size_w if length else 0.0) or 1.0)
    tight = d < torch.finfo(d.dtype).eps ** 0.25 * weight * Bv**2
    gamma_b = GAMMA[str(d.dtype).removeprefix("torch.")] * float(Bv @ Bv) * weight / (length**2 or 1.0)
    return tight, torch.where(tight, 0, d.clamp(min=0)) + gamma_b
