// The tridiagonal H = M D M^T from both ends at once: two chains of divisions run side by side and meet at row n / 2.
//
// With d_i and e_i the entries of H, an end eliminates row after row towards the middle:
//
//     pivot_i = d_i - e_{i-1} m_{i-1},   m_i = e_i / pivot_i
//
// No entry is squared, so whatever H holds, from the least to the largest numbers, has its factor (LAPACK's `pttrf`).
#pragma once

#include "element.h"

namespace bandhess {

// Of the row that an end has eliminated last.
template <class T>
struct TridiagonalEnd {
  T coupling = 0;  // to the row to come
  T m = 0;         // coupling / pivot
  T y = 0;         // what the elimination has made of its right-hand side
};

// How many rows each end eliminates, and the row where they meet. Of an even n the upper end takes one more.
struct Halves {
  Index half;
  Index middle;
  bool uneven;

  explicit Halves(Index n) : half((n - 1) / 2), middle(n / 2), uneven(n > 0 && n % 2 == 0) {}
};

// x = H^-1 b for d (n), e (n - 1), with n entries of work. Returns whether all pivots are in (0, inf).
template <class T>
INLINE bool solve_tridiagonal(const T* d, const T* e, const T* b, T* x, T* m, Index n) {
  const Halves at(n);
  TridiagonalEnd<T> above, below;
  bool ok = true;
  const auto eliminate = [&](TridiagonalEnd<T>& end, Index i, T coupling) {
    const T pivot = d[i] - end.coupling * end.m;
    ok &= positive(pivot);
    end.y = b[i] - end.m * end.y;
    end.m = coupling / pivot;
    end.coupling = coupling;
    m[i] = end.m;
    x[i] = end.y / pivot;
  };
  for (Index i = 0; i < at.half; ++i) {
    eliminate(above, i, e[i]);
    eliminate(below, n - 1 - i, e[n - 2 - i]);
  }
  if (at.uneven) eliminate(above, at.half, e[at.half]);
  const T pivot = d[at.middle] - above.coupling * above.m - below.coupling * below.m;
  ok &= positive(pivot);
  T up = (b[at.middle] - above.m * above.y - below.m * below.y) / pivot;
  T down = up;
  x[at.middle] = up;
  for (Index t = 1; t <= at.half; ++t) {
    up = x[at.middle - t] - m[at.middle - t] * up;
    down = x[at.middle + t] - m[at.middle + t] * down;
    x[at.middle - t] = up;
    x[at.middle + t] = down;
  }
  if (at.uneven) x[0] -= m[0] * up;
  return ok;
}

// The factor of H + shift I in pieces: columns are pairs [d, m], m being the coupling to the next row towards the
// middle over d. Returns whether all pivots are in (0, inf).
template <class T>
INLINE bool tridiagonal_columns(const T* d, const T* e, T shift, T* columns, Index n) {
  const Halves at(n);
  bool ok = true;
  const auto eliminate = [&](T& pending, Index i, T coupling) {
    const T pivot = d[i] + shift - pending;
    const T m = coupling / pivot;
    ok &= positive(pivot);
    pending = coupling * m;
    columns[2 * i] = pivot;
    columns[2 * i + 1] = m;
  };
  T above = 0;
  T below = 0;
  for (Index i = 0; i < at.half; ++i) {
    eliminate(above, i, e[i]);
    eliminate(below, n - 1 - i, e[n - 2 - i]);
  }
  if (at.uneven) eliminate(above, at.half, e[at.half]);
  above += below;
  eliminate(above, at.middle, T(0));
  return ok;
}

// x <- M^-1 x
template <class T>
INLINE void tridiagonal_forward(const T* columns, T* x, Index n) {
  const Halves at(n);
  T above = 0;  // pending on the next row
  T below = 0;
  for (Index i = 0; i < at.half; ++i) {
    const Index k = n - 1 - i;
    x[i] -= above;
    x[k] -= below;
    above = columns[2 * i + 1] * x[i];
    below = columns[2 * k + 1] * x[k];
  }
  if (at.uneven) {
    x[at.half] -= above;
    above = columns[2 * at.half + 1] * x[at.half];
  }
  x[at.middle] -= above + below;
}

// x <- M^-T D^-1 x
template <class T>
INLINE void tridiagonal_backward(const T* columns, T* x, Index n) {
  const Halves at(n);
  for (Index i = 0; i < n; ++i) x[i] /= columns[2 * i];
  T up = x[at.middle];
  T down = up;
  for (Index t = 1; t <= at.half; ++t) {
    const Index i = at.middle - t;
    const Index k = at.middle + t;
    up = x[i] - columns[2 * i + 1] * up;
    down = x[k] - columns[2 * k + 1] * down;
    x[i] = up;
    x[k] = down;
  }
  if (at.uneven) x[0] -= columns[1] * up;
}

}  // namespace bandhess
