"""What the derivatives of a solution need of its conditions: one linearisation, and the bands it gives.

The system of a solution, with A the Jacobian of c and H the Hessian of the Lagrangian plus what the inequalities add,

    [ H  A^T ] [ dx ]   [ b1 ]       is solved as      M ex = r1 + A^T r2 / gamma,   M = H + A^T A / gamma,
    [ A   0  ] [ dy ] = [ b2 ]                         ey = (A ex - r2) / gamma,

repeated on the residuals r1, r2 of the uncondensed system (`kkt.py`). H and A^T A are extracted by the same probes on
one linearisation, for gamma follows from their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bandhess_common.tolerances import GAMMA

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import diagonal, matvec, shifted
from ...extraction.products import Extraction, extract
from ...framework.autograd import check_recorded

Functions = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # x -> f, c (equalities), g (inequalities)


class Linearisation(NamedTuple):
    """c, g at x and the first and second derivatives of L = f + y^T c - z^T g, from one graph."""

    grad: Tensor  # of L
    grad_f: Tensor
    c: Tensor
    g: Tensor
    curve: Callable[[Tensor], Tensor]  # v -> W v
    push: Callable[[Tensor], tuple[Tensor, Tensor]]  # v -> A v, B v
    pull: Callable[[Tensor, Tensor], Tensor]  # u, w -> A^T u + B^T w


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

    grad_of_l, c_here, g_here = grad.detach(), c.detach(), g.detach()
    grad_f = grad_of_l - pull(y, -z)
    return Linearisation(grad_of_l, grad_f, c_here, g_here, lambda v: _pullback((grad,), x, (v,)), push, pull)


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
    """H and A^T A, bands or structures, with zeros for dummies, and their sizes."""

    h: Any
    a: Any
    size_w: float  # of W, root mean square of W v
    size_a: float  # of A^T A, mean of its diagonal

    @property
    def gamma(self) -> float:
        return GAMMA[str(diagonal(self.h).dtype).removeprefix("torch.")] * self.size_a / self.size_w

    @property
    def condensed(self) -> Any:
        """H + A^T A / gamma."""
        return tree_map(lambda h, a: h + a / self.gamma, self.h, self.a)


def extract_bands(lin: Linearisation, sigma: Tensor, held: Tensor, layout: Layout, extraction: Extraction) -> Bands:
    """The bands, for weights sigma of the inequalities."""
    zero_c, zero_g = torch.zeros_like(lin.c), torch.zeros_like(lin.g)

    def hessian(v: Tensor) -> Tensor:
        Wv = lin.curve(v)
        return Wv + lin.pull(zero_c, sigma * lin.push(v)[1]) if len(sigma) else Wv

    def gram(v: Tensor) -> Tensor:
        return lin.pull(lin.push(v)[0], zero_g)

    def band(product: Callable[[Tensor], Tensor]) -> Any:
        ab = extract(product, layout, extraction)
        return shifted(ab, -layout.dummies()) if layout.ragged else ab

    h = band(hessian)
    a = band(gram) if len(lin.c) else tree_map(torch.zeros_like, h)
    noise = hash_noise(lin.grad, 1) * (1 - held)
    curved = lin.curve(noise) if len(sigma) else matvec(h, noise)
    length = float(torch.linalg.vector_norm(noise))
    size_w = float(torch.linalg.vector_norm(curved)) / length if length else 0.0
    # Where the Lagrangian is linear, its gradient stands in.
    size_w = max(size_w, torch.finfo(noise.dtype).eps ** 0.25 * largest(lin.grad_f)) or 1.0
    return Bands(h, a, size_w, float(diagonal(a).mean()) or size_w)


def largest(a: Tensor) -> float:
    return float(a.abs().max()) if a.numel() else 0.0
