"""Pictures: of a matrix (`spy`, in a terminal `spy_text`), its storage, a convergence, a trajectory.

Each takes `ax=`, matplotlib's axes, or makes new ones, and returns them; further options go to matplotlib's lines or
image. matplotlib comes with the extra `plot`, and is imported by the first picture.

    ax = bandhess_jax.plot.convergence(newton(fun, x0, 1, history=True))
    ax.figure.savefig("convergence.png")
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bandhess_common import plot

__all__ = ["band", "convergence", "spy", "spy_text", "trajectory"]


def _numpy(x: Any) -> np.ndarray:
    return np.asarray(x)


def spy(ab: Any, *, ax: Any = None, **options: Any) -> Any:
    """Where H has entries that are not 0: ab is a lower band `(w + 1, n)`, `Cyclic` or `Bordered`.

    >>> import jax.numpy as jnp, bandhess_jax
    >>> ax = bandhess_jax.plot.spy(jnp.ones((2, 6)))
    >>> ax.get_title()
    'n = 6, 16 entries'
    """
    return plot.spy(plot.cells(ab, _numpy), ax, options)


def spy_text(ab: Any, *, width: int = 64) -> str:
    """The same as text, for terminals: at most `width` columns, two rows of H or more a line.

    >>> import jax.numpy as jnp, bandhess_jax
    >>> print(bandhess_jax.plot.spy_text(jnp.ones((2, 6))))
    ██▄
     ▀██▄
       ▀██
    """
    return plot.spy_text(plot.cells(ab, _numpy), width)


def band(ab: Any, *, ax: Any = None, **options: Any) -> Any:
    """The storage `(w + 1, n)` as an image, by log10 |entry|; unused cells and zeros are blank.

    >>> import jax.numpy as jnp, bandhess_jax
    >>> ax = bandhess_jax.plot.band(jnp.ones((2, 6)))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('column', 'diagonal')
    """
    return plot.band(_numpy(ab), ax, options)


def convergence(result: Any, *, ax: Any = None, **options: Any) -> Any:
    """f less its last value, max|gradient| and the constraints' violation over the steps, of a result with history.

    >>> import jax.numpy as jnp, bandhess_jax
    >>> result = bandhess_jax.newton(lambda x: jnp.cosh(x).sum(), jnp.ones(4), 0, history=True)
    >>> ax = bandhess_jax.plot.convergence(result)
    >>> [line.get_label() for line in ax.lines]
    ['f - last f', 'max|gradient|']
    """
    return plot.convergence(plot.history_of(result, _numpy), ax, options)


def trajectory(x: Any, *, ax: Any = None, **options: Any) -> Any:
    """Each component of a tree of stages, such as `result.x`, over the stages.

    >>> import jax.numpy as jnp, bandhess_jax
    >>> ax = bandhess_jax.plot.trajectory({"q": jnp.zeros((5, 2)), "u": jnp.zeros(4)})
    >>> [line.get_label() for line in ax.lines]
    ['q[0]', 'q[1]', 'u']
    """
    return plot.trajectory(plot.named_leaves(x, _numpy), ax, options)
