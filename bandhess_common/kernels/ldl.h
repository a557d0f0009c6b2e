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
#pragma GCC ivdep
      for (int i = 0; i < w - k; ++i) to[i] = from[i] + factor * below[i];
      to[w - k] = factor * c[w];
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

// x <- M^-1 x; state[i] is pending on the i-th coming row. M's entries are of x's type, or numbers where x holds vectors.
template <int W, class V, class M>
INLINE void forward_tile(V* state, const M* columns, V* x, Index count, int w) {
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

// C of k right-hand sides, x (n, k), side by side in a vector. What is pending, or the unknowns below, stand in the rows
// of x that follow the tile's, of which there are `left` with those.
template <class T>
struct SideBySide {
  static constexpr int C = kLaneBytes / sizeof(T);
  typedef T V __attribute__((vector_size(kLaneBytes)));

  T* x;
  Index k;
  int live;  // right-hand sides, at most C

  // Rows [first, first + count) into vectors, and back.
  INLINE void read(V* rows, Index first, Index count) const {
    const T* from = x + first * k;
    if (live == C) {
      for (Index t = 0; t < count; ++t) __builtin_memcpy(rows + t, from + t * k, sizeof(V));
      return;
    }
    T* cells = reinterpret_cast<T*>(rows);
    std::fill_n(cells, count * C, T(0));
    for (int q = 0; q < live; ++q)
      for (Index t = 0; t < count; ++t) cells[t * C + q] = from[t * k + q];
  }

  INLINE void write(const V* rows, Index first, Index count) const {
    T* to = x + first * k;
    if (live == C) {
      for (Index t = 0; t < count; ++t) __builtin_memcpy(to + t * k, rows + t, sizeof(V));
      return;
    }
    const T* cells = reinterpret_cast<const T*>(rows);
    for (int q = 0; q < live; ++q)
      for (Index t = 0; t < count; ++t) to[t * k + q] = cells[t * C + q];
  }

  template <int W>
  INLINE void forward(const T* columns, Index count, int w, Index left) const {
    V rows[kTile], pending[W] = {}, behind[W];
    read(rows, 0, count);
    forward_tile<W>(pending, columns, rows, count, w);
    write(rows, 0, count);
    const Index more = std::min<Index>(w, left - count);
    read(behind, count, more);
    for (Index i = 0; i < more; ++i) behind[i] -= pending[i];
    write(behind, count, more);
  }

  template <int W>
  INLINE void backward(const T* columns, Index count, int w, Index left) const {
    V rows[kTile], below[W] = {};
    read(rows, 0, count);
    read(below, count, std::min<Index>(w, left - count));
    backward_tile<W>(below, columns, rows, count, w);
    write(rows, 0, count);
  }
};

// The same one row after the other, for any w.
template <class T>
INLINE void forward_rows(const T* columns, T* x, Index k, Index count, int w, Index left, Index stride) {
  for (Index t = 0; t < count; ++t) {
    const T* m = columns + t * stride;
    T* row = x + t * k;
    for (Index i = 1; i <= std::min<Index>(w, left - 1 - t); ++i) {
#pragma GCC ivdep
      for (Index q = 0; q < k; ++q) row[i * k + q] -= m[i] * row[q];
    }
  }
}

template <class T>
INLINE void backward_rows(const T* columns, T* x, Index k, Index count, int w, Index left, Index stride) {
  for (Index t = count; t-- > 0;) {
    const T* m = columns + t * stride;
    T* row = x + t * k;
    for (Index q = 0; q < k; ++q) row[q] /= m[0];
    for (Index i = 1; i <= std::min<Index>(w, left - 1 - t); ++i) {
#pragma GCC ivdep
      for (Index q = 0; q < k; ++q) row[q] -= m[i] * row[i * k + q];
    }
  }
}

// The tile kernels by the width of s. x points at the tile's first row.
template <bool Raw, class V>
void eliminate_tile(const Bands& s, V* state, V* tile, Index count) {
  with_width(s.stride - 1, [&](auto W) { run([&] { ldl_tile<W(), Raw>(state, tile, count, s.w); }); });
}

template <class T>
void forward_several(const Bands& s, const T* tile, T* x, Index k, Index left, Index count) {
  with_width(s.stride - 1, [&](auto W) {
    run([&] {
      if constexpr (W() == 0) {
        forward_rows(tile, x, k, count, s.w, left, s.stride);
      } else {
        for (Index q = 0; q < k; q += SideBySide<T>::C) {
          const int live = static_cast<int>(std::min<Index>(SideBySide<T>::C, k - q));
          SideBySide<T>{x + q, k, live}.template forward<W()>(tile, count, s.w, left);
        }
      }
    });
  });
}

template <class T>
void backward_several(const Bands& s, const T* tile, T* x, Index k, Index left, Index count) {
  with_width(s.stride - 1, [&](auto W) {
    run([&] {
      if constexpr (W() == 0) {
        backward_rows(tile, x, k, count, s.w, left, s.stride);
      } else {
        for (Index q = 0; q < k; q += SideBySide<T>::C) {
          const int live = static_cast<int>(std::min<Index>(SideBySide<T>::C, k - q));
          SideBySide<T>{x + q, k, live}.template backward<W()>(tile, count, s.w, left);
        }
      }
    });
  });
}

// For k = 1 (with a state), or for k right-hand sides of one system (without).
template <class T, class V>
void forward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if constexpr (std::is_same<T, V>()) {
    if (k != 1) return forward_several(s, tile, x + j * k, k, s.n - j, count);
  }
  with_width(s.stride - 1, [&](auto W) { run([&] { forward_tile<W()>(state, tile, x + j, count, s.w); }); });
}

template <class T, class V>
void backward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if constexpr (std::is_same<T, V>()) {
    if (k != 1) return backward_several(s, tile, x + j * k, k, s.n - j, count);
  }
  with_width(s.stride - 1, [&](auto W) { run([&] { backward_tile<W()>(state, tile, x + j, count, s.w); }); });
}

// Notes in info[l] the 1-based first pivot of lane l that is not in (0, inf), if it has none so far.
template <class T, int L, class V>
void note_pivots(const V* tile, Index stride, Index j, Index count, int* info) {
  const T* pivots = reinterpret_cast<const T*>(tile);
  for (Index t = 0; t < count; ++t) {
    for (int l = 0; l < L; ++l)
      if (!positive(pivots[l]) && !info[l]) info[l] = static_cast<int>(j + t + 1);
    pivots += stride * L;
  }
}

// The whole factorisation, tile by tile: after(j, count, tile) sees each. With `keep` the tiles stand in `columns` one
// after the other, else all in the same place.
template <bool Raw, int L, class T, class V, class F>
void eliminate(const Bands& s, const Lanes<const T, L>& ab, V* state, V* columns, bool keep, int* info,
               const F& after) {
  std::fill(state, state + s.state(), V{});
  std::fill(info, info + L, 0);
  tiles(s.n, [&](Index j, Index count) {
    V* tile = keep ? columns + j * s.stride : columns;
    gather(tile, s.stride, ab, s.w + 1, s.n, j, count);
    eliminate_tile<Raw>(s, state, tile, count);
    note_pivots<T, L>(tile, s.stride, j, count, info);
    after(j, count, tile);
  });
}

// Kernel. ab (w + 1, n) -> columns (n, w + 1): d and d m, whatever the pivots; info: the first bad one, if asked for.
template <class T>
void columns(Call& call) {
  const Bands s = band(call.matrices(0));
  const T* ab = call.operand<T>(0, {s.rows, s.n});
  T* out = call.result<T>(0, {s.n, s.rows});
  std::int32_t* info = call.optional<std::int32_t>(1, {});
  with_lanes<T>(s.lanes(), [&](auto lanes) {
    constexpr int L = lanes;
    s.each<T, L>(call.pool, s.state() + s.tile(), [&](Index first, auto* state) {
      const Lanes<const T, L> from(ab, s.rows * s.n, first, s.batch);
      const Lanes<T, L> to(out, s.rows * s.n, first, s.batch);
      int bad[L];
      eliminate<true>(s, from, state, state + s.state(), false, bad, [&](Index j, Index count, const auto* tile) {
        store_columns(tile, s, to, j, count);
      });
      if (info) std::copy_n(bad, to.live, info + first);
    });
  });
}

}  // namespace bandhess
