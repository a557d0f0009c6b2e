"""Is the bandwidth right? One random product tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._hessian import Objective, check_argnums, linearize_gradient
from ._storage import as_band, clear_unused, matvec


def _gaussian(ab: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ab.shape[1], generator=generator, dtype=ab.dtype).to(ab.device)


def probe_error(product: Callable[[Tensor], Tensor], ab: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`(|H v - ab v|, |ab| |v|)`, entry by entry."""
    return (product(v) - matvec(ab, v)).abs(), matvec(ab.abs(), v.abs())


def too_narrow(product: Callable[[Tensor], Tensor], ab: Tensor, seed: int = 0) -> bool:
    """True where the solvers refuse the band: some entry is off by more than sqrt(eps) of its own row, and by more
    than 32 eps of the largest row (a row that is rounding noise throughout would otherwise look wrong)."""
    error, scale = probe_error(product, ab, _gaussian(ab, seed))
    eps = torch.finfo(ab.dtype).eps
    return bool(((error > eps**0.5 * scale) & (error > 32 * eps * scale.max())).any())


def band_error(fun: Callable, *, argnums: int = 0, has_aux: bool = False, seed: int = 0) -> Callable[..., Tensor]:
    """A function `(ab, *args)` that tells how far `ab` is from being the Hessian of `fun` there, at one product.

    It returns `max_i |H v - ab v|_i / (|ab| |v|)_i`, a scalar, for one random Gaussian v (0/0 = 0, x/0 = inf). At
    rounding level (some 1e-15 in float64, 1e-6 in float32; more where `fun` cancels), nothing lies outside the band
    and nothing inside is misplaced, with probability 1. The optimisers refuse a band above sqrt(eps): 1.5e-8 in
    float64, 3.5e-4 in float32.
    """
    argnums = check_argnums(argnums)

    def band_error_fun(ab: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        objective = Objective.of(argnums, has_aux, args)
        layout = objective.layout
        ab = as_band(ab)
        if ab.shape[1] != layout.n or ab.dtype != layout.dtype or ab.device != layout.device:
            raise ValueError(
                f"ab must be (w + 1, {layout.n}) of {layout.dtype} on {layout.device}, as the argument, got shape "
                f"{tuple(ab.shape)} of {ab.dtype} on {ab.device}"
            )
        if layout.n == 0:
            return ab.new_zeros(())
        flat_fun, flat = objective.bind(fun, args, kwargs)
        _, product, _ = linearize_gradient(flat_fun, flat)
        dummies = layout.dummies()
        error, scale = probe_error(lambda v: product(v) + dummies * v, clear_unused(ab), _gaussian(ab, seed))
        return torch.where(error == 0, 0, error / scale).max()

    return band_error_fun
