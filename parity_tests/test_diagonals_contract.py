"""What both packages promise of their diagonals: the entries of direct probes or None, and never an exception."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import Backend

import bandhess_jax.extraction.diagonals as jax_room
import bandhess_torch.extraction.diagonals as torch_room
from bandhess_common.diagonals import arithmetic, fallback
from bandhess_common.diagonals.fallback import UnknownError
from bandhess_jax.extraction import products as jax_extraction
from bandhess_jax.extraction.diagonals import translator as jax_translator
from bandhess_jax.framework.programs import flattened
from bandhess_torch.extraction import products as torch_extraction
from bandhess_torch.extraction.diagonals import walk as torch_walk

C = np.array([2.0, 3.0, 5.0, 7.0])


def jax_program(v: Any) -> Any:
    r = C * (v[1:] - v[:-1])
    return jnp.pad(r, (1, 0)) - jnp.pad(r, (0, 1))


def torch_program(v: Any) -> Any:
    r = torch.tensor(C) * (v[1:] - v[:-1])
    return torch.nn.functional.pad(r, (1, 0)) - torch.nn.functional.pad(r, (0, 1))


def carry_jax(rows: int, budget: int) -> Any:
    program, _ = flattened(jax_program, jax.ShapeDtypeStruct((5,), np.float64))
    return jax_room.carry(program, 5, rows, budget)  # type: ignore[arg-type]


def carry_torch(rows: int, budget: int) -> Any:
    return torch_room.carry(torch_room.Program(torch_program, torch.float64, torch.device("cpu")), 5, rows, budget)


CARRY: dict[str, Callable[[int, int], Any]] = {"jax": carry_jax, "torch": carry_torch}


def test_the_worked_picture(backend: Backend) -> None:
    picture = [[2, 5, 8, 12, 7], [-2, -3, -5, -7, 0]]
    np.testing.assert_array_equal(CARRY[backend.name](2, 100), picture)
    np.testing.assert_array_equal(CARRY[backend.name](4, 100), [*picture, [0] * 5, [0] * 5])


def test_the_parts_of_the_picture() -> None:
    program, _ = flattened(jax_program, jax.ShapeDtypeStruct((5,), np.float64))
    parts = jax_room.walk.follow(program, 100).parts  # type: ignore[arg-type]
    assert set(parts) == {(o, ((start, 4, 1),)) for o, start in ((0, 1), (-1, 1), (1, 0), (0, 0))}
    for key, sign in (
        ((0, ((1, 4, 1),)), 1),
        ((-1, ((1, 4, 1),)), -1),
        ((1, ((0, 4, 1),)), -1),
        ((0, ((0, 4, 1),)), 1),
    ):
        np.testing.assert_array_equal(parts[key].array, sign * C)


def test_none_where_the_band_or_the_budget_is_too_small(backend: Backend) -> None:
    carry = CARRY[backend.name]
    assert carry(1, 100) is None
    budgets = [carry(2, budget) is not None for budget in range(100)]
    assert budgets == sorted(budgets)  # too few, and from somewhere on enough
    assert set(budgets) == {False, True}


def break_rules(monkeypatch: pytest.MonkeyPatch, rule: Callable) -> None:
    monkeypatch.setitem(jax_translator.TRANSLATIONS, "neg", rule)
    monkeypatch.setitem(jax_translator.TRANSLATIONS, "sub", rule)
    jax_translator._signature.cache_clear()
    for func in (torch.ops.aten.sub.Tensor, torch.ops.aten.neg.default):
        broken = torch_walk.OPERATIONS[func]._replace(translate=rule)
        monkeypatch.setitem(torch_walk.OPERATIONS, func, broken)


def fail(*_: Any, **__: Any) -> Any:
    raise KeyError("a mistake in a rule")


def scalar(a: Any, *_: Any, **__: Any) -> Any:
    return arithmetic.sum_over(a, range(len(a.shape)))


@pytest.mark.parametrize(("rule", "error"), [(fail, KeyError), (scalar, TypeError)])
def test_a_mistake_in_a_rule_is_seen_in_the_tests_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rule: Callable, error: type
) -> None:
    assert fallback.strict
    break_rules(monkeypatch, rule)
    with pytest.raises(error):
        CARRY[backend.name](2, 100)
    monkeypatch.setattr(fallback, "strict", False)
    if backend.name == "jax" or rule is fail:
        assert CARRY[backend.name](2, 100) is None
    jax_translator._signature.cache_clear()


def test_what_a_tensor_without_data_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch_room.Program(lambda v: torch.as_tensor(v.numpy()), torch.float64, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="subclasses"):
        torch_room.carry(program, 5, 2, 100)
    monkeypatch.setattr(fallback, "strict", False)
    assert torch_room.carry(program, 5, 2, 100) is None


def test_a_parameter_that_a_newer_jax_adds() -> None:
    """None asks for nothing; what is asked for and not known is an unknown operation, not a TypeError."""
    v = jax_room.walk.vector(5, np.dtype(float), jax_room.walk.Coefficient(np.ones(())))
    (negative,) = jax_translator.translate("neg", [v], {"accuracy": None})
    assert [float(part.array) for part in negative.parts.values()] == [-1]
    with pytest.raises(UnknownError, match=r"neg: .*accuracy"):
        jax_translator.translate("neg", [v], {"accuracy": "lowest"})
    with pytest.raises(UnknownError, match=r"transpose: .*permutation"):
        jax_translator.translate("transpose", [v], {})


def chain(op: Any) -> Callable:
    return lambda x: op.sum(op.sin(x[1:] * x[:-1]) ** 2) + op.sum(x**4)


def test_without_the_room_nothing_but_speed_changes(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    extraction: Any = {"jax": jax_extraction, "torch": torch_extraction}[backend.name]
    if backend.name == "torch":
        monkeypatch.setattr(extraction, "LONG", 0)
    carried: list[bool] = []

    def noted(*args: Any, carry: Callable = extraction.carry) -> Any:
        ab = carry(*args)
        carried.append(ab is not None)
        return ab

    fun: Any = {"jax": chain(jnp), "torch": chain(torch)}[backend.name]
    x = np.linspace(-1.0, 2.0, 100)
    monkeypatch.setattr(extraction, "carry", noted)
    with_diagonals = backend.numpy(backend.package.hessian(lambda x: fun(x), 1)(backend.array(x)))
    monkeypatch.setattr(extraction, "carry", lambda *_: None)
    with_probes = backend.numpy(backend.package.hessian(lambda x: fun(x), 1)(backend.array(x)))
    assert carried == [True]
    np.testing.assert_allclose(with_diagonals, with_probes, rtol=1e-14, atol=1e-14)
