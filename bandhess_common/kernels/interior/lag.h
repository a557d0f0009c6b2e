// Multipliers that lag behind the point: Newton's step goes whole from feasible point to feasible point, and its multipliers
// leave as large a gradient as those before. Where a row's gradient vanishes at the solution they never do:
//
//     min x  with  x^2 = 0:    x -> x / 2,  y -> 2 y,  and  1 + 2 x y,  which is 0 for the best y = -1 / (2 x),  stays 1/2.
//
// Those that leave the least gradient are taken in their place. (Ipopt has an option for this, recalc_y.)
#pragma once

#include "certificate.h"
#include "start.h"

namespace bandhess::interior {

// After a step, with the residuals and measures of the point; notes what it needs for the next one.
template <class T>
bool multipliers_lag(const State<T>& s) {
  auto& reg = s.reg;
  const auto& c = s.constants();
  const T last = reg.last_dual, enough = c.mu_error * reg.barrier;
  const bool fresh = reg.fresh_y > 0, whole = reg.fraction == 1 && reg.alpha_z == 1;
  reg.fresh_y = 0;
  reg.last_dual = reg.dual_max;
  if (s.elastic() || reg.quadratic > 0 || fresh || !whole || !(reg.dual_max > c.lag * last)) return false;
  if (!(reg.dual_max / reg.mean_d > enough && primal_error(s) <= enough)) return false;
  return largest(s.y, s.r) > c.lag_multiplier;
}

// The point is to be visited once more with these.
template <class T>
void renew_lagging(const State<T>& s, System<T>& system) {
  std::fill_n(s.w, s.n * s.diagonals(), T(0));
  for (Index q = 0; q < s.p; ++q) std::fill_n(s.w_border(q), s.n, T(0));
  estimate_multipliers(s, system, std::numeric_limits<T>::max());
  s.reg.fresh_y = 1;
}

}  // namespace bandhess::interior
