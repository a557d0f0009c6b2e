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

// The same where the width W is known: neither is anything beyond w set apart, for Z m = -z holds there, too.
template <int W, class T>
INLINE void inverse_tile(T* state, T* columns, Index count) {
  for (T* c = columns + count * (W + 1); c != columns;) {
    c -= W + 1;
    T m[W], z[W] = {};
    UNROLL for (int i = 0; i < W; ++i) m[i] = c[1 + i];
    UNROLL for (int k = 0; k < W; ++k) {
      UNROLL for (int i = 0; i < W; ++i) z[i] -= state[k * W + i] * m[k];
    }
    UNROLL for (int i = 0; i < W; ++i) c[0] -= m[i] * z[i];
    UNROLL for (int k = W - 1; k > 0; --k) {
      UNROLL for (int i = W - 1; i > 0; --i) state[k * W + i] = state[(k - 1) * W + i - 1];
    }
    UNROLL for (int i = 0; i < W; ++i) c[1 + i] = z[i];
    UNROLL for (int i = 0; i < W; ++i) state[i] = state[i * W] = c[i];
  }
}

constexpr int kRegisters = 8;  // the widest window that gains by that

template <class T>
void inverse_tile(const Bands& s, T* state, T* columns, Index count) {
  with_width(s.stride - 1, [&](auto width) {
    constexpr int W = width();
    run([&] {
      if constexpr (W > 0 && W <= kRegisters) {
        inverse_tile<W>(state, columns, count);
      } else {
        inverse_tile(state, columns, count, s.w, s.stride);
      }
    });
  });
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
        std::fill(column + 1 + s.w, column + s.stride, T(0));
      }
      inverse_tile(s, state, tile, count);
      store_columns(tile, s, to, j, count);
    });
  });
}

// Kernel. Columns [d, d m] (n, w + 1) -> the diagonal of the inverse (n).
template <class T>
void variances(Call& call) {
  const Bands s = columns_of(call.matrices(0));
  const T* columns = call.operand<T>(0, {s.n, s.rows});
  T* out = call.result<T>(0, {s.n});
  s.each<T, 1>(call.pool, s.state() + s.tile(), [&](Index system, T* state) {
    const T* from = columns + system * s.n * s.rows;
    T *tile = state + s.state(), *to = out + system * s.n;
    std::fill_n(state, s.state(), T(0));
    tiles_upwards(s.n, [&](Index j, Index count) {
      for (Index t = 0; t < count; ++t) {
        const T* given = from + (j + t) * s.rows;
        T* column = tile + t * s.stride;
        column[0] = 1 / given[0];
        for (int i = 1; i <= s.w; ++i) column[i] = column[0] * given[i];
        std::fill(column + 1 + s.w, column + s.stride, T(0));
      }
      inverse_tile(s, state, tile, count);
      for (Index t = 0; t < count; ++t) to[j + t] = tile[t * s.stride];
    });
  });
}

}  // namespace bandhess
