// The state before the first step: the point moved inside, scales, multipliers.
#pragma once

#include "certificate.h"
#include "direction.h"
#include "scales.h"
#include "units.h"

namespace bandhess::interior {

template <class T>
struct Problem {
  const T* lower;
  const T* upper;
  const T* fixed;
  const T* x;
  const T* y;
  const T* z_lower;
  const T* z_upper;
  T tol, max_steps, start, mu, alone;
};

constexpr int kWarm = 2;

// x[j] away from its bounds, less so where the start as it was given lies inside, near one: a step of time may be small for
// good reason, unless units lie apart and are guesses, as is then what is near. Fixed variables stay.
template <class T>
T inside(const State<T>& s, Index j, T x) {
  const auto& c = s.constants();
  const bool below = s.has_lower[j] > 0, above = s.has_upper[j] > 0;
  const T low = s.lower[j], up = s.upper[j], given = s.x_r[j];
  const T most = below && above ? c.push_width * (up - low) : std::numeric_limits<T>::infinity();
  const auto push = [&c, most, sure = s.reg.apart == 0](T bound, T room) {
    const T far = std::min(c.push * unit(bound), most);
    return sure && room > 0 ? std::min(far, std::max(room, c.push_near * far)) : far;
  };
  if (below) x = std::max(x, low + push(low, given - low));
  if (above) x = std::min(x, up - push(up, up - given));
  return coarse(s) ? static_cast<float>(x) : x;
}

template <class T>
void set_bounds(const State<T>& s, const Problem<T>& problem) {
  auto& reg = s.reg;
  const T infinity = std::numeric_limits<T>::infinity();
  for (Index j = 0; j < s.n; ++j) {
    const bool held = !(problem.fixed[j] == 0);
    const bool below = problem.lower[j] > -infinity && !held, above = problem.upper[j] < infinity && !held;
    s.free[j] = held ? 0 : 1;
    s.has_lower[j] = below ? 1 : 0;
    s.has_upper[j] = above ? 1 : 0;
    s.lone_lower[j] = below && !above ? 1 : 0;
    s.lone_upper[j] = above && !below ? 1 : 0;
    s.lower[j] = below ? problem.lower[j] : 0;
    s.upper[j] = above ? problem.upper[j] : 0;
    s.noise[j] = s.free[j] * static_cast<T>(noise(j, 1));
    s.unit[j] = 1;
    s.mask[j] = s.free[j];
    reg.lone_count += s.lone_lower[j] + s.lone_upper[j];
    reg.lower_count += s.has_lower[j];
    reg.upper_count += s.has_upper[j];
    s.x_r[j] = held ? problem.lower[j] : problem.x[j];
  }
  reg.noise_size = std::sqrt(inner(s.noise, s.noise, s.n));
}

// The start from the point x_r: a request for derivatives beside it, for scales.
template <class T>
void place_start(const State<T>& s) {
  auto& reg = s.reg;
  std::fill_n(s.top, s.r, T(0));
  reg.value_unit = 0;
  for (Index j = 0; j < s.n; ++j) {
    s.x[j] = reg.start == kWarm || s.free[j] == 0 ? s.x_r[j] : inside(s, j, s.x_r[j]);
    const T far = s.constants().scale_far * std::max(T(1), std::abs(s.x[j])) * static_cast<T>(noise(j, 2));
    const T beside = inside(s, j, s.x[j] + far);
    s.x_trial[j] = s.free[j] == 0 ? s.x[j] : beside == s.x[j] ? inside(s, j, s.x[j] - far) : beside;
  }
  ask_at(s, s.x_trial);
  reg.stage = kScale;
  reg.request = kDerivatives;
}

// The first request: derivatives near the start. The state holds zeros.
template <class T>
void start(const State<T>& s, const Problem<T>& problem, T m) {
  auto& reg = s.reg;
  reg.m = m;
  reg.status = -1;
  reg.tol = problem.tol;
  reg.max_steps = problem.max_steps;
  reg.start = problem.start;
  reg.warm_mu = problem.mu;
  reg.alone = problem.alone;
  reg.sigma = reg.f_scale = 1;
  set_bounds(s, problem);
  std::copy_n(problem.y, s.r, s.y);
  std::copy_n(problem.z_lower, s.n, s.z_lower);
  std::copy_n(problem.z_upper, s.n, s.z_upper);
  std::fill_n(s.h_scale, s.r, T(1));
  place_start(s);
}

// Slacks and multipliers where nothing is known: distances from the bounds, and 1.
template <class T>
void start_cold(const State<T>& s) {
  const auto& c = s.constants();
  const Index m = s.m();
  s.reg.barrier = c.mu_start;
  for (Index j = 0; j < s.n; ++j) {
    s.d_lower[j] = s.has_lower[j] > 0 ? s.x[j] - s.lower[j] : T(1);
    s.d_upper[j] = s.has_upper[j] > 0 ? s.upper[j] - s.x[j] : T(1);
    s.z_lower[j] = s.has_lower[j];
    s.z_upper[j] = s.has_upper[j];
  }
  for (Index i = m; i < s.r; ++i) {
    s.d_rows[i] = std::max(s.h[i], c.slack_least);
    s.z_rows[i] = 1;
  }
}

// From multipliers and mu of a previous end: slacks are what they were there, but none below mu / max(z, 1).
template <class T>
void start_warm(const State<T>& s) {
  const auto& c = s.constants();
  auto& reg = s.reg;
  const T scale = reg.f_scale;
  const T mu = std::min(c.mu_start, std::max(reg.warm_mu * scale, least_barrier(s)));
  reg.barrier = mu;
  const T relax = s.relaxation(mu), range = c.multiplier_range;
  const auto set = [=, warm = c.warm](T distance, T multiplier, T* d, T* z) {
    *d = std::max(distance, mu / std::max(multiplier, T(1)));
    *z = std::min(std::max(multiplier, warm * mu / *d), range * mu / *d);
  };
  for (Index j = 0; j < s.n; ++j) {
    T *low = s.z_lower + j, *up = s.z_upper + j;
    s.d_lower[j] = s.d_upper[j] = 1;
    const bool below = s.has_lower[j] > 0, above = s.has_upper[j] > 0;
    if (below) set(s.x[j] - s.lower[j] + relax * unit(s.lower[j]), *low * scale, s.d_lower + j, low);
    if (above) set(s.upper[j] - s.x[j] + relax * unit(s.upper[j]), *up * scale, s.d_upper + j, up);
    if (!below) *low = 0;
    if (!above) *up = 0;
  }
  for (Index i = s.m(); i < s.r; ++i) set(s.h[i] + relax, -s.y[i], s.d_rows + i, s.z_rows + i);
}

// Multipliers that leave the least gradient, 0 where one is larger than `most`. Needs W = 0 and the gradient of f.
template <class T>
void estimate_multipliers(const State<T>& s, System<T>& system, T most) {
  const auto& c = s.constants();
  T* y = s.y;
  std::fill_n(y, s.r, T(0));
  if (s.r == 0) return;
  std::fill_n(s.diagonal, s.n, T(1));
  std::fill_n(s.e, s.m(), T(0));
  std::fill(s.e + s.m(), s.e + s.r, T(1));
  s.reg.size_w = 1;
  system.condense();
  if (!system.factorise(0)) return;
  each(0, s.n, [=, b = s.b1, g = s.gradient, low = s.z_lower, up = s.z_upper](Index j) { b[j] = low[j] - up[j] - g[j]; });
  each(0, s.r, [=, b = s.b2, z = s.z_rows, m = s.m()](Index i) { b[i] = i < m ? T(0) : z[i]; });
  system.solve(s.b1, s.b2, c.target, s.dx, y);
  if (!(largest(y, s.r) <= most)) std::fill_n(y, s.r, T(0));
}

}  // namespace bandhess::interior
