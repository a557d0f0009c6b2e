"""Runs of newton that are killed go on from the last accepted step, and end where they would have ended."""

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from killed_newton import KilledError, kill_at, killed, path, start

import bandhess_jax as bj
from bandhess_jax.framework.checkpoint import Checkpoint


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the states whose saving begins."""
    numbers: list[int] = []
    save = Checkpoint.save

    def note(self: Any, number: int, state: Any) -> None:
        numbers.append(number)
        save(self, number, state)

    monkeypatch.setattr(Checkpoint, "save", note)
    return numbers


def run(folder: Path, height: float = 1.0, **options: Any) -> bj.NewtonResult:
    """One program for all tests."""
    x0 = options.pop("x0", start())
    return bj.newton(path, x0, 2, args=(height,), history=True, checkpoint=folder, **options)


CHANGES = "mkdir", "rename", "replace", "remove", "unlink", "rmdir"  # what changes a folder, but for files' contents


def pictures(of: Path, where: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of a folder, one before each change of it from now on: what a process leaves that is killed then."""
    taken: list[Path] = []
    lock, copying = threading.RLock(), threading.Event()

    def noted(change: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            with lock:
                if not copying.is_set():
                    copying.set()
                    taken.append(where / f"picture {len(taken)}")
                    with contextlib.suppress(shutil.Error):  # orbax' own threads move their files meanwhile
                        shutil.copytree(of, taken[-1])
                    copying.clear()
            return change(*args, **options)

        return call

    for name in CHANGES:
        patch.setattr(os, name, noted(getattr(os, name)))
    return taken


def test_killed_at_any_change_of_the_folder_it_has_a_complete_state(tmp_path: Path) -> None:
    """Before state 3 is in its place that is 2, and then 3."""
    states = {number: {"a": jnp.full(5000, float(number)), "b": jnp.arange(number)} for number in (1, 2, 3)}
    like = {"a": jnp.zeros(5000), "b": jnp.zeros(2, int)}
    kept = Checkpoint(tmp_path / "run", {"fun": "f"})
    kept.save(1, states[1])
    kept.save(2, states[2])
    with pytest.MonkeyPatch.context() as patch:
        taken = pictures(tmp_path / "run", tmp_path, patch)
        kept.save(3, states[3])
    numbers = []
    for folder in taken:
        found = Checkpoint(folder, {"fun": "f"})
        number, state = found.load(states[3] if (folder / "3").exists() else like)
        jax.tree.map(np.testing.assert_array_equal, state, states[number])
        numbers.append(number)
    assert numbers == sorted(numbers)
    assert {*numbers} == {2, 3}
    found.save(4, states[3])
    assert [each.name for each in folder.iterdir()] == ["4"], "older states are left"


@pytest.mark.parametrize("call", [1, 7])
def test_killed_it_goes_on_from_the_last_accepted_step(call: int, saves: list[int], tmp_path: Path) -> None:
    whole, numbers = run(tmp_path / "whole"), [*saves]
    assert len(saves) == whole.steps + 2  # the start; the end, which checks the band
    saves.clear()
    with pytest.raises(KilledError), kill_at(call):
        run(tmp_path / "killed")
    assert saves == numbers[: call - 1]
    result = run(tmp_path / "killed")
    assert saves == numbers
    np.testing.assert_array_equal(result.x, whole.x)
    np.testing.assert_array_equal(result.history.value, whole.history.value)
    assert (result.steps, result.status) == (whole.steps, whole.status)


def test_a_run_that_has_ended_makes_no_step(saves: list[int], tmp_path: Path) -> None:
    first, again = run(tmp_path), run(tmp_path)
    assert saves[-1] == saves[-2] + 1
    np.testing.assert_array_equal(first.x, again.x)
    assert first.status == again.status


@pytest.mark.parametrize("program", [contextlib.nullcontext, bj.portable])
def test_a_time_limit_is_an_end_to_go_on_from(program: Callable, saves: list[int], tmp_path: Path) -> None:
    """Each call makes one turn at least, in portable programs also where it is one whose step is turned down."""
    with program():
        parts = [run(tmp_path, max_seconds=1e-9) for _ in range(3)]
        assert [part.status for part in parts] == [bj.Status.TIME_LIMIT] * 3
        assert saves == [1, 2, 3, 4]
        if program is bj.portable:
            assert parts[0].steps == parts[1].steps
        whole = run(tmp_path)
        assert whole.steps > parts[-1].steps > parts[0].steps
        np.testing.assert_array_equal(whole.x, bj.newton(path, start(), 2, args=(1.0,), history=True).x)


def test_another_program_does_not_go_on(tmp_path: Path) -> None:
    """Its states are others."""
    run(tmp_path, max_seconds=1e-9)
    with bj.portable(), pytest.raises(ValueError, match="differs in kernels"):
        run(tmp_path)


def test_killed_by_a_signal() -> None:
    """Each process begins at x0, to see that the problem is the same."""
    (first, second), ends = killed(1)
    assert second[0] == 0
    assert second[1] in (first[-1], first[-1] + 1)
    assert ends == [np.asarray(bj.newton(path, start(), 2, args=(1.0,), history=True).x).tobytes()]


def test_another_problem_is_refused(tmp_path: Path) -> None:
    run(tmp_path, max_seconds=1e-9)
    for names, change in {
        "tol": {"tol": 1e-3},
        "fun at x0, x0": {"x0": start()[::-1] + 1},
        "x0": {"x0": start()[:, ::-1]},  # which fun does not see
        "fun at x0, args": {"height": 1.5},
    }.items():
        with pytest.raises(ValueError, match=rf"checkpoint must be a folder of this .* \(it differs in {names}\)"):
            run(tmp_path, **change)


def test_another_function_is_refused(tmp_path: Path) -> None:
    """Here it differs in what it reads from outside."""

    def minimise(sizes: np.ndarray) -> bj.NewtonResult:
        return bj.newton(lambda x: jnp.sum(sizes * (x - 1) ** 2), np.zeros(4), 0, checkpoint=tmp_path)

    minimise(np.ones(4))
    with pytest.raises(ValueError, match=r"\(it differs in fun at x0\)"):
        minimise(np.full(4, 1 + 1e-15))


def test_what_orbax_has_written_of_something_else_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {}).save(1, {"weights": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"checkpoint must be a folder of this .*x0, .*tol"):
        run(tmp_path)


def test_without_orbax_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'pip install "bandhess\[checkpoint\]"'):
        run(tmp_path)


def test_tracers_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint needs the host to write files"):
        jax.jit(lambda x: run(tmp_path, x0=x).x)(start())
