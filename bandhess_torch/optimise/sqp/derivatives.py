"""All derivatives that a step of `sqp` needs, from one graph of the gradient of L(x, y) = sigma f + y . h.

The gradient with respect to x is pulled back with a probe v to (x, y) at once: that gives W v, as W is symmetric, and
J v, as J^T stands before y in the gradient. Probes of direct colouring, each the sum of unit vectors 2k + 1 stages
apart, then give every entry of W's band and of J's rows as it stands. One more probe, of noise, tells whether anything
lies outside: by the same products row i of either is known, one entry per colour, so what noise should give is a
weighted sum of the products.

Where the Hessian comes otherwise, by its diagonals on long vectors or by another probing, J has products of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.storage import matvec
from ...extraction.bandwidth import is_wrong
from ...extraction.probing.direct import Direct, one_of_every
from ...extraction.products import LONG, Extraction, extract, multiply, settle_heap
from ...framework.autograd import Pullback, check_recorded
from .rows import stages_in_window

Functions = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f, h


class Derivatives(NamedTuple):
    """As the engines want them, and where entries lie outside."""

    value: Tensor
    h: Tensor
    grad: Tensor  # of L
    rows: Tensor  # (r, K d) of the Jacobian of h, from column first[i] on
    band: Tensor  # of the Hessian of L
    narrow: int  # 0, 1: the Hessian has entries outside the band, 2: the Jacobian outside the rows' windows
    outside: int  # the first row of the Jacobian that does, -1 where none


class Recorded(NamedTuple):
    """Values at x, and the graph that led to them."""

    x: Tensor
    f: Tensor
    h: Tensor


def record(functions: Functions, x: Tensor) -> Recorded:
    check_recorded()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return Recorded(x, *functions(x))


class _Joint(Pullback):
    """v -> (W v, J v), `(n + r,)`, or a batch of them. Without `hessian`, (0, J v)."""

    def __init__(self, value: Tensor, grad: Tensor, x: Tensor, y: Tensor, hessian: bool) -> None:
        super().__init__(value, grad, x, False)
        self.value, self.y, self.hessian = value, y, hessian

    def __call__(self, v: Tensor) -> Tensor:
        inputs = (self.x, self.y) if self.hessian else (self.y,)
        parts: tuple[Tensor | None, ...] = (None, None)
        if self.grad.requires_grad:
            found = torch.autograd.grad(
                self.grad, inputs, v, retain_graph=True, allow_unused=True, is_grads_batched=v.ndim == 2
            )
            parts = found if self.hessian else (None, *found)
        shapes = [(*v.shape[:-1], len(each)) for each in (self.x, self.y)]
        given = zip(parts, shapes, strict=True)
        return torch.cat([v.new_zeros(shape) if part is None else part for part, shape in given], -1)


class Plan:
    """What all steps of a solve have in common: the probes, and where the products' entries belong.

    first `(r,)` are the windows of the rows (`rows.windows`). With `check` each step spends a product on what lies
    outside the bands.
    """

    def __init__(self, layout: Layout, extraction: Extraction, first: Tensor, check: bool) -> None:
        self.layout, self.extraction, self.first, self.check = layout, extraction, first, check
        n, d, r, device = layout.n, layout.d, len(first), layout.device
        k = min(extraction.bandwidth, layout.T - 1)
        self.width = stages_in_window(layout, k) * d  # of a row of J, and rows of the band of W
        like = torch.empty(0, dtype=layout.dtype, device=device)
        self.together = type(extraction.probing) is Direct and n < LONG
        self.colours = Direct().count(layout.T, d, k) if self.together else self.width
        probes = one_of_every(self.colours, range(self.colours), n, like)
        self.noise = hash_noise(like.new_empty(n), 0)
        if layout.ragged:
            self.noise = self.noise * (1 - layout.dummies())
        self.probes = torch.cat([probes, self.noise[None]]) if check else probes
        self.batches: list[range] = []
        # Entry j of row i of J is product j mod colours' entry i.
        columns = first.long()[:, None] + torch.arange(self.width, device=device)
        shift = n if self.together else 0
        self.of_rows = columns % self.colours * (shift + r) + shift + torch.arange(r, device=device)[:, None]
        weights = like.new_zeros(self.colours, r)
        weights.scatter_(0, (columns % self.colours).T, self.noise[columns].T)
        if self.together:
            self._place_band(k, r)
            weights = torch.cat([self._noise_of_stages(k), weights], 1)
        self.weights = weights  # of the products in what noise should give

    def _place_band(self, k: int, r: int) -> None:
        """Cell [i, j] of the band is product j mod colours' entry j + i."""
        layout, device = self.layout, self.layout.device
        j, i = torch.arange(layout.n, device=device), torch.arange(self.width, device=device)[:, None]
        self.of_band = j % self.colours * (layout.n + r) + (j + i).clamp(max=layout.n - 1)
        self.inside = ((j + i) // layout.d - j // layout.d <= k).to(layout.dtype)

    def _noise_of_stages(self, k: int) -> Tensor:
        """`[c, i]`: the noise at the column of colour c within k stages of entry i, 0 where there is none."""
        layout = self.layout
        T, d, n = layout.T, layout.d, layout.n
        near = torch.arange(-k, k + 1, device=layout.device)[:, None] + torch.arange(T, device=layout.device)
        columns = (near[:, None] * d + torch.arange(d, device=layout.device)[:, None]).flatten(0, 1)  # (C, T)
        there = (columns >= 0) & (columns < n)
        columns = torch.where(there, columns, 0)
        found = torch.where(there, self.noise[columns], 0)
        weights = found.new_zeros(self.colours, T).scatter_add_(0, columns % self.colours, found)
        return weights.repeat_interleave(d, 1)

    def products(self, product: Pullback) -> Tensor:
        if not self.batches:
            self.batches = self.extraction.batches(len(self.probes), self.layout, product)
        parts = [multiply(product, self.probes[batch.start : batch.stop]) for batch in self.batches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def derivatives(at: Recorded, sigma: float, y: Tensor, plan: Plan, hessian: bool = True) -> Derivatives:
    """Those at a point, with weights sigma and y `(r,)` of f and h. Without `hessian` the band is 0."""
    x, f, h = at
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        pairs = [(out, weight) for out, weight in ((f, f.new_full((), sigma)), (h, y)) if out.requires_grad]
        grad = torch.zeros_like(x)
        if pairs:
            outputs, weights = zip(*pairs, strict=True)
            (grad,) = torch.autograd.grad(
                outputs, x, weights, create_graph=True, allow_unused=True, materialize_grads=True
            )
    value = pairs[-1][0] if pairs else f  # whose graph shows how large the functions' tensors are
    joint = _Joint(value, grad, x, y, hessian)
    found = _together(joint, plan) if plan.together else _apart(joint, plan)
    return Derivatives(f.detach(), h.detach(), grad.detach(), *found)


def _together(joint: _Joint, plan: Plan) -> tuple[Tensor, Tensor, int, int]:
    Y = plan.products(joint)
    band, rows = Y.take(plan.of_band).mul_(plan.inside), Y.take(plan.of_rows)
    if not plan.check:
        return rows, band, 0, -1
    terms = Y[: plan.colours] * plan.weights
    error, scale = (terms.sum(0) - Y[-1]).abs(), terms.abs_().sum(0)
    return rows, band, *_outside(joint, plan, Y[-1], error, scale)


def _apart(joint: _Joint, plan: Plan) -> tuple[Tensor, Tensor, int, int]:
    settle_heap()
    hessian, jacobian = (Pullback(joint.value, joint.grad, by, False) for by in (joint.x, joint.y))
    k = min(plan.extraction.bandwidth, plan.layout.T - 1)
    band = joint.x.new_zeros(plan.width, len(joint.x))
    if joint.hessian:
        band = extract(hessian, plan.layout, plan.extraction._replace(bandwidth=k))
    Y = plan.products(jacobian)
    rows = Y.take(plan.of_rows)
    if not plan.check:
        return rows, band, 0, -1
    v, n = plan.noise, plan.layout.n
    product = joint(v)
    terms = Y[: plan.colours] * plan.weights
    errors = (matvec(band, v) - product[:n]).abs(), (terms.sum(0) - product[n:]).abs()
    scales = matvec(band.abs(), v.abs()), terms.abs_().sum(0)
    return rows, band, *_outside(joint, plan, product, torch.cat(errors), torch.cat(scales))


def _outside(joint: _Joint, plan: Plan, product: Tensor, error: Tensor, scale: Tensor) -> tuple[int, int]:
    """`(narrow, outside)` where noise gave `product` and the bands say otherwise, for errors and scales of W v and J v:
    by more than rounding explains, which a second product of a rescaled vector shows where the first is in doubt."""
    if not bool((error > torch.finfo(product.dtype).eps ** 0.5 * scale).any()):
        return 0, -1
    change = (product - joint(math.pi * plan.noise) / math.pi).abs()
    noise = torch.where(scale > 0, 64 * change / scale, 0)
    sizes = [plan.layout.n, len(joint.y)]
    parts = zip(*(part.split(sizes) for part in (error, scale, noise)), strict=True)
    hessian, rows = (is_wrong(e, s, float(n.max())) if len(e) else e > 0 for e, s, n in parts)
    if bool(rows.any()):
        return 2, int(rows.to(torch.int8).argmax())
    return (1, -1) if bool(hessian.any()) else (0, -1)
