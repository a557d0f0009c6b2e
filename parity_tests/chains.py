"""Objectives of the literature, chains of a vector's neighbours, each with its Hessian in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from oracles import Problem, assemble, integers, reals


def blog(xp: Any) -> Callable:
    return lambda x: xp.sum((x[1:] - x[:-1]) ** 2) / 2 + x[0] ** 2 / 2 + x[-1] ** 2 / 2


def blog_chain(n: int) -> Problem:
    return Problem("blog", blog, integers(n, 0), 1, 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1), exact=True)


def rosenbrock(xp: Any) -> Callable:
    return lambda x: xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def genrose(xp: Any) -> Callable:
    return lambda x: 1 + xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1) ** 2)


def valley(x: np.ndarray, i: int) -> tuple[tuple[int, int], np.ndarray]:
    """The element 100 (x_{i+1} - x_i^2)^2 of the Rosenbrock family."""
    return (i, i + 1), np.array([[1200 * x[i] ** 2 - 400 * x[i + 1], -400 * x[i]], [-400 * x[i], 200]])


def rosenbrock_chain(n: int) -> Problem:
    x = integers(n, 1)
    walls = [((i,), 2 * np.eye(1)) for i in range(n - 1)]
    hessian = assemble(n, [*(valley(x, i) for i in range(n - 1)), *walls])
    return Problem("rosenbrock", rosenbrock, x, 1, hessian, exact=True)


def genrose_chain(n: int) -> Problem:
    x = integers(n, 2)
    walls = [((i,), 2 * np.eye(1)) for i in range(1, n)]
    hessian = assemble(n, [*(valley(x, i) for i in range(n - 1)), *walls])
    return Problem("genrose", genrose, x, 1, hessian, exact=True)


def window(w: int) -> Callable[[Any], Callable]:
    """s = sum_k sin((1 + 0.1 k) x[k : n-w+k]), f = sum(exp(0.3 s) + s^2) + 0.5 sum x^2."""

    def objective(xp: Any) -> Callable:
        def fun(x: Any) -> Any:
            m = x.shape[0] - w
            s = sum(xp.sin((1 + 0.1 * k) * x[k : m + k]) for k in range(w + 1))
            return xp.sum(xp.exp(0.3 * s) + s**2) + 0.5 * xp.sum(x**2)

        return fun

    return objective


def window_chain(n: int, w: int) -> Problem:
    x = reals(n, w)
    a = 1 + 0.1 * np.arange(w + 1)
    elements = [(range(n), np.eye(n))]
    for i in range(n - w):
        angle = a * x[i : i + w + 1]
        s = np.sin(angle).sum()
        u = a * np.cos(angle)
        first, second = 0.3 * np.exp(0.3 * s) + 2 * s, 0.09 * np.exp(0.3 * s) + 2
        elements.append((range(i, i + w + 1), second * np.outer(u, u) - np.diag(first * a**2 * np.sin(angle))))
    return Problem(f"window n={n} w={w}", window(w), x, w, assemble(n, elements))


def engval1(xp: Any) -> Callable:
    return lambda x: xp.sum((x[:-1] ** 2 + x[1:] ** 2) ** 2) + xp.sum(3 - 4 * x[:-1])


def engval1_chain(n: int) -> Problem:
    x = integers(n, 7)
    elements = []
    for i in range(n - 1):
        a, b = x[i], x[i + 1]
        elements.append(
            ((i, i + 1), np.array([[12 * a * a + 4 * b * b, 8 * a * b], [8 * a * b, 12 * b * b + 4 * a * a]]))
        )
    return Problem("engval1", engval1, x, 1, assemble(n, elements), exact=True)


def cosine(xp: Any) -> Callable:
    return lambda x: xp.sum(xp.cos(x[:-1] ** 2 - x[1:] / 2))


def cosine_chain(n: int) -> Problem:
    x = reals(n, 8)
    elements = []
    for i in range(n - 1):
        s, g = x[i] ** 2 - x[i + 1] / 2, np.array([2 * x[i], -0.5])
        elements.append(((i, i + 1), -np.cos(s) * np.outer(g, g) - np.sin(s) * np.diag([2.0, 0.0])))
    return Problem("cosine", cosine, x, 1, assemble(n, elements))


def tridia(xp: Any) -> Callable:
    def fun(x: Any) -> Any:
        i = xp.cumsum(xp.ones_like(x), 0)  # 1, 2, ... in x's dtype
        return (x[0] - 1) ** 2 + xp.sum(i[1:] * (2 * x[1:] - x[:-1]) ** 2)

    return fun


def tridia_chain(n: int) -> Problem:
    elements = [((0,), 2 * np.eye(1))]
    elements += [((i - 1, i), 2 * (i + 1) * np.array([[1, -2], [-2, 4]])) for i in range(1, n)]
    return Problem("tridia", tridia, integers(n, 9), 1, assemble(n, elements), exact=True)


def broyden(xp: Any) -> Callable:
    def fun(x: Any) -> Any:
        edge = xp.zeros_like(x[:1])
        full = xp.concatenate([edge, x, edge], 0)
        return xp.sum(((3 - 2 * x) * x - full[:-2] - 2 * full[2:] + 1) ** 2)

    return fun


def broyden_chain(n: int) -> Problem:
    x = integers(n, 10)
    full = np.concatenate([[0], x, [0]])
    elements = []
    for i in range(n):
        r = (3 - 2 * x[i]) * x[i] - full[i] - 2 * full[i + 2] + 1
        J = np.array([-1, 3 - 4 * x[i], -2])
        indices = (i - 1, i, i + 1 if i + 1 < n else -1)
        elements.append((indices, 2 * np.outer(J, J) + 2 * r * np.diag([0, -4, 0])))
    return Problem("broyden", broyden, x, 2, assemble(n, elements), exact=True)


def curly10(xp: Any) -> Callable:
    def fun(x: Any) -> Any:
        n = x.shape[0]
        full = xp.concatenate([x, xp.zeros_like(x[:10])], 0)
        q = sum(full[j : n + j] for j in range(11))
        return xp.sum(q**4 - 20 * q**2 - 0.1 * q)

    return fun


def curly10_chain(n: int) -> Problem:
    x = reals(n, 11)
    elements = []
    for i in range(n):
        support = range(i, min(i + 11, n))
        q = x[i : i + 11].sum()
        elements.append((support, (12 * q**2 - 40) * np.ones((len(support),) * 2)))
    return Problem("curly10", curly10, x, 10, assemble(n, elements))
