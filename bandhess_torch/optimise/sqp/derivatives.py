"""All derivatives that a step of `sqp` needs, from one graph of the gradient of L(x, y) = sigma f + y . h.

The gradient with respect to x is pulled back with a probe v to (x, y) at once: that gives W v, as W is symmetric, and
J v, as J^T stands before y in the gradient. Probes of direct colouring, each the sum of unit vectors 2k + 1 stages
apart, then give every entry of W's band and of J's rows as it stands; a unit vector for each shared variable gives its
columns. One more probe, of noise, tells whether anything lies outside: by the same products row i of either is known,
one entry per colour, so what noise should give is a weighted sum of the products.

Where the Hessian comes otherwise, by its diagonals on long vectors or by another probing, J has products of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import magnitude, stacked
from ...band.structures import product as times
from ...extraction.bandwidth import is_wrong
from ...extraction.probing.direct import Direct, one_of_every
from ...extraction.products import Extraction, extract, multiply
from ...framework.autograd import Pullback, check_recorded
from ...framework.kernels import settle_heap
from .rows import stages_in_window, taken, window_probes

Functions = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f, h

LONG = 2**14  # entries, from where on the Hessian's diagonals and products for J alone take less time


class Derivatives(NamedTuple):
    """As the engines want them, and where entries lie outside."""

    value: Tensor
    h: Tensor
    grad: Tensor  # of L
    rows: Tensor  # (r, K d + p) of the Jacobian of h: from column first[i] on, then of the shared variables
    band: Tensor  # of the Hessian of L, `stacked`
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
    """v -> (W v, J v), `(n + r,)`, or a batch of them."""

    def __init__(self, value: Tensor, grad: Tensor, x: Tensor, y: Tensor) -> None:
        super().__init__(value, grad, x, False)
        self.value, self.y = value, y

    def __call__(self, v: Tensor) -> Tensor:
        return self.pull(v, [self.x, self.y])


class Beside(Pullback):
    """v -> (0, J v) likewise, where no Hessian is wanted: u -> J^T u, which is linear, pulled back."""

    def __init__(self, at: Recorded) -> None:
        x, _, h = at
        with torch.enable_grad():
            u, forces = torch.zeros_like(h).requires_grad_(), torch.zeros_like(x)
            if h.requires_grad:
                (forces,) = torch.autograd.grad(h, x, u, create_graph=True, allow_unused=True, materialize_grads=True)
        super().__init__(h, forces, u, False)

    def __call__(self, v: Tensor) -> Tensor:
        return pad(super().__call__(v), (len(self.grad), 0))


class Plan:
    """What all steps of a solve have in common: the probes, and where the products' entries belong.

    With `check` each step spends a product on what lies outside the bands.
    """

    def __init__(self, layout: Layout, extraction: Extraction, check: bool) -> None:
        self.layout, self.extraction, self.check = layout, extraction, check
        self.p, self.banded = layout.p, layout.n - layout.p
        self.k = min(extraction.bandwidth, layout.T - 1)
        self.width = stages_in_window(layout, self.k) * layout.d  # of a row of J, and rows of the band of W
        like = torch.empty(layout.n, dtype=layout.dtype, device=layout.device)
        self.together = getattr(extraction.probing, "exact_entries", False) and layout.n < LONG
        self.colours = Direct().count(layout.T, layout.d, self.k) if self.together else self.width
        self.noise = hash_noise(like, 0)
        if layout.ragged:
            self.noise = self.noise * (1 - layout.dummies())
        probes = one_of_every(self.colours, range(self.colours), self.banded, like)
        if self.p:
            units = torch.eye(self.p, dtype=layout.dtype, device=layout.device)
            probes = torch.block_diag(probes, units)
        self.known = len(probes)  # all but the noise
        self.probes = torch.cat([probes, self.noise[None]]) if check else probes
        self.start_probes = torch.cat([window_probes(layout, self.k), self.probes])
        self.batches: dict[tuple, list[range]] = {}
        self.first: Tensor | None = None

    def place(self, first: Tensor) -> bool:
        """first `(r,)` are the windows of the rows (`rows.windows`). False where they are those of before."""
        if self.first is not None and torch.equal(first, self.first):
            return False
        self.first = first
        n, r, colours = self.layout.n, len(first), self.colours
        shared = torch.arange(self.p, device=first.device)
        # Entry j of row i of J is product j mod colours' entry n + i, and of shared variable q product colours + q's.
        columns = first.long()[:, None] + torch.arange(self.width, device=first.device)
        products = torch.cat([columns % colours, (colours + shared).expand(r, self.p)], 1)
        self.of_rows = products * (n + r) + n + torch.arange(r, device=first.device)[:, None]
        weights = self.noise.new_zeros(self.known, r)
        weights.scatter_(0, (columns % colours).T, self.noise[columns].T)
        weights[colours:] = self.noise[self.banded :, None]
        self.of_noise = weights  # of the products in what noise should give
        if self.together:
            self._place_band(self.k, r)
            self.of_noise = torch.cat([self._noise_of_stages(self.k), weights], 1)
        return True

    def _place_band(self, k: int, r: int) -> None:
        """Cell [i, j] of the band is product j mod colours' entry j + i; of a shared variable's row, its own product's
        entry j, or of two shared ones the later's."""
        layout, device, m = self.layout, self.layout.device, self.banded
        j, i = torch.arange(layout.n, device=device), torch.arange(self.width, device=device)[:, None]
        own = torch.where(j < m, j % self.colours, j - m + self.colours)
        q = torch.arange(m, layout.n, device=device)[:, None]
        rows, columns = torch.maximum(q, j) - m, torch.minimum(q, j)
        rows = torch.where(j < m, q - m, rows) + self.colours
        band, border = (j + i).clamp(max=layout.n - 1), torch.where(j < m, j, columns)
        self.of_band = torch.cat([own * (layout.n + r) + band, rows * (layout.n + r) + border])
        inside = ((j + i) // layout.d - j // layout.d <= k) & ((j < m) & (j + i < m) | (i == 0))
        self.inside = torch.cat([inside, q != j]).to(layout.dtype)

    def _noise_of_stages(self, k: int) -> Tensor:
        """`[c, i]`: the noise at the column of colour c within k stages of entry i, 0 where there is none; then that
        of the shared variables. Nothing lies outside of what these have themselves."""
        layout = self.layout
        T, d, n = layout.T, layout.d, self.banded
        near = torch.arange(-k, k + 1, device=layout.device)[:, None] + torch.arange(T, device=layout.device)
        columns = (near[:, None] * d + torch.arange(d, device=layout.device)[:, None]).flatten(0, 1)  # (C, T)
        there = (columns >= 0) & (columns < n)
        columns = torch.where(there, columns, 0)
        found = torch.where(there, self.noise[columns], 0)
        weights = found.new_zeros(self.colours, T).scatter_add_(0, columns % self.colours, found)
        weights = pad(weights.repeat_interleave(d, 1), (0, self.p, 0, self.p))
        weights[self.colours :, :n] = self.noise[n:, None]
        return weights

    def products(self, product: Pullback, probes: Tensor) -> Tensor:
        key = (type(product), len(probes))
        if key not in self.batches:
            self.batches[key] = self.extraction.batches(len(probes), self.layout, product)
        parts = [multiply(product, probes[batch.start : batch.stop]) for batch in self.batches[key]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Prepared(NamedTuple):
    """A point of the start, where no Hessian is wanted: (0, J) times `window_probes` and times the plan's probes."""

    at: Recorded
    gradient: Callable[[Tensor, Tensor], Tensor]  # sigma, y -> that of L
    product: Callable[[Tensor], Tensor]
    of_windows: Tensor
    of_probes: Tensor


def prepare(at: Recorded, plan: Plan) -> Prepared:
    product = Beside(at)
    Y = plan.products(product, plan.start_probes)
    windows = len(Y) - len(plan.probes)
    gradient = partial(gradient_of, at)
    return Prepared(at, gradient, product, Y[:windows, plan.layout.n :], Y[windows:])


def prepared_derivatives(start: Prepared, sigma: float, y: Tensor, plan: Plan) -> Derivatives:
    """Those at a point of the start, with a band of 0."""
    (x, f, h), gradient, product, _, Y = start
    grad = gradient(y.new_full((), sigma), y)
    band, rows, n = x.new_zeros(plan.width + plan.p, len(x)), taken(Y, plan.of_rows), plan.layout.n
    found = 0, -1
    if plan.check:
        terms = Y[: plan.known, n:] * plan.of_noise[:, -len(h) :] if len(h) else Y[: plan.known, n:]
        errors = x.new_zeros(n), (terms.sum(0) - Y[-1, n:]).abs()
        scales = x.new_zeros(n), terms.abs().sum(0)
        found = _outside(product, plan, Y[-1], torch.cat(errors), torch.cat(scales))
    return Derivatives(f.detach(), h.detach(), grad, rows, band, *found)


def gradient_of(at: Recorded, sigma: Tensor, y: Tensor, create_graph: bool = False) -> Tensor:
    """That of L."""
    x, f, h = at
    pairs = [(out, weight) for out, weight in ((f, sigma), (h, y)) if out.requires_grad]
    if not pairs:
        return torch.zeros_like(x)
    outputs, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(
        outputs, x, weights, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )[0]


class Terms(NamedTuple):
    """What a step's derivatives are made of, as tensors alone."""

    f: Tensor
    h: Tensor
    grad: Tensor  # of L
    rows: Tensor
    band: Tensor
    product: Tensor | None = None  # (W v, J v) of noise v, with a check of the band; by how much the bands say
    error: Tensor | None = None  # otherwise, and the sum of the sizes of what they sum
    scale: Tensor | None = None


def terms(at: Recorded, sigma: Tensor, y: Tensor, plan: Plan) -> tuple[Terms, Pullback]:
    """Those at a point, with weights sigma and y `(r,)` of f and h; and the product."""
    x, f, h = at
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        grad = gradient_of(at, sigma, y, True)
    joint = _Joint(h if h.requires_grad else f, grad, x, y)  # whose graph shows how large the functions' tensors are
    found = _together(joint, plan) if plan.together else _apart(joint, plan)
    return Terms(f.detach(), h.detach(), grad.detach(), *found), joint


def checked(found: Terms, product: Callable[[Tensor], Tensor], plan: Plan) -> Derivatives:
    """The derivatives, and whether the bands hold all of them."""
    f, h, grad, rows, band, of_noise, error, scale = found
    if of_noise is None or error is None or scale is None:
        return Derivatives(f, h, grad, rows, band, 0, -1)
    return Derivatives(f, h, grad, rows, band, *_outside(product, plan, of_noise, error, scale))


def derivatives(at: Recorded, sigma: float, y: Tensor, plan: Plan) -> Derivatives:
    """Those at a point, with weights sigma and y `(r,)` of f and h."""
    return checked(*terms(at, y.new_full((), sigma), y, plan), plan)


def _together(joint: _Joint, plan: Plan) -> tuple[Tensor, ...]:
    Y = plan.products(joint, plan.probes)
    band, rows = taken(Y, plan.of_band).mul_(plan.inside), taken(Y, plan.of_rows)
    if not plan.check:
        return rows, band
    terms = Y[: plan.known] * plan.of_noise
    error, scale = (terms.sum(0) - Y[-1]).abs(), terms.abs_().sum(0)
    error[plan.banded : plan.layout.n] = 0
    return rows, band, Y[-1], error, scale


def _apart(joint: _Joint, plan: Plan) -> tuple[Tensor, ...]:
    settle_heap()
    hessian, jacobian = (Pullback(joint.value, joint.grad, by, False) for by in (joint.x, joint.y))
    band = extract(hessian, plan.layout, plan.extraction._replace(bandwidth=plan.k))
    n, colours = plan.layout.n, plan.probes[: plan.known]
    J = plan.products(jacobian, colours) if joint.grad.requires_grad else colours.new_zeros(len(colours), len(joint.y))
    rows = taken(pad(J, (n, 0)), plan.of_rows)
    if not plan.check:
        return rows, stacked(band)
    v = plan.noise
    product = joint(v)
    terms = J * plan.of_noise
    errors = (times(band, v[:, None])[:, 0] - product[:n]).abs(), (terms.sum(0) - product[n:]).abs()
    scales = times(magnitude(band), v.abs()[:, None])[:, 0], terms.abs_().sum(0)
    return rows, stacked(band), product, torch.cat(errors), torch.cat(scales)


def _outside(
    joint: Callable[[Tensor], Tensor], plan: Plan, product: Tensor, error: Tensor, scale: Tensor
) -> tuple[int, int]:
    """`(narrow, outside)` where noise gave `product` and the bands say otherwise, for errors and scales of W v and J v:
    by more than rounding explains, which a second product of a rescaled vector shows where the first is in doubt."""
    if not bool((error > torch.finfo(product.dtype).eps ** 0.5 * scale).any()):
        return 0, -1
    change = (product - joint(math.pi * plan.noise) / math.pi).abs()
    noise = torch.where(scale > 0, 64 * change / scale, 0)
    sizes = [plan.layout.n, len(error) - plan.layout.n]
    parts = zip(*(part.split(sizes) for part in (error, scale, noise)), strict=True)
    hessian, rows = (is_wrong(e, s, float(n.max())) if len(e) else e > 0 for e, s, n in parts)
    if bool(rows.any()):
        return 2, int(rows.to(torch.int8).argmax())
    return (1, -1) if bool(hessian.any()) else (0, -1)
