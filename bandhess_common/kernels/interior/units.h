// Units of variables: the engine's x, beside which all its vectors of variables stand, is the user's in these units.
#pragma once

#include "products.h"

namespace bandhess::interior {

// Asks for what is wanted at x, in the user's units.
template <class T>
void ask_at(const State<T>& s, const T* x) {
  each(0, s.n, [=, unit = s.unit, to = s.x_request](Index j) { to[j] = unit[j] * x[j]; });
}

// Of a step, in the user's units.
template <class T>
T length(const State<T>& s, const T* dx) {
  return std::sqrt(sum<T>(0, s.n, [=, unit = s.unit](Index j) { return unit[j] * dx[j] * unit[j] * dx[j]; }));
}

// In w1 factors for the columns that bring rows and columns of what `note_rows` saw near the length 1 (Ruiz 2001), 0 of a
// column that has no entry in a row of several, and in v2 each row's largest entry then. A row of one entry is a bound: it
// says nothing of its column beside others.
template <class T>
void equilibrate(const State<T>& s) {
  const Index banded = s.banded;
  T *columns = s.w1, *rows = s.v1, *lengths = s.v2, *sums = s.w2;
  std::fill_n(columns, s.n, T(1));
  std::fill_n(columns + s.n, kPad, T(0));
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      const T* a = s.row(i);
      int entries = 0;
      UNROLL for (int j = 0; j < S; ++j) entries += a[j] != 0;
      for (Index q = 0; q < s.p; ++q) entries += s.column(q)[i] != 0;
      rows[i] = entries > 1 ? 1 : 0;
    }
    for (int sweep = 0; sweep < static_cast<int>(s.constants().unit_sweeps); ++sweep) {
      std::fill_n(sums, s.n + kPad, T(0));
      for (Index i = 0; i < s.r; ++i) {
        const T *a = s.row(i), by = rows[i];
        T* to = sums + s.starts()[i];
        T sum = sum_of_window<T>(S, WeightedSquare<T>{a, columns + s.starts()[i]});
        UNROLL for (int j = 0; j < S; ++j) to[j] += a[j] * a[j] * by;
        for (Index q = 0; q < s.p; ++q) {
          const T square = s.column(q)[i] * s.column(q)[i];
          sum += square * columns[banded + q];
          sums[banded + q] += square * by;
        }
        lengths[i] = sum;
      }
      each(0, s.r, [=](Index i) { rows[i] = lengths[i] > 0 ? std::sqrt(rows[i] / lengths[i]) : T(0); });
      each(0, s.n, [=](Index j) { columns[j] = sums[j] > 0 ? std::sqrt(columns[j] / sums[j]) : T(0); });
    }
    each(0, s.n, [=](Index j) { columns[j] = std::sqrt(columns[j]); });
    for (Index i = 0; i < s.r; ++i) {
      T& top = lengths[i] = 0;
      for (int j = 0; j < S; ++j) top = std::max(top, s.row(i)[j] * columns[s.starts()[i] + j]);
      for (Index q = 0; q < s.p; ++q) top = std::max(top, s.column(q)[i] * columns[banded + q]);
    }
  });
}

// What is known at the start of a variable's size: |x|, or the bound next to 0; 0 where nothing is. A bound that is very
// large may stand for none.
template <class T>
T size_at_start(const State<T>& s, Index j) {
  if (s.x_r[j] != 0) return std::abs(s.x_r[j]);
  const auto size = [most = s.constants().unit_bound](T bound) { return std::abs(bound) <= most ? std::abs(bound) : T(0); };
  const T low = size(s.lower[j]), up = size(s.upper[j]);
  return low > 0 && up > 0 ? std::min(low, up) : std::max(low, up);
}

// How far at most a row lies from 0, along the largest entry that `equilibrate` saw; at the start as it was given, before it
// was pushed inside. Takes w3 and v1.
template <class T>
T largest_way(const State<T>& s) {
  T way = 0, *move = s.w3, *moved = s.v1;
  each(0, s.n, [=, x = s.x, given = s.x_r](Index j) { move[j] = x[j] - given[j]; });
  std::fill_n(move + s.n, kPad, T(0));
  push(s, move, moved);
  for (Index i = 0; i < s.r; ++i)
    if (s.v2[i] > 0) way = std::max(way, std::abs(s.h[i] - moved[i]) / (s.h_scale[i] * s.v2[i]));
  return way;
}

// Of the units that make the Jacobian's columns equally large: the mean and the spread of their logarithms to the base 2,
// and that of their common size at the start; `none` where there are none, or no size.
template <class T>
struct Spread {
  T mean, spread, common;
  bool none;
};

// Takes the units themselves, but for their common size: it is that of x, or of the way to where rows are met.
template <class T>
Spread<T> sizes_of(const State<T>& s, const T* relative) {
  T least = std::numeric_limits<T>::infinity(), most = 0, roots = 0, sized = 0, used = 0;
  for (Index j = 0; j < s.n; ++j) {
    if (!(relative[j] > 0)) continue;
    const T size = size_at_start(s, j);
    least = std::min(least, relative[j]);
    most = std::max(most, relative[j]);
    used += 1;
    roots += std::sqrt(size / relative[j]);
    sized += size > 0;
  }
  const double logs = sum_of_logs(0, s.n, [=](Index j) { return relative[j] > 0 ? relative[j] : T(1); });
  const T root = sized > 0 ? roots / sized : T(0), mean = static_cast<T>(logs / std::log(2.0)) / used;
  const T common = std::max(root * root, largest_way(s) / s.constants().unit_way);
  return {mean, std::log2(most / least), std::log2(common), !(used > 0 && common > 0)};
}

// The logarithm to the base 2 of how far x[j] can go between two bounds, which no unit exceeds: a variable that rows tell
// little of, such as an angle that acts on velocities far from 1, would be taken for a large one.
template <class T>
T room_between_bounds(const State<T>& s, Index j) {
  const T width = s.upper[j] - s.lower[j];
  return s.has_lower[j] > 0 && s.has_upper[j] > 0 && width > 0 ? std::log2(width) : s.constants().unit_most;
}

// Units for the variables in which the method's bare numbers, such as the push from bounds, the shift of the Hessian and
// the tests of steps, mean what they mean where x is of size 1. They are powers of 2, so that nothing is rounded, and remain
// 1 where all is within a few decades. False: they do. Comes after `equilibrate`.
template <class T>
bool choose_units(const State<T>& s) {
  const auto& c = s.constants();
  s.reg.measured = 1;
  const T* relative = s.w1;
  const Spread<T> of = sizes_of(s, relative);
  const bool within = of.spread <= c.unit_spread && std::abs(of.mean + of.common) <= c.unit_common;
  if (of.none || within) return false;
  T least = c.unit_most, largest = -c.unit_most;
  for (Index j = 0; j < s.n; ++j) {
    if (s.free[j] == 0) continue;
    const T power = (relative[j] > 0 ? std::log2(relative[j]) : of.mean) + of.common;
    const T most = std::min(room_between_bounds(s, j), c.unit_most);
    const T rounded = std::nearbyint(std::max(std::min(power, most), -c.unit_most)), unit = std::exp2(rounded);
    least = std::min(least, rounded);
    largest = std::max(largest, rounded);
    s.unit[j] = s.mask[j] = unit;
    s.lower[j] /= unit;
    s.upper[j] /= unit;
    s.x_r[j] /= unit;
    s.z_lower[j] *= unit;
    s.z_upper[j] *= unit;
  }
  s.reg.apart = largest - least > c.unit_apart ? 1 : 0;
  return true;
}

}  // namespace bandhess::interior
