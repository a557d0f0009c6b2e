"""The arguments of `newton`: what reaches `fun`, defaults, bad input."""

import inspect
import math

import numpy as np
import pytest
from backends import Backend
from newton_cases import HERE
from oracles import reals


def test_arguments(backend: Backend) -> None:
    """Trees, floats, ints and strings in `args`."""

    def fun(x, tree, order, kind, factor):
        assert (order, kind) == (1, "chain")
        return factor * backend.xp.sum((x - tree["target"]) ** 2) + 0 * backend.xp.sum(x[order:] * x[:-order])

    target = backend.array(reals(4, 0))
    args = ({"target": target}, 1, "chain", 2.5)
    result = backend.package.newton(fun, backend.array(np.zeros(4)), 1, args=args)
    np.testing.assert_allclose(backend.numpy(result.x), reals(4, 0), rtol=0, atol=1e-12)


def test_defaults(backend: Backend) -> None:
    defaults = {name: p.default for name, p in inspect.signature(backend.package.newton).parameters.items()}
    assert (defaults["args"], defaults["callback"], defaults["verbose"]) == ((), None, False)


def test_bad_input(backend: Backend) -> None:
    x0 = backend.array(HERE)

    def call(fun=lambda x: backend.xp.sum(x**2), x0=x0, bandwidth=1, **options):
        return lambda: backend.package.newton(fun, x0, bandwidth, **options)

    bad = [
        (TypeError, "fun must be a function, got NoneType", call(None)),
        (TypeError, "args must be a tuple, got list", call(args=[1.0])),
        (TypeError, r"args must be a tuple.*args=\(value,\)", call(args=x0)),
        (ValueError, r"tol must be .*positive.*got 0", call(tol=0)),
        (ValueError, r"tol must be .*positive.*got -1", call(tol=-1.0)),
        (ValueError, r"tol must be .*positive.*got nan", call(tol=math.nan)),
        (ValueError, r"max_seconds must be .*positive.*got 0", call(max_seconds=0)),
        (ValueError, "hessian must be .*got 'newton'", call(hessian="newton")),
        (ValueError, "hessian must be .*got None", call(hessian=None)),
        (ValueError, "scale must be None, .*got 'auto'", call(scale="auto")),
        (ValueError, "scale must be positive", call(scale=0 * x0)),
        (ValueError, r"scale must have the structure of x0.*\(6,\).*\(5,\)", call(scale=x0[1:])),
        (TypeError, "scale must be a", call(scale=2.0)),
        (ValueError, "max_steps must be an int >= 0, got -1", call(max_steps=-1)),
        (TypeError, "max_steps must be an int >= 0, got 1.5", call(max_steps=1.5)),
        (ValueError, "bandwidth must be an int >= 0, got -1", call(bandwidth=-1)),
        (TypeError, "bandwidth must be an int >= 0, got 1.0", call(bandwidth=1.0)),
        (ValueError, "probing must be one of", call(probing="none")),
        (ValueError, "chunk_size must be an int >= 1", call(chunk_size=0)),
        (TypeError, r"fun must return a real scalar.*\(6,\)", call(lambda x: x**2)),
        (TypeError, "fun must return a scalar", call(lambda x: None)),
        (TypeError, "x0 must have a real floating dtype, got .*int64", call(x0=backend.array(np.arange(6)))),
        (TypeError, "x0 must have a real floating dtype, got .*complex", call(x0=backend.array(HERE * 1j))),
        (TypeError, "x0 must be a", call(x0=[0.0, 1.0])),
        (ValueError, "every leaf of x0 needs a leading stage axis", call(x0=backend.array(1.0))),
        (ValueError, "leaves of x0 must share a leading", call(x0=[x0, x0[:2]])),
        (TypeError, "leaves of x0 must share one dtype", call(x0=[x0, backend.array(HERE, "float32")])),
    ]
    for error, message, attempt in bad:
        with pytest.raises(error, match=message):
            attempt()
