"""Runs of newton that are killed go on from the last accepted step, and end where they would have ended."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from killed_newton import killed, path, start

import bandhess_jax as bj
from bandhess_jax.framework import checkpoint


class KilledError(Exception):
    """In the place of a signal."""


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the states whose saving begins."""
    numbers: list[int] = []
    save = checkpoint.Checkpoint.save

    def note(self: Any, number: int, state: Any) -> None:
        numbers.append(number)
        save(self, number, state)

    monkeypatch.setattr(checkpoint.Checkpoint, "save", note)
    return numbers


def failing(function: Callable, call: int) -> Callable:
    """The function, killed at its call of this number, 1 first."""
    calls = iter(range(1, call))

    def fail(*args: Any) -> Any:
        if next(calls, None) is None:
            raise KilledError
        return function(*args)

    return fail


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_killed_at_any_file_it_loses_the_step_in_flight(
    name: str, saves: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files a state: its part, and which is the latest."""

    def run(folder: str) -> bj.NewtonResult:
        return bj.newton(path, start(), 2, checkpoint=tmp_path / folder, history=True)

    whole, numbers = run("whole"), [0, *saves]
    assert len(saves) == whole.steps + 2  # the start; the end, which checks the band
    for call in range(1, 2 * len(numbers) - 1):
        saves.clear()
        folder = tmp_path / str(call)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(getattr(os, name), call))
            with pytest.raises(KilledError):
                run(folder.name)
        complete, tried = (call - 1) // 2, len(saves)
        assert saves == numbers[1 : complete + 2]
        result = run(folder.name)
        assert saves[tried] == numbers[complete] + 1
        assert saves[-1] == numbers[-1]
        np.testing.assert_array_equal(result.x, whole.x)
        np.testing.assert_array_equal(result.history.value, whole.history.value)
        assert (result.steps, result.status) == (whole.steps, whole.status)
        assert len(list(folder.iterdir())) == 2, "older states are left"


def test_a_run_that_has_ended_makes_no_step(saves: list[int], tmp_path: Path) -> None:
    first, again = (bj.newton(path, start(), 2, checkpoint=tmp_path) for _ in range(2))
    assert saves[-1] > saves[-2]
    assert saves.count(saves[-1]) == 1
    np.testing.assert_array_equal(first.x, again.x)
    assert first.status == again.status


def test_a_time_limit_is_an_end_to_go_on_from(tmp_path: Path) -> None:
    part = bj.newton(path, start(), 2, checkpoint=tmp_path, max_seconds=1e-9)
    assert part.status == bj.Status.TIME_LIMIT
    whole = bj.newton(path, start(), 2, checkpoint=tmp_path)
    assert part.steps < whole.steps
    np.testing.assert_array_equal(whole.x, bj.newton(path, start(), 2).x)


def test_killed_by_a_signal() -> None:
    (first, second), ends = killed(1)
    assert second[0] in (first[-1], first[-1] + 1)
    assert ends == [np.asarray(bj.newton(path, start(), 2).x).tobytes()]


def test_another_problem_is_refused(tmp_path: Path) -> None:
    bj.newton(path, start(), 2, checkpoint=tmp_path)
    for options in ({"tol": 1e-3}, {"history": True}):
        with pytest.raises(ValueError, match="checkpoint must be a folder of this very problem"):
            bj.newton(path, start(), 2, checkpoint=tmp_path, **options)
    with pytest.raises(ValueError, match="checkpoint must be a folder of this very problem"):
        bj.newton(path, start(100), 2, checkpoint=tmp_path)


def test_tracers_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint needs the host to write files"):
        jax.jit(lambda x: bj.newton(path, x, 2, checkpoint=tmp_path).x)(start())
