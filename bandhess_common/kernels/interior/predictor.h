// Quadratic programs: where rows are linear and the objective quadratic, mu follows from a predictor, and a corrector of
// second order completes the step (Mehrotra, SIAM J. Optimization 2 (1992) 575).
#pragma once

#include "restoration.h"
#include "start.h"

namespace bandhess::interior {

// Whether the values and the gradient at the point x_far are what the derivatives at x say: of random points they are
// where the functions are linear and quadratic, to rounding. Needs W of the objective.
template <class T>
bool is_quadratic(const State<T>& s, const T* x_far, const T* h_far, const T* gradient_far) {
  const T straight = s.constants().straight, scale = s.reg.f_scale;
  T *move = s.w1, *curved = s.w2, *along = s.v1;
  each(0, s.n, [=, x = s.x, free = s.free](Index j) { move[j] = free[j] * (x_far[j] - x[j]); });
  std::fill_n(move + s.n, kPad, T(0));
  apply_band(s, move, curved);
  push(s, move, along);
  const T* g = s.gradient;
  bool moved = true;
  for (Index j = 0; j < s.n; ++j) moved = moved && (s.free[j] == 0 || move[j] != 0);
  if (!moved) return false;
  const T off = largest<T>(0, s.n, [=, free = s.free](Index j) {
    return free[j] * (scale * gradient_far[j] - g[j] - curved[j]);
  });
  pull(s, s.y, s.w3);  // the gradient is what this leaves of the Lagrangian's
  const T size = largest(g, s.n) + largest(curved, s.n) + largest(s.w3, s.n);
  if (!(off <= straight * size)) return false;
  largest_product(s, move, s.v2);
  const T *h = s.h, *h_scale = s.h_scale, *sizes = s.v2;
  const T left = largest<T>(0, s.r, [=](Index i) {
    const T unit = std::abs(h[i]) + sizes[i] + std::numeric_limits<T>::min();
    return (h_scale[i] * h_far[i] - h[i] - along[i]) / unit;
  });
  return left <= straight;
}

// The mean of d z.
template <class T>
T mean_product(const State<T>& s) {
  T total = 0;
  s.pairs([&](const Pair<T>& p) {
    total += sum<T>(p.begin, p.end, [d = p.d, z = p.z](Index i) { return d[i] * z[i]; });
  });
  return total / static_cast<T>(s.count());
}

// At the first linearisation: quadratic programs begin with larger multipliers, and no positive variable near 0, from where
// steps are short; what that leaves of its equation falls with the first long step.
template <class T>
void start_predictor(const State<T>& s) {
  auto& reg = s.reg;
  if (reg.start == kWarm || s.count() == 0 || !is_quadratic(s, s.cx, s.c_rows, s.c_lower)) return;
  const T by = s.constants().predictor_z, least = s.constants().predictor_d;
  reg.quadratic = 1;
  reg.best_error = std::numeric_limits<T>::infinity();
  s.pairs([&](const Pair<T>& p) {
    each(p.begin, p.end, [=](Index i) {
      p.z[i] *= by;
      p.d[i] = std::max(p.d[i], least);
    });
  });
  each(0, s.n, [=, dual = s.dual, low = s.has_lower, up = s.has_upper](Index j) {
    dual[j] -= (by - 1) * (low[j] - up[j]);
  });
}

// The filter takes over where the problem is not convex or the error does not fall.
template <class T>
void watch_predictor(const State<T>& s, T size, T least_barrier) {
  const auto& c = s.constants();
  auto& reg = s.reg;
  const bool fallen = size <= reg.best_error / 2;
  reg.best_error = fallen ? size : reg.best_error;
  reg.since_best = fallen ? T(0) : reg.since_best + 1;
  if (reg.delta == 0 && reg.since_best < c.predictor_steps) return;
  reg.quadratic = 0;
  reg.barrier = std::min(std::max(mean_product(s), least_barrier), c.mu_start);
  const Point<T> here{s.x, s.h, s.step(), T(0)};
  Residuals<T>(s, here, reg.barrier).write(s.r_lower, s.r_upper, s.r_rows);
  set_limits(s, theta(s, here, reg.barrier, true));
}

// The affine step, for mu = 0; what it leaves of the mean of d z says how far mu is to fall. Its products of second
// order are left in `products`.
template <class T>
T predicted_barrier(const State<T>& s, Direction<T>& direction, T* const* products) {
  auto& reg = s.reg;
  const Step<T> step = s.step();
  reg.barrier = 0;
  reg.tau = 1 - 4 * std::numeric_limits<T>::epsilon();
  direction.find(s.r_lower, s.r_upper, s.r_rows, step, nullptr, true);
  const T alpha = fraction_d(s, step), alpha_z = fraction_z(s, step);
  T total = 0;
  s.pairs([&](const Pair<T>& p) {
    const T *dd = step.d[p.kind], *dz = step.z[p.kind];
    T* product = products[p.kind];
    total += sum<T>(p.begin, p.end, [=, d = p.d, z = p.z](Index i) {
      const T has = p.has ? p.has[i] : T(1);
      return has * (d[i] + alpha * dd[i]) * (z[i] + alpha_z * dz[i]);
    });
    each(p.begin, p.end, [=](Index i) { product[i] = dd[i] * dz[i]; });
  });
  const T mean = mean_product(s), left = std::max(total / static_cast<T>(s.count()), T(0));
  return mean * std::pow(left / mean, s.constants().predictor_power);
}

// How far to go along a step that can be made in full, 1 unless a longer one is the last. Where d and z of a bound both
// fall to 0, they are a double root of d z, of which Newton's step leaves 1/4 and a corrected one 1/7: along a line
// through the root, as the way is where residuals are gone, a longer step brings d z to mu. It leaves (alpha - 1) times
// them.
template <class T>
T longer_step(const State<T>& s) {
  const auto& reg = s.reg;
  const Step<T> step = s.step();
  const T enough = reg.tol * reg.mean_z, residual = residual_error(s);
  T most = 0;
  s.pairs([&](const Pair<T>& p) {
    const T by_d = largest_fall(p.d, step.d[p.kind], p.begin, p.end);
    most = std::max(most, std::max(by_d, largest_fall(p.z, step.z[p.kind], p.begin, p.end)));
  });
  const T rest = std::max(1 - s.constants().boundary, std::sqrt(reg.barrier / reg.product_max));
  const T alpha = std::min((1 - rest) / most, T(2));
  const auto left = [&](T by) {
    T product = 0;
    s.pairs([&](const Pair<T>& p) {
      const T *dd = step.d[p.kind], *dz = step.z[p.kind];
      product = std::max(product, largest<T>(p.begin, p.end, [=, d = p.d, z = p.z](Index i) {
                           return (d[i] + by * dd[i]) * (z[i] + by * dz[i]);
                         }));
    });
    return product;
  };
  const bool ends = alpha > 1 && (alpha - 1) * residual <= reg.tol && left(alpha) <= enough;
  return ends && left(1) > enough ? alpha : T(1);
}

}  // namespace bandhess::interior
