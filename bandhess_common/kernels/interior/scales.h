// Scales of the objective and of the rows, from derivatives at the start and beside it, and the sizes of the Jacobian's columns.
#pragma once

#include <algorithm>

#include "products.h"

namespace bandhess::interior {

// What the user's functions tell, unscaled, as it comes with a call.
template <class T>
struct Derivatives {
  T f;
  const T* h;
  const T* gradient;
  const std::int32_t* first;  // the columns in which the rows begin
  const T* rows;              // (r, w + 1 + p), and
  const T* w;                 // (diagonals + p, n), as State has it, but for diagonals of zeros
  Index diagonals;
  T narrow;
};

// The largest entries of rows and gradient, beside those seen before; what is not finite counts as 0.
template <class T>
void note_tops(const State<T>& s, const Derivatives<T>& at) {
  const Index L = s.s.w + 1, p = s.p;
  const auto finite = [](T a) { return std::isfinite(a) ? a : T(0); };
  for (Index i = 0; i < s.r; ++i) {
    const T* a = at.rows + i * (L + p);
    T here = 0, sum = 0;
    const auto look = [&](const T* a, const T* mask, Index count) {
      for (Index j = 0; j < count; ++j) {
        here = std::max(here, std::abs(a[j] * mask[j]));
        sum += std::abs(a[j] * mask[j]);
      }
    };
    look(a, s.mask + at.first[i], L);
    look(a + L, s.mask + s.banded, p);
    s.top[i] = std::max(s.top[i], finite(here + 0 * sum));
  }
  const T here = largest<T>(0, s.n, [g = at.gradient, mask = s.mask](Index j) { return g[j] * mask[j]; });
  s.reg.value_unit = std::max(s.reg.value_unit, finite(here));
}

// Rows as they stand, in windows that begin at `first`: what these do not hold is dropped, what is new is 0.
template <class T>
void move_rows(const State<T>& s, const std::int32_t* first) {
  const Index L = s.s.w + 1;
  for (Index i = 0; i < s.r; ++i) {
    T* row = s.row(i);
    const Index by = std::max(-L, std::min(L, Index{first[i]} - s.starts()[i]));
    if (by < 0) std::fill(row, std::copy_backward(row, row + L + by, row + L), T(0));
    if (by > 0) std::fill(std::copy(row + by, row + L, row), row + L, T(0));
  }
}

// |J| into the rows' storage: at the second point, `far`, and then at the start, but 0 for what nearly vanishes there beside
// what it was: next to an axis of symmetry columns tell as little of sizes as they do on it. What is not finite counts as 0.
template <class T>
void note_rows(const State<T>& s, const Derivatives<T>& at, bool far) {
  const Index L = s.s.w + 1, p = s.p;
  if (!far) move_rows(s, at.first);
  std::copy_n(at.first, s.r, s.starts());
  const auto note = [=, part = s.constants().vanishing](T a, T& to) {
    const T size = std::isfinite(a) ? std::abs(a) : T(0);
    to = far || size >= part * to ? size : T(0);
  };
  for (Index i = 0; i < s.r; ++i) {
    const T *from = at.rows + i * (L + p), *own = s.mask + s.starts()[i];
    for (Index j = 0; j < L; ++j) note(from[j] * own[j], s.row(i)[j]);
    for (Index q = 0; q < p; ++q) note(from[L + q] * s.mask[s.banded + q], s.column(q)[i]);
  }
}

// How far the gradient of f would change along with x by max(1, |x|), or as far as bounds let it, from its change up to the
// second point: f may be flat at the start alone.
template <class T>
void note_bend(const State<T>& s, const T* gradient) {
  const T tiny = std::numeric_limits<T>::min();
  T least = s.constants().scale_far;  // the inverse of how many times the move can be made
  for (Index j = 0; j < s.n; ++j) {
    const T move = s.free[j] * (s.cx[j] - s.x[j]);
    if (s.has_lower[j] > 0) least = std::max(least, -move / std::max(s.x[j] - s.lower[j], tiny));
    if (s.has_upper[j] > 0) least = std::max(least, move / std::max(s.upper[j] - s.x[j], tiny));
  }
  const T change = largest<T>(0, s.n, [=, mask = s.mask, far = s.c_lower](Index j) {
    return far[j] - mask[j] * gradient[j];
  });
  if (std::isfinite(change / least)) s.reg.value_unit = std::max(s.reg.value_unit, change / least);
}

// Of what is above 0 among top[begin .. end), the upper one of two; 1 of nothing. Takes v1.
template <class T>
T median_of_tops(const State<T>& s, Index begin, Index end) {
  T* last = std::copy_if(s.top + begin, s.top + end, s.v1, [](T top) { return top > 0; });
  T* middle = s.v1 + (last - s.v1) / 2;
  std::nth_element(s.v1, middle, last);
  return middle < last ? *middle : T(1);
}

// The largest derivative of f is brought to 1 (in float32 a small one, whose rounding grows with it, to 1e-2), and so is the
// median of the equalities' and that of the inequalities', in whatever units they are; rows that are then beyond 1e-2 and 100
// come to that edge. Where units are guesses, all that is within these edges remains.
template <class T>
void set_scales(const State<T>& s) {
  const auto& c = s.constants();
  const bool apart = s.reg.apart > 0;
  const auto within = [&c](T scale) { return std::max(std::min(scale, c.scale_grow), c.scale_floor); };
  const auto to_edge = [&c](T top) {
    const T size = std::max(top, std::numeric_limits<T>::min());
    return std::min(c.scale_most / size, T(1)) * std::max(c.scale_least / size, T(1));
  };
  const T one = 1, medians[2] = {apart ? one : median_of_tops(s, 0, s.m()), apart ? one : median_of_tops(s, s.m(), s.r)};
  for (Index i = 0; i < s.r; ++i) {
    const T median = medians[i < s.m() ? 0 : 1];
    s.h_scale[i] = within(to_edge(s.top[i] / median) / median);
  }
  const T top = s.reg.value_unit;
  const T scale = apart ? to_edge(top) : std::min(1 / top, std::max(c.scale_value / top, one));
  s.reg.f_scale = top > 0 ? within(scale) : one;
}

// How large the columns of what `note_rows` saw are, squared, beside rows of one size: the largest of stages 1, and 1 of a column of
// zeros. Each sweep brings the sizes of all rows and columns nearer to each other (Ruiz 2001).
template <class T>
void measure_columns(const State<T>& s) {
  const Index n = s.n, banded = s.banded;
  T *size = s.column_size, *inverse = s.w1, *sums = s.w2;
  std::fill_n(size, n, T(1));
  std::fill_n(inverse + n, kPad, T(0));
  for (int sweep = 0; sweep < static_cast<int>(s.constants().column_sweeps); ++sweep) {
    each(0, n, [=](Index j) { inverse[j] = 1 / size[j]; });
    std::fill_n(sums, n + kPad, T(0));
    with_stride(s, [&](auto stride) {
      const int S = stride;
      for (Index i = 0; i < s.r; ++i) {
        const T *a = s.row(0) + i * S, *by = inverse + s.starts()[i];
        T* to = sums + s.starts()[i];
        T square = 0;
        UNROLL for (int j = 0; j < S; ++j) square += a[j] * a[j] * by[j];
        for (Index q = 0; q < s.p; ++q) square += s.column(q)[i] * s.column(q)[i] * inverse[banded + q];
        if (!(square > 0)) continue;
        const T share = 1 / square;
        UNROLL for (int j = 0; j < S; ++j) to[j] += a[j] * a[j] * share;
        for (Index q = 0; q < s.p; ++q) sums[banded + q] += s.column(q)[i] * s.column(q)[i] * share;
      }
    });
    each(0, n, [=](Index j) { size[j] = sums[j] > 0 ? std::sqrt(size[j] * sums[j]) : T(1); });
  }
  const T top = largest<T>(0, banded, [=](Index j) { return sums[j] > 0 ? size[j] : T(0); });
  each(0, n, [=](Index j) { size[j] /= sums[j] > 0 && top > 0 ? top : T(1); });
}

}  // namespace bandhess::interior
