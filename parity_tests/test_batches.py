"""Batches, dtypes, devices and memory: what every extraction promises whatever the function."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.utils._pytree as torch_tree
from backends import BACKENDS, Backend
from chains import rosenbrock, window
from oracles import integers, reals
from torch.utils._python_dispatch import TorchDispatchMode

PROBINGS = ["direct", "substitution", "fourier", "random"]
B, T = 3, 5


def chain(xp: Any) -> Callable:
    """Over a ragged tree, with a further argument: bandwidth 1."""

    def fun(x: Any, a: Any) -> Any:
        q, u = x["q"], x["u"]
        return a * xp.sum((q[1:] - q[:-1]) ** 4) + a**2 * xp.sum(u**3 * q[:-1, 0])

    return fun


Q, U, A = integers(B * T * 2, 0).reshape(B, T, 2), integers(B * (T - 1), 1).reshape(B, T - 1), np.array([1.0, 2, 5])
AXES = {"x": (0, None), "the argument": (None, 0), "both": (0, 0), "one leaf": ({"q": 0, "u": None}, None)}


@pytest.mark.parametrize("over", AXES)
def test_vmap(backend: Backend, over: str) -> None:
    """value_grad_hessian over x, over an argument, over both, over a leaf: inside and outside jit, as one by one."""
    x_axis, a_axis = AXES[over]
    q_axis, u_axis = (x_axis["q"], x_axis["u"]) if isinstance(x_axis, dict) else (x_axis, x_axis)
    call = backend.package.value_grad_hessian(chain(backend.xp), 1)

    def lane(array: np.ndarray, axis: int | None, i: int) -> Any:
        return backend.array(array[0 if axis is None else i])

    def batch(array: np.ndarray, axis: int | None) -> Any:
        return backend.array(array[0] if axis is None else array)

    single = [call({"q": lane(Q, q_axis, i), "u": lane(U, u_axis, i)}, lane(A, a_axis, i)) for i in range(B)]
    stacked = [np.stack(leaves) for leaves in zip(*map(backend.leaves, single), strict=True)]
    batched = ({"q": batch(Q, q_axis), "u": batch(U, u_axis)}, batch(A, a_axis))
    outside, inside = backend.jit(backend.vmap(call, AXES[over])), backend.vmap(backend.jit(call), AXES[over])
    for way in (outside, inside):
        for got, expected in zip(backend.leaves(way(*batched)), stacked, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("probing", PROBINGS[1:])
def test_vmap_with_every_probing(backend: Backend, probing: str) -> None:
    x = integers(B * 8, 2).reshape(B, 8)
    call = backend.package.hessian(rosenbrock(backend.xp), 1, probing=probing)
    expected = np.stack(
        [backend.numpy(backend.package.hessian(rosenbrock(backend.xp), 1)(backend.array(v))) for v in x]
    )
    atol = 0 if probing == "substitution" else 64 * np.finfo(float).eps * np.abs(expected).max()
    np.testing.assert_allclose(backend.vmap(call)(backend.array(x)), expected, rtol=0, atol=atol)


def test_vmap_over_operators(backend: Backend) -> None:
    a = backend.array(integers(B * 4, 3).reshape(B, 4))
    bands = backend.vmap(lambda a: backend.package.from_matvec(lambda v: a * v, a, 1))(a)
    np.testing.assert_array_equal(bands, np.stack([backend.numpy(a), np.zeros((B, 4))], 1))


# --- Dtypes ----------------------------------------------------------------------------------------------------------


def wide_values(jaxpr: Any) -> Iterator[str]:
    """Every float64 or complex128 value that a program forms, inner programs included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if str(getattr(variable.aval, "dtype", "")) in ("float64", "complex128"):
                yield f"{equation.primitive} {variable.aval}"
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from wide_values(inner)


class WideTensors(TorchDispatchMode):
    """Records the operations that return float64 or complex128."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in torch_tree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float64, torch.complex128):
                self.found.append(str(func))
        return out


def extractions(backend: Backend) -> dict[str, Callable]:
    """Every public way to a band, as a function of an array (T,)."""
    p, xp = backend.package, backend.xp
    fun, tree = rosenbrock(xp), chain(xp)
    ways = {probing: p.hessian(fun, 1, probing=probing) for probing in PROBINGS}
    ways["ragged tree"] = lambda x: p.hessian(tree, 1)({"q": x[:, None] * x[0], "u": x[1:]}, x[1])
    ways["noise"] = p.hessian(fun, 1, probing=p.Random(return_noise=True))
    ways["value_grad_hessian"] = p.value_grad_hessian(fun, 1)
    ways["gauss_newton"] = p.gauss_newton(lambda x: x[1:] - x[:-1], 1)
    ways["from_matvec"] = lambda x: p.from_matvec(lambda v: 2 * v, x, 1)
    ways["band_error"] = lambda x: p.band_error(fun)(p.hessian(fun, 1)(x), x)
    return ways


def test_nothing_is_silently_double(backend: Backend) -> None:
    """From a float32 argument: no float64 anywhere on the way, not only at the end, though x64 is enabled."""
    x = backend.array(reals(T, 0), "float32")

    def found(way: Callable) -> list[str]:
        if backend.name == "jax":
            return list(wide_values(jax.make_jaxpr(way)(x).jaxpr))
        with WideTensors() as mode:
            way(x)
        return mode.found

    for name, way in extractions(backend).items():
        assert not found(way), name
    assert found(lambda x: 2 * backend.array(reals(T, 0))), "this test could not fail"


# --- Devices ---------------------------------------------------------------------------------------------------------

ON_ANOTHER_DEVICE = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from backends import BACKENDS
from test_batches import T, extractions
backend = BACKENDS["jax"]
device = jax.devices()[1]
x = jax.device_put(np.linspace(0, 1, T, dtype="float32"), device)
weight = jax.device_put(np.ones(T, "float32"), device)
ways = extractions(backend)
ways["closure"] = lambda x: backend.package.from_matvec(lambda v: weight * v, x, 0)
ways["newton"] = lambda x: backend.package.newton(lambda x: ((x - 1) ** 2).sum(), x, None)[:3]
for name, way in ways.items():
    for leaf in jax.tree.leaves(way(x)):
        assert leaf.devices() == {device}, (name, leaf.devices())
print(len(ways), "ways")
"""


def test_jax_computes_where_the_argument_lives() -> None:
    """In a process of its own, as the number of devices is fixed when JAX starts."""
    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_DEVICE], cwd=__file__.rsplit("/", 1)[0], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(extractions(BACKENDS['jax'])) + 2} ways\n"


def test_torch_computes_where_the_argument_lives() -> None:
    """With a default device on which nothing can be computed: whatever is made without a device shows."""
    backend = BACKENDS["torch"]
    p, x = backend.package, backend.array(np.linspace(0, 1, T))
    ways = extractions(backend)
    ways["newton"] = lambda x: p.newton(lambda x: ((x - 1) ** 2).sum(), x, None)[:3]
    ways["detect_bandwidth"] = lambda x: x * p.detect_bandwidth(rosenbrock(torch))(x)
    ways["reorder_bandwidth"] = lambda x: x * p.reorder_bandwidth(rosenbrock(torch))(x)[1]
    for name, way in ways.items():
        expected = way(x)
        with torch.device("meta"):
            out = way(x)
            assert torch.zeros(1).is_meta, "this test could not fail"
        for got, want in zip(backend.leaves(out), backend.leaves(expected), strict=True):
            assert got.device == x.device, name
            np.testing.assert_array_equal(got, want)


# --- Memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probing", ["direct", "substitution", "fourier", "random"])
@pytest.mark.parametrize(("n", "w"), [(400, 2), (1600, 2), (400, 8)])
def test_no_array_outgrows_the_products(backend: Backend, probing: str, n: int, w: int) -> None:
    """One probe at a time: the largest array holds what is kept of the products, of which there are some multiple of
    w + 1; nothing grows faster than n (w + 1)."""
    chosen = backend.package.Random(stages_at_once=8) if probing == "random" else probing
    hessian = backend.package.hessian(window(w)(backend.xp), w, probing=chosen, chunk_size=1)
    largest = backend.largest_array(hessian, backend.array(reals(n, 0), "float32"))
    products = {"direct": 2 * w + 1, "substitution": 2 * w + 2, "fourier": 2 * w + 1, "random": 4 * w + 2}
    assert (w + 1) * n <= largest <= products[probing] * (n + 4 * w + 2)
