"""JAX's derivatives against central differences, all of them in one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STEP, TOLERANCE = 1e-5, 1e-5  # in float64: the differences' own errors are far below


def pushed(fun: Callable) -> Callable:
    """Of a point and a direction, each a tuple like `fun`'s arguments: the derivative along it."""
    return lambda x, v: jax.jvp(fun, x, v)[1]


def pulled(fun: Callable) -> Callable:
    """Of a point and a cotangent like `fun`'s value: the gradient of their product."""
    return lambda x, c: jax.vjp(fun, *x)[1](c)


def check_derivatives(fun: Callable, *x: jax.Array) -> None:
    """Of first and second order, in both modes and every order of them.

    `fun`, its derivative along a direction, and its gradient are three functions: each is pushed along a direction,
    and compared with its own differences, and pulled by a cotangent, whose product with the direction is known then.
    The second and third are linear in the direction or cotangent, which is one more argument of theirs.
    """
    random = np.random.default_rng(0)

    def like(tree: Any) -> Any:
        return jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), a.dtype), tree)

    functions = (lambda p: fun(*p[0]), lambda p: pushed(fun)(*p[:2]), lambda p: pulled(fun)(p[0], p[2]))
    point = (x, like(x), like(jax.eval_shape(fun, *x)))  # where; the direction and the cotangent of first order
    along = like(point)
    cotangents = like([jax.eval_shape(function, point) for function in functions])

    @jax.jit
    def derivatives(point: Any) -> list:
        """Of each function: its value, what is pushed, and the product of what is pulled with the direction."""
        found = []
        for function, cotangent in zip(functions, cotangents, strict=True):
            value, tangent = jax.jvp(function, (point,), (along,))
            (gradient,) = jax.vjp(function, point)[1](cotangent)
            found.append((value, tangent, product(gradient, along)))
        return found

    at = [jax.tree.map(lambda p, d, h=h: p + h * d, point, along) for h in (-STEP, 0.0, STEP)]
    before, here, after = map(derivatives, at)
    for (low, *_), (_, tangent, reverse), (high, *_), cotangent in zip(before, here, after, cotangents, strict=True):
        differences = jax.tree.map(lambda a, b: (b - a) / (2 * STEP), low, high)
        compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)  # noqa: E731
        jax.tree.map(compare, tangent, differences)
        compare(reverse, product(cotangent, differences))


def product(a: Any, b: Any) -> Any:
    """The sum of all entries' products."""
    return sum(jnp.vdot(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
