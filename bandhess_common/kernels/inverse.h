// The band of H^-1 from its factors, as in linalg/inverse.py (Takahashi, Fagan and Chin 1973).
#pragma once

#include "bands.h"

namespace bandhess {

// Column [1 / d, m] becomes that of the inverse, upwards: below the diagonal -Z m, with Z the inverse's w x w block
// that starts one below (state, symmetric, both halves; then w entries of work), on it 1 / d + m^T Z m.
template <class T>
INLINE void inverse_tile(T* state, T* columns, Index count, int w, Index stride) {
  T* z = state + w * w;
  for (T* c = columns + count * stride; c != columns;) {
    c -= stride;
    const T* m = c + 1;
    std::fill(z, z + w, T(0));
    for (int k = 0; k < w; ++k) {
#pragma GCC ivdep
      for (int i = 0; i < w; ++i) z[i] -= state[k * w + i] * m[k];
    }
    c[0] -= dot(m, z, w);
    std::copy(z, z + w, c + 1);
    for (int k = w; k-- > 1;) std::copy_backward(state + (k - 1) * w, state + k * w - 1, state + (k + 1) * w);
    for (int i = 0; i < w; ++i) {
      state[i] = c[i];
      state[i * w] = c[i];
    }
  }
}

// Kernel. unit (n, w), the rows m_j, and reciprocals 1 / d (n) -> columns (n, w + 1) of the inverse.
template <class T>
void inverse(Call& call) {
  const Matrices rows = call.matrices(0);
  const Bands s(rows.batch, rows.columns + 1, rows.rows);
  const T* unit = call.operand<T>(0, {s.n, s.rows - 1});
  const T* reciprocals = call.operand<T>(1, {s.n});
  T* out = call.result<T>(0, {s.n, s.rows});
  s.each<T, 1>(call.pool, s.state() + s.tile(), [&](Index system, T* state) {
    const T* m = unit + system * s.n * (s.rows - 1);
    const T* r = reciprocals + system * s.n;
    const Lanes<T, 1> to(out, s.n * s.rows, system, s.batch);
    T* tile = state + s.state();
    std::fill_n(state, s.state(), T(0));
    tiles_upwards(s.n, [&](Index j, Index count) {
      for (Index t = 0; t < count; ++t) {
        T* column = tile + t * s.stride;
        column[0] = r[j + t];
        std::copy_n(m + (j + t) * (s.rows - 1), s.w, column + 1);
      }
      run([&] { inverse_tile(state, tile, count, s.w, s.stride); });
      store_columns(tile, s, to, j, count);
    });
  });
}

}  // namespace bandhess
