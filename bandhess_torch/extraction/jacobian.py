"""The band of the Jacobian of residuals that are local in stages: `jacobian`, and `jacobian_error`, which checks it.

T = 4 stages of d = 1 scalar, lower = 1, upper = 1: residual s depends on stages s - 1, s and s + 1.

    J =  a b . .        ab =  * b e h        ab[u + i - j, j] = J[i, j], l = u = 1
         c d e .              a d g j        colours  0 1 2 0: rows 0 and 3 share no column, and one product
         . f g h              c f i *        J^T (1, 0, 0, 1) = (a, b, i, j) shows both.
         . . i j

Row (s, i) has colour (s mod (lower + upper + 1)) d + i, and shows itself in the columns of stages s - lower to
s + upper (Curtis, Powell, Reid 1974, for J^T): autograd's products are those with J^T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import tree_map

from bandhess_common.checks import as_chunk_size, as_index, check_argnums, check_residuals

from ..band.general import times, times_transposed
from ..band.noise import gaussian, hash_noise
from ..band.stages import Layout
from ..band.storage import transposed
from ..framework.autograd import Pullback, check_recorded, reaches_others
from ..framework.kernels import settle_heap
from ..framework.transforms import eager, transformed
from .bandwidth import is_wrong
from .linearise import linearize_residuals
from .objective import Objective
from .probing.direct import one_of_every
from .products import ChunkSize, Extraction, multiply


class Residuals(NamedTuple):
    """Which argument of a function is differentiated, and how many stages a residual reaches."""

    objective: Objective
    lower: int
    upper: int
    chunk_size: ChunkSize

    @classmethod
    def of(
        cls, fun: Callable, lower: int, upper: int, argnums: int, has_aux: bool, chunk_size: ChunkSize, args: tuple,
        name: str | None = None,
    ) -> Residuals:  # fmt: skip
        return cls(Objective.of(fun, argnums, has_aux, args, name), lower, upper, chunk_size)

    @property
    def layout(self) -> Layout:
        return self.objective.layout

    @property
    def reach(self) -> tuple[int, int]:
        """`(l, u)`, subdiagonals and superdiagonals in scalars."""
        d = self.layout.d
        return max((self.lower + 1) * d - 1, 0), max((self.upper + 1) * d - 1, 0)

    @property
    def rows(self) -> int:
        """Of the band."""
        return sum(self.reach) + 1

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Tensor], tuple[Tensor, Any]], Tensor]:
        """`(flat -> (residuals, aux), flat)`, both ravelled: each dummy residual is a dummy variable of its stage, so
        that J is square and as regular as it is without them."""
        objective, layout = self.objective, self.objective.layout
        before, after = args[: objective.argnums], args[objective.argnums + 1 :]

        def flat_fun(flat: Tensor) -> tuple[Tensor, Any]:
            out, aux = fun(*before, layout.unravel(flat), *after, **kwargs), None
            if objective.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (residuals, aux) with has_aux=True, got {type(out).__name__}")
                out, aux = out
            rows = Layout.of(out, "fun's result")
            missing, absent = _missing(rows), _missing(layout)
            check_residuals(rows.T, rows.d, sum(missing), layout.T, layout.d, sum(absent))
            if rows.dtype != layout.dtype:
                raise TypeError(f"fun must return residuals of its argument's dtype, {layout.dtype}, got {rows.dtype}")
            r = rows.ravel(out)
            if any(missing):
                first = layout.n - layout.d
                place = dict(zip(np.flatnonzero(missing).tolist(), np.flatnonzero(absent).tolist(), strict=True))
                ends = [flat[first + place[i]] if i in place else r[first + i] for i in range(layout.d)]
                r = torch.cat([r[:first], torch.stack(ends)])
            return r, aux

        return flat_fun, layout.ravel(args[objective.argnums])


def _missing(layout: Layout) -> list[bool]:
    """For each scalar of a stage, whether the last stage has it not."""
    return [shape[0] != layout.T for shape in layout.shapes for _ in range(math.prod(shape[1:]))]


def linearize_rows(flat_fun: Callable, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], Any]:
    """`(r, u -> J^T u, aux)`. Plain autograd where it serves, torch.func inside its transforms."""
    check_recorded()
    if transformed():
        aux: list[Any] = []

        def rows(flat: Tensor) -> Tensor:
            r, more = flat_fun(flat)
            aux[:] = [more]
            return r

        r, pull, *_ = torch.func.vjp(rows, flat)
        return r, lambda u: pull(u)[0], aux[0]
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        x = flat if outer and flat.requires_grad else flat.detach().requires_grad_()
        r, more = flat_fun(x)
        attached = outer and r.requires_grad and (x is flat or reaches_others(r, x))
        product = Pullback(r, r, x, attached)
    if attached:
        return r, product, more
    return r.detach(), product, tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, more)


def general_band(pull: Callable[[Tensor], Tensor], residuals: Residuals) -> Tensor:
    """The band `(l + u + 1, n)` of J, from u -> J^T u."""
    layout, d, n = residuals.layout, residuals.layout.d, residuals.layout.n
    like = torch.empty((), dtype=layout.dtype, device=layout.device)
    if n == 0:
        return like.new_zeros((residuals.rows, 0))
    settle_heap()
    low, up = min(residuals.lower, layout.T - 1), min(residuals.upper, layout.T - 1)
    stages = low + up + 1
    colours, groups = stages * d, -(-layout.T // stages)
    batches = Extraction.of(0, "direct", residuals.chunk_size).batches(min(colours, n), layout, pull)
    Y = torch.cat([multiply(pull, one_of_every(colours, part, n, like)) for part in batches])
    # [c, m, e]: what row c + m colours shows in column e of the stages that it may show itself in.
    Y = pad(Y, (low * d, groups * colours + up * d - n, 0, colours - len(Y)))
    kept = [Y[t * d : (t + 1) * d, t * d : t * d + groups * colours].reshape(d, groups, colours) for t in range(stages)]
    of_scalar = torch.stack(kept).permute(1, 3, 2, 0).reshape(d, colours, groups * stages)[:, :, : layout.T]
    # Scalar i's columns begin i before those of the diagonal's.
    ab = torch.stack([pad(of_scalar[i], (0, 0, d - 1 - i, i)) for i in range(d)], -1).reshape(-1, n)
    ab = transposed(ab, (up + 1) * d - 1)
    return pad(ab, (0, 0, (residuals.upper - up) * d, (residuals.lower - low) * d))


@eager
def jacobian(
    fun: Callable,
    lower: int,
    upper: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Any]:
    """A function of `fun`'s arguments that returns the band of its Jacobian, as `torch.func.jacrev` returns all of it.

    Args:
      fun: takes a tree of T stages of d scalars and returns a tree of T stages of d residuals (in any structure; a leaf
        of either may end one stage early, as many scalars in both). Residual s may depend on stages s - lower to
        s + upper.
      lower: stages before its own that a residual depends on, >= 0.
      upper: stages after its own, >= 0.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(residuals, aux)`, aux a pytree of tensors.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `ab` `(l + u + 1, T d)` (or `(ab, aux)`) with l = (lower + 1) d - 1 subdiagonals
      and u = (upper + 1) d - 1 superdiagonals, in the diagonal ordered form that `lu_factor` and
      `scipy.linalg.solve_banded` take: `ab[u + i - j, j] = J[i, j]`, i and j in the ravelled trees (stage by stage,
      leaves in pytree order). Unused cells are 0. A dummy variable and a dummy residual of ragged leaves meet in a 1.

    Raises: ValueError where there are not d residuals a stage: boundary conditions join the stages' residuals in one
      tensor, `torch.cat([left, inner.reshape(-1), right]).reshape(T, d)`. For more residuals than variables
      `gauss_newton` gives the band of J^T J.

    Cost: one graph of the residuals and (lower + upper + 1) d products pulled back through it, batched; never more than
    T d. Entries outside the band are lost or misplaced: `jacobian_error` tells.

    >>> jacobian(lambda y: y**2 - torch.cat([0 * y[:1], y[:-1]]), 1, 0)(torch.tensor([1.0, 2, 3]))
    tensor([[ 2.,  4.,  6.],
            [-1., -1.,  0.]])
    """
    argnums, lower, upper = check_argnums(argnums), as_index(lower, "lower"), as_index(upper, "upper")
    chunk_size = as_chunk_size(chunk_size)

    @eager
    def jacobian_fun(*args: Any, **kwargs: Any) -> Any:
        residuals = Residuals.of(fun, lower, upper, argnums, has_aux, chunk_size, args)
        _, pull, aux = linearize_rows(*residuals.bind(fun, args, kwargs))
        ab = general_band(pull, residuals)
        return (ab, aux) if has_aux else ab

    return jacobian_fun


def too_narrow(pull: Callable[[Tensor], Tensor], ab: Tensor, residuals: Residuals) -> bool:
    """True where `root` refuses the band, by the measures of `bandwidth.too_narrow`, on products with J^T."""
    u = hash_noise(ab[0], 0)
    given = pull(u)
    error = (given - times_transposed(ab, u, residuals.reach[1])).abs()
    scale = times_transposed(ab.abs(), u.abs(), residuals.reach[1])
    change = (given - pull(math.pi * u) / math.pi).abs()
    noise = 64 * float(torch.where(scale > 0, change / scale, 0).max())
    return bool(is_wrong(error, scale, noise).any())


@eager
def jacobian_error(
    fun: Callable, lower: int, upper: int, *, argnums: int = 0, has_aux: bool = False, seed: int = 0
) -> Callable[..., Tensor]:
    """A function `(ab, *args)` that tells how far `ab` is from being the Jacobian of `fun` there, at one product.

    `band_error`'s kin, for what `jacobian` gives with the same lower and upper: `max_i |J v - ab v|_i / (|ab| |v|)_i`,
    a scalar, for one random Gaussian v (0/0 = 0, x/0 = inf). At rounding level nothing lies outside the band and
    nothing inside is misplaced, with probability 1; `root` refuses a band above sqrt(eps).

    >>> fun, y = lambda y: y**2, torch.tensor([1.0, 2, 3])
    >>> float(jacobian_error(fun, 0, 0)(jacobian(fun, 0, 0)(y), y)) < 1e-5
    True
    """
    argnums, lower, upper = check_argnums(argnums), as_index(lower, "lower"), as_index(upper, "upper")

    @eager
    def jacobian_error_fun(ab: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        residuals = Residuals.of(fun, lower, upper, argnums, has_aux, "auto", args)
        layout, l = residuals.layout, residuals.reach[0]
        shape = (residuals.rows, layout.n)
        if tuple(ab.shape) != shape or ab.dtype != layout.dtype:
            raise ValueError(
                f"ab must be {shape} of {layout.dtype}, as jacobian(fun, {lower}, {upper}) gives it, got "
                f"{tuple(ab.shape)} of {ab.dtype}"
            )
        flat_fun, flat = residuals.bind(fun, args, kwargs)
        if layout.n == 0:
            return flat.new_zeros(())
        v = gaussian(layout.n, seed, flat)
        _, forward, _ = linearize_residuals(lambda flat: flat_fun(flat)[0], flat)
        error, scale = (forward(v)[0] - times(ab, v, l)).abs(), times(ab.abs(), v.abs(), l)
        return torch.where(error == 0, 0, error / scale).max()

    return jacobian_error_fun
