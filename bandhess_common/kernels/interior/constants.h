// The numbers of bandhess_common/interior_point/constants.py, where their meaning stands, in its order: they come as an
// operand. `library.load` compares the lists.
#pragma once

#define BANDHESS_INTERIOR_CONSTANTS(C)                                                                  \
  C(mu_start) C(mu_error) C(mu_factor) C(mu_power) C(mu_least) C(boundary) C(multiplier_range)          \
  C(relax) C(relax_factor) C(push) C(push_width) C(push_near) C(slack_least) C(multiplier_most) C(scale_most)        \
  C(scale_least) C(scale_value) C(scale_grow) C(scale_floor) C(scale_far) C(error_scale) C(dual_scale) C(dual_hidden) C(rounding_rows) C(gap) C(unbounded)         \
  C(gamma) C(column_sweeps) C(target) C(target_fine) C(target_predictor) C(target_curvature) C(target_small) C(cg_steps) C(cg_flat) C(cg_least)             \
  C(rounds) C(refinements) C(poor) C(shift_first) C(shift_fall) C(shift_grow) C(shift_grow_first) C(shift_most)        \
  C(raise_short) C(raise_most) C(curvature_error) C(curvature_turns) C(curvature_length) C(curvature_armijo)          \
  C(noise_after) C(noise) C(theta_fall) C(phi_fall) C(theta_power) C(phi_power) C(armijo)               \
  C(alpha_least) C(alpha_least_curved) C(theta_most) C(theta_least) C(phi_rounding) C(corrections) C(barred) C(forgotten) \
  C(correction_fall) C(tiny) C(tiny_steps) C(rho) C(elastic_least) C(restored)                          \
  C(restorations) C(restored_late) C(renewals) C(creeping) C(creeping_steps)          \
  C(restored_multiplier) C(stalled) C(centred) C(infeasible) C(floor_mean) C(size_least)                \
  C(rounding_matrix) C(gain_power) C(held) \
  C(null_turns) C(dependent) C(warm) C(precision) C(damping) \
  C(unit_sweeps) C(unit_spread) C(unit_apart) C(unit_common) C(unit_way) C(unit_most) C(unit_bound) C(vanishing) \
  C(short_step) C(short_steps) C(multiplier_far) C(last_renewals) C(lag) C(lag_growth) C(lag_multiplier) C(straight) C(predictor_z) C(predictor_d) C(predictor_power) C(predictor_steps)

namespace bandhess::interior {

template <class T>
struct Constants {
#define BANDHESS_MEMBER(name) T name;
  BANDHESS_INTERIOR_CONSTANTS(BANDHESS_MEMBER)
#undef BANDHESS_MEMBER
};

constexpr int kConstants = sizeof(Constants<char>);

}  // namespace bandhess::interior
