"""Rows whose windows begin elsewhere: what was seen at the second point comes into the windows of the start."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from interior_quadratics import BACKENDS, backends

from bandhess_common.interior_point.products import moved


@backends
@pytest.mark.parametrize("shared", [0, 2])
def test_moved(name: str, shared: int) -> None:
    """As the definition has it, in a matrix with room on both sides."""
    to = BACKENDS[name].array
    r, L, room = 7, 3, 6
    rows = 1.0 + np.arange(r * (L + shared)).reshape(r, -1)
    by = np.arange(r, dtype=np.int32) - 3
    whole = np.zeros((r, L + 2 * room))
    whole[:, room : room + L] = rows[:, :L]
    expected = np.array([a[room + b : room + b + L] for a, b in zip(whole, by, strict=True)])
    kit = SimpleNamespace(ops=BACKENDS[name].ops, shared=shared, p=SimpleNamespace(free=to(np.ones(4))))
    found = np.asarray(moved(kit, to(rows), to(by)))
    np.testing.assert_array_equal(found[:, :L], expected)
    np.testing.assert_array_equal(found[:, L:], rows[:, L:])
