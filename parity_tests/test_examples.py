"""Every public name has an example in its docstring, which runs and shows what it says. Those of the packages begin
with `from bandhess_jax import *` and `import jax.numpy as jnp`, those of submodules import what they need."""

import doctest
import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest
import torch

FRAMEWORK = {"bandhess_jax": {"jnp": jnp}, "bandhess_torch": {"torch": torch}}
SUBMODULES = {
    "bandhess_jax": ["plot", "scipy", "lineax", "optimistix", "optax", "ipopt"],
    "bandhess_torch": ["plot", "scipy", "optim"],
}
MODULES = [name for package, rest in SUBMODULES.items() for name in [package, *(f"{package}.{each}" for each in rest)]]
DOUBLE = {"bandhess_jax.ipopt"}  # which takes float64 alone, and says so; elsewhere JAX' default is what users have
OURS = [
    (module, name)
    for module in MODULES
    for name in importlib.import_module(module).__all__
    if getattr(importlib.import_module(module), name).__module__.startswith("bandhess")
]


def example(text: str, names: dict[str, Any], name: str) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(text, names, name, None, None)


def said(test: doctest.DocTest) -> tuple[int, str]:
    """How many examples failed, and how."""
    out: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=out.append)
    return runner.failures, "".join(out)


@pytest.mark.parametrize(("module", "name"), OURS)
def test_examples(module: str, name: str) -> None:
    package = importlib.import_module(module)
    names = {each: getattr(package, each) for each in package.__all__} | FRAMEWORK[module] if "." not in module else {}
    test = example(inspect.cleandoc(getattr(package, name).__doc__), names, name)
    assert test.examples, f"{module}.{name} has no example"
    assert any(each.want for each in test.examples)
    with jax.enable_x64(module in DOUBLE):
        failures, text = said(test)
    plt.close("all")
    assert failures == 0, text


def test_what_fails_is_seen() -> None:
    assert said(example(">>> 1 + 1\n3", {}, "wrong"))[0] == 1
    assert said(example(">>> 1 / 0", {}, "raises"))[0] == 1


def test_every_module_is_looked_at() -> None:
    """What has an `__all__`, and stands at the top of a package, is for users."""
    assert {module for module, _ in OURS} == {*MODULES}
    for package, listed in SUBMODULES.items():
        root = importlib.import_module(package).__path__[0]
        files = importlib.import_module("pkgutil").iter_modules([root])
        public = {
            f.name
            for f in files
            if f.name != "__main__" and hasattr(importlib.import_module(f"{package}.{f.name}"), "__all__")
        }
        assert public == {*listed}
