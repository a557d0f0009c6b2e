"""Is the bandwidth right? One random product tells. Which one is? `bandhess_common/detection` finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from bandhess_common import detection
from bandhess_common.checks import as_index, check_argnums, too_dense

from ..band.noise import hash_noise
from ..band.stages import Layout
from ..band.structures import Bordered, Cyclic, Structure, as_clean, diagonal, magnitude, matvec
from ..framework.jit import jit_call
from ..framework.kernels import kernel
from .linearise import linearize_gradient
from .objective import Objective

SMALL = 256  # so many products are spent on advice


def probe_error(
    Hv: Array, ab: Array | Structure, v: Array, sharding: NamedSharding | None = None
) -> tuple[Array, Array]:
    """`(|H v - ab v|, |ab| |v|)`, entry by entry."""
    return jnp.abs(Hv - matvec(ab, v, sharding=sharding)), matvec(magnitude(ab), jnp.abs(v), sharding=sharding)


def is_wrong(error: Array, scale: Array, noise: Array | float = 0.0) -> Array:
    eps = jnp.finfo(error.dtype).eps
    return (error > jnp.maximum(eps**0.5, noise) * scale) & (error > 32 * eps * jnp.max(scale, initial=0))


def noise_pair(ab: Array | Structure) -> Array:
    """`(2, n)`: the vectors whose products with H `too_narrow` asks for."""
    v = hash_noise(diagonal(ab), 0)
    return jnp.stack([v, jnp.pi * v])


def too_narrow(products: Array, ab: Array | Structure, sharding: NamedSharding | None = None) -> Array:
    """True where the solvers refuse the band: some entry is off by more than sqrt(eps) of its own row, by more than
    32 eps of the largest row (a row that is rounding noise throughout would otherwise look wrong), and by more than
    64 times what rounding changes in the product itself, which a second product of a rescaled vector shows.
    products `(2, n)` are those of `noise_pair`."""
    v, Hv, again = hash_noise(diagonal(ab), 0), products[0], products[1] / jnp.pi
    if isinstance(ab, Structure) or sharding is not None:
        return _differ(ab, v, Hv, again, sharding)
    none = jnp.zeros((0, len(ab)), ab.dtype), jnp.zeros(0, jnp.int32)  # of a Jacobian's rows
    return kernel("interior_narrow", _narrow, ab, *none, v, Hv, again, shared=0) > 0


def _narrow(ab: Array, rows: Array, first: Array, v: Array, Hv: Array, again: Array, *, shared: int) -> Array:
    """As the kernel `interior_narrow` has it, for no rows and nothing shared."""
    return _differ(ab, v, Hv, again).astype(ab.dtype)


def _differ(ab: Array | Structure, v: Array, Hv: Array, again: Array, sharding: NamedSharding | None = None) -> Array:
    error, scale = probe_error(Hv, ab, v, sharding)
    noise = 64 * jnp.max(jnp.where(scale > 0, jnp.abs(Hv - again) / scale, 0), initial=0)
    return jnp.any(is_wrong(error, scale, noise))


def _band_error(options: tuple[Objective, int], fun: Callable, ab: Any, args: tuple, kwargs: dict) -> Array:
    objective, seed = options
    flat_fun, flat = objective.bind(fun, args, kwargs)
    _, product, _ = linearize_gradient(flat_fun, flat)
    dummies = objective.layout.dummies() if objective.layout.ragged else 0
    v = jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)
    error, scale = probe_error(product(v) + dummies * v, ab, v)
    return jnp.max(jnp.where(error == 0, 0, error / scale), initial=0)


def band_error(
    fun: Callable,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    seed: int = 0,
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Callable[..., Array]:
    """A function `(ab, *args)` that tells how far `ab` is from being the Hessian of `fun` there, at one product.

    It returns `max_i |H v - ab v|_i / (|ab| |v|)_i`, a scalar, for one random Gaussian v (0/0 = 0, x/0 = inf). At
    rounding level (some 1e-15 in float64, 1e-6 in float32; more where `fun` cancels), nothing lies outside the band
    and nothing inside is misplaced, with probability 1. The optimisers refuse a band above sqrt(eps): 1.5e-8 in
    float64, 3.5e-4 in float32. Works under jit. Changes of what `fun` reads from outside are noticed but in modules,
    sets, files and jitted functions (`help(bandhess_jax)` has the whole list). stage_axes and periodic are those by
    which `hessian` gave ab.

    >>> fun, x = lambda x: (x[1:] ** 2 * x[:-1]).sum(), jnp.array([1.0, 2, 4, 8])
    >>> [float(band_error(fun)(hessian(fun, k)(x), x)) < 1e-5 for k in (0, 1)]
    [False, True]
    """
    argnums = check_argnums(argnums)

    def band_error_fun(ab: ArrayLike | Structure, *args: Any, **kwargs: Any) -> Array:
        layout = (
            objective := Objective.of(fun, argnums, has_aux, args, stage_axes=stage_axes, periodic=periodic)
        ).layout
        ab = as_clean(ab)
        check_fits(ab, layout)
        return jit_call(_band_error, (objective, seed), fun, ab, args, kwargs)

    return band_error_fun


def check_fits(ab: Array | Structure, layout: Layout, name: str = "ab", rows: int | None = None) -> None:
    """An error where ab is not stored as a Hessian of that layout, with so many rows where their number is given."""
    band = ab.band if isinstance(ab, Bordered) else ab
    closed, p = isinstance(band, Cyclic), ab.border.shape[0] if isinstance(ab, Bordered) else 0
    main, cells = diagonal(ab), band.ab if isinstance(band, Cyclic) else band
    bordered = isinstance(ab, Bordered) == any(layout.shared)
    same = (closed, p, main.shape[0]) == (layout.periodic, layout.p, layout.n) and bordered
    same = same and main.dtype == layout.dtype and rows in (None, cells.shape[0])
    if not same:
        form = "Cyclic of " if layout.periodic else ""
        form += f"({rows or 'w + 1'}, {layout.n - layout.p})"
        if any(layout.shared):
            form = f"Bordered({form}, {(layout.p, layout.n - layout.p)}, {(layout.p, layout.p)})"
        raise ValueError(
            f"{name} must be {form} of {layout.dtype}, as the argument, stored as hessian gives it with the same "
            f"stage_axes and periodic; got shape {tuple(cells.shape)}, order {main.shape[0]}, {main.dtype}"
        )


def perturbed(x: Array, seed: int | Array = 1) -> Array:
    """x, each entry moved by up to a hundredth of itself (of the mean size, where it is 0): signs stay."""
    size = jnp.mean(jnp.abs(x))
    size = jnp.where(jnp.abs(x) > 0, jnp.abs(x), jnp.where(size > 0, size, 1))
    return x + 0.01 * size * (3 + hash_noise(x, seed)) / 4


def _products(objective: Objective, fun: Callable, probes: Array, count: Array, args: tuple, kwargs: dict) -> Array:
    """H at the perturbed x times the first `count` rows of probes `(m, n)`."""
    flat_fun, flat = objective.bind(fun, args, kwargs)
    _, product, _ = linearize_gradient(flat_fun, perturbed(flat))
    return lax.fori_loop(0, count, lambda i, done: done.at[i].set(product(probes[i])), jnp.zeros_like(probes))


def _multiplier(objective: Objective, fun: Callable, args: tuple, kwargs: dict) -> detection.Multiply:
    """H times each of the rows of a NumPy array, at the perturbed x; of the stages' variables alone."""
    layout, most = objective.layout, detection.AT_ONCE
    banded = layout.n - layout.p

    def multiply(probes: np.ndarray) -> np.ndarray:
        room, done = np.zeros((most, layout.n), layout.dtype), []  # one shape, one program
        for part in np.split(probes, range(most, len(probes), most)):
            room[: len(part), :banded] = part
            products = jit_call(_products, objective, fun, room, np.int32(len(part)), args, kwargs)
            done.append(np.asarray(products)[: len(part), :banded])
        return np.concatenate(done)

    return multiply


def _advice(layout: Layout, multiply: detection.Multiply) -> str:
    """What `reorder_bandwidth` would do for a Hessian that was refused: tried where that is cheap."""
    T, d = layout.T, layout.d
    found = detection.find(multiply, T, d, T - 1, T - 1) if T * d <= SMALL else None
    if not isinstance(found, detection.Found):
        return "reorder_bandwidth(fun)(x) looks for a better one"
    bandwidth = detection.reordered(T, d, found)[1]
    better = f"one of bandwidth {bandwidth}" if bandwidth < found.bandwidth else "no better"
    return f"reorder_bandwidth(fun)(x) finds {better}"


def _bind(fun: Callable, argnums: int, args: tuple, stage_axes: Any = 0, periodic: bool = False) -> Objective:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        raise TypeError("the bandwidth is a Python int and decides shapes: detect it outside jit, vmap and grad")
    return Objective.of(fun, argnums, False, args, stage_axes=stage_axes, periodic=periodic)


def detect_bandwidth(
    fun: Callable,
    *,
    argnums: int = 0,
    max_bandwidth: int | None = None,
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Callable[..., int]:
    """A function of `fun`'s arguments that finds the bandwidth of the Hessian, an int, in stages. Runs outside jit.

    Columns of a few stages show a bandwidth that is needed at least. From there on it is doubled until a random product
    shows nothing outside the band, and outer diagonals that are zero are dropped. Entries below sqrt(eps) of their row
    and of their column (1.5e-8 in float64, 3.5e-4 in float32) count as zero. x is moved by about a hundredth first, so
    that curvature which vanishes exactly at x (x^4 at 0) is seen; of a branch, only the side taken there is. Changes of
    what `fun` reads from outside are noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)` has
    the whole list).

    Args:
      fun: as for `hessian`.
      argnums: the one argument to differentiate.
      max_bandwidth: give up past it; by default max(16, T // 4), at most T - 1 (half of that around a ring).
      stage_axes: as for `hessian`. The bandwidth is that of the leaves with a stage axis.
      periodic: as for `hessian`.

    Returns: the function. It raises ValueError when the Hessian is denser than max_bandwidth, naming stage_axes or
    periodic where a few columns show a shared variable or a closed curve, and FloatingPointError when it is not finite.

    Cost: 10 products and (2 k + 1) d more for a bandwidth k that those columns show, else up to 8 k d, whatever n is;
    a dense Hessian is refused after the first 10. (A refusal spends T d more if these are at most 256, to say what
    `reorder_bandwidth` would find.)

    >>> fun = lambda x: ((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2).sum()
    >>> detect_bandwidth(fun)(jnp.ones(8))
    2
    """
    argnums = check_argnums(argnums)
    if max_bandwidth is not None:
        max_bandwidth = as_index(max_bandwidth, "max_bandwidth")

    def detect_bandwidth_fun(*args: Any, **kwargs: Any) -> int:
        layout = (objective := _bind(fun, argnums, args, stage_axes, periodic)).layout
        T, d = layout.T, layout.d
        if T * d == 0:
            return 0
        most = (T - 1) // 2 if periodic else T - 1
        limit = min(max(16, T // 4) if max_bandwidth is None else max_bandwidth, most)
        multiply = _multiplier(objective, fun, args, kwargs)
        found = detection.find(multiply, T, d, limit, closed=bool(periodic))
        if isinstance(found, detection.Refused):
            raise ValueError(too_dense(limit, T, found.hint, "" if found.hint else _advice(layout, multiply)))
        return found.bandwidth

    return detect_bandwidth_fun


def reorder_bandwidth(fun: Callable, *, argnums: int = 0) -> Callable[..., tuple[np.ndarray, int]]:
    """A function of `fun`'s arguments that looks for an order of the stages with a small bandwidth.

    Reverse Cuthill-McKee (`scipy.sparse.csgraph`) on the pattern of the Hessian, which is detected, if need be at full
    width: for T up to a few thousand, outside jit.

    Args:
      fun: as for `hessian`.
      argnums: the one argument to differentiate.

    Returns: the function; its value is `(permutation, bandwidth)`: in the order `x[permutation]` the Hessian has that
      bandwidth, in stages. So minimise `lambda y: fun(y[inverse])` from `x[permutation]`, where
      `inverse = np.argsort(permutation)`. A leaf with T - 1 stages must be filled up to T before it can be reordered.

    Cost: up to 3 T d products and 10 more, and a pattern of (T d)^2 cells for a dense Hessian.

    >>> fun = lambda x: (x[0] - x[3]) ** 2 + (x[3] - x[1]) ** 2 + (x[1] - x[2]) ** 2
    >>> order, k = reorder_bandwidth(fun)(jnp.ones(4))
    >>> order.tolist(), k
    ([2, 1, 3, 0], 1)
    """
    argnums = check_argnums(argnums)

    def reorder_bandwidth_fun(*args: Any, **kwargs: Any) -> tuple[np.ndarray, int]:
        objective = _bind(fun, argnums, args)
        T, d = objective.layout.T, max(objective.layout.d, 1)
        if objective.layout.n == 0:
            return np.arange(T), 0
        found = detection.find(_multiplier(objective, fun, args, kwargs), T, d, T - 1)
        assert isinstance(found, detection.Found)  # at T - 1 nothing is outside
        return detection.reordered(T, d, found)

    return reorder_bandwidth_fun
