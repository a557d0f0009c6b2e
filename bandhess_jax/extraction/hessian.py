"""The band of a function's Hessian, alone or with value and gradient, and that of Gauss and Newton.

Each linearises its function (`linearise.py`) and extracts the band of what is linear (`products.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array

from bandhess_common.checks import check_argnums
from bandhess_common.options import ProbingName

from ..framework.jit import jit_call
from .linearise import linearize_gradient, linearize_residuals
from .objective import Objective
from .probing.protocol import Probing
from .products import ChunkSize, Extraction, extract_noted


def _value_grad_hessian(options: tuple[Objective, Extraction], fun: Callable, args: tuple, kwargs: dict) -> tuple:
    objective, extraction = options
    flat_fun, flat = objective.bind(fun, args, kwargs)
    grad, product, (value, aux) = linearize_gradient(flat_fun, flat)
    ab = extract_noted(product, objective.layout, extraction)
    return (value, aux) if objective.has_aux else value, objective.layout.unravel(grad), ab


def value_grad_hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Callable[..., tuple]:
    """A function of `fun`'s arguments that returns `(value, grad, ab)`, with `fun` evaluated once.

    Args:
      fun: real scalar function of an array or tree of stages, pure and traceable. It is compiled once for arrays of
        the same shapes, and anew where what it reads from outside has changed: closures (arrays by contents), globals,
        defaults and objects' attributes, but not those of modules (`help(bandhess_jax)` has the whole list). Python
        ints, strings and functions among the arguments are static (a new value compiles anew), arrays and Python floats
        are traced.
      bandwidth: k >= 0, in stages; `band_error` tells whether it is wide enough.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(value, aux)`, aux a pytree of arrays.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.
      stage_axes: as in `from_matvec`: 0, or None for leaves that all stages share; a prefix tree of them.
      periodic: as in `from_matvec`: the last stage meets the first.

    Returns: the function; its value is `(value, grad, ab)`, or `((value, aux), grad, ab)` with has_aux: grad in the
      argument's structure, ab `((k + 1) d, T d)` as `hessian` gives it, or `Cyclic`, or `Bordered`.

    Cost: one linearised gradient, then (2k + 1) d products with its linear part, or one pass of its diagonals where it
    consists of slices, paddings, sums and products with coefficients (`extraction/diagonals`): up to five times faster.

    >>> fun = lambda x: (x**4).sum() / 12
    >>> value, grad, ab = value_grad_hessian(fun, 0)(jnp.array([1.0, 2, 3]))
    >>> ab
    Array([[1., 4., 9.]], dtype=float32)
    """
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def value_grad_hessian_fun(*args: Any, **kwargs: Any) -> tuple:
        objective = Objective.of(fun, argnums, has_aux, args, stage_axes=stage_axes, periodic=periodic)
        options = (objective, extraction.resolve(objective.layout, args))
        return jit_call(_value_grad_hessian, options, fun, args, kwargs)

    return value_grad_hessian_fun


def hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Callable[..., Any]:
    """A function of `fun`'s arguments that returns the band of the Hessian, as `jax.hessian` returns all of it.

    Arguments as in `value_grad_hessian`. Returns a function giving `ab` (or `(ab, aux)` with has_aux): `ab[r, j]` is
    `H[j + r, j]`, shape `(k + 1, n)` for a vector, `((k + 1) d, T d)` for T stages of d scalars; with periodic it is
    `Cyclic(ab)`, with shared leaves `Bordered(band, border, corner)`. An entry of H further than k stages from the
    diagonal is lost, or added to a wrong cell: check a doubtful bandwidth with `band_error`. Changes of what `fun`
    reads from outside are noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)` has the whole
    list).

    Cost: at most (2k + 1) d Hessian-vector products, and one for each shared scalar. Composes with `jit`, `vmap`,
    `grad`. Where x is split over devices along its stages, so is the band, and neighbours send each other the stages
    that they share: by diagonals, and by direct and Fourier probing; what the other two gather grows with T.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1)(jnp.array([1.0, 2, 4, 8]))
    Array([[ 2.,  4.,  4.,  2.],
           [-2., -2., -2.,  0.]], dtype=float32)
    """
    pieces = value_grad_hessian(
        fun,
        bandwidth,
        argnums=argnums,
        has_aux=has_aux,
        probing=probing,
        chunk_size=chunk_size,
        stage_axes=stage_axes,
        periodic=periodic,
    )

    def hessian_fun(*args: Any, **kwargs: Any) -> Any:
        value, _, ab = pieces(*args, **kwargs)
        return (ab, value[1]) if has_aux else ab

    return hessian_fun


def _gauss_newton(options: tuple[Objective, Extraction], residuals: Callable, args: tuple, kwargs: dict) -> Any:
    objective, extraction = options
    layout = objective.layout

    def flat_residuals(flat: Array) -> Any:
        return residuals(*args[: objective.argnums], layout.unravel(flat), *args[objective.argnums + 1 :], **kwargs)

    _, forward, backward = linearize_residuals(flat_residuals, layout.ravel(args[objective.argnums]))
    return extract_noted(lambda v: backward(forward(v)), layout, extraction)


def gauss_newton(
    residuals: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
) -> Callable[..., Any]:
    """A function of `residuals`' arguments that returns the band of J^T J, for the objective 0.5 |residuals|^2.

    Args:
      residuals: function that returns a floating array of any shape, or a pytree of them (complex: J^H J). Changes of
        what it reads from outside are noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)`
        has the whole list).
      bandwidth: of J^T J, in stages: residuals that couple stages t .. t + k give k.
      argnums: the one argument to differentiate.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.
      stage_axes: as in `from_matvec`.
      periodic: as in `from_matvec`.

    Returns: the function; its value is `ab`, shaped as `hessian`'s: positive semidefinite up to rounding.

    Cost: one linearisation, then a forward and a transposed product per probe. A `jax.custom_vjp` inside raises
    TypeError, as it has no forward derivative.

    >>> residuals = lambda x: x[1:] - x[:-1] ** 2
    >>> gauss_newton(residuals, 1)(jnp.array([1.0, 2, 4, 8]))
    Array([[ 4., 17., 65.,  1.],
           [-2., -4., -8.,  0.]], dtype=float32)
    """
    if not callable(residuals):
        raise TypeError(f"residuals must be a function, got {type(residuals).__name__}")
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def gauss_newton_fun(*args: Any, **kwargs: Any) -> Any:
        objective = Objective.of(residuals, argnums, False, args, stage_axes=stage_axes, periodic=periodic)
        options = (objective, extraction.resolve(objective.layout, args))
        try:
            return jit_call(_gauss_newton, options, residuals, args, kwargs)
        except TypeError as error:  # JAX raises it late, when the program is lowered
            if "custom_vjp" not in str(error):
                raise
            raise TypeError(
                "gauss_newton needs the residuals' forward derivative, which jax.custom_vjp functions do not have; "
                "give them a jax.custom_jvp rule instead, or use hessian on 0.5 * sum(residuals**2)"
            ) from error

    return gauss_newton_fun
