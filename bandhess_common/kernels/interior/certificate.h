// What CONVERGED says in units of f, whatever those of variables and rows, beside the scaled error; and UNBOUNDED.
#pragma once

#include "measures.h"
#include "products.h"

namespace bandhess::interior {

// The size of f that tolerances are relative to.
template <class T>
T value_size(const State<T>& s) {
  const T floor = std::pow(s.constants().precision, s.constants().floor_mean);
  return std::max(std::abs(s.reg.f), floor * std::min(T(1), s.reg.value_unit));
}

// Below it mu does not fall.
template <class T>
T least_barrier(const State<T>& s) {
  const T count = std::max(T(1), static_cast<T>(s.count(false)));
  return s.constants().mu_least * s.reg.tol * std::min(T(1), 10 * value_size(s) / count);
}

// By how much the rows' residuals, less what rounding hides given the sizes of J x, may change f.
template <class T>
T price(const State<T>& s, const T* sizes) {
  const T hidden = s.constants().rounding_rows * s.constants().precision;
  return sum<T>(0, s.r, [=, y = s.y, left = s.r_rows](Index i) {
    return std::abs(y[i]) * std::max(std::abs(left[i]) - hidden * std::abs(sizes[i]), T(0));
  });
}

// Whether the Lagrangian's gradient is at most `enough`, but for what rounding hides of J^T y: a mean of multipliers that
// have run off is no measure for it.
template <class T>
bool dual_met(const State<T>& s, T enough) {
  const T hidden = s.constants().rounding_rows * s.constants().precision * s.reg.row_size * largest(s.y, s.r);
  return s.reg.dual_max <= enough + std::min(hidden, s.constants().dual_hidden);
}

// Whether gradient, violation, gap and residuals are small enough.
template <class T>
bool met(const State<T>& s) {
  const auto& reg = s.reg;
  if (!dual_met(s, reg.tol * std::min(reg.mean_d, s.constants().dual_scale))) return false;
  largest_product(s, s.x, s.v7);
  if (!(violation<T>(s, s.x, s.h, s.v7) <= reg.tol / 2)) return false;
  return reg.gap * reg.f_scale + price(s, s.v7) <= s.constants().gap * reg.tol * value_size(s);
}

template <class T>
bool unbounded(const State<T>& s) {
  const T fallen = -s.reg.f / std::max(T(1), s.reg.value_unit), far = largest(s.x, s.n), most = s.constants().unbounded;
  if (!(fallen > 0)) return false;
  return std::max(fallen, far) > most || std::min(fallen, far) > std::sqrt(most);
}

// Whether a step by dx would still change f, by tol^power of it.
template <class T>
bool worth_a_step(const State<T>& s, const T* dx, T power) {
  const T gain = std::abs(inner(s.dual, dx, s.n));
  return !(gain <= std::pow(s.reg.tol, power) * value_size(s));
}

template <class T>
bool worth_a_step(const State<T>& s, const T* dx) {
  return worth_a_step(s, dx, s.constants().gain_power);
}

}  // namespace bandhess::interior
