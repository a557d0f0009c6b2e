// Bands (w + 1, n) and the tiles that kernels work on.
//
// A band is read tile by tile into columns [d, m_1 .. m_w], one after the other, `stride` elements apart. Kernels work
// in place on them. Cells that storage does not use are never read.
#pragma once

#include <algorithm>

#include "call.h"
#include "dispatch.h"
#include "element.h"

namespace bandhess {

constexpr Index kTile = 32;  // columns

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

  // Whether systems of a batch are worked on side by side, one per lane of a vector.
  bool lanes() const { return batch > 1 && w <= kUnrolled; }

  Index state() const { return Index{stride} * (stride + 1); }
  Index tile() const { return kTile * stride; }

  // Calls work(first system, scratch) for each group of L systems; scratch is uninitialised, the same for a thread.
  template <class T, int L, class F>
  void each(Pool& pool, Index scratch, const F& work) const {
    using V = typename Element<T, L>::type;
    const Index groups = (batch + L - 1) / L;
    const Index threads = batch * n * stride < kParallel ? 1 : pool.threads();
    const Index workers = std::max<Index>(1, std::min(groups, threads));
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

// Columns [j, j + count) of `rows` diagonals of length n.
template <int L, class T, class U>
void gather(U* tile, Index stride, const Lanes<const T, L>& from, Index rows, Index n, Index j, Index count) {
  T* cells = reinterpret_cast<T*>(tile);
  for (Index i = 0; i < stride; ++i) {
    const Index used = i < rows ? std::max<Index>(0, std::min(count, n - i - j)) : 0;
    for (Index t = 0; t < used; ++t)
      for (int l = 0; l < L; ++l) cells[(t * stride + i) * L + l] = from.at[l][i * n + j + t];
    for (Index t = used; t < count; ++t)
      for (int l = 0; l < L; ++l) cells[(t * stride + i) * L + l] = 0;
  }
}

// The way back, with zeros in cells that storage does not use.
template <int L, class T, class U>
void scatter(const U* tile, Index stride, const Lanes<T, L>& to, Index rows, Index n, Index j, Index count) {
  const T* cells = reinterpret_cast<const T*>(tile);
  for (Index i = 0; i < rows; ++i) {
    const Index used = std::max<Index>(0, std::min(count, n - i - j));
    for (int l = 0; l < to.live; ++l) {
      T* row = to.at[l] + i * n + j;
      for (Index t = 0; t < used; ++t) row[t] = cells[(t * stride + i) * L + l];
      std::fill(row + used, row + count, T(0));
    }
  }
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
