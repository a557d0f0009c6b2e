"""CI's short leg: a newer Python with the newest jax that pip finds, in an environment of its own that is thrown away.

python .ci/newest.py        with the kernels built; a machine with neither Python is told, and is no failure

Imports, the kernels' registration, the README's examples, and one test file a room. PyTorch is left out where pip would
bring a build for CUDA (gigabytes); then the JAX package's part runs alone, and the output says that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.13", "3.12")
PACKAGES = ["jax", "numpy", "scipy", "chex", "pytest", "hypothesis"]
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
FILES = ["house", "stages", "fusion", "gauss_newton", "factor", "inertia", "newton_arguments", "sqp_ends"]  # one a room
CHECK = """
import importlib, sys
for name in sys.argv[1:]:
    package = importlib.import_module(f"bandhess_{name}")
    assert all(hasattr(package, each) for each in package.__all__)
    framework = importlib.import_module(name)
    print(package.__name__, "imports with", name, framework.__version__)
import bandhess_jax
print("CPU kernels:", bandhess_jax.cpu_kernels())
assert bandhess_jax.cpu_kernels() == "compiled"
"""


def interpreter() -> str | None:
    for version in PYTHONS:
        managed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        for found in [shutil.which(f"python{version}"), *map(str, reversed(managed))]:
            if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
                return found
    return None


def torch_for_cpus(python: str) -> bool:
    """Whether pip finds the tested PyTorch without CUDA's packages. Nothing is installed to find out."""
    plan = [python, "-m", "pip", "install", "-q", "--dry-run", "--only-binary=:all:", "--report", "-", TORCH]
    done = subprocess.run(plan, capture_output=True, text=True)
    if done.returncode != 0:
        return False
    names = [item["metadata"]["name"].lower() for item in json.loads(done.stdout)["install"]]
    return not any(name.startswith(("nvidia", "cuda", "triton")) for name in names)


def main() -> int:
    base = interpreter()
    if base is None:
        print(f"newest: this machine has no Python {' or '.join(PYTHONS)}; this leg did not run", flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([base, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        torch = [TORCH] if torch_for_cpus(python) else []
        subprocess.run([python, "-m", "pip", "install", "-qq", *PACKAGES, *torch], check=True)
        return check(python, bool(torch), Path(folder))


def check(python: str, torch: bool, folder: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}  # the tests, too, compile as users do
    if not torch:
        print(f"newest: pip finds no {TORCH} for CPUs; the JAX package's part runs alone", flush=True)
        environment["BANDHESS_TEST_ONLY"] = "jax"

    def run(*arguments: str, **options: object) -> int:
        return subprocess.run([python, *arguments], env=environment, **options).returncode

    run("--version")
    failed = [run("-c", CHECK, "jax", *(["torch"] if torch else []), cwd=folder)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    chosen = [block for block in blocks if torch or "torch" not in block]
    failed += [run("-c", block, cwd=folder, stdout=subprocess.DEVNULL) for block in chosen]
    bad = sum(map(bool, failed[1:]))
    print(f"newest: {len(chosen)} of the README's {len(blocks)} examples ran, {bad} failed", flush=True)
    files = [f"parity_tests/test_{name}.py" for name in FILES]
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=default"]
    failed.append(run("-m", "pytest", *options, *files, cwd=ROOT))
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
