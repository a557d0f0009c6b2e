"""The yard of `sqp`'s tests: one problem whose coefficients bring about every end."""

from typing import Any

import numpy as np
from backends import BACKENDS, Backend
from trajectories import Yard, yard_constraints, yard_cost, yard_inequalities

EPS = np.finfo("float64").eps
TOL = EPS**0.5  # the default
HERE = np.array([0.5, 0.7, 0.9, 1.1, 1.3, 1.5])
NONE = np.inf

CALLS: list = []


def counted(fun: Any) -> Any:
    def noted(*args: Any) -> Any:
        CALLS.append(None)
        return fun(*args)

    return noted


# One function object per backend, so that every test with it runs the program compiled first.
YARD = {name: (counted(yard_cost(b.xp)), counted(yard_constraints(b.xp))) for name, b in BACKENDS.items()}


def largest(backend: Backend, tree: Any) -> float:
    return max((float(np.abs(backend.numpy(leaf)).max(initial=0)) for leaf in backend.leaves(tree)), default=0.0)


ENDS = {
    "linear": (Yard(), "CONVERGED"),
    "curved": (Yard(link=0.5, product=1, spring=1, quartic=1), "CONVERGED"),
    "indefinite": (Yard(curvature=-0.5, product=1, spring=0.2, quartic=1), "CONVERGED"),
    "capped": (Yard(tilt=-1, cap=0.9), "CONVERGED"),
    "capped and curved": (Yard(tilt=-2, product=1, spring=0.1, cap=0.7), "CONVERGED"),
    "a constraint twice": (Yard(again=1, pin=0), "RANK_DEFICIENT"),
    "a curved constraint twice": (Yard(again=1, pin=0, product=1, quartic=1), "RANK_DEFICIENT"),
    "contradiction": (Yard(again=1, pin=0.5), "INFEASIBLE"),
    "no point under the cap": (Yard(level=4, cap=1), "INFEASIBLE"),
    "falling plane": (Yard(tilt=1, curvature=0, squeeze=0), "UNBOUNDED"),
    "concave": (Yard(curvature=-1, squeeze=0), "UNBOUNDED"),
    "NaN at the start": (Yard(tilt=np.nan), "NONFINITE"),
    "infinity at the start": (Yard(tilt=np.inf), "NONFINITE"),
    "NaN on the way": (Yard(tilt=1, curvature=0, sheer=0.1, level=-2), "NONFINITE"),
    "coupling outside the band": (Yard(curvature=5, far=1), "BAND_TOO_NARROW"),
    "constraint outside the band": (Yard(stretch=1), "BAND_TOO_NARROW"),
    "coupling that shows later": (Yard(far_later=1, squeeze=0), "BAND_TOO_NARROW"),
}


def in_yard(backend: Backend, c: Yard, x: np.ndarray = HERE, **options: Any) -> Any:
    args = (backend.array(c.array()),)
    cost, constraints = YARD[backend.name]
    return backend.package.sqp(
        cost, constraints, backend.array(x), 1, args=args, inequalities=yard_inequalities, **options
    )
