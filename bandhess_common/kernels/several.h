// Substitutions with several right-hand sides of one system, x (n, k): side by side in vectors, or row after row where
// the width is not known. What is pending lies in the rows of x that follow the tile's, so that no state passes on.
#pragma once

#include "substitution_tiles.h"

namespace bandhess {

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

}  // namespace bandhess
