"""The objectives, each written once for both backends, with its Hessian in closed form in NumPy.

`Problem.objective(xp)` is the function, for xp = jax.numpy or torch; `Problem.hessian` is dense, from a formula.
Nothing here imports the packages under test: `store`, `ravel` and the Hessians are oracles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# --- Storage and stages, by definition -------------------------------------------------------------------------------


def store(h: np.ndarray, w: int) -> np.ndarray:
    """ab[d, j] = H[j + d, j], entry by entry; 0 in unused cells."""
    n = len(h)
    ab = np.zeros((w + 1, n), h.dtype)
    for d in range(w + 1):
        for j in range(n):
            if j + d < n:
                ab[d, j] = h[j + d, j]
    return ab


def unstore(ab: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a band, entry by entry."""
    rows, n = ab.shape
    h = np.zeros((n, n), ab.dtype)
    for i in range(n):
        for j in range(n):
            if abs(i - j) < rows:
                h[i, j] = ab[abs(i - j), min(i, j)]
    return h


def unstore_lower(cb: np.ndarray) -> np.ndarray:
    """The lower triangular matrix of a banded factor."""
    return np.tril(unstore(cb))


def tree_leaves(tree: Any) -> list[np.ndarray]:
    """Leaves in pytree order; the trees of this suite write their dict keys in sorted order."""
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in tree_leaves(tree[key])]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in tree_leaves(part)]
    return [tree]


def sizes(tree: Any) -> tuple[int, int]:
    """(T, d): stages, and scalars per stage."""
    leaves = tree_leaves(tree)
    return max(len(leaf) for leaf in leaves), sum(int(np.prod(leaf.shape[1:])) for leaf in leaves)


def ravel(tree: Any) -> tuple[np.ndarray, np.ndarray]:
    """(flat, dummy): stage by stage, leaf by leaf; where a leaf has no such stage, 0 stands and dummy is True."""
    leaves = tree_leaves(tree)
    flat, dummy = [], []
    for t in range(sizes(tree)[0]):
        for leaf in leaves:
            present = t < len(leaf)
            entries = leaf[t].ravel() if present else np.zeros(int(np.prod(leaf.shape[1:])))
            flat += list(entries)
            dummy += [not present] * len(entries)
    return np.array(flat), np.array(dummy, bool)


def assemble(n: int, elements: Iterable[tuple[Any, np.ndarray]]) -> np.ndarray:
    """Sum of local matrices, each given with its indices; negative indices stand for fixed values and are dropped."""
    h = np.zeros((n, n))
    for indices, local in elements:
        for a, i in enumerate(indices):
            for b, j in enumerate(indices):
                if i >= 0 and j >= 0:
                    h[i, j] += local[a, b]
    return h


# --- Objectives ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective at a point. exact: all its numbers are integers, so every backend must agree to the last bit."""

    name: str
    objective: Callable[[Any], Callable]
    x: Any
    bandwidth: int  # in stages
    hessian: np.ndarray
    args: tuple[np.ndarray, ...] = ()
    exact: bool = False

    @property
    def band(self) -> np.ndarray:
        return store(self.hessian, (self.bandwidth + 1) * sizes(self.x)[1] - 1)

    def __str__(self) -> str:
        return self.name


def integers(n: int, seed: int, low: int = -3, high: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, n).astype(float)


def reals(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


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


def unique_coefficients(rows: int, n: int, seed: int) -> np.ndarray:
    """A band of distinct positive integers: a misplaced entry cannot look like the right one."""
    return np.random.default_rng(seed).permutation(np.arange(1.0, rows * n + 1)).reshape(rows, n)


def staged_polynomial(name: str, x: Any, k: int, seed: int = 3) -> Problem:
    """sum_{r, j} c[r, j] x_j x_{j+r} + sum_j c[0, j] x_j^3, over pairs at most k stages apart, c unique integers."""
    T, d = sizes(x)
    flat, dummy = ravel(x)
    n = T * d
    rows = min((k + 1) * d, n)
    c = unique_coefficients(rows, n, seed)
    h = np.zeros((n, n))
    for r in range(rows):
        for j in range(n):
            if j + r >= n or (j + r) // d - j // d > k or dummy[j] or dummy[min(j + r, n - 1)]:
                c[r, j] = 0
            elif r == 0:
                h[j, j] = 2 * c[0, j] + 6 * c[0, j] * flat[j]
            else:
                h[j, j + r] = h[j + r, j] = c[r, j]
    h += np.diag(dummy.astype(float))  # dummy variables: unit diagonal, no coupling

    def objective(xp: Any) -> Callable:
        def fun(tree: Any, c: Any) -> Any:
            columns = []
            for leaf in tree_leaves(tree):
                column = leaf.reshape(leaf.shape[0], -1)
                gap = [xp.zeros_like(column[:1])] * (T - leaf.shape[0])
                columns.append(xp.concatenate([column, *gap], 0))
            v = xp.concatenate(columns, 1).reshape(-1)
            value = xp.sum(c[0] * v**3)
            for r in range(rows):
                value = value + xp.sum(c[r, : n - r] * v[: n - r] * v[r:])
            return value

        return fun

    return Problem(name, objective, x, k, h, (c,), exact=True)


def polynomial(n: int, k: int) -> Problem:
    return staged_polynomial(f"polynomial n={n} w={k}", integers(n, n + k), k)


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


BUMPS = ((0.30, 0.38, 0.10), (0.62, 0.52, 0.12), (0.75, 0.86, 0.08))
KAPPA = 1e-3


def path2d(xp: Any) -> Callable:
    """A stiff path among smooth bumps; takes the points as (N, 2) or flat (2 N,)."""

    def fun(x: Any) -> Any:
        p = x.reshape(-1, 2)
        h = 1 / (p.shape[0] + 1)
        start = xp.zeros_like(p[:1])
        full = xp.concatenate([start, start, p, start + 1, start + 1], 0)
        first, second = full[1:] - full[:-1], full[2:] - 2 * full[1:-1] + full[:-2]
        value = xp.sum(first**2) / (2 * h) + KAPPA / (2 * h**3) * xp.sum(second**2)
        for cx, cy, s in BUMPS:
            value = value + 20 * h * xp.sum(xp.exp(-((p[:, 0] - cx) ** 2 + (p[:, 1] - cy) ** 2) / (2 * s**2)))
        return value

    return fun


def path2d_start(n: int) -> np.ndarray:
    t = np.arange(1, n // 2 + 1) / (n // 2 + 1)
    arch = 0.3 * np.sin(np.pi * t) / np.sqrt(2)
    return np.stack([t - arch, t + arch], 1).ravel()


def path2d_hessian(x: np.ndarray) -> np.ndarray:
    p = x.reshape(-1, 2)
    N = len(p)
    h = 1 / (N + 1)

    def point(i: int) -> int:  # the doubled ends are fixed
        return i if 0 <= i < N else -1

    elements = []
    for c in range(2):

        def at(i: int, c: int = c) -> int:
            return 2 * point(i) + c if point(i) >= 0 else -1

        d1, d2 = np.array([-1, 1]), np.array([1, -2, 1])
        elements += [((at(i), at(i + 1)), np.outer(d1, d1) / h) for i in range(-2, N + 1)]
        elements += [((at(i - 1), at(i), at(i + 1)), np.outer(d2, d2) * KAPPA / h**3) for i in range(-1, N + 1)]
    for i in range(N):
        for cx, cy, s in BUMPS:
            r = p[i] - (cx, cy)
            bump = 20 * h * np.exp(-r @ r / (2 * s**2))
            elements.append(((2 * i, 2 * i + 1), bump * (np.outer(r, r) / s**4 - np.eye(2) / s**2)))
    return assemble(2 * N, elements)


def path2d_flat(n: int) -> Problem:
    x = path2d_start(n)
    return Problem("path2d flat", path2d, x, 4, path2d_hessian(x))


def path2d_stages(n: int) -> Problem:
    x = path2d_start(n)
    return Problem("path2d stages", path2d, x.reshape(-1, 2), 2, path2d_hessian(x))


STEP = 0.5
MIX = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.75]])


def steering(xp: Any) -> Callable:
    """For {"q": (T, 3), "u": (T, 2) or (T - 1, 2)}, and r_t = q_{t+1} - q_t - STEP (sin q_t + mix u_t):
    sum r^2 / 2 + u^4 / 4 + q^2 / 2."""

    def fun(x: Any, mix: Any) -> Any:
        q, u = x["q"], x["u"]
        r = q[1:] - q[:-1] - STEP * (xp.sin(q[:-1]) + u[: q.shape[0] - 1] @ mix.T)
        return 0.5 * xp.sum(r**2) + xp.sum(u**4) / 4 + 0.5 * xp.sum(q**2)

    return fun


def steering_stages(T: int, ragged: bool) -> Problem:
    q, u = reals(3 * T, 5).reshape(T, 3), reals(2 * T, 6).reshape(T, 2)[: T - ragged]
    elements = [(range(5 * T), np.diag(np.tile([1.0, 1, 1, 0, 0], T)))]
    for t in range(len(u)):
        elements.append((range(5 * t + 3, 5 * t + 5), np.diag(3 * u[t] ** 2)))
    for t in range(T - 1):
        r = q[t + 1] - q[t] - STEP * (np.sin(q[t]) + MIX @ u[t])
        J = np.hstack([-np.eye(3) - STEP * np.diag(np.cos(q[t])), -STEP * MIX, np.eye(3)])
        curvature = np.diag(np.concatenate([STEP * np.sin(q[t]) * r, np.zeros(5)]))
        elements.append((range(5 * t, 5 * t + 8), J.T @ J + curvature))
    if ragged:
        elements.append((range(5 * T - 2, 5 * T), np.eye(2)))  # the dummies
    name = "steering ragged" if ragged else "steering"
    return Problem(name, steering, {"q": q, "u": u}, 1, assemble(5 * T, elements), (MIX,))


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


class Landscape(NamedTuple):
    """Coefficients of `landscape`: by them alone its minimisation ends in any of the ways there are."""

    tilt: float = 0
    curvature: float = 0
    quartic: float = 0
    spring: float = 0
    kink: float = 0
    far: float = 0  # couples stages two apart: outside bandwidth 1
    far_later: float = 0  # as far, but not at the origin

    def array(self) -> np.ndarray:
        return np.array(self, float)


def landscape(xp: Any) -> Callable:
    """One function for many ends: a program that is compiled once serves them all. Its bandwidth is meant to be 1."""

    def fun(x: Any, c: Any) -> Any:
        tilt, curvature, quartic, spring, kink, far, far_later = (c[i] for i in range(7))
        value = tilt * xp.sum(x) + curvature * xp.sum(x**2) / 2 + quartic * xp.sum(x**4) / 4
        value = value + spring * xp.sum((x[1:] - x[:-1]) ** 2) / 2 + kink * xp.sum(xp.abs(x - 1))
        return value + far * xp.sum(x[2:] * x[:-2]) + far_later * xp.sum(x[2:] ** 2 * x[:-2] ** 2)

    return fun


def landscape_derivatives(x: np.ndarray, c: Landscape) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and dense Hessian, without kink and far couplings."""
    n = len(x)
    pull = np.diff(np.eye(n), axis=0)
    springs = c.spring * pull.T @ pull
    gradient = c.tilt + c.curvature * x + c.quartic * x**3 + springs @ x
    return gradient, np.diag(c.curvature + 3 * c.quartic * x**2) + springs


TREE = {"q": integers(24, 12).reshape(8, 3), "u": integers(16, 13).reshape(8, 2)}
RAGGED_TREE = {"q": integers(18, 14).reshape(6, 3), "u": integers(20, 15).reshape(5, 2, 2)}

PROBLEMS = [
    blog_chain(12),
    rosenbrock_chain(17),
    genrose_chain(15),
    polynomial(14, 0),
    polynomial(23, 3),
    polynomial(5, 4),
    staged_polynomial("polynomial matrix k=2", integers(27, 16).reshape(9, 3), 2),
    staged_polynomial("polynomial tree k=1", TREE, 1),
    staged_polynomial("polynomial tree k=0", TREE, 0),
    staged_polynomial("polynomial ragged k=2", RAGGED_TREE, 2),
    window_chain(20, 2),
    window_chain(31, 5),
    path2d_flat(24),
    path2d_stages(24),
    steering_stages(7, ragged=False),
    steering_stages(7, ragged=True),
    engval1_chain(16),
    cosine_chain(16),
    tridia_chain(16),
    broyden_chain(18),
    curly10_chain(25),
]


# --- Minimisation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Minimisation:
    """A reference problem for Newton's method: its start, and the optimal value two other solvers agree on."""

    name: str
    objective: Callable[[Any], Callable]
    start: np.ndarray
    bandwidth: int
    optimum: float

    def __str__(self) -> str:
        return self.name


def ramp(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1)


MINIMISATIONS = [
    Minimisation("genrose", genrose, ramp(1000), 1, 1.0),
    Minimisation("engval1", engval1, np.full(1000, 2.0), 1, 1108.1947188),
    Minimisation("cosine", cosine, np.ones(1000), 1, -999.0),
    Minimisation("tridia", tridia, np.ones(1000), 1, 0.0),
    Minimisation("broyden", broyden, -np.ones(1000), 2, 0.0),
    Minimisation("curly10", curly10, 1e-4 * ramp(1000), 10, -100316.290241),
    Minimisation("path2d", path2d, path2d_start(1000).reshape(-1, 2), 2, 1.731691528),
]
