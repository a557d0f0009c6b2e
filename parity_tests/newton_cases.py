"""Minimisations for the tests of `newton`: one function for many ends, and a start for each end."""

import math
from typing import Any

import numpy as np
from backends import BACKENDS, Backend
from minimisations import Landscape, landscape

EPS = np.finfo("float64").eps
TOL = EPS**0.5  # the default
N = 6
HERE = np.array([0.5, -0.3, 0.8, 0.1, -0.6, 0.4])
HISTORIC = Landscape(curvature=-1, quartic=1, spring=1)


# One function object per backend, so that every test with it runs the program compiled first.
LANDSCAPE = {name: landscape(backend.xp) for name, backend in BACKENDS.items()}


def on_landscape(backend: Backend, x: np.ndarray, c: Landscape, **options: Any) -> Any:
    args = (backend.array(c.array()),)
    return backend.package.newton(LANDSCAPE[backend.name], backend.array(x), 1, args=args, **options)


ENDS = {
    "convex": (Landscape(curvature=1, spring=2), HERE, "CONVERGED"),
    "quartic": (Landscape(quartic=1, spring=1), HERE, "CONVERGED"),
    "at the minimum": (Landscape(curvature=1, spring=2), np.zeros(N), "CONVERGED"),
    "flat": (Landscape(), HERE, "CONVERGED"),
    "falling plane": (Landscape(tilt=1), HERE, "UNBOUNDED"),
    "concave": (Landscape(curvature=-1), HERE, "UNBOUNDED"),
    "concave, from its maximum": (Landscape(curvature=-1), np.zeros(N), "UNBOUNDED"),
    "falling quartic": (Landscape(quartic=-1, spring=1), HERE, "UNBOUNDED"),
    "NaN at the start": (Landscape(tilt=math.nan, curvature=1), HERE, "NONFINITE"),
    "infinity at the start": (Landscape(tilt=math.inf, curvature=1), HERE, "NONFINITE"),
    "coupling outside the band": (Landscape(curvature=5, far=1), HERE, "BAND_TOO_NARROW"),
    "coupling that shows later": (Landscape(tilt=-1, curvature=1, far_later=1), np.zeros(N), "BAND_TOO_NARROW"),
    "kinks": (Landscape(curvature=0.5, spring=1, kink=1), HERE, "STALLED"),
}
