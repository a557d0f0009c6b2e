// The end, and whether the equalities' gradients depend on each other there.
#pragma once

#include "system.h"

namespace bandhess::interior {

// Whether rows of the equalities' Jacobian A are dependent, by the last factor: with gamma alone on the diagonal of E,
// I - G^(1/2) A M^-1 A^T G^(1/2) leaves null vectors of A^T as they are and takes all others to gamma of their size.
template <class T>
bool dependent_rows(const State<T>& s, System<T>& system) {
  const Index m = s.m();
  if (m == 0 || !(s.reg.size_w > 0)) return false;
  const auto& c = s.constants();
  T *u = s.v2, *v = s.v3, *size = s.v4;
  for (Index i = 0; i < m; ++i) {
    u[i] = static_cast<T>(noise(i, 4));
    T square = inner(s.row(i), s.row(i), s.s.stride);
    for (Index q = 0; q < s.p; ++q) square += s.column(q)[i] * s.column(q)[i];
    size[i] = std::sqrt(square);
  }
  T ratio = 0;
  for (int turn = 0; turn < static_cast<int>(c.null_turns); ++turn) {
    const T square = inner(u, u, m);
    if (!(square > 0)) return false;  // nothing is left of it: no null vector
    const T by = 1 / std::sqrt(square);
    each(0, m, [=, g = s.g](Index i) {
      u[i] *= by;
      v[i] = std::sqrt(g[i]) * u[i];
    });
    pull(s, v, s.w1, m);
    const T force = std::sqrt(inner(s.w1, s.w1, s.n));
    const T whole = std::sqrt(sum<T>(0, m, [=](Index i) { return size[i] * size[i] * v[i] * v[i]; }));
    ratio = whole > 0 ? force / whole : whole;  // rows of zeros are dependent
    system.substitute(s.w1);
    push(s, s.w1, v);
    each(0, m, [=, g = s.g](Index i) { u[i] -= std::sqrt(g[i]) * v[i]; });
  }
  return ratio <= c.dependent;
}

template <class T>
void end(const State<T>& s, Status status, System<T>* system = nullptr) {
  const bool solved = status == kConverged || status == kPrecisionFloor;
  if (solved && system && dependent_rows(s, *system)) status = kRankDeficient;
  s.reg.status = static_cast<T>(status);
  s.reg.request = kDone;
}

}  // namespace bandhess::interior
