"""Bands split over 8 virtual devices: equal to one device, stable, and nothing gathered that grows with n."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from matrices import EPS, positive_band, rhs
from sharded_worker import CASES

import bandhess_jax as bh

WORKER = Path(__file__).with_name("sharded_worker.py")
pytestmark = pytest.mark.cpu_only("virtual devices are CPUs")


@pytest.fixture(scope="module")
def facts() -> dict:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags}
    command = [sys.executable, str(WORKER), "virtual"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["solve", "factor", "logdet", "inverse", "matvec"])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_one_device(facts: dict, case: str, what: str) -> None:
    assert facts["cases"][case][what] <= 100 * EPS
    assert facts["cases"][case]["ok"] is True
    assert facts["cases"][case]["info"] == 0


def test_a_device_has_its_part_of_x(facts: dict) -> None:
    """Where 8 devices divide n; JAX splits no other array."""
    assert {case: facts["cases"][case]["shard"] for case in CASES} == {
        "even": 8,
        "uneven": 61,
        "diagonal": 8,
        "few": 13,
    }


def test_mesh_of_explicit_axes(facts: dict) -> None:
    """`jax.make_mesh` makes such."""
    assert max(facts["explicit"][what] for what in ("solve", "factor", "logdet", "inverse", "matvec")) <= 100 * EPS


@pytest.mark.parametrize("what", ["logdet", "inverse"])
def test_from_a_cholesky_factor(facts: dict, what: str) -> None:
    assert facts["from_cholesky"][what] <= 100 * EPS


def test_backward_error_is_lapacks(facts: dict) -> None:
    errors = facts["backward_errors"]
    assert errors["condition"] > 1e12
    assert 0 < errors["ours"] <= 10 * errors["lapack"]


@pytest.mark.parametrize(
    "where",
    [
        "interior",
        "separator",
        "joint",
        "joint and interior",
        "NaN in an interior",
        "NaN in a coupling",
        "infinite",
        "diagonal",
    ],
)
def test_failure_on_one_device_is_seen_by_all(facts: dict, where: str) -> None:
    found = facts["failures"][where]
    assert found["ok"] is False
    assert found["nan"] == [True, True, True]
    assert found["info"][0] == found["info"][1] > 0


@pytest.mark.parametrize("what", ["ab", "b", "along", "vmap"])
def test_derivatives_and_batches(facts: dict, what: str) -> None:
    assert facts["derivatives"][what] <= 1000 * EPS


def test_refined(facts: dict) -> None:
    """Corrected to float64's accuracy, from a factor in float32."""
    assert facts["refined"] <= 100 * EPS


def test_border_of_a_sharded_band(facts: dict) -> None:
    assert facts["structures"]["bordered"] <= 100 * EPS
    assert facts["structures"]["info"] == [0, CASES["even"][0] + 1]


def sent(program: list, *names: str) -> list:
    return [size for name, size in program if name in names]


@pytest.mark.parametrize("what", ["solve", "refined", "gradient", "inverse", "matvec", "wide matvec"])
def test_collectives_do_not_grow(facts: dict, what: str) -> None:
    """8 devices, w = 2: at most 3 w^2 numbers of each are gathered at once."""
    small, large = facts["programs"][what]
    assert small == large
    assert large
    assert sent(large, "all-to-all") == []
    assert max(sent(large, "all-gather"), default=0) <= 8 * 3 * 2**2
    assert max(sent(large, "collective-permute", "all-reduce", "reduce-scatter")) <= 60  # w (w + 1); 3 w of w = 20


@pytest.mark.parametrize("what", ["matvec", "wide matvec"])
def test_products_are_not_gathered(facts: dict, what: str) -> None:
    assert {name for name, _ in facts["programs"][what][0]} == {"collective-permute"}


def stages() -> NamedSharding:
    return NamedSharding(Mesh(jax.devices("cpu")[:1], ("stages",)), PartitionSpec("stages"))


def test_one_device() -> None:
    ab, b = positive_band(8, 3), rhs(8, None)
    np.testing.assert_array_equal(bh.solve(ab, b, sharding=stages()), bh.factor(ab).solve(b))
    assert bh.solve(ab[:, :0], b[:0], sharding=stages()).shape == (0,)


@pytest.mark.parametrize(
    ("sharding", "error", "message"),
    [
        (PartitionSpec("stages"), TypeError, "sharding must be a jax.sharding.NamedSharding over a Mesh"),
        (NamedSharding(stages().mesh, PartitionSpec()), ValueError, "sharding must name the one mesh axis"),
        (NamedSharding(stages().mesh, PartitionSpec(None, None)), ValueError, r"got .*\(None, None\)"),
    ],
)
@pytest.mark.parametrize("function", [bh.factor, bh.logdet, lambda ab, **given: bh.matvec(ab, rhs(8, None), **given)])
def test_sharding_is_checked(function: Any, sharding: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        function(positive_band(8, 3), sharding=sharding)
