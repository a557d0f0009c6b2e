// Units of variables: the engine's x, beside which all its vectors of variables stand, is the user's in these units.
#pragma once

#include "products.h"

namespace bandhess::interior {

// Asks for what is wanted at x, in the user's units.
template <class T>
void ask_at(const State<T>& s, const T* x) {
  each(0, s.n, [=, unit = s.unit, to = s.x_request](Index j) { to[j] = unit[j] * x[j]; });
}

// Squares of factors for the columns that bring the unscaled Jacobian's rows and columns near the length 1 (Ruiz 2001), 0
// of a column that has no entry in a row of several. A row of one entry is a bound: it says nothing of its column beside
// others.
template <class T>
void equilibrate(const State<T>& s, T* columns) {
  const Index banded = s.banded, S = s.s.stride;
  T *rows = s.v1, *sums = s.w2;
  for (Index i = 0; i < s.r; ++i) {
    Index entries = 0;
    for (Index j = 0; j < S; ++j) entries += s.row(i)[j] != 0;
    for (Index q = 0; q < s.p; ++q) entries += s.column(q)[i] != 0;
    rows[i] = entries > 1 ? 1 / (s.h_scale[i] * s.h_scale[i]) : T(0);
  }
  std::fill_n(columns, s.n, T(1));
  std::fill_n(columns + s.n, kPad, T(0));
  for (int sweep = 0; sweep < static_cast<int>(s.constants().unit_sweeps); ++sweep) {
    std::fill_n(sums, s.n + kPad, T(0));
    run([&] {
      for (Index i = 0; i < s.r; ++i) {
        const T *a = s.row(i), *by = columns + s.starts()[i];
        T *to = sums + s.starts()[i], sum = 0;
        for (Index j = 0; j < S; ++j) {
          sum += a[j] * a[j] * by[j];
          to[j] += a[j] * a[j] * rows[i];
        }
        for (Index q = 0; q < s.p; ++q) {
          const T square = s.column(q)[i] * s.column(q)[i];
          sum += square * columns[banded + q];
          sums[banded + q] += square * rows[i];
        }
        rows[i] = sum > 0 ? std::sqrt(rows[i] / sum) : T(0);
      }
    });
    each(0, s.n, [=](Index j) { columns[j] = sums[j] > 0 ? std::sqrt(columns[j] / sums[j]) : T(0); });
  }
}

// What is known at the start of a variable's size: |x|, or the bound next to 0; 0 where nothing is.
template <class T>
T size_at_start(const State<T>& s, Index j) {
  if (s.x_r[j] != 0) return std::abs(s.x_r[j]);
  const T low = std::abs(s.lower[j]), up = std::abs(s.upper[j]);
  return low > 0 && up > 0 ? std::min(low, up) : std::max(low, up);
}

// How far at most a row lies from 0, along its largest entry, in these units.
template <class T>
T largest_way(const State<T>& s, const T* unit) {
  T way = 0;
  for (Index i = 0; i < s.r; ++i) {
    const T *a = s.row(i), *own = unit + s.starts()[i];
    T top = 0;
    for (Index j = 0; j <= s.s.w; ++j) top = std::max(top, std::abs(a[j]) * own[j]);
    for (Index q = 0; q < s.p; ++q) top = std::max(top, std::abs(s.column(q)[i]) * unit[s.banded + q]);
    if (top > 0) way = std::max(way, std::abs(s.h[i]) / top);
  }
  return way;
}

// Units for the variables in which the method's bare numbers, such as the push from bounds, the shift of the Hessian and
// the tests of steps, mean what they mean where x is of size 1. Relative to each other they make the Jacobian's columns
// equally large; their common size is that of the start, or of the way to where rows are met. They are powers of 2, so that
// nothing is rounded, and remain 1 where all is within a few decades. False: they do.
template <class T>
bool choose_units(const State<T>& s) {
  const auto& c = s.constants();
  s.reg.measured = 1;
  T *relative = s.w1, *log = s.w3;  // units but for their common size, and their logarithms
  equilibrate(s, relative);
  each(0, s.n, [=](Index j) { relative[j] = std::sqrt(relative[j]); });
  T total = 0, least = std::numeric_limits<T>::infinity(), most = -least, roots = 0;
  Index used = 0, sized = 0;
  for (Index j = 0; j < s.n; ++j) {
    if (!(relative[j] > 0)) continue;
    log[j] = std::log2(relative[j]);
    total += log[j];
    least = std::min(least, log[j]);
    most = std::max(most, log[j]);
    used += 1;
    const T size = size_at_start(s, j);
    roots += std::sqrt(size / relative[j]);
    sized += size > 0;
  }
  if (used == 0) return false;
  const T mean = total / static_cast<T>(used);
  T common = sized > 0 ? roots / static_cast<T>(sized) : T(0);
  common = std::max(common * common, largest_way(s, relative) / c.unit_way);
  if (!(common > 0)) return false;
  const T by = std::log2(common);
  const bool own = most - least > c.unit_spread;
  if (!own && std::abs(mean + by) <= c.unit_common) return false;
  for (Index j = 0; j < s.n; ++j) {
    if (s.free[j] == 0) continue;
    const T power = (own && relative[j] > 0 ? log[j] : mean) + by;
    const T unit = std::exp2(std::round(std::min(std::max(power, -c.unit_most), c.unit_most)));
    s.unit[j] = s.mask[j] = unit;
    s.lower[j] /= unit;
    s.upper[j] /= unit;
    s.x_r[j] /= unit;
    s.z_lower[j] *= unit;
    s.z_upper[j] *= unit;
  }
  return true;
}

}  // namespace bandhess::interior
