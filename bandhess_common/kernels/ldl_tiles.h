// H = M D M^T column by column, and the substitutions with M. The derivation is that of linalg/ldl.py:
//
//     c = a_j - S[:, 0],   d_j = c[0],   m_j = c[1:] / d_j,   S <- shift(S) + c[1:] m_j^T
//
// S is what the columns so far have pending on the coming ones. A tile kernel takes `count` columns, w + 1 entries
// apart (W + 1 where W is not 0), and a state that passes from tile to tile. Its element V is a number of one system,
// or a vector with one system per lane. (Golub and Van Loan 2013, section 4.3.6.)
#pragma once

#include "bands.h"

namespace bandhess {

// [a_0 .. a_w] becomes [d, m], or [d, d m] if Raw. state[k * w + i] is pending on entry i of the k-th coming column.
// Raw goes on past any pivot, and then keeps zeros zeros: a row and column of zeros harms no other.
template <bool Raw, class V>
INLINE void ldl_tile_wide(V* state, V* columns, Index count, int w) {
  V* m = state + w * w;
  for (V* c = columns; c != columns + count * (w + 1); c += w + 1) {
    for (int i = 0; i < w; ++i) c[i] -= state[i];
    const V r = 1 / c[0];
    for (int k = 1; k <= w; ++k) m[k] = Raw && c[k] == 0 ? 0 : c[k] * r;
    for (int k = 1; k <= w; ++k) {
      const V factor = m[k];
      const V* from = state + k * w;
      const V* below = c + k;
      V* to = state + (k - 1) * w;
      const int count = w - k;
      if constexpr (std::is_arithmetic_v<V>) {
        constexpr int C = kLaneBytes / sizeof(V);
        typedef V Chunk __attribute__((vector_size(kLaneBytes), aligned(sizeof(V)), may_alias));
        const auto work = [&](int i) {
          const auto at = [i](const V* entry) -> const Chunk& { return *reinterpret_cast<const Chunk*>(entry + i); };
          *reinterpret_cast<Chunk*>(to + i) = at(from) + factor * at(below);
        };
        for (int i = 0; i + C < count; i += C) work(i);
        if (count >= C) work(count - C);  // the last chunk may overlap the one before
        for (int i = 0; count < C && i < count; ++i) to[i] = from[i] + factor * below[i];
      } else {
        for (int i = 0; i < count; ++i) to[i] = from[i] + factor * below[i];
      }
      to[count] = factor * c[w];
    }
    if (!Raw) std::copy(m + 1, m + w + 1, c + 1);
  }
}

// The same for one system of a width that the compiler knows but registers do not hold: a row of the state is worked on
// in chunks of a vector, of which the last may be zeros.
template <int W, bool Raw, class T>
INLINE void ldl_tile_chunks(T* state, T* columns, Index count) {
  constexpr int C = kLaneBytes / sizeof(T);
  constexpr int R = (W + C - 1) / C * C;  // entries of a row
  typedef T Chunk __attribute__((vector_size(kLaneBytes), aligned(sizeof(T)), may_alias));
  alignas(kLaneBytes) T s[(W + 1) * R] = {};
  alignas(kLaneBytes) T c[W + R + C] = {};
  const auto at = [](T* entry) -> Chunk& { return *reinterpret_cast<Chunk*>(entry); };
  for (int k = 0; k < W; ++k) std::copy_n(state + k * W, W, s + k * R);
  for (T* column = columns; column != columns + count * (W + 1); column += W + 1) {
    UNROLL for (int i = 0; i < W; ++i) c[i] = column[i] - s[i];
    c[W] = column[W];
    column[0] = c[0];
    const T r = 1 / c[0];
    UNROLL for (int k = 1; k <= W; ++k) {
      const T m = Raw && c[k] == 0 ? T(0) : c[k] * r;
      UNROLL for (int i = 0; i <= W - k; i += C) at(s + (k - 1) * R + i) = at(s + k * R + i) + m * at(c + k + i);
      column[k] = Raw ? c[k] : m;
    }
  }
  for (int k = 0; k < W; ++k) std::copy_n(s + k * R, W, state + k * W);
}

// The same for a width known to the compiler, which keeps the state in registers as far as it can.
template <int W, bool Raw, class V>
INLINE void ldl_tile(V* state, V* columns, Index count, int w) {
  if constexpr (W == 0) {
    ldl_tile_wide<Raw>(state, columns, count, w);
  } else if constexpr (std::is_arithmetic_v<V> && W > 8) {
    ldl_tile_chunks<W, Raw>(state, columns, count);
  } else {
    V s[W * W];
    V c[W + 1];
    std::copy(state, state + W * W, s);
    for (V* column = columns; column != columns + count * (W + 1); column += W + 1) {
      UNROLL for (int i = 0; i < W; ++i) c[i] = column[i] - s[i];
      c[W] = column[W];
      column[0] = c[0];
      const V r = 1 / c[0];
      UNROLL for (int k = 1; k <= W; ++k) {
        const V m = Raw ? (c[k] == 0 ? V{} : c[k] * r) : c[k] * r;
        V* to = s + (k - 1) * W;
        UNROLL for (int i = 0; i < W - k; ++i) to[i] = to[W + i] + m * c[k + i];
        to[W - k] = m * c[W];
        column[k] = Raw ? c[k] : m;
      }
    }
    std::copy(s, s + W * W, state);
  }
}

// The substitutions for widths that registers do not hold, four columns at a time: what they have pending on rows, or take
// from unknowns, beyond the four goes through memory once. The state, of w (w + 1) entries, has room for the tile's rows:
// entry t + i of it belongs to row t + i of the tile.
constexpr int kTogether = 4;  // columns, and fewer than w

template <class T>
INLINE void forward_wide(T* state, const T* columns, T* x, Index count, int w) {
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
#pragma GCC ivdep
    for (int i = kTogether; i <= w; ++i) rows[i] += (m[0][i] * v[0] + m[1][i] * v[1]) + (m[2][i] * v[2] + m[3][i] * v[3]);
    UNROLL for (int k = 1; k < kTogether; ++k) {
      UNROLL for (int i = 1; i <= k; ++i) rows[w + i] += m[k][w + i] * v[k];
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
  constexpr int C = kLaneBytes / sizeof(T);
  typedef T Chunk __attribute__((vector_size(kLaneBytes), aligned(sizeof(T)), may_alias));
  const auto at = [](const T* entry) -> const Chunk& { return *reinterpret_cast<const Chunk*>(entry); };
  std::copy_backward(state, state + w, state + w + count);
  Index t = count;
  for (; t % kTogether; --t) {
    const T* m = columns + (t - 1) * (w + 1);
    x[t - 1] = state[t - 1] = x[t - 1] / m[0] - dot(m + 1, state + t, w);
  }
  while (t > 0) {
    t -= kTogether;
    const T* m[kTogether];
    T v[kTogether];
    const T* below = state + t;
    Chunk sums[kTogether] = {};
    UNROLL for (int k = 0; k < kTogether; ++k) {
      m[k] = columns + (t + k) * (w + 1) - k;  // m[k][i] stands beside row t + i
      v[k] = x[t + k] / m[k][k];
    }
    int i = kTogether;
    for (; i + C <= w + 1; i += C) {
      UNROLL for (int k = 0; k < kTogether; ++k) sums[k] += at(m[k] + i) * at(below + i);
    }
    UNROLL for (int k = kTogether - 1; k >= 0; --k) {
      T rest = 0;
      for (int l = i; l <= w + k; ++l) rest += m[k][l] * below[l];
      UNROLL for (int l = 0; l < C; ++l) rest += sums[k][l];
      v[k] -= rest;
      UNROLL for (int l = kTogether - 1; l > k; --l) v[k] -= m[k][l] * v[l];
    }
    UNROLL for (int k = 0; k < kTogether; ++k) x[t + k] = state[t + k] = v[k];
  }
}

// x <- M^-1 x; state[i] is pending on the i-th coming row. M's entries are of x's type, or numbers where x holds vectors.
template <int W, class V, class M>
INLINE void forward_tile(V* state, const M* columns, V* x, Index count, int w) {
  if constexpr (W == 0 && std::is_same_v<V, M> && std::is_arithmetic_v<V>) {
    if (w > kUnrolled) return forward_wide(state, columns, x, count, w);
  }
  if constexpr (W == 0) {
    for (Index t = 0; t < count; ++t) {
      const M* m = columns + t * (w + 1);
      const V v = x[t] - state[0];
#pragma GCC ivdep
      for (int i = 1; i < w; ++i) state[i - 1] = state[i] + m[i] * v;
      state[w - 1] = m[w] * v;
      x[t] = v;
    }
  } else {
    V p[W];
    std::copy(state, state + W, p);
    for (Index t = 0; t < count; ++t) {
      const M* m = columns + t * (W + 1);
      const V v = x[t] - p[0];
      UNROLL for (int i = 1; i < W; ++i) p[i - 1] = p[i] + m[i] * v;
      p[W - 1] = m[W] * v;
      x[t] = v;
    }
    std::copy(p, p + W, state);
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
    std::copy(state, state + W, below);
    for (Index t = count; t-- > 0;) {
      const M* m = columns + t * (W + 1) + 1;
      V v = x[t] / m[-1];
      UNROLL for (int i = W - 1; i >= 0; --i) v -= m[i] * below[i];
      UNROLL for (int i = W - 1; i > 0; --i) below[i] = below[i - 1];
      below[0] = v;
      x[t] = v;
    }
    std::copy(below, below + W, state);
  }
}

}  // namespace bandhess
