// The filter, the fall of mu, and restoration: a mode of the loop in which every row has elastic variables p, n > 0,
// h - d - p + n = 0, and the objective is rho sum (p + n) + zeta / 2 |weight (x - x_R)|^2 (Wächter and Biegler 2006, 3.3).
#pragma once

#include "direction.h"
#include "units.h"

namespace bandhess::interior {

// Whether a point is within theta_max and no entry of the filter bars it.
template <class T>
bool passes(const Filter<T>& filter, T theta, T phi) {
  if (!(theta <= filter.theta_max)) return false;
  for (Index i = 0; i < static_cast<Index>(filter.count); ++i)
    if (!(theta < filter.theta[i] || phi < filter.phi[i])) return false;
  return true;
}

// The point where the search began, into the filter; when it is full, in the place of the entry of largest theta.
template <class T>
void augment(const State<T>& s) {
  const auto& c = s.constants();
  Filter<T> filter = s.filter();
  Index at = static_cast<Index>(filter.count);
  if (at == kFilter) {
    at = std::max_element(filter.theta, filter.theta + kFilter) - filter.theta;
  } else {
    filter.count += 1;
  }
  filter.theta[at] = (1 - c.theta_fall) * s.reg.theta0;
  filter.phi[at] = s.reg.phi0 - c.phi_fall * s.reg.theta0;
}

template <class T>
void set_limits(const State<T>& s, T theta) {
  const auto& c = s.constants();
  Filter<T> filter = s.filter();
  filter.count = 0;
  filter.theta_max = c.theta_most * std::max(T(1), theta);
  filter.theta_min = c.theta_least * std::max(T(1), theta);
}

template <class T>
void lower_barrier(const State<T>& s) {
  const auto& c = s.constants();
  auto& reg = s.reg;
  const T next = std::min(c.mu_factor * reg.barrier, std::pow(reg.barrier, c.mu_power));
  reg.barrier = std::max(reg.least_mu, next);
  s.filter().count = 0;
}

// Far from feasible, and no nearer for long: multipliers may have run off, or there is no feasible point.
template <class T>
bool creeping(const State<T>& s) {
  const auto& c = s.constants();
  auto& reg = s.reg;
  if (s.elastic()) return false;
  if (reg.theta_mark == 0 || reg.theta0 <= std::max(c.creeping * reg.theta_mark, s.filter().theta_min)) {
    reg.theta_mark = reg.theta0;
    reg.since_mark = 0;
  } else {
    reg.since_mark += 1;
  }
  return reg.since_mark >= c.creeping_steps;
}

// Elastic variables for the current point, whose derivatives it asks for anew.
template <class T>
void start_restoration(const State<T>& s) {
  const auto& c = s.constants();
  auto& reg = s.reg;
  reg.elastic = 0;  // what is left is without p and n
  const T rho = c.rho, least = c.elastic_least;
  T* left = s.r_rows;
  const Point<T> here{s.x, s.h, s.step(), T(0)};
  Residuals<T>(s, here, reg.barrier).write(s.r_lower, s.r_upper, left);
  const T mu = reg.barrier = std::max(reg.barrier, largest(left, s.r));
  Residuals<T>(s, here, mu).write(s.r_lower, s.r_upper, left);
  s.pairs([&](const Pair<T>& p) { each(p.begin, p.end, [=](Index i) { p.z[i] = std::min(p.z[i], rho); }); });
  reg.elastic = 1;
  each(0, s.r, [=, p = s.d_p, n = s.d_n, zp = s.z_p, zn = s.z_n, y = s.y, to = s.y_request](Index i) {
    // minimises rho (p + n) - mu log p n for left - p + n = 0 (33)
    const T a = (mu - rho * left[i]) / (2 * rho);
    n[i] = std::max(a + std::sqrt(a * a + mu * left[i] / (2 * rho)), least);
    p[i] = std::max(left[i] + n[i], least);
    zp[i] = mu / p[i];
    zn[i] = mu / n[i];
    y[i] = to[i] = 0;
  });
  reg.zeta = std::sqrt(mu);
  each(0, s.n, [=, x = s.x, from = s.x_r, weight = s.weight](Index j) {
    from[j] = x[j];
    weight[j] = 1 / std::max(T(1), std::abs(x[j]));
  });
  ask_at(s, s.x);
  set_limits(s, theta(s, here, mu, false));
  reg.pending = kEntering;
  reg.sigma = 0;
  reg.stage = kLinearise;
  reg.request = kDerivatives;
}

// From a point of the problem, which the filter holds.
template <class T>
void enter_restoration(const State<T>& s) {
  auto& reg = s.reg;
  reg.theta_r = reg.theta0;
  reg.main_barrier = reg.barrier;
  reg.entries += 1;
  reg.renewals = 0;
  start_restoration(s);
}

// Whether restoration may end at a point with this objective, scaled.
template <class T>
bool restored(const State<T>& s, const Point<T>& at, T f) {
  const T t = theta(s, at, s.reg.main_barrier, true) - s.reg.theta_noise;
  const auto& c = s.constants();
  const T least = s.reg.entries > c.restorations ? c.restored_late : c.restored;
  if (!(t <= least * s.reg.theta_r)) return false;
  return passes(s.filter(true), t, phi(s, at, f, s.reg.main_barrier, true));
}

// Back to the problem, at a point that has been taken; its multipliers y are to be estimated.
template <class T>
void leave_restoration(const State<T>& s) {
  auto& reg = s.reg;
  reg.elastic = 0;
  reg.barrier = reg.main_barrier;
  reg.theta_mark = reg.short_row = reg.renewed = 0;
  T most = 0;
  s.pairs([&](const Pair<T>& p) {
    most = std::max(most, largest<T>(p.begin, p.end, [z = p.z](Index i) { return z[i]; }));
  });
  if (!(most > s.constants().restored_multiplier)) return;
  s.pairs([&](const Pair<T>& p) {
    each(p.begin, p.end, [=](Index i) { p.z[i] = p.has ? p.has[i] : T(1); });
  });
}

// The proximal term may hold x where the violation alone would not: it is centred there.
template <class T>
void centre(const State<T>& s) {
  each(0, s.n, [=, g = s.gradient, dual = s.dual, from = s.x_r, x = s.x](Index j) {
    dual[j] -= g[j];
    g[j] = 0;
    from[j] = x[j];
  });
  s.filter().count = 0;
}

// Multipliers at the point are to be estimated anew.
template <class T>
void estimate_here(const State<T>& s) {
  auto& reg = s.reg;
  std::copy_n(s.x, s.n, s.x_trial);
  ask_at(s, s.x);
  std::fill_n(s.y, s.r, T(0));
  std::fill_n(s.y_request, s.r, T(0));
  reg.sigma = reg.f_scale;
  reg.pending = kEntering;
  reg.stage = kEstimate;
  reg.request = kDerivatives;
}

// The problem again, from a feasible point that the filter bars: it forgets.
template <class T>
void take_up(const State<T>& s) {
  s.filter(true).count = 0;
  leave_restoration(s);
  estimate_here(s);
}

}  // namespace bandhess::interior
