"""What a release uploads, tried as its users meet it: built, installed in fresh environments, run, and thrown away.

python .ci/wheels.py        some minutes, with pip's index at hand; `make wheels`

    source distribution   holds all that git has, tests, examples and changelog among it; the wheel is built from it
    [jax]  [torch]        the wheel with one framework alone: a solve, a minimum, and the other package names its extra
                          then the source distribution without a compiler: the same, and kernels are told as missing
    [jax] with cyipopt    IPOPT itself on a banded problem: `bandhess_jax.ipopt` agrees with `sqp`
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = ["-c", str(ROOT / "constraints.txt")]
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools, beside bandhess.egg-info
CYIPOPT = "cyipopt-wheels==1.7.0.dev0"  # cyipopt with IPOPT's libraries inside; cyipopt's own release compiles

COMMON = """
import sys
import numpy as np
framework, kernels = sys.argv[1:]
if framework == "jax":
    import jax.numpy as xp
    import bandhess_jax as package
    other, extra = "bandhess_torch", "bandhess[torch]"
else:
    import torch as xp
    import bandhess_torch as package
    other, extra = "bandhess_jax", "bandhess[jax]"
assert "site-packages" in package.__file__, package.__file__
"""
ONE_FRAMEWORK = """
try:
    __import__(other)
except ModuleNotFoundError as error:
    assert extra in str(error), error
else:
    raise AssertionError(f"{other} imports without its framework")

ab = xp.asarray([[4.0, 4.0, 4.0], [1.0, 1.0, 0.0]])
x = package.solve(ab, xp.asarray([5.0, 6.0, 5.0]))
np.testing.assert_allclose(np.asarray(x), 1.0, rtol=1e-6)
result = package.newton(lambda x: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 2) ** 2).sum(), xp.ones(5), 1)
assert result.status == package.Status.CONVERGED, result
np.testing.assert_allclose(np.asarray(result.x), 2.0, rtol=1e-4)
assert package.cpu_kernels().startswith(kernels), package.cpu_kernels()
print(" ", package.__name__, package.__version__, "with", xp.__name__, "kernels", package.cpu_kernels())
"""
IPOPT = """
import jax
jax.config.update("jax_enable_x64", True)
from bandhess_jax import ipopt

def fun(x): return xp.sum(xp.cosh(x["q"])) + xp.sum(x["u"] ** 2) + xp.sum(x["q"][1:, 0] * x["q"][:-1, 1]) / 2
def motion(x): return {"step": xp.diff(x["q"][:, 0]) - x["q"][:-1, 1] * x["u"], "end": x["q"][-1:, 1] ** 2 - 0.5}
def room(x): return 2 - x["q"][:, 0] ** 2

x0 = {"q": xp.linspace(0.1, 1, 10).reshape(5, 2), "u": xp.linspace(-1, 1, 4)}
bounds = {"q": None, "u": 0.2}, None
known = package.sqp(fun, motion, x0, 1, inequalities=room, bounds=bounds)
x, info = ipopt.problem(fun, motion, x0, 1, inequalities=room, bounds=bounds).solve(tol=1e-10, print_level=0, sb="yes")
assert info["status"] == 0 and known.success, (info, known)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), x, known.x)
multipliers = np.concatenate([*map(np.ravel, jax.tree.leaves(known.multipliers)), -known.inequality_multipliers])
np.testing.assert_allclose(info["mult_g"], multipliers, atol=1e-6)
lower, upper = (package.ravel_stages(side)[0] for side in known.bound_multipliers)
assert lower.max() > 0.01
np.testing.assert_allclose(info["mult_x_L"], lower, atol=1e-6)
print("  IPOPT and sqp agree on x and all multipliers")
"""


def environment(folder: Path) -> str:
    """Its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return str(folder / "bin" / "python")


def install(python: str, *what: str, compiler: bool = True) -> None:
    none = {} if compiler else {"CC": "false", "CXX": "false"}
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *what, *PINNED]
    subprocess.run(command, check=True, env={**os.environ, **none})


def run(python: str, program: str, *arguments: str) -> None:
    """Isolated (-I), so that what is imported is what was installed."""
    if subprocess.run([python, "-I", "-W", "error", "-c", program, *arguments]).returncode != 0:
        sys.exit("wheels: failed")


def build(folder: Path) -> tuple[str, str]:
    """The source distribution, and the wheel made of it."""
    python = environment(folder / "build")
    install(python, "build")
    subprocess.run([python, "-m", "build", "--outdir", folder / "dist", ROOT], check=True, stdout=subprocess.DEVNULL)
    (source,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return str(source), str(wheel)


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return set(listed.split())


def check_source(source: str) -> None:
    """All that git has, and nothing else."""
    expected = tracked() - {".gitignore"}
    with tarfile.open(source) as archive:
        names = (member.name.partition("/")[2] for member in archive if member.isfile())
        found = {name for name in names if name not in MADE and not name.startswith("bandhess.egg-info/")}
    assert found == expected, f"missing {sorted(expected - found)}, besides {sorted(found - expected)}"
    print(f"  {Path(source).name} has all {len(found)} files, {Path(source).stat().st_size / 2**20:.1f} MB", flush=True)


def check_wheel(wheel: str) -> None:
    """The packages' Python, their py.typed, and the kernels."""
    expected = {name for name in tracked() if name.startswith("bandhess_") and name.endswith((".py", ".typed"))}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    kernels = found - expected
    assert expected <= found, f"missing {sorted(expected - found)}"
    assert kernels == {"bandhess_common/kernels/_kernels.abi3.so"}, f"besides {sorted(kernels)}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("sdist and wheel", flush=True)
        source, wheel = build(folder)
        check_source(source)
        check_wheel(wheel)
        for framework in ("jax", "torch"):
            print(f"{Path(wheel).name}[{framework}]", flush=True)
            python = environment(folder / framework)
            install(python, f"{wheel}[{framework}]")
            run(python, COMMON + ONE_FRAMEWORK, framework, "compiled")
            if framework == "jax":
                install(python, CYIPOPT)
                run(python, COMMON + IPOPT, framework, "compiled")
            print("  without a compiler", flush=True)
            install(python, "--force-reinstall", "--no-deps", "--no-cache-dir", source, compiler=False)
            run(python, COMMON + ONE_FRAMEWORK, framework, "pure")
    print("wheels: all is well", flush=True)


if __name__ == "__main__":
    main()
