"""Pictures show the entries, axes go in and come out, and the text needs no matplotlib."""

import io
import sys
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from backends import Backend
from matplotlib import pyplot as plt

import bandhess_common.progress as progress_module
from bandhess_common.progress import ProgressTable
from bandhess_common.status import History, StepInfo

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    plt.close("all")


def structures(backend: Backend) -> list[Any]:
    """A plain band, a closed one, one with a border; every entry but two of its own value, and these 0."""
    package = backend.package
    ab = np.arange(1.0, 22.0).reshape(3, 7)
    ab[1, 2] = ab[2, 1] = 0
    ab = backend.array(ab)
    closed = package.Cyclic(ab)
    corner = backend.array([[5.0, 0.0], [0.0, 7.0]])
    return [ab, closed, package.Bordered(closed, backend.array(np.arange(14.0).reshape(2, 7)), corner)]


def test_spy_shows_what_is_not_0(backend: Backend) -> None:
    for H in structures(backend):
        ax = backend.package.plot.spy(H)
        columns, rows = ax.lines[0].get_data()
        found = {(int(i), int(j)) for i, j in zip(rows, columns, strict=True)}
        dense = backend.numpy(backend.package.to_dense(H))
        assert found == {(int(i), int(j)) for i, j in zip(*np.nonzero(dense), strict=True)}
        assert ax.get_title() == f"n = {len(dense)}, {np.count_nonzero(dense)} entries"


def test_spy_in_a_terminal(backend: Backend) -> None:
    spy = backend.package.plot.spy_text
    assert spy(backend.array(np.ones((2, 6)))).splitlines() == ["██▄", " ▀██▄", "   ▀██"]
    assert spy(backend.array(np.ones((1, 3)))).splitlines() == ["▀▄", "  ▀"]
    wide = spy(backend.array(np.ones((2, 1000))), width=20).splitlines()
    assert (len(wide), max(map(len, wide))) == (10, 20)
    assert spy(backend.array(np.ones((2, 0)))) == ""


def result(backend: Backend, history: bool = True) -> Any:
    way = History(*(backend.array(rows) for rows in np.array([[3.0, 2.0, 1.0, np.nan]] * 6))) if history else None
    return SimpleNamespace(history=way)


def test_axes_go_in_and_out(backend: Backend) -> None:
    plot, ax = backend.package.plot, plt.figure().add_subplot()
    lines = plot.convergence(result(backend), ax=ax, color="red").lines
    assert [line.get_label() for line in lines] == ["f - last f", "max|gradient|"]
    np.testing.assert_array_equal(lines[0].get_ydata(), [2, 1, np.nan])
    assert {line.get_color() for line in lines} == {"red"}
    tree = {"q": backend.array(np.zeros((4, 2))), "u": (backend.array(np.ones(3)), backend.array(2.0))}
    assert plot.trajectory(tree, ax=ax) is ax
    assert [line.get_label() for line in ax.lines[2:5]] == ["q[0]", "q[1]", "u[0]"]
    ax = plt.figure().add_subplot()
    assert plot.band(structures(backend)[0], ax=ax) is plot.spy(structures(backend)[0], ax=ax) is ax
    shown = ax.images[0].get_array()
    assert shown.mask.sum() == 3 + 2  # unused cells, and zeros
    np.testing.assert_allclose(shown[0], np.log10(np.arange(1, 8)))
    with pytest.raises(ValueError, match="history=True"):
        plot.convergence(result(backend, history=False))
    with pytest.raises(ValueError, match="lower band storage"):
        plot.spy(backend.array(np.ones(3)))


def test_without_matplotlib(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"bandhess\[plot\]"):
        backend.package.plot.spy(structures(backend)[0])
    assert backend.package.plot.spy_text(structures(backend)[0])


def test_progress_in_colour_where_rich_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Plain text to a file; in a terminal through rich's console, if there is one."""
    steps = [StepInfo(0, 2.0, 1.0, 0.0, 1.0), StepInfo(1, 1.0, 0.5, 0.0, 1.0), StepInfo(2, 0.5, 0.7, 0.0, 1.0)]
    list(map(ProgressTable(), steps))
    plain = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in plain] == ["step", "0", "1", "2"]
    said: list[tuple[str, str]] = []

    class Console:
        def __init__(self, **_: Any) -> None:
            pass

        def print(self, text: str, style: str) -> None:
            said.append((text, style))

    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(progress_module.sys, "stdout", terminal)
    monkeypatch.setitem(sys.modules, "rich", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "rich.console", SimpleNamespace(Console=Console))
    list(map(ProgressTable(), steps))
    assert [style for _, style in said] == ["bold", "green", "green", "yellow"]
    assert [text.split()[:3] for text, _ in said] == [line.split()[:3] for line in plain]
    monkeypatch.setitem(sys.modules, "rich.console", None)
    list(map(ProgressTable(), steps))
    assert len(terminal.getvalue().splitlines()) == 4
