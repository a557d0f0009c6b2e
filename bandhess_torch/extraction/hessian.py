"""`hessian`, `value_grad_hessian` and `gauss_newton`: an objective, linearised, gives the core its product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from bandhess_common.checks import check_argnums
from bandhess_common.options import ProbingName

from ..framework.transforms import eager
from .in_graph import traced_hessian, traced_value_grad_hessian
from .linearise import linearize_gradient, linearize_residuals
from .objective import Objective
from .probing.protocol import Probing
from .products import ChunkSize, Extraction, extract_noted


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
      fun: real scalar function of a tensor or tree of stages; anything that `torch.func.grad` takes.
      bandwidth: k >= 0, in stages; `band_error` tells whether it is wide enough.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(value, aux)`, aux a pytree of tensors.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.
      stage_axes: as in `from_matvec`: 0, or None for leaves that all stages share; a prefix tree of them.
      periodic: as in `from_matvec`: the last stage meets the first.

    Returns: the function; its value is `(value, grad, ab)`, or `((value, aux), grad, ab)` with has_aux: grad in the
      argument's structure, ab `((k + 1) d, T d)` as `hessian` gives it, or `Cyclic`, or `Bordered`.

    Cost: one gradient with its graph, then (2k + 1) d products pulled back through it, or on long vectors its diagonals
    where the graph consists of slices, paddings, sums and products with coefficients (`extraction/diagonals`).
    The first call of a process raises the limit up to which glibc's malloc keeps freed memory to 62 MiB, once for all.

    >>> fun = lambda x: (x**4).sum() / 12
    >>> value, grad, ab = value_grad_hessian(fun, 0)(torch.tensor([1.0, 2, 3]))
    >>> ab
    tensor([[1., 4., 9.]])
    """
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)
    plain = not periodic and isinstance(stage_axes, int)

    @partial(eager, traced=traced_value_grad_hessian(fun, bandwidth, argnums, has_aux, probing, plain))
    def value_grad_hessian_fun(*args: Any, **kwargs: Any) -> tuple:
        objective = Objective.of(fun, argnums, has_aux, args, stage_axes=stage_axes, periodic=periodic)
        options = extraction.fit(objective.layout)
        flat_fun, flat = objective.bind(fun, args, kwargs)
        grad, product, (value, aux) = linearize_gradient(flat_fun, flat, objective.layout.p)
        ab = extract_noted(product, objective.layout, options)
        return (value, aux) if has_aux else value, objective.layout.unravel(grad), ab

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
    """A function of `fun`'s arguments that returns the band of the Hessian, as `torch.func.hessian` returns all of it.

    Arguments as in `value_grad_hessian`. Returns a function giving `ab` (or `(ab, aux)` with has_aux): `ab[r, j]` is
    `H[j + r, j]`, shape `(k + 1, n)` for a vector, `((k + 1) d, T d)` for T stages of d scalars; with periodic it is
    `Cyclic(ab)`, with shared leaves `Bordered(band, border, corner)`. An entry of H further than k stages from the
    diagonal is lost, or added to a wrong cell: check a doubtful bandwidth with `band_error`.

    Cost: at most (2k + 1) d Hessian-vector products, and one for each shared scalar. Composes with
    `torch.func.vmap`, `grad`, and autograd.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1)(torch.tensor([1.0, 2, 4, 8]))
    tensor([[ 2.,  4.,  4.,  2.],
            [-2., -2., -2.,  0.]])
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
    plain = not periodic and isinstance(stage_axes, int)

    @partial(eager, traced=traced_hessian(fun, bandwidth, argnums, has_aux, probing, plain))
    def hessian_fun(*args: Any, **kwargs: Any) -> Any:
        value, _, ab = pieces(*args, **kwargs)
        return (ab, value[1]) if has_aux else ab

    return hessian_fun


@eager
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
      residuals: function that returns a floating tensor of any shape, or a pytree of them (complex: J^H J).
      bandwidth: of J^T J, in stages: residuals that couple stages t .. t + k give k.
      argnums: the one argument to differentiate.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.
      stage_axes: as in `from_matvec`.
      periodic: as in `from_matvec`.

    Returns: the function; its value is `ab`, shaped as `hessian`'s: positive semidefinite up to rounding.

    Cost: one graph of the residuals and of their pullback, then a forward and a transposed product per probe.

    >>> residuals = lambda x: x[1:] - x[:-1] ** 2
    >>> gauss_newton(residuals, 1)(torch.tensor([1.0, 2, 4, 8]))
    tensor([[ 4., 17., 65.,  1.],
            [-2., -4., -8.,  0.]])
    """
    if not callable(residuals):
        raise TypeError(f"residuals must be a function, got {type(residuals).__name__}")
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    @eager
    def gauss_newton_fun(*args: Any, **kwargs: Any) -> Any:
        layout, index, _ = Objective.of(residuals, argnums, False, args, stage_axes=stage_axes, periodic=periodic)
        options = extraction.fit(layout)

        def flat_residuals(flat: Tensor) -> Any:
            return residuals(*args[:index], layout.unravel(flat), *args[index + 1 :], **kwargs)

        _, forward, backward = linearize_residuals(flat_residuals, layout.ravel(args[index]))
        return extract_noted(lambda v: backward(forward(v)), layout, options)

    return gauss_newton_fun
