// What the functions' rounding, where it is coarser than the state's, hides of a point: the filter allows for it, mu
// falls below it, and where nothing else is left the point is at the floor of the functions' precision.
#pragma once

#include "certificate.h"

namespace bandhess::interior {

// out = |J|^T |u| + out
template <class T>
void add_sizes_of_pull(const State<T>& s, const T* u, T* out) {
  const Index L = s.s.w + 1;
  for (Index i = 0; i < s.r; ++i) {
    const T *a = s.row(i), size = std::abs(u[i]);
    T* to = out + s.starts()[i];
    for (Index k = 0; k < L; ++k) to[k] += std::abs(a[k]) * size;
    for (Index q = 0; q < s.p; ++q) out[s.banded + q] += std::abs(s.column(q)[i]) * size;
  }
}

// The largest |v_j| less what is hidden of it.
template <class T>
T largest_seen(const T* v, const T* sizes, T hidden, Index n) {
  return largest<T>(0, n, [=](Index j) { return std::max(std::abs(v[j]) - hidden * std::abs(sizes[j]), T(0)); });
}

// Into registers: what rounding x may change of theta and phi, to first order; by how much less the primal and the dual
// residuals are, each without what rounding hides of it. Needs `dual` and the residuals; takes w1 and v7.
template <class T>
void find_noise(const State<T>& s) {
  auto& reg = s.reg;
  const T unit = s.constants().precision, hidden = s.constants().rounding_rows * unit;
  if (!coarse(s)) return;
  T *rows = s.v7, *sizes = s.w1;
  largest_product(s, s.x, rows);
  T seen = largest_seen(s.r_rows, rows, hidden, s.r);
  if (reg.lower_count > 0) seen = std::max(seen, largest_seen(s.r_lower, s.x, hidden, s.n));
  if (reg.upper_count > 0) seen = std::max(seen, largest_seen(s.r_upper, s.x, hidden, s.n));
  reg.hidden_primal = primal_error(s) - seen;
  const bool feasible = !(seen > 0), main = !s.elastic();
  const T slope = sum<T>(0, s.n, [=, g = s.gradient, x = s.x](Index j) { return std::abs(g[j] * x[j]); });
  reg.theta_noise = feasible ? unit * sum<T>(0, s.r, [=](Index i) { return rows[i]; }) : T(0);
  reg.phi_noise = feasible && main ? unit * slope : T(0);

  const T far = largest(s.x, s.n);
  std::fill_n(s.w2, s.n, T(0));
  band_sizes(s, s.w2, sizes);
  each(0, s.n, [=, g = s.gradient](Index j) { sizes[j] = far * sizes[j] + std::abs(g[j]); });
  std::fill_n(sizes + s.n, kPad, T(0));
  add_sizes_of_pull(s, s.y, sizes);
  reg.hidden_dual = reg.dual_max - std::max(reg.dual_rows, largest_seen(s.dual, sizes, hidden, s.n));
}

// E(mu) without what rounding hides.
template <class T>
T error_seen(const State<T>& s, T mu) {
  const T dual = (s.reg.dual_max - s.reg.hidden_dual) / s.reg.mean_d;
  return std::max(std::max(dual, primal_error(s) - s.reg.hidden_primal), product_error(s, mu));
}

// Whether restoration has come to its end: not where rounding hides the whole violation, from where the next step
// leaves.
template <class T>
bool least_violation(const State<T>& s) {
  return error(s, T(0)) <= s.reg.tol || (s.reg.theta_noise == 0 && error_seen(s, T(0)) <= s.reg.tol);
}

// Whether a point misses the tolerance by no more than rounding hides.
template <class T>
bool at_floor(const State<T>& s) {
  const bool hides = s.reg.hidden_primal + s.reg.hidden_dual > 0 && !s.elastic();
  return hides && error_seen(s, T(0)) <= s.reg.tol && met(s);
}

// Counts such points; whether there were as many as there may be.
template <class T>
bool stays_at_floor(const State<T>& s) {
  return at_floor(s) && s.reg.held++ >= s.constants().held;
}

}  // namespace bandhess::interior
