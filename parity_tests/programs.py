"""What a program forms: its largest array, the loops that it runs, and what it consists of."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import jax


def largest_in(jaxpr: Any) -> int:
    """The size of the largest array that a program forms, inner programs included."""
    largest = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            largest = max(largest, math.prod(getattr(variable.aval, "shape", ())))
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                largest = max(largest, largest_in(inner))
    return largest


def carries_in(jaxpr: Any) -> list[int]:
    """The largest rank among the carries of each scan that a program runs, inner programs included."""
    ranks = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            first = equation.params["num_consts"]
            carries = equation.invars[first : first + equation.params["num_carry"]]
            ranks.append(max((len(carry.aval.shape) for carry in carries), default=0))
            continue
        params = equation.params
        if equation.primitive.name == "custom_linear_solve":  # of its four programs it runs one
            params = params["jaxprs"].solve
        if equation.primitive.name == "cond":  # a choice by platform, the CPU's first
            params = params["branches"][0]
        for parameter in jax.tree.leaves(params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                ranks += carries_in(inner)
    return ranks


def primitives_in(jaxpr: Any) -> Counter[str]:
    """How often each primitive stands in a program, inner programs included, whether they run or not."""
    found: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        found[equation.primitive.name] += 1
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                found += primitives_in(inner)
    return found
