# ruff: noqa: E501
"""Reactors, and rates fitted to series, for `fresh.py`."""

from __future__ import annotations

import casadi as ca
import numpy as np
from cases import INF, Problem
from transcription import times, trajectory

exp = ca.exp


def fit(
    name: str, slope, first: list, data: np.ndarray, at: np.ndarray, rates: int, guess, per: int, scheme: str
) -> Problem:
    """Rates replicated per stage, >= 0; `per` steps between measurements; states start at the data, line by line."""
    grid = np.repeat(np.diff(at) / per, per)
    ns, N = data.shape[1], len(grid)
    knots = np.concatenate([[0], np.cumsum(grid)]) + at[0]
    begin = [np.interp(knots, at, data[:, i]) for i in range(ns)]
    guess = np.broadcast_to(guess, (rates,))
    p = trajectory(
        name, N, lambda x, u: slope(x[:ns], x[ns:]) + [0] * rates, begin + list(guess), [], at[-1] - at[0], scheme,
        dict(enumerate(first)), None, {ns + k: (0, INF) for k in range(rates)}, grid=grid / grid.sum(),
    )  # fmt: skip
    f = sum(ca.sumsqr(p.x[i :: ns + rates][::per][1:] - data[1:, i]) for i in range(ns))
    return p._replace(f=f)


def simulated(slope, first: list, at: np.ndarray, rates: list, noise: float) -> np.ndarray:
    """A series of its own: RK4 in fine steps, with a wave for an error."""
    y, out = np.array(first, float), [first]
    for h in np.diff(at) / 200:
        for _ in range(200):
            k1 = np.array(slope(y, rates))
            k2 = np.array(slope(y + h / 2 * k1, rates))
            k3 = np.array(slope(y + h / 2 * k2, rates))
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + np.array(slope(y + h * k3, rates)))
        out.append(y)
    return np.array(out) * (1 + noise * np.sin(3.0 * np.arange(len(at)) ** 2))[:, None]


def pinene(scheme: str, guess: float) -> Problem:
    def slope(y, r):
        back = r[4] * y[4]
        return [
            -(r[0] + r[1]) * y[0],
            r[0] * y[0],
            r[1] * y[0] - (r[2] + r[3]) * y[2] + back,
            r[2] * y[2],
            r[3] * y[2] - back,
        ]

    at = np.array([0, 1230, 3060, 4920, 7800, 10680, 15030, 22620, 36420.0])
    data = [
        [100, 0, 0, 0, 0], [88.35, 7.3, 2.3, 0.4, 1.75], [76.4, 15.6, 4.5, 0.7, 2.8], [65.1, 23.1, 5.3, 1.1, 5.8], [50.4, 32.9, 6, 1.5, 9.3],
        [37.5, 42.7, 6, 1.9, 12], [25.9, 49.1, 5.9, 2.2, 17], [14, 57.4, 5.1, 2.6, 21], [4.5, 63.1, 3.8, 2.9, 25.7],
    ]  # fmt: skip
    return fit(f"pinene {guess:g}", slope, [100, 0, 0, 0, 0], np.array(data, float), at, 5, guess, 5, scheme)


def gasoil(scheme: str, guess: float, per: int = 2) -> Problem:
    def slope(y, r):
        return [-(r[0] + r[2]) * y[0] ** 2, r[0] * y[0] ** 2 - r[1] * y[1]]

    at = np.array(
        [
            0,
            0.025,
            0.05,
            0.075,
            0.1,
            0.125,
            0.15,
            0.175,
            0.2,
            0.225,
            0.25,
            0.3,
            0.35,
            0.4,
            0.45,
            0.5,
            0.55,
            0.65,
            0.75,
            0.85,
            0.95,
        ]
    )
    a = [
        1,
        0.8105,
        0.6208,
        0.5258,
        0.4345,
        0.3903,
        0.3342,
        0.3034,
        0.2735,
        0.2405,
        0.2283,
        0.2071,
        0.1669,
        0.153,
        0.1339,
        0.1265,
        0.12,
        0.099,
        0.087,
        0.077,
        0.069,
    ]
    b = [
        0,
        0.2,
        0.2886,
        0.301,
        0.3215,
        0.3123,
        0.2716,
        0.2551,
        0.2258,
        0.1959,
        0.1789,
        0.1457,
        0.1198,
        0.0909,
        0.0719,
        0.0561,
        0.046,
        0.028,
        0.019,
        0.014,
        0.01,
    ]
    return fit(f"gasoil {guess:g}", slope, [1, 0], np.array([a, b]).T, at, 3, guess, per, scheme)


def methanol(scheme: str, guess: float) -> Problem:
    def slope(y, r):
        share = (r[1] + r[4]) * y[0] + y[1]
        k = r[0] * y[0] / share
        return [
            -2 * r[1] * y[0] + k * y[1] - (r[2] + r[3]) * y[0],
            k * (r[1] * y[0] - y[1]) + r[2] * y[0],
            k * (y[1] + r[4] * y[0]) + r[3] * y[0],
        ]

    at = np.array(
        [0, 0.05, 0.065, 0.08, 0.123, 0.233, 0.273, 0.354, 0.397, 0.418, 0.502, 0.553, 0.681, 0.75, 0.916, 0.937, 1.122]
    )
    data = simulated(slope, [1, 0, 0], at, [5.24, 1.22, 0.5, 0.2, 0.3], 0.03)
    return fit(f"methanol {guess:g}", slope, [1, 0, 0], data, at, 5, guess, 3, scheme)


def penicillin(scheme: str, N: int, free: bool = True) -> Problem:
    """A fed batch whose uptake s / (1e-4 + s) bends within 1e-4 of a bound."""

    def slope(x, u):
        X, P, S, V = x
        mu, rho, feed = 0.11 * S / (0.006 * X + S), 0.0055 * S / (1e-4 + S * (1 + 10 * S)), u[0] / (500 * V)
        return [
            mu * X - feed * X,
            rho * X - 0.01 * P - feed * P,
            -mu * X / 0.47 - rho * X / 1.2 - 0.029 * X * S / (1e-4 + S) + feed * (500 - S),
            u[0] / 500,
        ]

    t = times(N)
    return trajectory(
        "penicillin" + ("" if free else " fixed T"), N, slope, [1.5 + 28 * t, 8 * t, 5 * (1 - t), 7 + 3 * t], [10], 126, scheme, {0: 1.5, 1: 0, 2: 0, 3: 7},
        None, {0: (0, 40), 1: (0, 50), 2: (0, 25), 3: (0, 10), 4: (0, 50)}, final=lambda e, T: -e[1] * e[3] / 100, free=(72, 200) if free else None,
    )  # fmt: skip


def protein(scheme: str, N: int) -> Problem:
    """Secreted protein from yeast, fed batch (Park and Ramirez)."""

    def slope(x, u):
        X, S, P, M, V = x
        mu, feed = 21.87 * S / ((S + 0.4) * (S + 62.5)), u[0] / V
        return [
            mu * X - feed * X,
            -7.3 * mu * X - feed * (S - 20),
            S * exp(-5 * S) / (0.1 + S) * X - feed * P,
            4.75 * mu / (0.12 + mu) * (P - M) - feed * M,
            u[0],
        ]

    box = {0: (0, INF), 1: (0, INF), 2: (0, INF), 3: (0, INF), 4: (0, 20), 5: (0, 2)}
    return trajectory(
        "protein",
        N,
        slope,
        [1, 5, 0, 0, 1],
        [1],
        15,
        scheme,
        dict(enumerate([1, 5, 0, 0, 1])),
        None,
        box,
        final=lambda e, T: -e[3] * e[4],
    )


def crystals(scheme: str, N: int) -> Problem:
    """Two reactions in series in a batch, hottest when most is gained: B made of A, lost to C."""

    def slope(x, u):
        a, b = 4000 * exp(-2500 / u[0]), 6.2e5 * exp(-5000 / u[0])
        return [-a * x[0] ** 2, a * x[0] ** 2 - b * x[1]]

    return trajectory(
        "batch A-B-C",
        N,
        slope,
        [1, 0],
        [300],
        1,
        scheme,
        {0: 1, 1: 0},
        None,
        {0: (0, 1), 1: (0, 1), 2: (298, 398)},
        final=lambda e, T: -e[1],
    )


def catmix(scheme: str, N: int) -> Problem:
    def slope(x, u):
        swap = u[0] * (10 * x[1] - x[0])
        return [swap, -swap - (1 - u[0]) * x[1]]

    return trajectory(
        "catmix",
        N,
        slope,
        [1, 0],
        [0.5],
        1,
        scheme,
        {0: 1, 1: 0},
        None,
        {2: (0, 1)},
        final=lambda e, T: -1 + e[0] + e[1],
    )


def tumour(scheme: str, N: int) -> Problem:
    """Anti-angiogenic treatment, volumes in cubic millimetres (Ledzewicz and Schaettler; Betts)."""

    def slope(x, u):
        p, q, _ = x
        return [-0.084 * p * ca.log(p / q), q * (5.85 - 0.00873 * p ** (2 / 3) - 0.02 - 0.15 * u[0]), u[0]]

    box = {0: (0.01, 15000), 1: (0.01, 15000), 2: (0, 45), 3: (0, 75)}
    return trajectory(
        "tumour",
        N,
        slope,
        [8000, 10000, 22],
        [10],
        1,
        scheme,
        {0: 8000, 1: 10000, 2: 0},
        None,
        box,
        final=lambda e, T: e[0],
        free=(0.1, 10),
    )


def vaccination(scheme: str, N: int) -> Problem:
    """SIR with vaccination of at most 0.9 a day and a limit on how many are ill at once."""

    def slope(x, u):
        s, i, _ = x
        return [-1.5 * s * i - u[0] * s, 1.5 * s * i - 0.3 * i, u[0] * s]

    box = {0: (0, 1), 1: (0, 0.2), 2: (0, INF), 3: (0, 0.9)}
    return trajectory(
        "vaccination",
        N,
        slope,
        [0.5, 0.03, 0.2],
        [0.1],
        30,
        scheme,
        {0: 0.95, 1: 0.05, 2: 0},
        None,
        box,
        lambda x, u: x[1] + 0.5 * u[0] ** 2,
    )
