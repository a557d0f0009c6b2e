"""How often the user's functions stand in the program of `sqp`: a first call takes as long as it takes to compile them.

Once with their derivatives, and once as the values of a line search.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import primitives_in

import bandhess_jax
from bandhess_jax.optimise.sqp import solve

MARKS = "erf", "asinh", "lgamma"  # of the three functions; no derivative brings one of them again
COPIES = 2


def cost(x: Any) -> Any:
    return jnp.sum((x - 1) ** 2) + jnp.sum(jax.lax.erf(x)) + jnp.sum(jax.lax.erf(x[1:] * x[:-1]))


def equalities(x: Any) -> Any:
    return {"ends": jax.lax.asinh(x[0] - 0.5)[None], "steps": jax.lax.asinh(x[1:] - x[:-1]) - jax.lax.asinh(x[1:] / 4)}


def inequalities(x: Any) -> Any:
    return 9 - jax.lax.lgamma(x[1:] + 3) - x[:-1] ** 2


KINDS = {
    "none": (None, None), "equalities": (equalities, None), "inequalities": (None, inequalities),
    "both": (equalities, inequalities),
}  # fmt: skip
X0 = np.linspace(0.2, 0.8, 6)


def in_own(kind: str) -> Counter:
    """In the functions themselves."""
    own: Counter = Counter()
    for function in (cost, *KINDS[kind]):
        if function is not None:
            own += primitives_in(jax.make_jaxpr(function)(X0))
    return own


def check(program: Any, kind: str) -> None:
    own, found = in_own(kind), primitives_in(program)
    used = [name for name in MARKS if own[name]]
    assert len(used) == 1 + sum(function is not None for function in KINDS[kind])
    assert {name: found[name] for name in MARKS} == {name: COPIES * own[name] for name in MARKS}


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_part_of_a_program(kind: str) -> None:
    constraints, below = KINDS[kind]
    program = jax.make_jaxpr(lambda x: bandhess_jax.sqp(cost, constraints, x, 1, inequalities=below)[:5])(X0)
    check(program.jaxpr, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_by_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called outside of programs it runs in pieces, by a program of their own."""
    programs, turns = [], solve._turns

    def noted(options: Any, *operands: Any) -> Any:
        leaves, treedef = jax.tree.flatten(operands)
        traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.core.Tracer)]

        def again(*tracers: Any) -> Any:
            given = dict(zip(traced, tracers, strict=True))
            return turns(options, *jax.tree.unflatten(treedef, [given.get(i, leaf) for i, leaf in enumerate(leaves)]))

        programs.append(jax.make_jaxpr(again)(*(leaves[i] for i in traced)).jaxpr)
        return turns(options, *operands)

    monkeypatch.setattr(solve, "_turns", noted)
    constraints, below = KINDS[kind]
    result = bandhess_jax.sqp(cost, constraints, jnp.asarray(X0), 1, inequalities=below)
    assert result.status == bandhess_jax.Status.CONVERGED
    assert len(programs) == 1
    check(programs[0], kind)
