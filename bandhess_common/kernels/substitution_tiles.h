// The substitutions with M of H = M D M^T, tile by tile: `count` columns [d, m], w + 1 entries apart (W + 1 where W is not
// 0), and a state that passes from tile to tile.
#pragma once

#include "chunks.h"

namespace bandhess {

// The substitutions for widths that registers do not hold (forwards from 16 on), four columns at a time: what they
// have pending on rows, or take from unknowns, beyond the four goes through memory once. The state, of w (w + 1)
// entries, has room for the tile's rows: entry t + i of it belongs to row t + i of the tile. It is stored as it will be
// loaded, by whole registers: a load of what several stores left waits for all of them.
constexpr int kTogether = 4;  // columns, and fewer than w

// The sum of a register's numbers, by halves.
template <class Chunk>
INLINE auto total(const Chunk& chunk) {
  constexpr int C = sizeof(chunk) / sizeof(chunk[0]);
  auto part = chunk;
  UNROLL for (int half = C / 2; half > 0; half /= 2) {
    UNROLL for (int l = 0; l < half; ++l) part[l] += part[l + half];
  }
  return part[0];
}

template <class T>
INLINE void forward_wide(T* state, const T* columns, T* x, Index count, int w) {
  constexpr int C = Register<T>::C;
  typedef typename Register<T>::type Chunk;
  std::fill_n(state + w, count, T(0));
  Index t = 0;
  for (; t + kTogether <= count; t += kTogether) {
    const T* m[kTogether];
    T v[kTogether];
    UNROLL for (int k = 0; k < kTogether; ++k) {
      m[k] = columns + (t + k) * (w + 1) - k;  // m[k][i] stands beside row t + i
      v[k] = x[t + k] - state[t + k];
      UNROLL for (int l = 0; l < k; ++l) v[k] -= m[l][k] * v[l];
      x[t + k] = v[k];
    }
    T* rows = state + t;
    int i = kTogether;
    for (; i + C <= w + 1; i += C) {
      at(rows + i) += (at(m[0] + i) * v[0] + at(m[1] + i) * v[1]) + (at(m[2] + i) * v[2] + at(m[3] + i) * v[3]);
    }
    for (; i < w + kTogether; i += C) {  // column k ends with row w + k
      UNROLL for (int k = 0; k < kTogether; ++k) {
        at(rows + i) += load_part<T, Chunk>(m[k] + i, w + k + 1 - i) * v[k];
      }
    }
  }
  for (; t < count; ++t) {
    const T* m = columns + t * (w + 1);
    const T v = x[t] - state[t];
#pragma GCC ivdep
    for (int i = 1; i <= w; ++i) state[t + i] += m[i] * v;
    x[t] = v;
  }
  std::copy_n(state + count, w, state);
}

template <class T>
INLINE void backward_wide(T* state, const T* columns, T* x, Index count, int w) {
  constexpr int C = Register<T>::C;
  typedef typename Register<T>::type Chunk;
  std::copy_backward(state, state + w, state + w + count);
  Index t = count;
  for (; t % kTogether; --t) {
    const T* m = columns + (t - 1) * (w + 1);
    x[t - 1] = state[t - 1] = x[t - 1] / m[0] - dot(m + 1, state + t, w);
  }
  const int end = kTogether + (w + 1 - kTogether) / C * C;  // of what whole registers take
  while (t > 0) {
    t -= kTogether;
    const T* m[kTogether];
    T v[kTogether];
    const T* below = state + t;
    Chunk sums[kTogether] = {};
    UNROLL for (int k = 0; k < kTogether; ++k) {
      m[k] = columns + (t + k) * (w + 1) - k;  // m[k][i] stands beside row t + i
      v[k] = x[t + k] / m[k][k];
      for (int l = end; l <= w + k; ++l) v[k] -= m[k][l] * below[l];
    }
    for (int i = end - C; i >= kTogether; i -= C) {  // those that were found last come last
      UNROLL for (int k = 0; k < kTogether; ++k) sums[k] += at(m[k] + i) * at(below + i);
    }
    UNROLL for (int k = kTogether - 1; k >= 0; --k) {
      v[k] -= total(sums[k]);
      UNROLL for (int l = kTogether - 1; l > k; --l) v[k] -= m[k][l] * v[l];
    }
    if constexpr (C == kTogether) {
      at(x + t) = at(state + t) = Chunk{v[0], v[1], v[2], v[3]};
    } else {
      UNROLL for (int k = 0; k < kTogether; ++k) x[t + k] = state[t + k] = v[k];
    }
  }
}

// One row of x after the other, for a width known to the compiler.
template <int W, class V>
struct Forward {
  V pending[W];

  INLINE explicit Forward(const V* state) {
    UNROLL for (int i = 0; i < W; ++i) pending[i] = state[i];
  }

  INLINE void save(V* state) const {
    UNROLL for (int i = 0; i < W; ++i) state[i] = pending[i];
  }

  // m[1 .. W] are the multipliers of the row's column.
  template <class M>
  INLINE void take(const M* m, V& x) {
    const V v = x - pending[0];
    UNROLL for (int i = 1; i < W; ++i) pending[i - 1] = pending[i] + m[i] * v;
    pending[W - 1] = m[W] * v;
    x = v;
  }
};

// x <- M^-1 x; state[i] is pending on the i-th coming row. M's entries are of x's type, or numbers where x holds vectors.
template <int W, class V, class M>
INLINE void forward_tile(V* state, const M* columns, V* x, Index count, int w) {
  constexpr bool wide = W == 0 || W == kUnrolled;
  if constexpr (wide && std::is_same_v<V, M> && std::is_arithmetic_v<V>) {
    forward_wide(state, columns, x, count, W ? W : w);
  } else if constexpr (W == 0) {
    for (Index t = 0; t < count; ++t) {
      const M* m = columns + t * (w + 1);
      const V v = x[t] - state[0];
#pragma GCC ivdep
      for (int i = 1; i < w; ++i) state[i - 1] = state[i] + m[i] * v;
      state[w - 1] = m[w] * v;
      x[t] = v;
    }
  } else {
    Forward<W, V> rows(state);
    for (Index t = 0; t < count; ++t) rows.take(columns + t * (W + 1), x[t]);
    rows.save(state);
  }
}

// x <- M^-T D^-1 x, upwards; state holds the w entries of x below.
template <int W, class V, class M>
INLINE void backward_tile(V* state, const M* columns, V* x, Index count, int w) {
  if constexpr (W == 0 && std::is_same_v<V, M> && std::is_arithmetic_v<V>) {
    if (w > kUnrolled) return backward_wide(state, columns, x, count, w);
  }
  if constexpr (W == 0) {
    for (Index t = count; t-- > 0;) {
      const M* m = columns + t * (w + 1) + 1;
      const V v = x[t] / m[-1] - dot(m, state, w);
      std::copy_backward(state, state + w - 1, state + w);
      state[0] = v;
      x[t] = v;
    }
  } else {
    V below[W];
    UNROLL for (int i = 0; i < W; ++i) below[i] = state[i];
    for (Index t = count; t-- > 0;) {
      const M* m = columns + t * (W + 1) + 1;
      V v = x[t] / m[-1];
      UNROLL for (int i = W - 1; i >= 0; --i) v -= m[i] * below[i];
      UNROLL for (int i = W - 1; i > 0; --i) below[i] = below[i - 1];
      below[0] = v;
      x[t] = v;
    }
    UNROLL for (int i = 0; i < W; ++i) state[i] = below[i];
  }
}

}  // namespace bandhess
