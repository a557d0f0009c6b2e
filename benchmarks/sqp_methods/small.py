# ruff: noqa: RUF028
"""Small problems, each the head of a kind."""

from __future__ import annotations

import math

import casadi as ca
from cases import INF, Problem, small


def smalls() -> list[Problem]:
    out = []
    for s in (0.0, 1e-12):
        out.append(small(f"square=1 from {s:g}", [s] * 3, lambda x: (ca.sumsqr(x - 3), [x**2 - 1], []), optimum=12.0))
    out.append(small("x0 x1 saddle", [1, 1], lambda x: (x[0] * x[1], [x[0] + x[1] - 2], []), 0, 4, optimum=0.0))
    out.append(small("double wells", [0] * 4, lambda x: (ca.sumsqr(x**2 - 1), [], []), -5, 5, optimum=0.0))
    disc = lambda x: (  # noqa: E731
        ca.sumsqr(x - ca.DM([2.1, 1.5])), [], [ca.sumsqr(x - ca.DM([-0.1, 0.2])) - 0.5],
    )  # fmt: skip
    out.append(small("disc outside", [-3.4, -1.6], disc, optimum=0.0))
    wave = lambda p: lambda x: (  # noqa: E731
        ca.sumsqr(x - ca.DM(p)), [ca.sumsqr(x) - 2 + 0.3 * ca.sin(3 * x[0])], [],
    )  # fmt: skip
    out.append(small("wave bounded", [-2.6, -0.9], wave([0.8, 1.3]), [0, -0.6], several=True))
    out.append(small("wave", [-2.9, -1.9], wave([0.3, 0.0]), several=True))
    for s in (1e-8, 1e-4, 1.0, 1e4, 1e8):
        out.append(
            small(
                f"rows s={s:g}",
                [0, 0, 0],
                lambda x, s=s: (ca.sumsqr(x), [x[0] + x[1] - 1, s * (x[1] + x[2] - 1)], []),
                optimum=2 / 3,
            )  # fmt: skip
        )
    for e in (1e-6, 1e-7):
        out.append(
            small(
                f"dependent {e:g}",
                [0, 0, 0],
                lambda x, e=e: (ca.sumsqr(x), [x[0] + x[1] - 1, x[0] + (1 + e) * x[1] - 1 - e / 2], []),
                optimum=0.5,
            )  # fmt: skip
        )
    out.append(
        small("redundant", [0, 0, 0], lambda x: (ca.sumsqr(x), [x[0] + x[1] - 1, x[0] + x[1] - 1], []), optimum=0.5)
    )
    out.append(
        small(
            "squared row",
            [0, 0, 0],
            lambda x: (ca.sumsqr(x), [(x[0] - 1) ** 2, x[1] + x[2] - 1], []),
            optimum=1.5,
        )  # fmt: skip
    )
    out.append(small("1e8 (x - 1)", [0], lambda x: (ca.sumsqr(x), [1e8 * (x[0] - 1)], []), optimum=1.0))
    out.append(small("x>=2, x<=1", [0], lambda x: (1e16 * ca.sumsqr(x), [], [x[0] - 2, 1 - x[0]]), ending="INFEASIBLE"))
    out.append(small("circle apart", [1, 1], lambda x: (x[0], [ca.sumsqr(x) + 1], []), ending="INFEASIBLE"))
    out.append(
        small(
            "Waechter-Biegler",
            [-2, 3, 1],
            lambda x: (x[0], [x[0] ** 2 - x[1] - 1, x[0] - x[2] - 0.5], []),
            [-INF, 0, 0],
            optimum=1.0,
        )  # fmt: skip
    )
    out.append(small("unbounded", [1, 1], lambda x: (-(x[0] ** 2), [x[1] - 1], []), ending="UNBOUNDED"))
    out.append(
        small("max on a circle", [1, 0], lambda x: (-(x[0] ** 2) - 2 * x[1] ** 2, [ca.sumsqr(x) - 1], []), optimum=-2.0)
    )
    out.append(
        small(
            "Maratos",
            [math.cos(0.5), math.sin(0.5)],
            lambda x: (2 * (ca.sumsqr(x) - 1) - x[0], [ca.sumsqr(x) - 1], []),
            optimum=-1.0,
        )
    )
    out.append(
        small(
            "MPCC",
            [1, 1],
            lambda x: ((x[0] - 1) ** 2 + (x[1] - 2) ** 2, [], [-x[0] * x[1]]),
            0,
            None,
            several=True,
            optimum=1.0,
        )
    )
    return out
