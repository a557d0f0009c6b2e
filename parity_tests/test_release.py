"""What a release needs: quick imports of little else, a version, and words for who lacks a framework."""

import importlib.metadata
import subprocess
import sys

import pytest

from bandhess_common.version import __version__

FRAMEWORKS = {"bandhess_jax": "jax", "bandhess_torch": "torch"}
# What takes long to import, or belongs to an extra; JAX itself loads none of it.
LATER = {"scipy.linalg", "scipy.sparse", "scipy.optimize", "jax.experimental.sparse", "jax._src.pallas.core",
         "matplotlib", "rich", "lineax", "optimistix", "optax", "cyipopt", "torch._dynamo"}  # fmt: skip


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("package", "framework"), FRAMEWORKS.items())
def test_an_import_brings_little(package: str, framework: str) -> None:
    """Beside the framework: nothing of what is known to be slow. (As measured, 0.2 s of the 0.5 to 0.9 before.)"""
    done = run(
        f"import sys, {framework}\nbefore = set(sys.modules)\nimport {package} as package\n"
        f"print(*sorted((set(sys.modules) - before) & {LATER!r}), package.__version__)"
    )
    assert done.stdout.split() == [__version__], done.stderr
    assert importlib.metadata.version("bandhess") == __version__


@pytest.mark.parametrize(("package", "framework"), FRAMEWORKS.items())
def test_a_framework_that_is_absent(package: str, framework: str) -> None:
    """The error names the extra; of another missing module, the error is Python's own."""
    hide = "import sys\nclass Hidden:\n    def find_spec(self, name, path=None, target=None):\n"
    hide += "        if name.split('.')[0] == {0!r}:\n            raise ModuleNotFoundError(name, name=name)\n"
    hide += "sys.meta_path.insert(0, Hidden())\nimport " + package
    text = f'pip install "bandhess[{framework}]"'
    assert text in run(hide.format(framework)).stderr
    other = run(hide.format("numpy"))
    assert other.returncode == 1
    assert text not in other.stderr
