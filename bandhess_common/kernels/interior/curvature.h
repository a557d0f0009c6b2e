// A direction of negative curvature by inverse iteration with the shifted system.
#pragma once

#include "certificate.h"
#include "direction.h"

namespace bandhess::interior {

// v . H v, term by term: a solve with the shifted matrix tells it as the difference of two large numbers, and rounding
// where bounds are active may turn its sign. Takes w1 and v1.
template <class T>
T curvature_along(const State<T>& s, const T* v) {
  apply_band(s, v, s.w1);
  push(s, v, s.v1);
  const T of_rows = sum<T>(0, s.r, [e = s.e, along = s.v1](Index i) {
    return e[i] > 0 ? along[i] * along[i] / e[i] : T(0);
  });
  return of_rows + sum<T>(0, s.n, [=, bent = s.w1, own = s.diagonal](Index j) {
           return v[j] * (bent[j] + own[j] * v[j]);
         });
}

// Fills `to` with a direction along which phi does not rise, of a tenth of x's size; its curvature goes into the register.
// False: no curvature below zero was found, or, which register `flat` tells, none along which f would change by its tolerance.
template <class T>
bool find_curved(const State<T>& s, System<T>& system, const Direction<T>& direction, const Step<T>& to) {
  auto& reg = s.reg;
  const auto& c = s.constants();
  T* v = s.w5;
  T curvature = 0, square = 0;
  each(0, s.n, [=, free = s.free](Index j) { v[j] = free[j] * static_cast<T>(noise(j, 3)); });
  std::fill_n(s.b2, s.r, T(0));
  for (int turn = 0; turn < static_cast<int>(c.curvature_turns); ++turn) {
    const T by = 1 / std::sqrt(inner(v, v, s.n));
    each(0, s.n, [=, b = s.b1](Index j) { b[j] = by * v[j]; });
    system.solve(s.b1, s.b2, c.target_curvature, to.x, to.y);
    square = inner(to.x, to.x, s.n);
    curvature = inner(to.x, s.b1, s.n) - reg.delta * square;
    std::copy_n(to.x, s.n, v);
  }
  curvature = std::max(curvature, curvature_along(s, to.x));
  if (!(curvature < -std::sqrt(c.precision) * reg.size_w * square)) return false;

  const T length = c.curvature_length * std::max(T(1), largest(s.x, s.n)) / largest(v, s.n);
  reg.curvature = curvature * length * length;
  reg.flat = !s.elastic() && !(-reg.curvature / 2 > reg.tol * value_size(s));
  if (reg.flat > 0) return false;

  T *dx = to.x, *dy = to.y;
  each(0, s.n, [=](Index j) { dx[j] *= length; });
  s.pairs([&](const Pair<T>& p) {
    T *dd = to.d[p.kind], *dz = to.z[p.kind];
    const T sign = p.kind == 1 || p.kind == 4 ? -length : length;
    if (p.kind < 2) {
      each(0, s.n, [=, has = p.has](Index j) { dd[j] = (sign < 0 ? -dx[j] : dx[j]) * has[j]; });
    } else {
      each(p.begin, p.end, [=](Index i) {
        dd[i] = sign * dy[i] * p.d[i] / std::max(p.z[i], std::numeric_limits<T>::min());
      });
    }
    std::fill(dz + p.begin, dz + p.end, T(0));
  });
  std::fill_n(dy, s.r, T(0));
  if (direction.slope(to) > 0) {
    each(0, s.n, [=](Index j) { dx[j] = -dx[j]; });
    s.pairs([&](const Pair<T>& p) { each(p.begin, p.end, [dd = to.d[p.kind]](Index i) { dd[i] = -dd[i]; }); });
  }
  return true;
}

}  // namespace bandhess::interior
