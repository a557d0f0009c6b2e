// Bands (w + 1, n) and the tiles that kernels work on.
//
// A band is read tile by tile into columns [d, m_1 .. m_w], one after the other, `stride` elements apart. Kernels work
// in place on them. Cells that storage does not use are never read.
#pragma once

#include <algorithm>

#include "call.h"
#include "dispatch.h"
#include "element.h"
#include "transpose.h"

namespace bandhess {

constexpr Index kTile = 32;  // columns

constexpr int kNarrow = 4;  // width up to which a chain of operations, not their number, takes the time
constexpr int kPanel = 8;   // columns that are eliminated together, at most

// From one column of what is pending to the next, for w columns: whole registers.
constexpr int pitch(int w) { return (w + kPanel - 1) / kPanel * kPanel; }

// A batch of bands, and the columns they are worked on in.
struct Bands {
  Index batch;
  Index rows;
  Index n;
  int w;       // at most n - 1: rows beyond the matrix are left out
  int stride;  // of columns: the width of the kernel that serves w, and one

  Bands(Index batch, Index rows, Index n) : batch(batch), rows(rows), n(n) {
    if (rows < 1) throw Invalid("a band needs a row");
    w = static_cast<int>(std::min(rows, std::max<Index>(n, 1)) - 1);
    stride = padded(w) + 1;
  }

  Index threads(const Pool& pool) const { return batch * n * stride < kParallel ? 1 : pool.threads(); }

  // Whether systems of a batch are worked on side by side, one per lane of a vector.
  bool lanes() const { return batch > 1 && w <= kUnrolled; }

  // What eliminations have pending, and their work; of substitutions it is the first `stride` entries or so.
  Index window() const { return Index{pitch(stride - 1)} * (stride - 1); }
  Index state() const { return Index{pitch(stride - 1)} * (stride + 2 * kPanel); }
  Index tile() const { return kTile * stride; }

  // Calls work(first system, scratch) for each group of L systems; scratch is uninitialised, the same for a thread.
  template <class T, int L, class F>
  void each(Pool& pool, Index scratch, const F& work) const {
    using V = typename Element<T, L>::type;
    const Index groups = (batch + L - 1) / L;
    const Index workers = std::max<Index>(1, std::min(groups, threads(pool)));
    const Memory memory(workers * scratch * sizeof(V));
    parallel(pool, groups, workers, [&](Index worker, Index group) {
      work(group * L, memory.as<V>() + worker * scratch);
    });
  }
};

inline Bands band(const Matrices& of) { return {of.batch, of.rows, of.columns}; }        // (w + 1, n)
inline Bands columns_of(const Matrices& of) { return {of.batch, of.columns, of.rows}; }  // (n, w + 1)

// Calls call(L) with the number of systems side by side.
template <class T, class F>
void with_lanes(bool lanes, const F& call) {
  if (lanes) return call(std::integral_constant<int, kLaneBytes / sizeof(T)>());
  call(std::integral_constant<int, 1>());
}

// The operand of L systems, `size` entries each; lanes beyond the batch repeat its last system and are not written.
template <class T, int L>
struct Lanes {
  T* at[L];
  int live;

  Lanes(T* base, Index size, Index first, Index batch) : live(static_cast<int>(std::min<Index>(L, batch - first))) {
    for (int l = 0; l < L; ++l) at[l] = base + std::min(first + l, batch - 1) * size;
  }
};

// Entries [0, count) of L systems side by side: entry t of system l stands at from[l][t] and goes to to[t * step + l].
template <int L, class T>
INLINE void interleave(const T* const* from, T* to, Index step, Index count) {
  constexpr int C = Register<T>::C;
  Index t = 0;
  if constexpr (L % C == 0) {
    for (; t + C <= count; t += C, to += C * step) {
      for (int l = 0; l < L; l += C) {
        turn_square<T>([&](int i) { return from[l + i] + t; }, [&](int i) { return to + i * step + l; });
      }
    }
  }
  for (; t < count; ++t, to += step)
    for (int l = 0; l < L; ++l) to[l] = from[l][t];
}

// A tile whose columns are all in use, for one system: entry i of column t stands at row(i)[step * t], step being 1 or
// -1. Squares of C entries of C columns; the last ones may overlap those before. Reads C - 1 numbers beyond.
template <class T, class Row>
INLINE void gather_columns(T* tile, Index stride, Index count, Index step, const Row& row) {
  constexpr int C = Register<T>::C;
  Index t = 0;
  if (stride >= C) {
    for (; t + C <= count; t += C) {
      for (Index i = 0; i < stride; i += C) {
        const Index first = std::min(i, stride - C);
        turn_square<T>([&](int k) { return row(first + k) + (step > 0 ? t : 1 - C - t); },
                       [&](int k) { return tile + (step > 0 ? t + k : t + C - 1 - k) * stride + first; });
      }
    }
  }
  for (Index i = 0; i < stride; ++i) {
    const T* from = row(i);
    for (Index k = t; k < count; ++k) tile[k * stride + i] = from[step * k];
  }
}

// Zeros to either side of a number: the row of a diagonal that a band does not have.
template <class T>
inline const T kZeros[2 * kTile + 1] = {};

// Columns [j, j + count) of `rows` diagonals of length n.
template <int L, class T, class U>
void gather(U* tile, Index stride, const Lanes<const T, L>& from, Index rows, Index n, Index j, Index count) {
  T* cells = reinterpret_cast<T*>(tile);
  run([&] {
    if constexpr (L == 1) {
      if (j + count + rows <= n + 1) {
        const T* first = from.at[0] + j;
        return gather_columns(cells, stride, count, 1, [&](Index i) { return i < rows ? first + i * n : kZeros<T>; });
      }
    }
    T* to = cells;
    const Index step = stride * L, all = count;
    for (Index i = 0; i < stride; ++i, to += L) {
      const Index used = i < rows ? std::max<Index>(0, std::min(all, n - i - j)) : 0;
      const T* row[L];
      UNROLL for (int l = 0; l < L; ++l) row[l] = from.at[l] + i * n + j;
      interleave<L>(row, to, step, used);
      for (Index t = used; t < all; ++t) std::fill_n(to + t * step, L, T(0));
    }
  });
}

// The way back, with zeros in cells that storage does not use.
template <int L, class T, class U>
void scatter(const U* tile, Index stride, const Lanes<T, L>& to, Index rows, Index n, Index j, Index count) {
  constexpr int C = Register<T>::C;
  const T* cells = reinterpret_cast<const T*>(tile);
  run([&] {
    for (Index i = 0; i < rows; ++i) {
      const Index used = std::max<Index>(0, std::min(count, n - i - j));
      const T* column = cells + i * L;
      Index t = 0;
      if constexpr (L % C == 0) {
        T spare[C];  // for lanes beyond the batch
        for (; t + C <= used; t += C) {
          for (int l = 0; l < L; l += C) {
            turn_square<T>([&](int k) { return column + (t + k) * stride * L + l; },
                           [&](int k) { return l + k < to.live ? to.at[l + k] + i * n + j + t : spare; });
          }
        }
      }
      for (int l = 0; l < to.live; ++l) {
        T* row = to.at[l] + i * n + j;
        for (Index k = t; k < used; ++k) row[k] = column[k * stride * L + l];
        std::fill(row + used, row + count, T(0));
      }
    }
  });
}

// Columns [j, j + count) to arrays (n, rows), with zeros below the matrix.
template <int L, class T, class U>
void store_columns(const U* tile, const Bands& s, const Lanes<T, L>& to, Index j, Index count) {
  const T* cells = reinterpret_cast<const T*>(tile);
  for (int l = 0; l < to.live; ++l) {
    for (Index t = 0; t < count; ++t) {
      T* row = to.at[l] + (j + t) * s.rows;
      const Index used = std::min<Index>(s.w + 1, s.n - j - t);
      for (Index i = 0; i < used; ++i) row[i] = cells[(t * s.stride + i) * L + l];
      std::fill(row + used, row + s.rows, T(0));
    }
  }
}

// Calls work(j, count) for each tile of columns, downwards or upwards.
template <class F>
void tiles(Index n, const F& work) {
  for (Index j = 0; j < n; j += kTile) work(j, std::min(kTile, n - j));
}

template <class F>
void tiles_upwards(Index n, const F& work) {
  for (Index j = (n - 1) / kTile * kTile; j >= 0; j -= kTile) work(j, std::min(kTile, n - j));
}

}  // namespace bandhess
