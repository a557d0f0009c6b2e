"""Random probing: least squares, row by row, from more random products than a row has unknowns.

A row of stage s has unknowns in the stages s - k .. s + k only. With K Gaussian probes V, `(K, n)`, the products
`Y = V H` give K equations for its (2k + 1) d unknowns, with the same matrix `V[:, window(s)]` for every row of stage s.
Each off-diagonal entry is estimated twice, from its row and from its column, and the two are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.checks import as_index


@dataclass(frozen=True)
class Random:
    """For noisy products: from finite-difference or stochastic gradients.

    Args:
      oversampling: products beyond the (2k + 1) d unknowns of a row; None: as many again, which keeps the least
        squares well conditioned (with K / unknowns = 2, about 6). 0 multiplies errors without bound; rows it leaves
        undetermined come out as NaN.
      seed: of the probes.
      return_noise: return `(ab, noise)`: noise is the standard deviation of one entry of one product, estimated
        from the residuals (NaN where no row has more products than unknowns).
      stages_at_once: rows are solved so many stages at a time, which bounds the memory.

    `(2k + 1) d + oversampling` products. Error: noise-free, some eps; with noise sigma in each product's entries,
    sigma / sqrt(oversampling - 1) on the diagonal, and by the averaging sigma / sqrt(2 (oversampling - 1)) off it.
    Over several devices every one gathers all products, as the rows are solved in a loop along all stages.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Random(oversampling=6))(jnp.array([1.0, 2, 4, 8])).round(decimals=3)[0]
    Array([2., 4., 4., 2.], dtype=float32)
    >>> Random().count(T=100, d=2, k=1)  # products
    12
    """

    oversampling: int | None = None
    seed: int = 0
    return_noise: bool = False
    stages_at_once: int = 4096

    def __post_init__(self) -> None:
        if self.oversampling is not None:
            as_index(self.oversampling, "oversampling")
        as_index(self.seed, "seed")
        as_index(self.stages_at_once, "stages_at_once", least=1)

    def count(self, T: int, d: int, k: int) -> int:
        unknowns = (2 * k + 1) * d
        return unknowns + (unknowns if self.oversampling is None else self.oversampling)

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.key(self.seed), c), (T * d,), dtype)

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array:
        return y

    def decode(self, kept: Array, T: int, d: int, k: int) -> Any:
        K, width = kept.shape[0], 2 * k + 1
        dtype = kept.dtype
        V = jax.vmap(lambda c: self.probe(c, T, d, k, dtype))(jnp.arange(K)).reshape(K, T, d)
        V = jnp.pad(V, ((0, 0), (k, k), (0, 0)))
        Y = kept.reshape(K, T, d)

        def stage(s: Array) -> tuple[Array, Array]:
            """`(width * d, d)`: the columns hold the rows of stage s over their window; and the residual's square."""
            A = lax.dynamic_slice_in_dim(V, s, width, 1).reshape(K, width * d)
            y = lax.dynamic_index_in_dim(Y, s, 1, keepdims=False)
            # Stages before the first and past the last have probes 0 and unknowns 0: an identity keeps them solvable.
            empty = jnp.repeat((s + jnp.arange(width) < k) | (s + jnp.arange(width) >= T + k), d).astype(dtype)
            gram = A.T @ A + jnp.diag(empty)
            factor = jax.scipy.linalg.cho_factor(gram, lower=True)
            x = jax.scipy.linalg.cho_solve(factor, A.T @ y)
            # One step of refinement undoes what squaring the condition number costs.
            x = x + jax.scipy.linalg.cho_solve(factor, A.T @ (y - A @ x) - empty[:, None] * x)
            return x.reshape(width, d, d), jnp.sum((y - A @ x) ** 2)

        blocks, squares = lax.map(stage, jnp.arange(T), batch_size=min(T, self.stages_at_once))
        # blocks[s, o, j, i] = H[(s, i), (s + o - k, j)]. D_e[s] = H[s + e, s], from its row and from its column.
        from_row = [jnp.pad(blocks[e:, k - e].transpose(0, 2, 1), ((0, e), (0, 0), (0, 0))) for e in range(k + 1)]
        from_column = [blocks[:, k + e] for e in range(k + 1)]
        D = (jnp.stack(from_row) + jnp.stack(from_column)) / 2  # (e, s, row, column)
        D = D.transpose(0, 2, 1, 3).reshape((k + 1) * d, T, d)
        # Scalar column i of a stage starts i rows down: its band begins at the diagonal.
        columns = [jnp.pad(D[i:, :, i], ((0, i), (0, 0))) for i in range(d)]
        ab = jnp.stack(columns, axis=2).reshape((k + 1) * d, T * d)
        if not self.return_noise:
            return ab
        # Degrees of freedom: near the ends the windows are shorter.
        present = sum(max(T - abs(o), 0) for o in range(-k, k + 1)) * d
        freedom = d * (K * T - present)
        return ab, jnp.sqrt(jnp.sum(squares) / freedom if freedom > 0 else jnp.nan)
