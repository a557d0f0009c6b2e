"""Programs tidied for XLA: the same values, each dear one once. JAX alone has this room: torch fuses nothing."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_jax.framework.fusion import materialise, tidy

N = 100


def window(x: Array) -> Array:
    """Half-bandwidth 3, four sines an entry."""
    s = sum(jnp.sin((1 + 0.1 * k) * x[k : N - 3 + k]) for k in range(4))
    return jnp.sum(jnp.exp(0.3 * s) + s**2)


def operations(fun: Callable, *args: Any) -> Counter:
    """How often each primitive stands in the program, inner programs included."""
    counts: Counter = Counter()

    def count(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            counts[equation.primitive.name] += 1
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
                if hasattr(inner, "jaxpr"):
                    count(inner.jaxpr)

    count(jax.make_jaxpr(fun)(*args).jaxpr)
    return counts


def start() -> Array:
    return jnp.linspace(-1.0, 2.0, N)


def linearized(x: Array) -> Any:
    return jax.linearize(jax.grad(window), x)


def test_sines_are_evaluated_once() -> None:
    x = start()
    before, after = operations(linearized, x), operations(tidy(linearized, x), x)
    assert (before["sin"], before["cos"]) == (8, 8)  # value and gradient, each with its derivative
    assert (after["sin"], after["cos"]) == (4, 4)
    assert after["cond"] > 0 == before["cond"]  # held


def test_same_values() -> None:
    x, v = start(), jnp.cos(start())
    grad, product = linearized(x)
    tidied_grad, tidied = tidy(linearized, x)(x)
    np.testing.assert_allclose(tidied_grad, grad, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(tidy(tidied, x)(v), product(v), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(jax.jit(lambda v: tidy(tidied, x)(v))(v), product(v), rtol=1e-13, atol=1e-13)


def test_pads_are_summed_before_they_are_padded() -> None:
    def fun(x: Array) -> Array:  # two slices, each taken three times
        return jnp.sum(x[1:] * x[:-1]) + jnp.sum(x[1:] ** 2 * x[:-1]) + jnp.sum(x[1:] * x[:-1] ** 3)

    x = start()
    assert operations(tidy(jax.grad(fun), x), x)["pad"] == 2 < operations(jax.grad(fun), x)["pad"]
    np.testing.assert_allclose(tidy(jax.grad(fun), x)(x), jax.grad(fun)(x), rtol=1e-14)


def test_what_is_padded_in_many_ways_is_padded_once() -> None:
    def fun(x: Array) -> Array:
        return jnp.sum(sum(x[k : N - 4 + k] for k in range(5)) ** 4)

    x = jnp.arange(float(N)) / 8  # eighths: no order of the sums changes a bit
    assert operations(tidy(jax.grad(fun), x), x)["pad"] == 1 < operations(jax.grad(fun), x)["pad"]
    np.testing.assert_array_equal(tidy(jax.grad(fun), x)(x), jax.grad(fun)(x))

    def steps(x: Array) -> Array:  # of gaps between the entries, and of cuts through the padding
        y = [lax.pad(x, 0.0, ((k, 6 - k, 1),)) for k in range(4)]
        return (y[0] + y[1] + y[2] + y[3])[1:-2]

    assert operations(tidy(steps, x), x)["pad"] == 1
    np.testing.assert_array_equal(tidy(steps, x)(x), steps(x))


def test_a_padding_that_is_not_zero_is_kept() -> None:
    def fun(x: Array) -> Array:
        return lax.pad(x, 2.0, ((0, 3, 0),)) + lax.pad(x, 2.0, ((0, 3, 0),)) + lax.pad(x, 0.0, ((3, 0, 0),))

    np.testing.assert_array_equal(tidy(fun, start())(start()), fun(start()))


def test_a_sum_of_pads_read_twice() -> None:
    def fun(x: Array) -> tuple[Array, Array]:
        s = jnp.pad(x, (0, 2)) + jnp.pad(x, (2, 0))
        return s * s, s + jnp.pad(2 * x, (2, 0))

    x = jnp.arange(float(N))  # integers: no order of the sums changes a bit
    jax.tree.map(np.testing.assert_array_equal, tidy(fun, x)(x), fun(x))


def test_equal_constants_of_different_types_differ() -> None:
    def fun(x: Array) -> tuple[Array, Array, Array]:
        return jnp.full(N, 1), jnp.full(N, 1.0), jnp.full(N, True)

    for value, expected in zip(tidy(fun, start())(start()), fun(start()), strict=True):
        assert value.dtype == expected.dtype


def test_no_constant_of_size_n() -> None:
    """Constants are folded at the trace only where they are scalars."""
    flat = jax.make_jaxpr(tidy(jax.grad(window), start()))(start())
    assert all(np.ndim(constant) == 0 for constant in flat.consts)


def test_side_effects_leave_a_program_alone() -> None:
    seen: list = []

    def fun(x: Array) -> Array:
        jax.debug.callback(lambda v: seen.append(float(v)), x[0])
        return jnp.sin(x) + jnp.sin(x)

    assert tidy(fun, start()) is fun


def test_control_flow_and_inner_functions() -> None:
    """What is no elementwise work is evaluated as it stands, jitted functions twice in one program included."""

    @jax.jit
    def inner(x: Array, y: Array) -> Array:
        return jnp.sin(x) * y

    @jax.custom_jvp
    def cube(x: Array) -> Array:
        return x**3

    cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2 * tangents[0]))

    def fun(x: Array) -> Array:
        y = inner(x, x) + inner(x + 1, x) + inner(x, x)
        y = lax.fori_loop(0, 3, lambda i, y: y * jnp.cos(x[i]), y) + lax.cumsum(x)
        return cube(y) + jnp.convolve(y, jnp.ones(3), mode="same") + jax.random.normal(jax.random.key(0), (N,))

    for program in (fun, jax.grad(lambda x: jnp.sum(fun(x)))):
        np.testing.assert_allclose(jax.jit(tidy(program, start()))(start()), jax.jit(program)(start()), rtol=1e-12)


def test_batches_and_further_derivatives() -> None:
    x = start()

    def product(x: Array, v: Array) -> Array:
        _, linear = tidy(linearized, x)(x)
        return tidy(linear, x)(v)

    def plain(x: Array, v: Array) -> Array:
        return jax.jvp(jax.grad(window), (x,), (v,))[1]

    xs, vs = jnp.stack([x, 2 * x, x - 1]), jnp.stack([jnp.sin(x), x**2, 1 - x])

    @functools.partial(jax.jit, static_argnums=0)
    def lanes_and_third(product: Callable, xs: Array, vs: Array) -> tuple:
        third = jax.grad(lambda x: jnp.sum(product(x, vs[0]) ** 2))(xs[0])
        return jax.vmap(product)(xs, vs), third

    lanes, third = lanes_and_third(plain, xs, vs)
    tidied_lanes, tidied_third = lanes_and_third(product, xs, vs)
    np.testing.assert_allclose(tidied_lanes, lanes, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tidied_third, third, rtol=1e-11, atol=1e-11)


def test_the_compiler_does_not_see_through() -> None:
    """Held values stay in a conditional of the compiled program, whatever XLA simplifies: else they would be fused."""

    def fun(x: Array) -> Array:
        s = materialise(jnp.sin, x)
        return jnp.pad(s, (0, 2)) + jnp.pad(2 * s, (2, 0))

    assert "conditional(" in jax.jit(fun).lower(start()).compile().as_text()
    for x in (start(), start() * jnp.nan, start() + jnp.inf):
        np.testing.assert_array_equal(materialise(jnp.exp, x), jnp.exp(x))
    # Nor do batches: a conditional with a predicate a lane would be a select, and hold nothing.
    twice = jax.jit(jax.vmap(jax.vmap(fun)))
    xs = jnp.stack([start() * jnp.nan, start(), start() + jnp.inf, 2 * start()]).reshape(2, 2, N)
    assert "conditional(" in twice.lower(xs).compile().as_text()
    np.testing.assert_array_equal(twice(xs), [[fun(x) for x in pair] for pair in xs])
    assert jax.vmap(fun)(xs[0, :0]).shape == (0, N + 2)
