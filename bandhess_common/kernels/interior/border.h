// The border of the condensed matrix M: its rows of the p shared variables, which meet all others.
//
//     M = [ A  B^T ]     A: the band, factored by itself,   Y = A^-1 B^T,   S = C - B Y
//         [ B  C   ]
//
// M is positive definite exactly when A and S are. For one shared variable and A = 2, B = 1, C = 3: Y = 1/2, S = 5/2;
// M x = (4, 7) is solved by t = A^-1 4 = 2, then x_2 = S^-1 (7 - B t) = 2, then x_1 = t - Y x_2 = 1.
#pragma once

#include "products.h"

namespace bandhess::interior {

// x <- A^-1 x, of the banded variables
template <class T>
void substitute_band(const State<T>& state, T* x) {
  const Bands& s = state.s;
  T *pending = state.pending, *factor = state.factor;
  std::fill_n(pending, s.state(), T(0));
  tiles(s.n, [&](Index j, Index count) { forward<T>(s, pending, factor + j * s.stride, x, 1, j, count); });
  std::fill_n(pending, s.state(), T(0));
  tiles_upwards(s.n, [&](Index j, Index count) { backward<T>(s, pending, factor + j * s.stride, x, 1, j, count); });
}

// B and C of M = H + J^T G J, without shift; takes w2 and v7.
template <class T>
void condense_border(const State<T>& s) {
  T *weighted = s.v7, *force = s.w2;
  for (Index q = 0; q < s.p; ++q) {
    const Index at = s.banded + q;
    const T *row = s.w_border(q), *column = s.column(q);
    T* border = s.border(q);
    each(0, s.r, [=, g = s.g](Index i) { weighted[i] = g[i] * column[i]; });
    pull(s, weighted, force);
    each(0, s.n, [=](Index j) { border[j] = row[j] + force[j]; });
    border[at] += s.w[at] + s.diagonal[at];
  }
}

// What is added to an entry of M's diagonal: a shift, and a part of it. What nothing depends on has an entry of 0, which
// becomes the smallest number there is.
template <class T>
INLINE T raised(T entry, T shift, T relative) {
  return relative > 0 ? shift + std::max(relative * entry, std::numeric_limits<T>::min()) : shift;
}

// Y, and the Cholesky factor of S; false where S is not positive definite.
template <class T>
bool factorise_border(const State<T>& s, T shift, T relative) {
  const Index p = s.p, banded = s.banded;
  for (Index q = 0; q < p; ++q) {
    std::copy_n(s.border(q), banded, s.solved(q));
    substitute_band(s, s.solved(q));
  }
  for (Index q = 0; q < p; ++q) {
    T* row = s.corner + q * p;
    for (Index t = 0; t <= q; ++t) {
      T left = s.border(q)[banded + t] - inner(s.border(q), s.solved(t), banded);
      if (t == q) left += raised(s.border(q)[banded + q], shift * s.free[banded + q], relative);
      left -= inner(row, s.corner + t * p, t);
      if (t < q) {
        row[t] = left / s.corner[t * p + t];
      } else if (positive(left)) {
        row[q] = std::sqrt(left);
      } else {
        return false;
      }
    }
  }
  return true;
}

// x <- M^-1 x, given A^-1 of its banded part
template <class T>
void substitute_border(const State<T>& s, T* x) {
  const Index p = s.p, banded = s.banded;
  T* last = x + banded;
  for (Index q = 0; q < p; ++q) {
    const T* row = s.corner + q * p;
    last[q] -= inner(s.border(q), x, banded);
    last[q] = (last[q] - inner(row, last, q)) / row[q];
  }
  for (Index q = p - 1; q >= 0; --q) {
    for (Index t = q + 1; t < p; ++t) last[q] -= s.corner[t * p + q] * last[t];
    last[q] /= s.corner[q * p + q];
  }
  for (Index q = 0; q < p; ++q)
    each(0, banded, [=, solved = s.solved(q), by = last[q]](Index j) { x[j] -= by * solved[j]; });
}

}  // namespace bandhess::interior
