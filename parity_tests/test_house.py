"""The house, read from the syntax trees: imports run one way, both packages have the same rooms, a file stays short."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import bandhess_common

ROOT = Path(bandhess_common.__file__).parent.parent
PACKAGES = {  # and its framework, and what users of an extra have
    "bandhess_common": {"matplotlib", "rich"},
    "bandhess_jax": {"jax", "lineax", "equinox", "optimistix", "optax", "cyipopt", "orbax"},
    "bandhess_torch": {"torch"},
}
TREES = {path.relative_to(ROOT).with_suffix(""): ast.parse(path.read_text())
         for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}  # fmt: skip
packages = pytest.mark.parametrize("package", PACKAGES)

# What the files of a room import of their own package: rooms below, never one above.
BELOW = {
    "band": {"band"},
    "framework": {"framework"},
    "linalg": {"band", "framework", "linalg"},
    "extraction": {"band", "framework", "extraction"},
    "optimise": {"band", "framework", "linalg", "extraction", "optimise"},
    "scipy": {"band", "framework", "linalg", "optimise", "scipy"},
}

# What one package alone has, and why.
ALONE = {
    "bandhess_jax/band/mesh": "one long system is split over devices in JAX only: PyTorch has no shard_map",
    "bandhess_jax/linalg/sharded": "as band/mesh",
    "bandhess_jax/optimise/newton/split": "as band/mesh",
    "bandhess_jax/extraction/diagonals/blocks": "programs ravel residuals to one vector; a gradient's graph does not",
    "bandhess_jax/framework/checkpoint": "a run over many devices goes on where it was killed, as band/mesh",
    "bandhess_jax/framework/clock": "a compiled loop has no clock: time limits run it in chunks",
    "bandhess_jax/framework/packing": "the state of a compiled loop between two calls",
    "bandhess_jax/framework/lanes": "XLA's loops under vmap wait for the slowest; PyTorch's go one after another",
    "bandhess_jax/framework/fusion": "workarounds for what XLA fuses",
    "bandhess_jax/framework/programs": "reading jaxprs",
    "bandhess_jax/framework/jit": "compiled programs are found again by the user's function",
    "bandhess_jax/framework/contents": "what a function reads from outside is part of its compiled program's key",
    "bandhess_jax/lineax": "the ecosystem of JAX",
    "bandhess_jax/ipopt": "JAX's compiled derivatives for cyipopt",
    "bandhess_jax/optimistix": "the ecosystem of JAX",
    "bandhess_jax/optax": "the ecosystem of JAX; PyTorch's is optim",
    "bandhess_jax/optimise/reports": "reports from between the pieces of a compiled loop; PyTorch's is in Python",
    "bandhess_jax/optimise/newton/state": "a compiled loop carries a packed state; PyTorch's has local variables",
    "bandhess_jax/optimise/newton/compiled": "XLA compiles what a loop in Python merely runs: kernels take its place",
    "bandhess_jax/optimise/newton/turns": "the loop that optimistix owns",
    "bandhess_jax/optimise/sqp/callbacks": "the functions that IPOPT is given",
    "bandhess_torch/framework/autograd": "reading what autograd recorded, as framework/programs reads jaxprs",
    "bandhess_torch/framework/recorder": "what jax.make_jaxpr does: operations written down",
    "bandhess_torch/framework/tape": "what jax.jit does in its way: operations run again",
    "bandhess_torch/framework/arithmetic": "as framework/tape; XLA fuses operations itself",
    "bandhess_torch/framework/steps": "as framework/tape",
    "bandhess_torch/framework/parts": "as framework/tape",
    "bandhess_torch/framework/kept": "as framework/jit: tapes are found again by the user's function",
    "bandhess_torch/framework/guard": "as framework/contents: whether a function still does what was written down",
    "bandhess_torch/optimise/sqp/evaluations": "when such a tape serves; JAX's programs are compiled at once",
    "bandhess_torch/framework/transforms": "autograd.Functions under vmap, which JAX' rules do",
    "bandhess_torch/extraction/in_graph": "torch.compile reads the code itself; JAX traces it anyway",
    "bandhess_torch/linalg/in_graph": "as extraction/in_graph, by operators that torch.compile and torch.export take",
    "bandhess_torch/optim": "PyTorch's optimisers; JAX has optax",
    "bandhess_torch/linalg/blocks": "CUDA's batched kernels want blocks, XLA compiles the columns' loop",
    "bandhess_torch/linalg/lapack": "what serves without compiled kernels; JAX has scans for that",
}


def imported(path: Path) -> set[str]:
    """Dotted names of what a file imports, wherever in it: modules, or names with their modules."""
    found: set[str] = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = path.parts[: -node.level] if node.level else ()
            found |= {".".join((*start, *filter(None, [node.module]), alias.name)) for alias in node.names}
    return found


def files(path: Path) -> set[Path]:
    """The files of these packages that a file imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        modules = [Path(*parts), Path(*parts, "__init__"), Path(*parts[:-1]), Path(*parts[:-1], "__init__")]
        found |= set([module for module in modules if module in TREES][:1])
    return found


@packages
def test_frameworks_stay_apart(package: str) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "bandhess_common", package, *PACKAGES[package]}
    for path in TREES:
        if path.parts[0] == package:
            assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_rooms_import_what_is_below() -> None:
    for path in TREES:
        package, room = path.parts[:2]
        if package != "bandhess_common" and room in BELOW:
            own = {file.parts[1] for file in files(path) if file.parts[0] == package}
            assert own <= BELOW[room], path


def test_no_circles() -> None:
    order = list(graphlib.TopologicalSorter({path: files(path) for path in TREES}).static_order())
    assert len(order) == len(TREES) > 50


def test_every_room_is_known() -> None:
    for package in ("bandhess_jax", "bandhess_torch"):
        assert {path.parts[1] for path in TREES if path.parts[0] == package and len(path.parts) > 2} == {*BELOW}


def test_the_packages_mirror_each_other() -> None:
    by_jax, by_torch = ({path.relative_to(package) for path in TREES if path.parts[0] == package}
                        for package in ("bandhess_jax", "bandhess_torch"))  # fmt: skip
    alone = {f"bandhess_jax/{path}" for path in by_jax - by_torch}
    alone |= {f"bandhess_torch/{path}" for path in by_torch - by_jax}
    assert alone == {*ALONE}


def test_files_are_short() -> None:
    rooms = ("bandhess_*", "parity_tests", "benchmarks", "examples", "docs", ".ci")
    paths = {path for room in rooms for kind in ("py", "h", "cc") for path in ROOT.glob(f"{room}/**/*.{kind}")}
    assert len(paths) > 300
    assert [path for path in sorted(paths) if len(path.read_text().splitlines()) > 300] == []


def test_functions_fit_a_screen() -> None:
    """At most 80 lines without the docstring."""
    long = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                text = node.body[0] if ast.get_docstring(node) else None
                docstring = text.end_lineno - text.lineno + 1 if text else 0
                if node.end_lineno - node.lineno + 1 - docstring > 80:
                    long.add(f"{path}:{node.name}")
    assert long == set()
