"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there.

With L = f + y^T c - z^T G, the conditions grad L = 0, c = 0, mu / z - G = 0 have the symmetric Jacobian

        [  W   A^T  -B^T ]      W: Hessian of L         D = mu / z^2 = G / z
    K = [  A    0     0  ]      A: Jacobian of c
        [ -B    0    -D  ]      B: Jacobian of G

mu is what z G has come to. K is solved as `condensed.py` says: a factorisation of M = W + A^T A / gamma +
B^T (D + gamma_b)^-1 B, which belongs to the matrix with -gamma and -gamma_b added on its lower right, and passes of
refinement, which remove them again. Without gamma_b the entries of D, of rounding size where an inequality is active,
would divide rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.tolerances import GAMMA, REFINEMENTS

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import shifted
from ...extraction.products import Extraction
from ...linalg.solve import factor
from .condensed import Functions, Linearisation, extract_bands, largest, linearise

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

    def product(self, v: Tensor, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        """K v at (x, y, z); K is symmetric, so a pull back."""
        terms = self.build(list(tensors))
        pull = torch.func.vjp(lambda *point: conditions(terms, point), x, y, z)[1]
        return torch.cat(pull(tuple(v.split([len(x), len(y), len(z)]))))

    def residuals(self, point: Triple, tensors: list[Tensor]) -> Tensor:
        return torch.cat(conditions(self.build(tensors), point))


def implicit_solve(implicit: Implicit, b: Tensor, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
    """v with K v = b. NaN where M is not positive definite, or the passes do not converge; 0 for b = 0 all the same,
    which is what comes where nothing asks for derivatives of the solution."""
    if not bool(b.any()):
        return torch.zeros_like(b)
    if implicit.layout.n == 0:  # no multipliers are better than others
        return torch.full_like(b, torch.nan)
    functions, held, _, active = implicit.build([tensor.detach() for tensor in tensors])
    lin, sizes = linearise(functions, x, y, z), [len(x), len(y), len(z)]
    bounding = active & (z > 0)
    d_of_k = torch.where(bounding, lin.g / torch.where(bounding, z, 1), 1)
    d = regular(lin, d_of_k, held)
    bands = extract_bands(lin, 1 / d, held, implicit.layout, implicit.extraction)
    factored = factor(shifted(bands.condensed, held * bands.size_w))
    if not factored.ok:
        return torch.full_like(b, torch.nan)
    unit = torch.where(held > 0, bands.size_w, 1).to(b)  # M has this on the diagonal, and K 1

    v, r = torch.zeros_like(b), b
    size, greatest, eps = 1.0, 0.0, torch.finfo(b.dtype).eps
    for count in range(REFINEMENTS):
        r1, r2, r3 = r.split(sizes)
        ex = factored.solve(unit * r1 + lin.pull(r2 / bands.gamma, -r3 / d))
        Aex, Bex = lin.push(ex)
        ey, ez = (Aex - r2) / bands.gamma, -(r3 + Bex) / d
        last, size = size, max(bands.size_w * largest(ex), bands.size_a**0.5 * largest(ey), largest(ez))
        greatest = max(size, greatest)
        if count and not size <= last / 2:
            break
        Ke = (lin.curve(ex) + held * ex + lin.pull(ey, -ez), Aex, -Bex - d_of_k * ez)
        v, r = v + torch.cat([ex, ey, ez]), r - torch.cat(Ke)
        if not size > eps * greatest:
            break
    return v if size <= eps**0.25 * greatest else torch.full_like(b, torch.nan)


def regular(lin: Linearisation, d: Tensor, held: Tensor) -> Tensor:
    """D + gamma_b, with gamma_b to |B|^2 / |W| as gamma is to |A|^2 / |W|."""
    noise = hash_noise(held, 1) * (1 - held)
    Wv, Bv = lin.curve(noise), lin.push(noise)[1]
    size_w, size_b = float(torch.linalg.vector_norm(Wv) * torch.linalg.vector_norm(noise)), float(Bv @ Bv)
    return d.clamp(min=0) + GAMMA[str(d.dtype).removeprefix("torch.")] * size_b / (size_w or 1.0)
