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

// After a step, with the residuals and measures of the point. Compared are what two of Newton's steps leave, and how large
// their multipliers are: these do not shrink where they lag.
template <class T>
bool multipliers_lag(const State<T>& s) {
  auto& reg = s.reg;
  const auto& c = s.constants();
  if (reg.fresh_y > 0) {
    reg.fresh_y = 0;
    return false;
  }
  const T top = largest(s.y, s.r), enough = c.mu_error * reg.barrier;
  const bool stays = reg.dual_max > c.lag * reg.last_dual && top > c.lag_growth * reg.last_top;
  const bool whole = reg.fraction == 1 && reg.alpha_z == 1, first = reg.steps == 0 || s.elastic();
  reg.last_dual = first ? std::numeric_limits<T>::infinity() : reg.dual_max;
  reg.last_top = top;
  if (first || reg.quadratic > 0 || !whole || !stays || !(top > c.lag_multiplier)) return false;
  return reg.dual_max / reg.mean_d > enough && primal_error(s) <= enough;
}

// What was of multipliers before others are estimated: the shift that they asked for, too.
template <class T>
void forget_multipliers(const State<T>& s) {
  s.reg.last_shift = 0;
  s.reg.last_dual = s.reg.last_top = std::numeric_limits<T>::infinity();
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
