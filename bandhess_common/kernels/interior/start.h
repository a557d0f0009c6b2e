// The state before the first step: the point moved inside, scales, multipliers.
#pragma once

#include "certificate.h"
#include "direction.h"
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

constexpr int kWarm = 2;

// x[j] away from its bounds; fixed variables stay.
template <class T>
T inside(const State<T>& s, Index j, T x) {
  const auto& c = s.constants();
  const bool below = s.has_lower[j] > 0, above = s.has_upper[j] > 0;
  const T low = s.lower[j], up = s.upper[j];
  const T room = below && above ? c.push_width * (up - low) : std::numeric_limits<T>::infinity();
  if (below) x = std::max(x, low + std::min(c.push * unit(low), room));
  if (above) x = std::min(x, up - std::min(c.push * unit(up), room));
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

template <class T>
void set_scales(const State<T>& s) {
  const auto& c = s.constants();
  const auto scale = [&c](T top) {
    const T size = std::max(top, std::numeric_limits<T>::min());
    return std::max(std::min(T(1), c.scale_most / size), c.scale_floor) * std::min(std::max(c.scale_least / size, T(1)), c.scale_grow);
  };
  each(0, s.r, [=](Index i) { s.h_scale[i] = scale(s.top[i]); });
  s.reg.f_scale = s.reg.value_unit > 0 ? scale(s.reg.value_unit) : T(1);
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
