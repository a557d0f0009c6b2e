"""Numbers of the interior-point method, one for both engines and both frameworks.

"WB" is Wächter and Biegler, Mathematical Programming 106 (2006) 25. Where no equation is named the number was measured:
benchmarks/sqp_methods. The compiled engine receives them in this order; interior/constants.h has the same list.
"""

from __future__ import annotations

from typing import NamedTuple

from ..tolerances import NULL, dependent_rows


class Constants(NamedTuple):
    """For one element type: `constants(eps)`."""

    # The barrier's parameter
    mu_start: float
    mu_error: float  # mu falls while E(mu) <= mu_error mu (WB 2.3)
    mu_factor: float  # to the lesser of mu_factor mu and mu^mu_power (WB 7)
    mu_power: float
    mu_least: float  # in units of tol
    boundary: float  # tau = max(boundary, 1 - mu) (WB 8)
    multiplier_range: float  # z within mu / (range d) and range mu / d (WB 16)
    # Relaxation of bounds: min(relax, relax_factor mu)
    relax: float
    relax_factor: float
    # Start
    push: float  # x0 moves inside by push max(1, |bound|) (WB 3.6)
    push_width: float  # at most by this part of the width
    slack_least: float  # of inequalities
    multiplier_most: float  # of estimated multipliers, which are 0 beyond it (WB 36)
    # Scaling: row scale min(1, most / top) clip(least / top, 1, grow), objective min(1, most / top) (WB 3.8)
    scale_most: float
    scale_least: float
    scale_grow: float
    scale_far: float  # the second point lies this far from the start, in units of max(1, |x|)
    # Measures
    error_scale: float  # s_max (WB 6)
    rounding_rows: float  # in units of eps |J| |x|: what rounding hides of a violation
    gap: float  # of the complementarity, in units of tol
    unbounded: float  # of -f / max(1, |f0|) or |x|; of both, its root
    # The linear system
    gamma: float
    target: float  # relative residual with which a solve is content
    target_curvature: float  # the same in the search for negative curvature
    target_small: float  # |J| |x| counts this much in the unit of the second residual
    cg_steps: int
    cg_flat: float  # curvature of a dependent row
    cg_least: float  # of the preconditioned residual's square
    rounds: int  # of conjugate gradients
    poor: float  # relative residual, above which the regularised step is taken instead
    # Shifts (WB IC)
    shift_first: float  # in units of |W|
    shift_fall: float  # the first trial is last / fall
    shift_grow: float
    shift_grow_first: float
    shift_most: float
    raise_short: float  # a step cut below this part of alpha_max asks for one larger shift
    # Negative curvature
    curvature_error: float  # is looked for where E(mu) <= curvature_error mu
    curvature_turns: int
    curvature_length: float
    curvature_armijo: float
    noise_after: int  # successive shifted steps, after which noise is added to the right-hand side
    noise: float
    # Filter and line search (WB 18 to 23)
    theta_fall: float  # gamma_theta
    phi_fall: float  # gamma_phi
    theta_power: float  # s_theta
    phi_power: float  # s_phi
    armijo: float  # eta_phi
    alpha_least: float  # gamma_alpha
    alpha_least_curved: float
    theta_most: float  # theta_max and theta_min, in units of max(1, theta0) (WB 21)
    theta_least: float
    phi_rounding: float  # in units of eps |phi|, or of eps times f's first size, at most 1
    corrections: int  # of second order (WB 3.4)
    correction_fall: float
    tiny: float  # a step of at most this many eps |x| shows nothing (WB 3.9)
    tiny_steps: int
    # Restoration (WB 3.3)
    rho: float
    elastic_least: float
    restored: float  # of theta
    restorations: float  # after so many the next go on until this part is left: there may be no solution
    restored_late: float
    renewals: float  # of a restoration whose search failed
    creeping: float  # restoration begins, too, where theta did not fall to this part of what it was
    creeping_steps: float  # so many steps ago
    restored_multiplier: float  # larger z start from 1 again
    stalled: float  # theta below this many tol is no reason for restoration
    centred: float  # the proximal gradient, in units of rho
    infeasible: float  # the violation, of rows as they are or scaled, in units of tol
    # The end
    floor_mean: float  # of |f|, eps^floor_mean of its first size
    size_least: float  # of the gradient that stands in for |W|
    null_turns: int
    dependent: float  # rows are dependent where |A^T u| is at most this part of |u|, u in units of the rows
    # Warm start
    warm: float  # z is at least this many mu / d
    # Quadratic programs, by predictor and corrector (Mehrotra, SIAM J. Optimization 2 (1992) 575)
    straight: float  # relative error of a prediction from x0 beside it, at most, where functions are as quadratic
    predictor_z: float  # first multipliers
    predictor_power: float  # of the affine step's progress: mu falls by it
    predictor_steps: float  # without half the error, at most: then the filter takes over


def constants(eps: float) -> Constants:
    """For the element type of this rounding unit; what differs is for float32."""
    double = eps < 1e-10
    return Constants(
        mu_start=0.1,
        mu_error=10.0,
        mu_factor=0.2,
        mu_power=1.5,
        mu_least=0.1,
        boundary=0.99,
        multiplier_range=1e10,
        relax=1e-8 if double else 1e-4,
        relax_factor=1e-4 if double else 1e-2,
        push=1e-2,
        push_width=1e-2,
        slack_least=1e-2,
        multiplier_most=1e3,
        scale_most=100.0,
        scale_least=1e-2,
        scale_grow=1e8 if double else 1e4,
        scale_far=1e-2,
        error_scale=100.0,
        rounding_rows=16.0,
        gap=20.0,
        unbounded=1e20 if double else 1e12,
        gamma=1e-10 if double else 1e-5,
        target=1e-10 if double else 1e-5,
        target_curvature=1e-6 if double else 1e-4,
        target_small=1e-3,
        cg_steps=6,
        cg_flat=1e-10 if double else 1e-5,
        cg_least=1e-20 if double else 1e-10,
        rounds=3,
        poor=10.0,
        shift_first=1e-4,
        shift_fall=3.0,
        shift_grow=8.0,
        shift_grow_first=100.0,
        shift_most=1e40 if double else 1e25,
        raise_short=0.05,
        curvature_error=0.1,
        curvature_turns=4,
        curvature_length=0.1,
        curvature_armijo=1e-4,
        noise_after=4,
        noise=1e-2,
        theta_fall=1e-5,
        phi_fall=1e-8,
        theta_power=1.1,
        phi_power=2.3,
        armijo=1e-8,
        alpha_least=0.05,
        alpha_least_curved=1e-10 if double else 1e-6,
        theta_most=1e4,
        theta_least=1e-4,
        phi_rounding=10.0,
        corrections=4,
        correction_fall=0.99,
        tiny=10.0,
        tiny_steps=3,
        rho=1e3,
        elastic_least=1e-20 if double else 1e-12,
        restored=0.9,
        restorations=3,
        restored_late=0.05,
        renewals=3,
        creeping=0.5,
        creeping_steps=40,
        restored_multiplier=1e3,
        stalled=1e-2,
        centred=1e-9 if double else 1e-5,
        infeasible=1e3,
        floor_mean=0.25,
        size_least=1e-8,
        null_turns=NULL,
        dependent=dependent_rows(eps),
        warm=1e-2,
        straight=eps**0.75,
        predictor_z=10.0,
        predictor_power=3.0,
        predictor_steps=6,
    )


FILTER = 64
"""Entries of the filter; when full the one of largest theta goes."""
