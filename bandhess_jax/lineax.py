"""Banded operators and solvers for lineax: `lineax.linear_solve`, and what is built on it, such as optimistix.

    operator = BandedLinearOperator(ab, lineax.positive_semidefinite_tag)
    x = lineax.linear_solve(operator, b, BandedCholesky()).value

The solvers take any square operator, too, whose bandwidth they are told: they form its band by as many products as
the band has diagonals, as for a Jacobian in `optimistix.root_find(f, optimistix.Newton(..., linear_solver=...), y0)`.
lineax comes with the extra `lineax`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import lineax as lx
from jax import Array

from bandhess_common.checks import as_index

from .band.stages import Layout
from .band.storage import as_band, clear_unused, matvec, to_dense, transposed
from .extraction.products import from_matvec
from .linalg.lu import Elimination, eliminate, substitute
from .linalg.solve import Factor, factor

__all__ = ["BandedCholesky", "BandedLU", "BandedLinearOperator"]


class BandedLinearOperator(lx.AbstractLinearOperator):
    """A banded matrix on vectors `(n,)`.

    >>> import jax.numpy as jnp, lineax
    >>> from bandhess_jax.lineax import BandedLinearOperator
    >>> BandedLinearOperator(jnp.array([[4.0, 4, 4], [1, 1, 0]])).mv(jnp.array([1.0, 2, 3]))
    Array([ 6., 12., 14.], dtype=float32)
    """

    ab: Array
    l_and_u: tuple[int, int] | None = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, ab: Any, tags: Any = (), *, l_and_u: tuple[int, int] | None = None) -> None:
        """
        Args:
          ab: `(w + 1, n)`, lower band storage of a symmetric matrix, `ab[d, j] = A[j + d, j]`; with l_and_u the
            `(l + u + 1, n)` diagonal ordered form of a general one, `ab[u + i - j, j] = A[i, j]`.
          tags: lineax's, one or a set of them; `lineax.positive_semidefinite_tag` lets `BandedCholesky` take it. They
            are believed. A matrix without l_and_u is symmetric anyway.
          l_and_u: the numbers of subdiagonals and superdiagonals.
        """
        self.ab = clear_unused(as_band(ab, form=l_and_u is None)) if l_and_u is None else as_band(ab, form=False)
        if l_and_u is not None:
            l, u = (as_index(count, f"l_and_u[{i}]") for i, count in enumerate(l_and_u))
            if l + u + 1 != self.ab.shape[0]:
                raise ValueError(f"ab must have l + u + 1 = {l + u + 1} rows for l_and_u = {(l, u)}, got {ab.shape}")
            self.ab, l_and_u = transposed(transposed(self.ab, l), u), (l, u)  # with zeros in the unused cells
        self.l_and_u = l_and_u
        self.tags = frozenset(tags) if isinstance(tags, tuple | list | set | frozenset) else frozenset([tags])

    @property
    def reach(self) -> tuple[int, int]:
        """The numbers of subdiagonals and superdiagonals."""
        w = self.ab.shape[0] - 1
        return self.l_and_u or (w, w)

    def mv(self, vector: Array) -> Array:
        if self.l_and_u is None:
            return matvec(self.ab, vector)
        (_, u), n = self.l_and_u, self.ab.shape[1]
        y = jnp.zeros_like(vector)
        for row, cells in enumerate(self.ab):
            d = row - u  # cells[j] stands in row j + d
            moved = (cells * vector)[max(0, -d) : n - max(0, d)]
            y = y + jnp.pad(moved, (min(max(0, d), n), min(max(0, -d), n)))[:n] if abs(d) < n else y
        return y

    def as_matrix(self) -> Array:
        if self.l_and_u is None:
            return to_dense(self.ab)
        return jax.vmap(self.mv, out_axes=1)(jnp.eye(self.ab.shape[1], dtype=self.ab.dtype))

    def transpose(self) -> BandedLinearOperator:
        if self.l_and_u is None:
            return self
        l, u = self.l_and_u
        return BandedLinearOperator(transposed(self.ab, l), lx.transpose_tags(self.tags), l_and_u=(u, l))

    def general(self) -> Array:
        """The `(l + u + 1, n)` diagonal ordered form."""
        if self.l_and_u is not None:
            return self.ab
        return jnp.concatenate([transposed(self.ab, self.ab.shape[0] - 1)[:-1], self.ab])

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.ab.shape[1:], self.ab.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


def _itself(operator: BandedLinearOperator) -> BandedLinearOperator:
    return operator


for _function in (lx.linearise, lx.materialise, lx.conj):  # the numbers are real
    _function.register(BandedLinearOperator, _itself)


@lx.diagonal.register
def _(operator: BandedLinearOperator) -> Array:
    return operator.ab[operator.l_and_u[1] if operator.l_and_u else 0]


@lx.tridiagonal.register
def _(operator: BandedLinearOperator) -> tuple[Array, Array, Array]:
    ab, (_, u), n = operator.general(), operator.reach, operator.ab.shape[1]
    beside = [ab[row] if 0 <= row < ab.shape[0] else jnp.zeros_like(ab[0]) for row in (u + 1, u - 1)]
    return ab[u], beside[0][: n - 1], beside[1][1:]


def _tagged(tag: object, structure: Any) -> Any:
    return lambda operator: tag in operator.tags or structure(operator)


for _function, _tag, _structure in (
    (lx.is_symmetric, lx.symmetric_tag, lambda o: o.l_and_u is None or lx.is_positive_semidefinite(o)),
    (lx.is_diagonal, lx.diagonal_tag, lambda o: o.ab.shape[0] == 1),
    (lx.is_tridiagonal, lx.tridiagonal_tag, lambda o: max(o.reach) <= 1),
    (lx.has_unit_diagonal, lx.unit_diagonal_tag, lambda o: False),
    (lx.is_lower_triangular, lx.lower_triangular_tag, lambda o: o.reach[1] == 0),
    (lx.is_upper_triangular, lx.upper_triangular_tag, lambda o: o.reach[0] == 0),
    (lx.is_positive_semidefinite, lx.positive_semidefinite_tag, lambda o: False),
    (lx.is_negative_semidefinite, lx.negative_semidefinite_tag, lambda o: False),
):
    _function.register(BandedLinearOperator, _tagged(_tag, _structure))


class _Space(NamedTuple):
    """Hashable: what vectors are, trees of stages or vectors."""

    layout: Layout

    @classmethod
    def of(cls, operator: lx.AbstractLinearOperator, solver: str) -> _Space:
        inputs, outputs = operator.in_structure(), operator.out_structure()
        if eqx.tree_equal(inputs, outputs) is not True:
            raise ValueError(f"{solver} takes operators from a space to itself, got {inputs} to {outputs}")
        return cls(Layout.of(inputs, "the operator's vector"))


class BandedCholesky(lx.AbstractLinearSolver):
    """Solves with positive (or negative) definite operators, by the factor that is fastest on the platform.

    O(n w^2) for the factor, O(n w) for a solve. Where H is not definite the result is `lineax.RESULTS.singular`.

    >>> import jax.numpy as jnp, lineax
    >>> from bandhess_jax.lineax import BandedCholesky, BandedLinearOperator
    >>> operator = BandedLinearOperator(jnp.array([[4.0, 4, 4], [1, 1, 0]]), lineax.positive_semidefinite_tag)
    >>> lineax.linear_solve(operator, jnp.array([5.0, 6, 5]), BandedCholesky()).value.round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """

    bandwidth: int | None = None
    """Of operators that are not `BandedLinearOperator`s, in stages: their band is formed by products with
    `from_matvec`."""

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        negative = lx.is_negative_semidefinite(operator)
        if not (lx.is_positive_semidefinite(operator) or negative):
            raise ValueError(
                "BandedCholesky takes operators that are tagged definite: give the operator the tag "
                "lineax.positive_semidefinite_tag, or use BandedLU"
            )
        space = _Space.of(operator, "BandedCholesky")
        if isinstance(operator, BandedLinearOperator):
            ab = operator.ab if operator.l_and_u is None else operator.ab[operator.l_and_u[1] :]
        elif self.bandwidth is None:
            raise ValueError("BandedCholesky needs the bandwidth of an operator that is no BandedLinearOperator")
        else:
            linear = lx.linearise(operator)
            ab = from_matvec(linear.mv, operator.in_structure(), self.bandwidth)
            ab = ab.at[0].add(-2 * space.layout.dummies()) if negative and space.layout.ragged else ab
        return factor(-ab if negative else ab), eqxi.Static((space, negative))

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> tuple[Any, lx.RESULTS, dict[str, Any]]:
        found: Factor = state[0]
        space, negative = state[1].value
        b = space.layout.ravel(vector)
        x = space.layout.unravel(found.solve(-b if negative else b))
        return x, lx.RESULTS.where(found.ok, lx.RESULTS.successful, lx.RESULTS.singular), {}

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return state, options

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return state, options

    def assume_full_rank(self) -> bool:
        return True


class BandedLU(lx.AbstractLinearSolver):
    """Solves with square operators by LU with partial pivoting, in O(n l (l + u)). Where a pivot is exactly 0 the
    result is `lineax.RESULTS.singular`.

    >>> import jax.numpy as jnp, lineax
    >>> from bandhess_jax.lineax import BandedLinearOperator, BandedLU
    >>> operator = BandedLinearOperator(jnp.array([[0.0, 1, 1], [4, 4, 4], [2, 2, 0]]), l_and_u=(1, 1))
    >>> lineax.linear_solve(operator, jnp.array([5.0, 7, 6]), BandedLU()).value.round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """

    lower: int | None = None
    """Of operators that are not `BandedLinearOperator`s: how many stages below the diagonal, and above it, their
    matrices reach. The band is formed by (lower + upper + 1) d products, for stages of d scalars."""
    upper: int | None = None

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        space = _Space.of(operator, "BandedLU")
        if isinstance(operator, BandedLinearOperator):
            (l, _), general = operator.reach, operator.general()
        elif self.lower is None or self.upper is None:
            raise ValueError("BandedLU needs lower and upper of an operator that is no BandedLinearOperator")
        else:
            d = space.layout.d
            l, u = (self.lower + 1) * d - 1, (self.upper + 1) * d - 1
            general = _form(lx.linearise(operator), space.layout, l, u)
        return eliminate(general, l, general.shape[0] - 1 - l), eqxi.Static((space, False))

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> tuple[Any, lx.RESULTS, dict[str, Any]]:
        lu: Elimination = state[0]
        space, transpose = state[1].value
        x = jnp.where(lu.singular, jnp.nan, substitute(lu, space.layout.ravel(vector), transpose))
        result = lx.RESULTS.where(lu.singular, lx.RESULTS.singular, lx.RESULTS.successful)
        return space.layout.unravel(x), result, {}

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        space, transpose = state[1].value
        return (state[0], eqxi.Static((space, not transpose))), options

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return state, options

    def assume_full_rank(self) -> bool:
        return True


def _form(operator: lx.AbstractLinearOperator, layout: Layout, l: int, u: int) -> Array:
    """The general band of an operator, a product for each of its diagonals; dummies get a unit diagonal."""
    n, count = layout.n, l + u + 1
    column = jnp.arange(n)
    colours = min(count, max(n, 1))

    def product(colour: Array) -> Array:
        probe = (column % colours == colour).astype(layout.dtype)
        return layout.ravel(operator.mv(layout.unravel(probe)))

    products = jax.vmap(product)(jnp.arange(colours))
    row = column[None] + jnp.arange(count)[:, None] - u
    inside = (row >= 0) & (row < n)
    ab = jnp.where(inside, products[(column % colours)[None], jnp.clip(row, 0, n - 1)], 0)
    return ab.at[u].add(layout.dummies()) if layout.ragged else ab
