"""Feet beside radians, metres beside seconds: columns whose sizes lie five decades apart and more, as users write."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backends import Backend
from control_problems import INF, Control, columns, ends, stages, trapezoid

DEGREE = math.pi / 180


def reentry(xp: Any, N: int = 60) -> Control:
    """A shuttle's descent that ends farthest from its plane (Betts, Practical Methods for Optimal Control), without a
    limit on heat: altitude in feet, longitude, latitude, speed in feet a second, path, azimuth, attack and bank in
    radians, step in seconds. IPOPT takes 251 steps, to 34.0279; 37 to the optimum in units of 1e5 and 1e4 feet."""

    def rates(z: Any) -> list:
        h, _, latitude, v, path, azimuth, attack, bank, _ = columns(z)
        density, r, weight = 0.002378 * xp.exp(-h / 23800), 20902900 + h, 203000 / 32.174
        force, a = 0.5 * 2690 * density * v**2, attack / DEGREE
        lift = force * (-0.20704 + 0.029244 * a)
        drag = force * (0.07854 - 0.0061592 * a + 0.000621408 * a**2)
        g = 0.14076539e17 / r**2
        return [
            v * xp.sin(path),
            v / r * xp.cos(path) * xp.sin(azimuth) / xp.cos(latitude),
            v / r * xp.cos(path) * xp.cos(azimuth),
            -drag / weight - g * xp.sin(path),
            lift * xp.cos(bank) / (weight * v) + xp.cos(path) * (v / r - g / v),
            lift * xp.sin(bank) / (weight * v * xp.cos(path))
            + v / (r * xp.cos(latitude)) * xp.cos(path) * xp.sin(azimuth) * xp.sin(latitude),
        ]

    def constraints(z: Any) -> list:
        state, step = columns(z)[:6], z[:, 8]
        first = (260000, 0, 0, 25600, -DEGREE, 90 * DEGREE)
        sides = ends(*((a, True, value) for a, value in zip(state, first, strict=True)))
        sides += ends((state[0], False, 80000), (state[3], False, 2500), (state[4], False, -5 * DEGREE))
        rows = [trapezoid(a, slope, step[:-1]) for a, slope in zip(state, rates(z), strict=True)]
        return [*rows, step[1:] - step[:-1], *sides]

    t, right = np.arange(N + 1) / N, 90 * DEGREE
    start = stages(
        260000 - 180000 * t, 0, 0, 25600 - 23100 * t, (-1 - 4 * t) * DEGREE, right, 17 * DEGREE, -45 * DEGREE, 2000 / N
    )
    steep = 89 * DEGREE
    lower = [0, -INF, -steep, 1, -steep, -INF, -right, -right, 1000 / N]
    upper = [INF, INF, steep, INF, steep, INF, right, DEGREE, 4000 / N]
    return Control(lambda z: -z[-1, 2] / DEGREE, constraints, start, 1, -34.136938, 37, None, lower, upper)


def transfer(xp: Any, N: int = 60) -> Control:
    """From one circular orbit to another by a low thrust, the angle of which is steered, in least time: radius in
    metres, angle, speeds, the thrust's angle, the step in seconds. IPOPT ends at no feasible point; it takes 8 steps
    in units of the first orbit."""
    mu, r0, r1, thrust = 3.986e14, 7e6, 9e6, 0.15
    v0, v1 = math.sqrt(mu / r0), math.sqrt(mu / r1)

    def constraints(z: Any) -> list:
        r, angle, out, along, steer, step = columns(z)
        rates = [
            out,
            along / r,
            along**2 / r - mu / r**2 + thrust * xp.sin(steer),
            -out * along / r + thrust * xp.cos(steer),
        ]
        state = [r, angle, out, along]
        sides = ends((r, True, r0), (angle, True, 0), (out, True, 0), (along, True, v0))
        sides += ends((r, False, r1), (out, False, 0), (along, False, v1))
        rows = [trapezoid(a, slope, step[:-1]) for a, slope in zip(state, rates, strict=True)]
        return [*rows, step[1:] - step[:-1], *sides]

    t, T = np.arange(N + 1) / N, abs(v0 - v1) / thrust
    start = stages(r0 + (r1 - r0) * t, v0 / r0 * T * t, 0, v0 + (v1 - v0) * t, 0, T / N)
    lower, upper = [0.1 * r0, -INF, -INF, -INF, -math.pi, 0], [INF, INF, INF, INF, math.pi, INF]
    optimum = 6.8374128 * math.sqrt(r0**3 / mu)
    return Control(lambda z: N * z[-1, 5], constraints, start, 1, optimum, 30, None, lower, upper)


@pytest.mark.parametrize("make", [reentry, transfer])
def test_units_as_users_write_them(backend: Backend, make: Callable) -> None:
    p = make(backend.xp)
    bounds = tuple(backend.array(np.broadcast_to(np.asarray(b, float), p.start.shape)) for b in (p.lower, p.upper))
    result = backend.package.sqp(p.cost, p.constraints, backend.array(p.start), p.bandwidth, bounds=bounds)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), p.optimum, rtol=1e-6)
    assert result.steps <= 1.5 * p.ipopt
