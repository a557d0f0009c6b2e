"""Bands whose entries are far from 1, or far from each other, against LAPACK: H = S A S with a well-conditioned A.

S x is as well determined as A^-1 is, whatever S holds; so an entry that is squared on the way, and leaves the range of
numbers, shows. References are LAPACK's in float64, by the bands of A.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from backends import BACKENDS
from matrices import lapack_solve, positive_band, rhs

import bandhess_jax
import bandhess_torch
from bandhess_jax.linalg import solve as jax_solve
from bandhess_jax.optimise.newton import subproblem as jax_subproblem
from bandhess_torch.linalg import solve as torch_solve
from bandhess_torch.optimise.newton import subproblem as torch_subproblem

N = 75  # several tiles, several parts
TIERS = ["jax-compiled", "jax-pure", "jax-partition", "torch-serial", "torch-partition"]
# Powers of ten: of all of H, or of what H's entries differ by. Below the least there is room for a number's digits.
UNIFORM = {"float64": [-280, -160, 160, 280], "float32": [-28, -19, 19, 28]}
GRADED = {"float64": [12, 150], "float32": [6, 19]}


@contextlib.contextmanager
def serving(tier: str, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The tier's programs, and the name of its backend."""
    name, programs = tier.split("-")
    patch.setattr(jax_solve if name == "jax" else torch_solve, "PARTITION_EVERYWHERE", programs == "partition")
    with bandhess_jax.portable() if programs == "pure" else contextlib.nullcontext():
        yield name


def scales(dtype: str) -> dict[str, np.ndarray]:
    """The diagonals of S: powers of two, so that S A S is exact."""
    rng = np.random.default_rng(0)
    tens = {f"all 1e{e}": np.full(N, e / 2) for e in UNIFORM[dtype]}
    for e in GRADED[dtype]:
        tens[f"random 1e+-{e}"] = rng.uniform(-e / 2, e / 2, N)
        tens[f"falling 1e+-{e}"] = np.linspace(e / 2, -e / 2, N)
        block = np.zeros(N)
        block[30:50] = -0.7 * e
        tens[f"one block 1e-{1.4 * e:.0f}"] = block
    return {name: np.exp2(np.round(e / np.log10(2))) for name, e in tens.items()}


def cases(w: int, dtype: str) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Names, bands of S A S, right-hand sides S c, S, and A^-1 c for all of them."""
    a, c = positive_band(N, w).astype(dtype), rhs(N, None).astype(dtype)
    S = np.stack(list(scales(dtype).values()))
    padded = np.pad(S, ((0, 0), (0, w)))
    bands = np.stack([[S_of[:N] * row * S_of[d : d + N] for d, row in enumerate(a)] for S_of in padded])
    solution = lapack_solve(a.astype("float64"), c.astype("float64"))
    return list(scales(dtype)), bands.astype(dtype), (S * c).astype(dtype), S, solution


def solutions(p: Any, ab: Any, b: Any) -> dict[str, Any]:
    return {
        "solve": p.solve(ab, b),
        "factor": p.factor(ab).solve(b),
        "cholesky": p.cho_solve(p.cholesky(ab), b),
        "ldl": p.ldl_solve(p.ldl(ab), b),
        "many": p.solve(ab, b[:, None] + 0 * b[None, :2])[:, 0],
    }


def of_all(name: str, function: Any, *batches: np.ndarray) -> dict[str, np.ndarray]:
    """`function(package, ...)` for one system after the other: a batch would take other kernels."""
    backend = BACKENDS[name]
    if name == "jax":
        program = jax.jit(lambda *args: jax.lax.map(lambda one: function(bandhess_jax, *one), args))
        return {key: np.asarray(x) for key, x in program(*map(backend.array, batches)).items()}
    results = [function(bandhess_torch, *map(backend.array, one)) for one in zip(*batches, strict=True)]
    return {key: np.stack([backend.numpy(x[key]) for x in results]) for key in results[0]}


def compare(found: np.ndarray, S: np.ndarray, solution: np.ndarray, names: list[str], dtype: str, what: str) -> None:
    tolerance = 200 * np.finfo(dtype).eps * np.abs(solution).max()
    for name, x, scale in zip(names, found, S, strict=True):
        np.testing.assert_allclose(x * scale, solution, rtol=0, atol=tolerance, err_msg=f"{what}, {name}")


# Compiled kernels, which are the same in both, have code of their own for each width, and PyTorch compiles no program
# around them; programs of array operations change at a few.
WIDTHS = {tier: range(18) if tier == "torch-serial" else [0, 1, 2, 3, 4, 5, 8, 17] for tier in TIERS}


@pytest.mark.parametrize(("tier", "w"), [(tier, w) for tier in TIERS for w in WIDTHS[tier]])
def test_against_lapack(w: int, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in ["float64", "float32"] if w < 3 else ["float64" if w % 2 else "float32"]:
        names, bands, b, S, solution = cases(w, dtype)
        with serving(tier, monkeypatch) as name:
            found = of_all(name, solutions, bands, b)
        for what, x in found.items():
            compare(x, S, solution, names, dtype, what)


def newton_step(p: Any, ab: Any, g: Any) -> dict[str, Any]:
    """The step of the trust region's search where it fits."""
    module = jax_subproblem if p is bandhess_jax else torch_subproblem
    numbers = {"radius": 1e6, "shift": 0.0, "low": 0.0, "high": 1e6, "guess": 0.0, "soft": 0.0, "enough": -1.0}
    query = module.Query(**numbers, **dict.fromkeys(set(module.Query._fields) - set(numbers), 0.0))
    return {"step": -module.minimise_model(g, ab, g, query)[0]}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("w", [1, 2, 17])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_newton_step(dtype: str, w: int, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(UNIFORM[dtype])  # the search squares lengths, so H and g are scaled, and their step is not
    names, bands, b, S, solution = cases(w, dtype)
    with serving(tier, monkeypatch) as name:
        found = of_all(name, newton_step, bands[:count], (b * S)[:count].astype(dtype))
    compare(found["step"], np.ones((count, 1)), solution, names[:count], dtype, "step")
