"""What a type checker knows of public names: fields of results are typed, and strings are `Literal`s, all of which are
taken."""

import inspect
import typing
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import jax
import pytest
import torch
from backends import Backend

import bandhess_jax
import bandhess_torch
from bandhess_common.options import ChunkSize, Driver, HessianKind, ProbingName, Select

RESULTS = ("NewtonResult", "RootResult", "SQPResult")
TREES = {"x", "multipliers", "inequality_multipliers"}  # in structures of the user's
ARRAYS = {"jax": jax.Array, "torch": torch.Tensor}
MODULES = [bandhess_jax, bandhess_jax.scipy, bandhess_torch, bandhess_torch.scipy]


def parts(hint: Any) -> set:
    """The types of a union, those of its generics' arguments among them."""
    return {hint} | {each for part in get_args(hint) if get_origin(hint) is not Literal for each in parts(part)}


def literals(hint: Any) -> set:
    return {value for part in parts(hint) if get_origin(part) is Literal for value in get_args(part)}


@pytest.mark.parametrize("name", RESULTS)
def test_fields_of_results(backend: Backend, name: str) -> None:
    hints = typing.get_type_hints(getattr(backend.package, name))
    for field, hint in hints.items():
        if field not in TREES | {"message", "bound_multipliers"}:
            assert Any not in parts(hint), field
            assert ARRAYS[backend.name] in parts(hint), field
    assert backend.package.Status in parts(hints["status"])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_strings_are_literals(module: ModuleType) -> None:
    seen = 0
    for name in module.__all__:
        function = getattr(module, name)
        if not inspect.isfunction(function):
            continue
        for each in inspect.signature(function, eval_str=False).parameters.values():
            if isinstance(each.default, str):
                hint = typing.get_type_hints(inspect.unwrap(function))[each.name]
                assert each.default in literals(hint), (name, each.name)
                assert str not in parts(hint), (name, each.name)
                seen += 1
    assert seen >= 6


def test_literals_are_taken(backend: Backend) -> None:
    """And what is no literal is not."""
    package, x = backend.package, backend.array([1.0, 2.0])
    square, ab = (lambda x: (x**2).sum()), backend.array([[2.0, 3.0]])
    for probing in get_args(ProbingName):
        assert backend.numpy(package.hessian(square, 0, probing=probing)(x)).shape == (1, 2)
    assert literals(ChunkSize) == {"auto"}
    for kind in get_args(HessianKind):
        package.newton(square if kind == "exact" else (lambda x: x), x, 0, hessian=kind, max_steps=0)
    with pytest.raises(ValueError, match="hessian must be"):
        package.newton(square, x, 0, hessian="newton")
    for select in get_args(Select):
        bounds = (0, 0) if select in ("i", "index", 2) else (2.5, 4.0)
        w = package.scipy.eigvals_banded(ab, lower=True, select=select, select_range=bounds)
        assert len(w) == (2 if select in ("a", "all", 0) else 1)
    for driver in get_args(Driver):
        some = {} if driver in ("auto", "stev", "stevd", "sterf", "stemr") else {"select": "i", "select_range": (0, 0)}
        package.scipy.eigvalsh_tridiagonal(x, x[:1], lapack_driver=driver, **some)
    with pytest.raises(ValueError, match="lapack_driver"):
        package.scipy.eigvalsh_tridiagonal(x, x[:1], lapack_driver="steqr")
