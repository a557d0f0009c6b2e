"""The arguments of `hessian`, functions of all kinds, bad input."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hessian_cases import both_ways
from oracles import integers

# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argnums", [0, 1, 2, -1, -2])
def test_argnums(backend: Backend, argnums: int) -> None:
    def fun(x, y, z):
        chains = [backend.xp.sum(c * v[1:] ** 2 * v[:-1]) for c, v in [(1, x), (10, y), (100, z)]]
        return chains[0] + chains[1] + chains[2] + backend.xp.sum(x) * backend.xp.sum(y) * backend.xp.sum(z)

    values = [integers(n, n) for n in (5, 6, 7)]
    args = [backend.array(v) for v in values]
    v, scale = values[argnums], [1.0, 10.0, 100.0][argnums]
    expected = np.zeros((2, len(v)))
    expected[0, 1:] = 2 * scale * v[:-1]
    expected[1, :-1] = 2 * scale * v[1:]
    np.testing.assert_array_equal(backend.numpy(backend.package.hessian(fun, 1, argnums=argnums)(*args)), expected)


def test_arguments_of_other_kinds(backend: Backend) -> None:
    """Integers, strings, functions, keyword arguments and trees beside x reach `fun` as they are."""

    def fun(power, x, tree, kind, link, *, shift, order=1):
        assert kind == "chain"
        assert type(power) is int
        assert type(order) is int
        v = link(x) + shift
        return backend.xp.sum(v[order:] ** power * v[:-order] * tree["weight"][0]) + 0 * len(tree["name"])

    x, shift = backend.array(integers(6, 0)), backend.array(integers(6, 1))
    tree = {"weight": (backend.array(3.0),), "name": "w"}
    ab = backend.package.hessian(fun, 2, argnums=1)(2, x, tree, "chain", lambda x: 2 * x, shift=shift, order=2)
    v = 2 * integers(6, 0) + integers(6, 1)
    expected = np.zeros((3, 6))
    expected[0, 2:] = 4 * 3 * 2 * v[:-2]
    expected[2, :-2] = 4 * 3 * 2 * v[2:]
    np.testing.assert_array_equal(backend.numpy(ab), expected)


def test_integer_array_beside(backend: Backend) -> None:
    order = backend.array([2, 0, 1])
    ab = backend.package.hessian(lambda x, i: backend.xp.sum(x[i] ** 3 * backend.array([1.0, 2, 3])), 0)
    np.testing.assert_array_equal(backend.numpy(ab(backend.array([1.0, 1, 1]), order)), [[12, 18, 6]])


def test_has_aux(backend: Backend) -> None:
    def fun(x):
        value = backend.xp.sum(x**3)
        return value, {"twice": 2 * value, "count": backend.array(3)}

    x = backend.array([1.0, 2.0])
    ab, aux = backend.package.hessian(fun, 0, has_aux=True)(x)
    np.testing.assert_array_equal(backend.numpy(ab), [[6, 12]])
    assert (float(aux["twice"]), int(aux["count"])) == (18, 3)
    (value, aux), grad, ab = backend.package.value_grad_hessian(fun, 0, has_aux=True)(x)
    assert (float(value), float(aux["twice"])) == (9, 18)
    np.testing.assert_array_equal(backend.numpy(grad), [3, 12])
    np.testing.assert_array_equal(backend.numpy(ab), [[6, 12]])


# --- Functions of all kinds (test_objectives.py: what they may be made of) ------------------------------------------


def test_unhashable_callable(backend: Backend) -> None:
    class Weighted:
        __hash__ = None

        def __init__(self, weight):
            self.weight = weight

        def __call__(self, x):
            return backend.xp.sum(self.weight * x**2)

    x = backend.array(np.zeros(3))
    for weight in (1.0, 2.0):
        np.testing.assert_array_equal(
            backend.numpy(backend.package.hessian(Weighted(weight), 0)(x)), [[2 * weight] * 3]
        )


def test_jitted_objective_with_static_arguments() -> None:
    @functools.partial(jax.jit, static_argnums=1)
    def fun(x, order):
        return jnp.sum(x[order:] ** 2 * x[:-order])

    x = integers(5, 0)
    ab = BACKENDS["jax"].package.hessian(lambda x: fun(x, 2), 2)(jnp.asarray(x))
    np.testing.assert_array_equal(ab[2, :3], 2 * x[2:])


@both_ways
def test_loop_with_dynamic_indexing(chunk_size: int | None) -> None:
    def fun(x):
        return jax.lax.fori_loop(1, x.shape[0], lambda i, total: total + x[i] ** 2 * x[i - 1], 0.0)

    x = integers(8, 1)
    ab = BACKENDS["jax"].package.hessian(fun, 1, chunk_size=chunk_size)(jnp.asarray(x))
    np.testing.assert_array_equal(ab, [[0, *2 * x[:-1]], [*2 * x[1:], 0]])


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(backend: Backend) -> None:
    xp, p = backend.xp, backend.package
    x = backend.array(np.ones(4))

    def total(x, *args: Any) -> Any:
        return xp.sum(x)

    def twice(x):
        return xp.sum(x), xp.sum(x)

    for make in (p.hessian, p.value_grad_hessian):

        def call(fun=total, bandwidth=1, args=(x,), make=make, **options):
            return lambda: make(fun, bandwidth, **options)(*args)

        bad = [
            (TypeError, "fun must be a function, got str", call("energy")),
            (TypeError, r"fun must return a real scalar.*\(4,\)", call(lambda x: x)),
            (TypeError, r"fun must return a real scalar.*\(1,\)", call(lambda x: x[:1])),
            (TypeError, "fun must return a real scalar.*int", call(lambda x: backend.array(3))),
            (TypeError, "fun must return a real scalar.*complex", call(lambda x: backend.array(1j))),
            (TypeError, "fun must return a scalar.*NoneType", call(lambda x: None)),
            (TypeError, "fun must return a scalar.*tuple", call(twice)),
            (TypeError, r"fun must return \(value, aux\)", call(has_aux=True)),
            (ValueError, "bandwidth must be an int >= 0, got -1", call(bandwidth=-1)),
            (TypeError, "bandwidth must be an int >= 0, got 1.0", call(bandwidth=1.0)),
            (TypeError, "bandwidth must be an int >= 0, got True", call(bandwidth=True)),
            (TypeError, r"argnums must be one int, got \(0, 1\)", call(argnums=(0, 1))),
            (TypeError, "argnums must be one int, got None", call(argnums=None)),
            (ValueError, r"argument 1 .*argnums", call(argnums=1)),
            (ValueError, r"argument -2 .*argnums", call(argnums=-2)),
            (ValueError, r"argument 0 .*argnums", call(args=())),
            (ValueError, "probing must be one of", call(probing="fft")),
            (ValueError, "chunk_size must be an int >= 1", call(chunk_size=0)),
            (TypeError, "chunk_size must be an int >= 1", call(chunk_size="many")),
            (TypeError, "argument 0 must have a real floating dtype, got .*int", call(args=(backend.array([1, 2]),))),
            (TypeError, "argument 0 must have a real floating dtype.*complex", call(args=(backend.array([1j]),))),
            (ValueError, "every leaf of argument 0 needs a leading stage axis", call(args=(backend.array(1.0),))),
            (ValueError, "argument 0 must share a leading", call(args=([x, backend.array(np.ones(2))],))),
            (TypeError, "argument 1 must have a real floating dtype", call(args=(x, backend.array([1])), argnums=1)),
            (TypeError, "argument 0 must be a", call(args=(1.0,))),
        ]
        for error, message, attempt in bad:
            with pytest.raises(error, match=message):
                attempt()


@pytest.mark.parametrize("maker", ["hessian", "value_grad_hessian", "band_error"])
def test_wrong_options_raise_before_the_function_is_called(backend: Backend, maker: str) -> None:
    make = getattr(backend.package, maker)
    options = {} if maker == "band_error" else {"bandwidth": 1}
    with pytest.raises(TypeError, match="argnums must be one int"):
        make(lambda x: x, **options, argnums=(0,))
