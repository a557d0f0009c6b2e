"""Newton with its stages on eight devices: the same steps as on one, and what the program sends does not grow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import Collective
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sharded_newton import DEVICES, ROWS, D, T
from sharded_process import run

import bandhess_jax as bj
from bandhess_jax import Status


@pytest.fixture(scope="module")
def measured() -> dict:
    return run("sharded_newton.py", DEVICES)


@pytest.mark.parametrize("name", ["even", "uneven", "few"])
def test_devices_make_the_steps_of_one(measured: dict, name: str) -> None:
    """Sums in another order differ by roundings, and the end by what the tolerance leaves."""
    case = measured[name]
    assert case["status"] in ([Status.CONVERGED] * 2, [Status.PRECISION_FLOOR] * 2)
    assert case["steps"][0] == case["steps"][1] > 3
    assert case["value"] <= 1e-11
    assert case["x"] <= 1e-6


def test_the_way_is_the_same(measured: dict) -> None:
    """Also by a run that was killed before its fifth state was saved; the fourth, of turn 4 at the least, it had."""
    assert measured["uneven"]["history"] <= 1e-9
    assert len(measured["uneven"]["written"]) == 1
    assert measured["uneven"]["written"][0] >= 4


def test_the_gradient_is_that_of_one_device(measured: dict) -> None:
    assert measured["even"]["gradient"] <= 1e-9


def test_the_program_gathers_separators_alone(measured: dict) -> None:
    """Three blocks of w x w from each device; what neighbours send has so many columns at most."""
    sent = [Collective(*each) for each in measured["even"]["sent"]]
    kinds = {kind: [each.numbers for each in sent if each.kind == kind] for kind in {each.kind for each in sent}}
    assert kinds.keys() == {"all-gather", "all-reduce", "collective-permute"}
    w = ROWS - 1
    assert max(kinds["all-gather"]) <= 3 * w * w * DEVICES < T * D
    assert max(kinds["all-reduce"]) <= 64
    assert max(kinds["collective-permute"]) <= 5 * ROWS * D


def test_the_minimiser_is_split_as_the_start(measured: dict) -> None:
    assert measured["even"]["parts"] == [[T // DEVICES, D]] * DEVICES


def test_nan_on_one_device_is_seen_by_all(measured: dict) -> None:
    assert measured["even"]["failed"] == [Status.NONFINITE] * 2


def one_device() -> NamedSharding:
    return NamedSharding(Mesh(jax.devices()[:1], ("stages",)), PartitionSpec("stages"))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (lambda: {"sharding": "stages"}, TypeError, r"sharding must be a jax.sharding.NamedSharding .* got 'stages'"),
        (
            lambda: {"sharding": NamedSharding(one_device().mesh, PartitionSpec())},
            ValueError,
            "sharding must name the one mesh axis",
        ),
        (lambda: {"sharding": one_device(), "max_seconds": 1}, ValueError, "max_seconds must be None with sharding"),
    ],
)
def test_wrong_arguments_raise(options: Callable[[], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        bj.newton(lambda x: jnp.sum(x**2), np.ones(4), 0, **options())
