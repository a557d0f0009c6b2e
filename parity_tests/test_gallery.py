"""Every script of the gallery runs in its quick mode, prints, and leaves its picture; the site shows each of them.

`make docs` runs all of them, the suite itself FEW (test_docs.py explains the mark `site`).
"""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "examples").glob("*.py") if "from gallery import" in path.read_text())
FEW = {"rocket", "whittaker", "spline_layer"}  # sqp, a solve with its variances, PyTorch
PICTURES = ROOT / "docs" / "images" / "gallery"


@pytest.fixture(autouse=True)
def as_from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside a script is found by it; names that the tests have as well are put back afterwards."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    for name in ("gallery", "problems"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)


def test_there_are_scripts_for_both_packages() -> None:
    text = "\n".join(script.read_text() for script in SCRIPTS)
    assert "import bandhess_jax" in text
    assert "import bandhess_torch" in text


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in FEW else pytest.mark.site) for path in SCRIPTS],
)
@pytest.mark.promotes("scripts are for readers who have set nothing")
def test_script_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", [script.name, "--quick", "--out", str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    (picture,) = tmp_path.iterdir()
    assert picture.stem == script.stem
    assert picture.stat().st_size > 1000
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first
    assert last == f"Picture: {picture}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_site_shows_it(script: Path) -> None:
    (picture,) = PICTURES.glob(f"{script.stem}.*")
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert f"images/gallery/{picture.name}" in page
    assert f"examples/{script.name}" in page
