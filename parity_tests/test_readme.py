"""Every Python block of the README runs as it stands, each in a process of its own, warnings being errors."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def run(block: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_there_are_blocks_for_both_packages() -> None:
    text = "\n".join(BLOCKS)
    assert "import bandhess_jax" in text
    assert "import bandhess_torch" in text


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int, tmp_path: Path) -> None:
    done = run(BLOCKS[number], tmp_path)
    assert done.returncode == 0, f"{BLOCKS[number]}\n{done.stderr}"


def test_a_failing_block_is_seen(tmp_path: Path) -> None:
    assert run("import bandhess_jax\nbandhess_jax.no_such_name", tmp_path).returncode != 0
    assert run("import warnings\nwarnings.warn('old')", tmp_path).returncode != 0


@pytest.mark.parametrize("name", ["bandhess_jax", "bandhess_torch"])
def test_names_in_the_readme_exist(name: str) -> None:
    """What the table of names lists is public, in both packages where it does not name one."""
    package = importlib.import_module(name)
    lines = README.read_text(encoding="utf-8").splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("| `")]
    others = {"bandhess_jax": "(PyTorch)", "bandhess_torch": "(JAX)"}[name]
    listed = {word for cell in cells if others not in cell for word in re.findall(r"`(\w+)`", cell)}
    assert {"hessian", "newton"} <= listed
    assert listed <= set(package.__all__)
