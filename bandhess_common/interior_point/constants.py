"""Numbers of the interior-point method, one for both engines and both frameworks.

"WB" is Wächter and Biegler, Mathematical Programming 106 (2006) 25. Where no equation is named the number was measured:
benchmarks/sqp_methods. The compiled engine receives them in this order; interior/constants.h has the same list.
"""

from __future__ import annotations

from typing import NamedTuple

from ..tolerances import NULL, dependent_rows

DOUBLE = 2.0**-52


class Constants(NamedTuple):
    """Those of float64; `constants(eps)` has them for either element type.

    What functions are rounded to is one number, `precision`: of it are slacks of the filter, steps that show nothing,
    and what a certificate takes for rounding. Linear algebra takes the rounding unit of the state.
    """

    # The barrier's parameter
    mu_start: float = 0.1
    mu_error: float = 10.0  # mu falls while E(mu) <= mu_error mu (WB 2.3)
    mu_factor: float = 0.2  # to the lesser of mu_factor mu and mu^mu_power (WB 7)
    mu_power: float = 1.5
    mu_least: float = 0.1  # in units of tol
    boundary: float = 0.99  # tau = max(boundary, 1 - mu) (WB 8)
    multiplier_range: float = 1e10  # z within mu / (range d) and range mu / d (WB 16)
    # Relaxation of bounds: min(relax, relax_factor mu)
    relax: float = 1e-8
    relax_factor: float = 1e-4
    # Start
    push: float = 1e-2  # x0 moves inside by push max(1, |bound|) (WB 3.6)
    push_width: float = 1e-2  # at most by this part of the width,
    push_near: float = 0.1  # and by its own distance inside a bound, or by this part of that if it is less
    slack_least: float = 1e-2  # of inequalities
    multiplier_most: float = 1e3  # of estimated multipliers, which are 0 beyond it (WB 36)
    # Scaling: `scaling.py`
    scale_most: float = 100.0  # of rows, whose median is 1
    scale_least: float = 1e-2
    scale_value: float = 1.0  # to which the gradient of f grows where it is small
    scale_grow: float = 1e8  # above it and
    scale_floor: float = 1e-8  # below it no size at the start brings a scale
    scale_far: float = 1e-2  # the second point lies this far from the start, in units of max(1, |x|)
    # Measures
    error_scale: float = 100.0  # s_max (WB 6)
    dual_scale: float = 100.0  # the multipliers' mean, over error_scale, counts no more than this in CONVERGED
    dual_hidden: float = DOUBLE ** (1 / 3)  # nor what rounding hides of J^T y
    rounding_rows: float = 16.0  # in units of eps |J| |x|: what rounding hides of a violation
    gap: float = 20.0  # of the complementarity, in units of tol
    unbounded: float = 1e20  # of -f / max(1, |f0|) or |x|; of both, its root
    # The linear system
    gamma: float = 1e-10
    column_sweeps: int = 6  # that bring the Jacobian's rows to one size, for the sizes of its columns
    target: float = 1e-9  # relative residual with which a solve is content
    target_fine: float = 1e-10  # where rho stands in the objective
    target_predictor: float = 1e-4  # of the affine step, which only says how far mu is to fall (the compiled engine)
    target_curvature: float = 1e-6  # the same in the search for negative curvature
    target_small: float = 1e-3  # |J| |x| counts this much in the unit of the second residual
    cg_steps: int = 6
    cg_flat: float = 1e-10  # curvature of a dependent row
    cg_least: float = 1e-20  # of the preconditioned residual's square
    rounds: int = 3  # of conjugate gradients
    refinements: int = 6  # rounds, before conjugate gradients, while each leaves little (the compiled engine)
    poor: float = 10.0  # relative residual, above which the regularised step is taken instead
    # Shifts (WB IC)
    shift_first: float = 1e-4  # in units of |W|
    shift_fall: float = 3.0  # the first trial is last / fall
    shift_grow: float = 8.0
    shift_grow_first: float = 100.0
    shift_most: float = 1e20
    raise_short: float = 0.05  # a step cut below this part of alpha_max asks for one larger shift
    raise_most: float = 30.0  # unless the shift is this many |W| already
    # Negative curvature
    curvature_error: float = 0.1  # is looked for where E(mu) <= curvature_error mu
    curvature_turns: int = 4
    curvature_length: float = 0.1
    curvature_armijo: float = 1e-4
    noise_after: int = 4  # successive shifted steps, after which noise is added to the right-hand side
    noise: float = 1e-2
    # Filter and line search (WB 18 to 23)
    theta_fall: float = 3e-3  # gamma_theta
    phi_fall: float = 1e-8  # gamma_phi
    theta_power: float = 1.1  # s_theta
    phi_power: float = 2.3  # s_phi
    armijo: float = 1e-8  # eta_phi
    alpha_least: float = 0.05  # gamma_alpha
    alpha_least_curved: float = 1e-10
    theta_most: float = 1e4  # theta_max and theta_min, in units of max(1, theta0) (WB 21)
    theta_least: float = 1e-4
    phi_rounding: float = 10.0  # in units of eps |phi|, or of eps times f's first size, at most 1
    corrections: int = 4  # of second order (WB 3.4)
    barred: int = 5  # successive steps which the filter, at last, held back: it forgets,
    forgotten: int = 30  # so many times at most
    correction_fall: float = 0.5  # a correction is followed by another where it left this part of theta, at most
    tiny: float = 10.0  # a step of at most this many eps |x| shows nothing (WB 3.9)
    tiny_steps: int = 3
    # Restoration (WB 3.3)
    rho: float = 1e3
    elastic_least: float = 1e-20
    restored: float = 0.9  # of theta
    restorations: int = 3  # after so many the next go on until this part is left: there may be no solution
    restored_late: float = 0.05
    renewals: int = 3  # of a restoration whose search failed
    creeping: float = 0.5  # restoration begins, too, where theta did not fall to this part of what it was
    creeping_steps: int = 40  # so many steps ago
    restored_multiplier: float = 1e3  # larger z start from 1 again
    stalled: float = 1e-2  # theta below this many tol is no reason for restoration
    centred: float = 1e-9  # the proximal gradient, in units of rho
    infeasible: float = 1e3  # the violation, of rows as they are or scaled, in units of tol
    # The end
    floor_mean: float = 0.25  # of |f|, eps^floor_mean of its first size
    size_least: float = 1e-8  # of the gradient that stands in for |W|
    rounding_matrix: float = 16.0  # in units of eps: of M's diagonal, what its factorisation may hide
    gain_power: float = 1.5  # of tol: the part of f that one more step may still be worth
    held: int = 20  # points that pass all other tests and are left for the gain of a step, at most
    null_turns: int = NULL
    dependent: float = dependent_rows(
        DOUBLE
    )  # rows are dependent where |A^T u| is at most this part of |u|, u in units of the rows
    # Warm start
    warm: float = 1e-2  # z is at least this many mu / d
    precision: float = DOUBLE  # the rounding unit of the functions' arguments, values and derivatives
    damping: float = 1e-5  # times mu: the force on what is bounded on one side alone (kappa_d of WB)
    # Units of variables, `units.py`: powers of 2
    unit_sweeps: int = 4  # of equilibration
    unit_spread: float = 15.0  # they are 1 where they differ by less,
    unit_apart: float = 12.0  # differing by more they are guesses, beside which scales remain what they are
    unit_common: float = 8.0  # and their mean is no farther from 2^0
    unit_way: float = 32.0  # the common size is no less than this part of the way to where rows are met
    unit_most: float = 24.0
    unit_bound: float = 1e4  # a bound beyond it tells no size
    vanishing: float = 1e-2  # an entry of J at the start below this part of what it is beside it tells no sizes
    # Multipliers that have run off: estimated anew, once between restorations, where they exceed multiplier_most after
    short_step: float = 0.1  # steps of less than this part of the whole one,
    short_steps: int = 3  # so many in a row,
    multiplier_far: float = 1e8  # or this after any step with a shift;
    last_renewals: int = 5  # and so often where no step serves at a feasible point
    lag: float = 0.5  # part of the last dual residual that a whole step leaves where they lag, `lag.py`,
    lag_growth: float = 0.9  # the largest being at least so many of the last, and
    lag_multiplier: float = 10.0  # larger than this
    # Quadratic programs, by predictor and corrector (Mehrotra, SIAM J. Optimization 2 (1992) 575)
    straight: float = (
        DOUBLE**0.75
    )  # relative error of a prediction from x0 beside it, at most, where functions are as quadratic
    predictor_z: float = 10.0  # first multipliers
    predictor_d: float = 1.0  # the first slacks are at least this
    predictor_power: float = 3.0  # of the affine step's progress: mu falls by it
    predictor_steps: int = 6  # without half the error, at most: then the filter takes over


def constants(eps: float) -> Constants:
    """For functions and a state of this rounding unit."""
    if eps < 1e-10:
        return Constants()
    return _of_functions(eps)._replace(
        relax=1e-4,
        relax_factor=1e-2,
        scale_grow=1e4,
        gamma=1e-5,
        target=1e-5,
        target_fine=1e-5,
        target_curvature=1e-4,
        cg_flat=1e-5,
        cg_least=1e-10,
        shift_most=1e25,
        alpha_least_curved=1e-6,
        elastic_least=1e-12,
    )


def constants_of_engine(eps: float) -> Constants:
    """For the compiled engine, whose state is in float64, and functions of this rounding unit."""
    return Constants() if eps < 1e-10 else _of_functions(eps)


def _of_functions(eps: float) -> Constants:
    return Constants(
        unbounded=1e12,
        centred=1e-5,
        dependent=dependent_rows(eps),
        dual_hidden=eps ** (1 / 3),
        straight=eps**0.75,
        scale_value=1e-2,
        precision=eps,
    )


FILTER = 64
"""Entries of the filter; when full the one of largest theta goes."""
