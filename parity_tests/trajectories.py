"""Trajectory problems with constraints, each written once for both backends, with starts and reference optima.

Stages are rows: C1 `(T, 3)` with (u_k, angle_{k+1}, rate_{k+1}), C2 `(N + 1, 5)` with (q1, q2, q1', q2', u).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

GRAVITY = 9.81

# --- C1: pendulum swing-up -------------------------------------------------------------------------------------------

PENDULUM_TIME = 4.0
PENDULUM_OPTIMA = {100: 17.9232617522, 300: 17.9081575295, 1000: 17.9064389867}


def pendulum_cost(xp: Any) -> Callable:
    def cost(z: Any, *_: Any) -> Any:
        return PENDULUM_TIME / z.shape[0] / 2 * xp.sum(z[:, 0] ** 2)

    return cost


def pendulum_dynamics(xp: Any) -> Callable:
    """`((T, 2), (2,))`: the defects of one RK4 step per stage, and the distance from upright and at rest at the end.
    `gravity` may be given as an argument."""

    def dynamics(z: Any, gravity: Any = GRAVITY) -> Any:
        h, u = PENDULUM_TIME / z.shape[0], z[:, 0]
        before = xp.concatenate([xp.zeros_like(z[:1, 1:]), z[:-1, 1:]], 0)

        def rate(x: Any) -> Any:
            return xp.stack([x[:, 1], u - gravity * xp.sin(x[:, 0])], 1)

        k1 = rate(before)
        k2 = rate(before + h / 2 * k1)
        k3 = rate(before + h / 2 * k2)
        k4 = rate(before + h * k3)
        after = before + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z[:, 1:] - after, xp.stack([z[-1, 1] - np.pi, z[-1, 2]], 0)

    return dynamics


def pendulum_start(T: int) -> np.ndarray:
    angle = np.pi * np.arange(1, T + 1) / T
    return np.stack([np.zeros(T), angle, np.full(T, np.pi / PENDULUM_TIME)], 1)


# --- C2: cart-pole swing-up (Kelly 2017) -----------------------------------------------------------------------------

CART_TIME = 2.0
CART_OPTIMA = {100: 58.8967101559, 1000: 58.8085891182}
M1, M2, LENGTH, DISTANCE = 1.0, 0.3, 0.5, 1.0


def cart_cost(xp: Any) -> Callable:
    def cost(z: Any) -> Any:
        u = z[:, 4]
        return CART_TIME / (z.shape[0] - 1) / 2 * xp.sum(u[:-1] ** 2 + u[1:] ** 2)

    return cost


def cart_dynamics(xp: Any) -> Callable:
    """`((N, 4), (4,), (4,))`: trapezoidal defects, start and end."""

    def dynamics(z: Any) -> Any:
        h, x = CART_TIME / (z.shape[0] - 1), z[:, :4]
        s, c, turn, u = xp.sin(z[:, 1]), xp.cos(z[:, 1]), z[:, 3], z[:, 4]
        mass = M1 + M2 * (1 - c**2)
        push = (LENGTH * M2 * s * turn**2 + u + M2 * GRAVITY * c * s) / mass
        spin = -(LENGTH * M2 * c * s * turn**2 + u * c + (M1 + M2) * GRAVITY * s) / (LENGTH * mass)
        rate = xp.stack([z[:, 2], turn, push, spin], 1)
        goal = xp.stack([x[-1, 0] - DISTANCE, x[-1, 1] - np.pi, x[-1, 2], x[-1, 3]], 0)
        return x[1:] - x[:-1] - h / 2 * (rate[:-1] + rate[1:]), x[0], goal

    return dynamics


def cart_start(N: int) -> np.ndarray:
    t = np.arange(N + 1) / N
    zero = np.zeros(N + 1)
    return np.stack([DISTANCE * t, np.pi * t, zero, zero, zero], 1)


# --- Free final time -------------------------------------------------------------------------------------------------


def shortest_time(xp: Any, distance: float) -> tuple[Callable, Callable]:
    """Objective and constraints of a double integrator, from rest to rest over `distance` in the least time.

    Stages `(T, 4)` with (q_{k+1}, v_{k+1}, u_k, h_k): every stage has its own step length, tied to the next one's.
    With |u| <= 1 the least time is 2 sqrt(distance), bang-bang, and exact for even T.
    """

    def time(z: Any) -> Any:
        return xp.sum(z[:, 3])

    def dynamics(z: Any) -> Any:
        before = xp.concatenate([xp.zeros_like(z[:1, :2]), z[:-1, :2]], 0)
        u, h = z[:, 2], z[:, 3]
        move = z[:, 0] - before[:, 0] - h * before[:, 1] - h**2 * u / 2
        speed = z[:, 1] - before[:, 1] - h * u
        return move, speed, h[1:] - h[:-1], xp.stack([z[-1, 0] - distance, z[-1, 1]], 0)

    return time, dynamics


def shortest_time_start(T: int, distance: float) -> np.ndarray:
    t = np.arange(1, T + 1) / T
    return np.stack([distance * t, np.full(T, 1.0), np.zeros(T), np.full(T, distance / T)], 1)


# --- One small problem for many ends ---------------------------------------------------------------------------------


class Yard(NamedTuple):
    """Coefficients of `yard_cost` and `yard_constraints`: one compiled program serves them all. Six variables in
    three pairs; the bandwidth is meant to be 1."""

    tilt: float = 0
    curvature: float = 1
    quartic: float = 0
    spring: float = 0
    far: float = 0  # couples entries two apart: outside bandwidth 1
    sheer: float = 0  # of x^(3/2): NaN for negative entries
    link: float = 1  # link (a + b) + product a b = level for each pair (a, b)
    product: float = 0
    level: float = 1
    again: float = 0  # the fourth constraint: a - 2 b = pin for the first pair, or its first constraint once more
    pin: float = 0.25
    stretch: float = 0  # puts the last variable into the fourth constraint: J^T J outside bandwidth 1
    cap: float = 100  # inequalities squeeze x <= cap
    squeeze: float = 1
    far_later: float = 0  # as far, but not at the origin

    def array(self) -> np.ndarray:
        return np.array(self, float)


def yard_cost(xp: Any) -> Callable:
    def cost(x: Any, c: Any) -> Any:
        value = c[0] * xp.sum(x[0::2] + 2 * x[1::2]) + c[1] * xp.sum(x**2) / 2 + c[2] * xp.sum(x**4) / 4
        value = (
            value
            + c[3] * xp.sum((x[1:] - x[:-1]) ** 2) / 2
            + c[4] * xp.sum(x[2:] * x[:-2])
            + c[14] * xp.sum(x[2:] ** 2 * x[:-2] ** 2)
        )
        return value + xp.sum(xp.where(c[5] > 0, c[5] * xp.where(c[5] > 0, x, 1) ** 1.5, 0))

    return cost


def yard_constraints(xp: Any) -> Callable:
    def constraints(x: Any, c: Any) -> Any:
        a, b = x[0::2], x[1::2]
        pairs = c[6] * (a + b) + c[7] * a * b - c[8]
        fourth = (1 - c[9]) * (a[0] - 2 * b[0] - c[10]) + c[9] * (pairs[0] + c[10]) + c[11] * x[-1]
        return {"fourth": fourth, "pairs": pairs}

    return constraints


def yard_inequalities(x: Any, c: Any) -> Any:
    return c[12] - c[13] * x
