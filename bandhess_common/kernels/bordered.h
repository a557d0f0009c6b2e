// H x = b for a band with a border, by the elimination of border.h. Large systems are eliminated from both ends.
#pragma once

#include "solve.h"

namespace bandhess {

// S = L L^T (p, p), read and written in its lower triangle. Returns the order of the first bad minor, or 0.
template <class T>
INLINE Index dense_cholesky(T* S, Index p) {
  for (Index q = 0; q < p; ++q) {
    T* row = S + q * p;
    for (Index t = 0; t < q; ++t) row[t] = (row[t] - dot(row, S + t * p, t)) / S[t * p + t];
    const T pivot = row[q] - dot(row, row, q);
    if (!positive(pivot)) return q + 1;
    row[q] = std::sqrt(pivot);
  }
  return 0;
}

// z <- (L L^T)^-1 z, for z (p, k).
template <class T>
INLINE void dense_solve(const T* L, T* z, Index p, Index k) {
  for (Index q = 0; q < p; ++q)
    for (Index r = 0; r < k; ++r) {
      for (Index t = 0; t < q; ++t) z[q * k + r] -= L[q * p + t] * z[t * k + r];
      z[q * k + r] /= L[q * p + q];
    }
  for (Index q = p; q-- > 0;)
    for (Index r = 0; r < k; ++r) {
      for (Index t = q + 1; t < p; ++t) z[q * k + r] -= L[t * p + q] * z[t * k + r];
      z[q * k + r] /= L[q * p + q];
    }
}

// Kernel. ab (w + 1, n), border (p, n), corner (p, p), b (n + p, k) -> x = H^-1 b, NaN on failure; if asked for, info.
template <class T>
void solve_bordered(Call& call) {
  const Bands s = band(call.matrices(0));
  const Array& given = call.operands[1];
  const Index p = given.rank < 2 ? 0 : given.dims[given.rank - 2], k = call.right_hand_sides(3);
  const Index size = (s.n + p) * k;
  const T* ab = call.operand<T>(0, {s.rows, s.n});
  const T* border = call.operand<T>(1, {p, s.n});
  const T* corner = call.operand<T>(2, {p, p});
  const T* b = call.operand<T>(3, {s.n + p, k});
  T* x = call.result<T>(0, {s.n + p, k});
  std::int32_t* info = call.optional<std::int32_t>(1, {});
  const typename Twisted<T>::Cut cut(s, call.whole(0, kMostBytes), Twisted<T>::worth(s));
  const Index elimination = Twisted<T>::scratch(s, cut, k, p);
  s.each<T, 1>(call.pool, elimination + whole_vectors<T>(p * p), [&](Index i, T* scratch) {
    const T *from = ab + i * s.rows * s.n, *c = corner + i * p * p, *rhs = b + i * size;
    T *to = x + i * size, *z = to + s.n * k, *S = scratch + elimination;
    Twisted<T> band(s, cut, from, rhs, k, to, scratch, border + i * p * s.n, p);
    Index bad = band.eliminate(call.pool) ? 0 : first_bad_pivot(s, from);
    if (!bad) {
      for (Index q = 0; q < p; ++q) {
        for (Index t = 0; t <= q; ++t) S[q * p + t] = (c[q * p + t] + c[t * p + q]) / 2 - band.with_row(q, t);
        for (Index r = 0; r < k; ++r) z[q * k + r] = rhs[(s.n + q) * k + r] - band.with_rhs(q, r);
      }
      run([&] {
        bad = dense_cholesky(S, p);
        if (!bad) dense_solve(S, z, p, k);
      });
      if (bad) bad += s.n;
    }
    if (bad) {
      std::fill_n(to, size, kNaN<T>);
      call.indefinite = true;
    } else {
      band.substitute(call.pool, z);
    }
    if (info) info[i] = static_cast<int>(bad);
  });
}

}  // namespace bandhess
