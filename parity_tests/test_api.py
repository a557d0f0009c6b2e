"""The public face: the same names, parameters and defaults in both packages, documented, and free of side effects."""

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest
from backends import Backend

import bandhess_jax
import bandhess_torch

PACKAGES = {"jax": bandhess_jax, "torch": bandhess_torch}
# Each framework has its own sparse matrices, and JAX alone has something compiled.
OWN_NAMES = {"to_bcoo", "to_sparse", "portable"}
NAMES = sorted((set(bandhess_jax.__all__) | set(bandhess_torch.__all__)) - OWN_NAMES)
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(bandhess_jax, name, None))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(bandhess_jax, name, None))]
# Factor's fields are private: each platform keeps what its factorisation needs.
CONSTRUCTED = [name for name in CLASSES if name not in ("Factor", "Probing")]


def parameters(function: Any) -> list[tuple]:
    """Names, kinds and defaults; annotations name each framework's own types. Only JAX splits one system over devices
    (sharding), whose runs are long enough to be saved (checkpoint)."""
    given = [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
    own, form = ("sharding", "checkpoint"), (inspect.Parameter.KEYWORD_ONLY, None)
    return [each for each in given if each[0] not in own or each[1:] != form]


def public_members(cls: type) -> list[str]:
    private = getattr(cls, "_fields", ()) if cls.__name__ == "Factor" else ()
    return [name for name in dir(cls) if not name.startswith("_") and name not in private]


def test_same_names() -> None:
    assert set(bandhess_jax.__all__) - OWN_NAMES == set(bandhess_torch.__all__) - OWN_NAMES == set(NAMES)
    assert sorted(set(NAMES)) == sorted(FUNCTIONS + CLASSES)


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_all_is_complete(package: Any) -> None:
    """`__init__` re-exports what `__all__` lists, and nothing else."""
    public = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(package.__all__)
    assert len(package.__all__) == len(set(package.__all__))


@pytest.mark.parametrize("name", FUNCTIONS + CONSTRUCTED)
def test_same_parameters_and_defaults(name: str) -> None:
    assert parameters(getattr(bandhess_jax, name)) == parameters(getattr(bandhess_torch, name))


@pytest.mark.parametrize("name", CLASSES)
def test_same_members(name: str) -> None:
    by_jax, by_torch = getattr(bandhess_jax, name), getattr(bandhess_torch, name)
    own = {"to"} if name == "Factor" else set()  # of tensors; jax.device_put takes pytrees
    assert set(public_members(by_jax)) == set(public_members(by_torch)) - own
    if name == "Factor":
        for method in ("solve", "logdet"):
            assert parameters(getattr(by_jax, method)) == parameters(getattr(by_torch, method))


def test_signatures_of_the_design() -> None:
    """The calls that users write down: a renamed or reordered parameter breaks them in both packages alike."""
    expected = {
        "hessian": "fun, bandwidth, *, argnums, has_aux, probing, chunk_size, stage_axes, periodic",
        "value_grad_hessian": "fun, bandwidth, *, argnums, has_aux, probing, chunk_size, stage_axes, periodic",
        "from_matvec": "matvec, like, bandwidth, *, probing, chunk_size, stage_axes, periodic",
        "band_error": "fun, *, argnums, has_aux, seed, stage_axes, periodic",
        "matvec": "ab, x, *, sharding",
        "to_dense": "ab",
        "from_dense": "h, w, *, periodic, border",
        "ravel_stages": "tree, *, stage_axes",
        "cholesky": "ab",
        "cholesky_ex": "ab",
        "cho_solve": "cb, b",
        "solve_triangular": "cb, b, *, transpose",
        "solve": "ab, b, *, refine, sharding",
        "factor": "ab, *, sharding",
        "logdet": "cb, *, sharding",
        "inverse_band": "cb, *, sharding",
        "ldl": "ab",
        "ldl_solve": "ldb, b",
        "inertia": "ldb",
        "rcond": "cb, ab",
    }
    for name, written in expected.items():
        signature = inspect.signature(getattr(bandhess_jax, name)).parameters.values()
        names = [p.name for p in signature]
        keyword_only = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
        if keyword_only:
            names.insert(len(names) - len(keyword_only), "*")
        assert ", ".join(names) == written
    defaults = {p.name: p.default for p in inspect.signature(bandhess_jax.hessian).parameters.values()}
    assert (defaults["argnums"], defaults["has_aux"], defaults["probing"], defaults["chunk_size"]) == (
        0, False, "direct", "auto",
    )  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_everything_public_is_documented(package: Any) -> None:
    assert package.__doc__
    for name in package.__all__:
        value = getattr(package, name)
        # A NamedTuple without a docstring gets its field list for one.
        assert value.__doc__, name
        assert not value.__doc__.startswith(f"{name}("), name
        if inspect.isfunction(value):
            assert len(value.__doc__.split()) > 5, name
    for name in ("solve", "logdet", "ok"):
        assert inspect.getdoc(getattr(package.Factor, name)), name


PROBE = """
import importlib.abc, json, os, sys, warnings

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy, scipy.linalg, scipy.sparse.csgraph  # what these change is theirs
import {framework} as framework

def state():
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    return dict(
        jax=None if jax is None else repr(sorted(jax.config.values.items(), key=str)),
        x64=None if jax is None else jax.config.jax_enable_x64,
        torch=None if torch is None else str([
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_device(),
            torch.are_deterministic_algorithms_enabled(),
        ]),
        numpy=str([numpy.geterr(), numpy.get_printoptions()]), environment=str(sorted(os.environ.items())),
        warnings=str(warnings.filters),
    )

before = state()
import {package} as package
after = state()

# The whole chain once, so that no import waits inside a function.
x = {array}
fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + (x**2).sum()
value, grad, ab = package.value_grad_hessian(fun, 1)(x)
assert float(package.band_error(fun)(ab, x)) < 1e-5
step = package.solve(ab, -grad)
result = package.newton(fun, x, 1)
assert result.status == package.Status.CONVERGED
print(json.dumps(dict(
    before=before, after=after, later=state(), step=[float(s) for s in step], dtype=str(ab.dtype).split(".")[-1],
    loaded=sorted({{name.split(".")[0] for name in sys.modules}}),
)))
"""

# Each with its framework, what it must do without, and an array as a user of that framework makes it.
ALONE = {
    "jax": ("jax", ["torch", "functorch", "torchgen"], "framework.numpy.linspace(1, 2, 5)"),
    "torch": ("torch", ["jax", "jaxlib"], "framework.linspace(1, 2, 5)"),
}


@pytest.fixture(scope="module")
def alone(backend: Backend) -> dict[str, Any]:
    framework, blocked, array = ALONE[backend.name]
    program = PROBE.format(framework=framework, blocked=blocked, array=array, package=backend.package.__name__)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_works_without_the_other_framework(backend: Backend, alone: dict[str, Any]) -> None:
    framework, blocked, _ = ALONE[backend.name]
    other = ({"bandhess_jax", "bandhess_torch"} - {backend.package.__name__}).pop()
    assert framework in alone["loaded"]
    assert not set(alone["loaded"]) & {*blocked, other}
    assert all(abs(s + x) < 1e-5 for s, x in zip(alone["step"], [1, 1.25, 1.5, 1.75, 2], strict=True))


def test_blocking_blocks() -> None:
    """The test above could not fail if the finder let everything pass."""
    program = PROBE.format(framework="torch", blocked=["torch"], array="None", package="bandhess_torch")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "ImportError: torch is blocked" in done.stderr


def test_nothing_global_changes(backend: Backend, alone: dict[str, Any]) -> None:
    """Neither on import nor in use: configuration, dtypes, threads, environment and warnings are the user's."""
    assert alone["before"] == alone["after"]
    # torch.func loads torch's compiler on first use, which notes its cache folder and its warnings itself.
    own = ("environment", "warnings") if backend.name == "jax" else ()
    for kind in ("x64", "torch", "numpy", *own):
        assert alone["later"][kind] == alone["before"][kind]
    assert alone["dtype"] == "float32"  # the default of both frameworks stays
    assert alone["before"][backend.name] is not None
