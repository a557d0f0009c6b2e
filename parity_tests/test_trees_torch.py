"""Trees as users build them, and what the errors about an objective advise: only what the caller can do (PyTorch)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bandhess_torch as bh

X = torch.linspace(0.3, 2, 8, dtype=torch.float64)


def cost(x: Tensor) -> Tensor:
    return ((x[1:] - x[:-1]) ** 2).sum() + (x**4).sum()


def nested(x: Any, depth: int) -> Any:
    for _ in range(depth):
        x = [x]
    return x


def inner(x: Any) -> Tensor:
    while isinstance(x, list):
        (x,) = x
    return x


def test_none_is_no_leaf() -> None:
    """It stays where it is, in every tree that comes back."""
    tree = {"q": X, "none": None, "u": [None, X[:-1]]}
    flat, unravel = bh.ravel_stages(tree)
    back = unravel(flat)
    assert back["none"] is None
    assert back["u"][0] is None
    assert torch.equal(back["q"], X)
    assert torch.equal(back["u"][1], X[:-1])

    def fun(z: dict) -> Tensor:
        return cost(z["q"]) + (z["u"][1] ** 2).sum()

    assert torch.equal(bh.hessian(fun, 1)(tree), bh.hessian(fun, 1)({"q": X, "u": [None, X[:-1]]}))
    for result in (
        bh.newton(fun, tree, 1, scale={"q": X, "none": None, "u": [None, X[:-1]]}),
        bh.sqp(fun, None, tree, 1, bounds=({"q": 0.1, "none": None, "u": [None, None]}, None)),
    ):
        assert result.status == bh.Status.CONVERGED
        assert result.x["none"] is None
        assert result.x["u"][1].abs().max() < 1e-6


def test_another_structure_is_told_apart() -> None:
    with pytest.raises(ValueError, match="scale must have the structure of x0"):
        bh.newton(lambda z: cost(z[0]), [X, None], 1, scale=[None, X])


@pytest.mark.parametrize("depth", [0, 50, 100])
def test_deep_trees(depth: int) -> None:
    result = bh.newton(lambda x: cost(inner(x)), nested(X, depth), 1)
    assert torch.equal(inner(result.x), bh.newton(cost, X, 1).x)


def refusals() -> list[tuple[type[Exception], str, Callable[[], Any]]]:
    scalar, pair = {"q": X, "tf": X[0]}, (lambda x: (cost(x), x))
    dense, dense_text = torch.linspace(0, 1, 100), r"; detect_bandwidth\(fun, max_bandwidth=99\)"
    return [
        (ValueError, "more than 100 deep; flatten", lambda: bh.ravel_stages(nested(X, 400))),
        (TypeError, r"keys of a dictionary must be comparable.*\['a', 1\]", lambda: bh.ravel_stages({"a": X, 1: X})),
        (ValueError, "is marked by None in stage_axes", lambda: bh.newton(lambda z: cost(z["q"]), scalar, 1)),
        (ValueError, r"a single one alone takes the shape \(1,\)", lambda: bh.hessian(lambda x: x**2, 0)(X[0])),
        (TypeError, "got tuple; return the value alone", lambda: bh.newton(pair, X, 1)),
        (TypeError, "got tuple; return the value alone", lambda: bh.sqp(pair, None, X, 1)),
        (TypeError, "got tuple; return the value alone", lambda: bh.detect_bandwidth(pair)(X)),
        (TypeError, "got tuple; has_aux=True for a pair", lambda: bh.hessian(pair, 1)(X)),
        (
            ValueError,
            dense_text,
            lambda: bh.newton(lambda x: x.sum() ** 2, dense, None),
        ),
        (
            ValueError,
            dense_text,
            lambda: bh.sqp(lambda x: x.sum() ** 2, None, dense, None),
        ),
        (
            ValueError,
            dense_text,
            lambda: bh.detect_bandwidth(lambda x: x.sum() ** 2)(dense),
        ),
    ]


@pytest.mark.parametrize("which", range(len(refusals())))
def test_what_an_error_advises_exists(which: int) -> None:
    error, text, call = refusals()[which]
    with pytest.raises(error, match=text):
        call()


def test_its_advice_works() -> None:
    assert bh.hessian(lambda x: (x**2).sum(), 0)(X[:1]).tolist() == [[2.0]]
    z, axes = {"q": X, "tf": X[0]}, {"q": 0, "tf": None}
    end = bh.newton(lambda z: cost(z["q"]) + z["tf"] ** 2, z, 1, stage_axes=axes)
    assert end.status == bh.Status.CONVERGED
    assert end.x["tf"].shape == ()


def test_a_constant_objective() -> None:
    """As in JAX, a Python float will do."""
    result = bh.newton(lambda x: 0.5, X, 1)
    assert (result.status, result.steps, float(result.value)) == (bh.Status.CONVERGED, 0, 0.5)
    assert torch.equal(result.x, X)
    assert not bh.hessian(lambda x: 0.5, 1)(X).any()
    assert not torch.func.vmap(bh.hessian(lambda x: 0.5, 1))(torch.stack([X, X])).any()
