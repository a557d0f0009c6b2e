// What the user's functions tell, brought into the state.
#pragma once

#include "start.h"

namespace bandhess::interior {

// Scales rows, values and variables, takes fixed ones out; `more` where the gradient was asked for before scales were known.
template <class T>
void load(const State<T>& s, const Derivatives<T>& at, T more) {
  auto& reg = s.reg;
  const Index n = s.n, p = s.p, banded = s.banded, L = s.s.w + 1, S = s.s.stride;
  const T* mask = s.mask;
  reg.f = reg.f_scale * at.f;
  run([&] {
    for (Index i = 0; i < s.r; ++i) {
      const T* from = at.rows + i * (L + p);
      const T* own = mask + at.first[i];
      T* to = s.row(i);
      s.starts()[i] = at.first[i];
      const T scale = s.h_scale[i];
      s.h[i] = scale * at.h[i];
      for (Index j = 0; j < L; ++j) to[j] = scale * from[j] * own[j];
      for (Index j = L; j < S; ++j) to[j] = 0;
      for (Index q = 0; q < p; ++q) s.column(q)[i] = scale * from[L + q] * mask[banded + q];
    }
  });
  if (reg.stage == kLinearise) {
    reg.diagonals = static_cast<T>(at.diagonals);
    each(0, n, [=, to = s.w, from = at.w](Index j) { to[j] = from[j] * mask[j] * mask[j]; });
    for (Index i = 1; i < at.diagonals; ++i)
      each(0, banded - i, [=, to = s.w + i * n, from = at.w + i * n](Index j) { to[j] = from[j] * mask[j] * mask[j + i]; });
    for (Index q = 0; q < p; ++q)
      each(0, n, [=, to = s.w_border(q), from = at.w + (at.diagonals + q) * n, own = mask[banded + q]](Index j) {
        to[j] = from[j] * mask[j] * own;
      });
  } else {
    reg.diagonals = 1;
    std::fill_n(s.w, n, T(0));
    std::fill_n(s.w_border(0), p * n, T(0));
  }
  each(0, n, [=, g = at.gradient, to = s.dual](Index j) { to[j] = more * g[j] * mask[j]; });
  objective_gradient(s);
}

// The gradient of the objective, and in `dual`, which holds that of sigma f + y . h, that of the Lagrangian.
template <class T>
void objective_gradient(const State<T>& s) {
  auto& reg = s.reg;
  T *gradient = s.gradient, *dual = s.dual;
  if (s.elastic()) {
    each(0, s.n, [=, x = s.x, from = s.x_r, weight = s.weight, by = reg.zeta](Index j) {
      gradient[j] = by * weight[j] * weight[j] * (x[j] - from[j]);
      dual[j] += gradient[j];
    });
  } else if (reg.stage == kLinearise) {
    pull(s, s.y, s.w1);
    each(0, s.n, [=, force = s.w1](Index j) { gradient[j] = dual[j] - force[j]; });
  } else {
    std::copy_n(dual, s.n, gradient);
  }
  each(0, s.n, [=, low = s.z_lower, up = s.z_upper](Index j) { dual[j] -= low[j] - up[j]; });
}

}  // namespace bandhess::interior
