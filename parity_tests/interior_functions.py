"""Trajectories in PyTorch with dense derivatives, for both interior-point engines: each a head of a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from interior_driver import Problem, banded, cut, windows
from torch.func import hessian, jacrev

INF = np.inf


class Trajectory(NamedTuple):
    """Columns of z, (T, d), stage by stage: f(z), c(z) = 0, g(z) >= 0 and bounds. It has what `interior_quadratics.run`
    asks for, and `dense` for `interior_driver.solve`."""

    f: Callable
    rows: Callable  # z -> c, g
    start: np.ndarray  # (T, d)
    below: Any
    above: Any
    w: int  # of the band and of rows
    first: np.ndarray
    m: int

    @property
    def x0(self) -> np.ndarray:
        return self.start.ravel()

    @property
    def lower(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.below, float), self.start.shape).ravel()

    @property
    def upper(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.above, float), self.start.shape).ravel()

    def together(self, x: torch.Tensor) -> torch.Tensor:
        """f, then the rows."""
        z = x.reshape(self.start.shape)
        return torch.cat([self.f(z).reshape(1), *(torch.atleast_1d(a).ravel() for part in self.rows(z) for a in part)])

    def values(self, x: np.ndarray) -> tuple:
        v = self.together(torch.tensor(x)).numpy()
        return v[0], v[1:]

    def whole(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        at = torch.tensor(x)
        J = jacrev(self.together)(at).numpy()
        weights = np.concatenate([[sigma], y[: len(J) - 1]])
        W = hessian(lambda x: torch.tensor(weights) @ self.together(x))(at).numpy()
        return *self.values(x), weights @ J, W, J[1:]

    def derivatives(self, x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        f, h, g, W, J = self.whole(x, sigma, y)
        return f, h, g, cut(J, self.first, self.w + 1), banded(W, self.w + 1), 0.0

    def dense(self) -> Problem:
        return Problem(self.values, self.whole, self.x0, self.m, self.lower, self.upper, self.w + 1)


def trajectory(f: Callable, rows: Callable, start: list, T: int, lower: Any, upper: Any) -> Trajectory:
    z = np.stack([np.broadcast_to(np.asarray(a, float), (T,)) for a in start], 1)
    d = len(start)
    w = min(2 * d, z.size) - 1
    p = Trajectory(f, rows, z, lower, upper, w, np.zeros(0, np.int32), 0)
    beside = p.x0 + 1e-2 * np.random.default_rng(0).normal(size=T * d)
    m = sum(torch.atleast_1d(a).numel() for a in rows(torch.tensor(beside.reshape(z.shape)))[0])
    J = p.whole(beside, 1.0, np.ones(1000))[-1]
    return p._replace(m=m, first=windows(J, w + 1)[0])


def trapezoid(a: torch.Tensor, slope: torch.Tensor, h: Any) -> torch.Tensor:
    return a[1:] - a[:-1] - h / 2 * (slope[1:] + slope[:-1])


def brachistochrone(N: int) -> Trajectory:
    """Above a wall, from rest and at rest everywhere: from there rows nearly depend on each other, and multipliers run
    off. Place, height, speed, angle and time a stage."""

    def rows(z: torch.Tensor) -> tuple:
        x, y, v, a, time = z.T
        h, down = time[:-1] / N, torch.cos(a)
        c = [trapezoid(x, v * torch.sin(a), h), trapezoid(y, v * down, h), trapezoid(v, 9.81 * down, h)]
        return [*c, time[1:] - time[:-1], x[0], y[0], v[0], x[-1] - 2], [x / 2 + 0.2 - y]

    low, up = [-INF, -INF, -INF, -3.2, 0], [INF, INF, INF, 3.2, INF]
    return trajectory(lambda z: z[-1, 4], rows, [0, 0, 0, 0, 1], N + 1, low, up)


def ridden(N: int) -> Trajectory:
    """Four stiff states that must stay above four peaks of time (the alp rider of Betts' book), by Hermite-Simpson:
    rows so curved, under multipliers so large, that one correction of second order leaves more than phi gains."""
    t = 20 * np.arange(N + 1) / N
    peaks = ((3, 12, 3), (3, 10, 6), (3, 6, 10), (8, 4, 15))
    peaks = torch.tensor(0.01 + sum(a * np.exp(-b * (t - c) ** 2) for a, b, c in peaks))
    A = torch.tensor([[-10.0, 0, 0, 0], [0, -2, 0, 0], [0, 0, -3, 5], [0, 0, 5, -3]], dtype=torch.float64)
    B = torch.tensor([[1.0, 1], [1, -2], [1, -1], [1, 3]], dtype=torch.float64)
    ends = torch.tensor([[2.0, 1, 2, 1], [2, 3, 1, -2]], dtype=torch.float64)
    h = 20 / N

    def rows(z: torch.Tensor) -> tuple:
        x, u = z[:, :4], z[:, 4:]
        k = x @ A.T + u @ B.T
        middle = (x[1:] + x[:-1]) / 2 + h / 8 * (k[:-1] - k[1:])
        slope = middle @ A.T + (u[1:] + u[:-1]) / 2 @ B.T
        joined = x[1:] - x[:-1] - h / 6 * (k[:-1] + 4 * slope + k[1:])
        return [joined, x[0] - ends[0], x[-1] - ends[1]], [(x**2).sum(1) - peaks]

    def f(z: torch.Tensor) -> torch.Tensor:
        rate = 100 * (z[:, :4] ** 2).sum(1) + 0.01 * (z[:, 4:] ** 2).sum(1)
        return h / 2 * (rate[1:] + rate[:-1]).sum()

    start = [2, 1 + 2 * t / 20, 2 - t / 20, 1 - 3 * t / 20, 0, 0]
    return trajectory(f, rows, start, N + 1, -INF, INF)


def links(N: int) -> Trajectory:
    """A hanging chain of straight links from a level start, where rows depend on each other: place, height, slope."""

    def rows(z: torch.Tensor) -> tuple:
        x, y, a = z.T
        joined = [x[1:] - x[:-1] - 3.6 / N * torch.cos(a[1:]), y[1:] - y[:-1] - 3.6 / N * torch.sin(a[1:])]
        return [*joined, x[0], y[0], x[-1] - 2, y[-1], a[0]], []

    return trajectory(lambda z: z[:, 1].sum(), rows, [2 * np.arange(N + 1) / N, 0, 0], N + 1, -INF, INF)


def squared(start: list) -> Trajectory:
    """min x0 + (x1 - 1)^2 with (x0 - 1)^2 = 0 beside x0 + x1 + x2 = 3 x2^2: one stage, whose first row has no gradient
    where it is met."""

    def rows(z: torch.Tensor) -> tuple:
        x = z[0]
        return [(x[:1] - 1) ** 2, x[:1] + x[1:2] + x[2:] - 3 * x[2:] ** 2], []

    return trajectory(lambda z: z[0, 0] + (z[0, 1] - 1) ** 2, rows, start, 1, -INF, INF)


def disc_and_wave() -> Trajectory:
    """The nearest point to another outside a disc, on a circle with waves whose equation is squared."""

    def square(x: torch.Tensor, *centre: float) -> torch.Tensor:
        return ((x - torch.tensor(centre, dtype=x.dtype)) ** 2).sum().reshape(1)

    def rows(z: torch.Tensor) -> tuple:
        wave = square(z[0], 0, 0) - 0.4 + 0.2 * torch.sin(4 * z[0, :1])
        return [wave**2], [square(z[0], -0.8, 0.2) - 0.5]

    return trajectory(lambda z: square(z[0], 0.2, -0.6)[0], rows, [1.0, 1.8], 1, -INF, INF)
