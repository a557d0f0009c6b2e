"""Constants of the search for a trust-region step: of both frameworks' programs and of the compiled kernels.

Their meaning is that of `optimise/newton/subproblem.py`, and of `refinement.py`.
"""

NEAR = 0.03
"""How far |p| may be from the radius; at 0.1 the steps along GENROSE's valley hang on rounding."""
HARD = 0.002
"""Tolerance of the model where an eigenvector helps; at 0.2 chance picks among local minima."""
GROW = 8.0
"""Of a shift that fails, at most: Gershgorin's bound of the shift may be far off."""
TRIES = 60
"""Factorisations spent on one step before giving up."""
ENOUGH = 1e-3
"""Of a step's decrease: a turn of refinement that adds less is the last."""
REFINEMENTS = 100
"""Products spent on refining one step."""
