// H = M D M^T and the substitutions with M, tile by tile, by the kernels of elimination_tiles.h and substitution_tiles.h.
#pragma once

#include "elimination_tiles.h"
#include "several.h"

namespace bandhess {

// Calls call(W) with the width of s, which is narrow where an element takes several registers.
template <class V, class F>
void with_width_of(const Bands& s, const F& call) {
  with_width(s.stride - 1, [&](auto W) {
    if constexpr ((W() > 0 && W() <= kNarrow) || !kSeveralRegisters<V>) run([&] { call(W); });
  });
}

// The tile kernels by the width of s. x points at the tile's first row.
template <bool Raw, class V>
void eliminate_tile(const Bands& s, V* state, V* tile, Index count) {
  with_width_of<V>(s, [&](auto W) { eliminate_tile<W(), Raw>(state, tile, count, s.w); });
}

// For k = 1 (with a state), or for k right-hand sides of one system (without).
template <class T, class V>
void forward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if constexpr (std::is_same<T, V>()) {
    if (k != 1) return forward_several(s, tile, x + j * k, k, s.n - j, count);
  }
  with_width_of<V>(s, [&](auto W) { forward_tile<W()>(state, tile, x + j, count, s.w); });
}

template <class T, class V>
void backward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if constexpr (std::is_same<T, V>()) {
    if (k != 1) return backward_several(s, tile, x + j * k, k, s.n - j, count);
  }
  with_width_of<V>(s, [&](auto W) { backward_tile<W()>(state, tile, x + j, count, s.w); });
}

// Both, forwards. Of narrow bands in one pass: either is a chain of operations that wait for each other.
template <class T, class V>
void eliminate_forward(const Bands& s, V* state, V* pending, V* tile, V* x, Index k, Index j, Index count) {
  if (k != 1 || s.stride - 1 > kNarrow) {
    eliminate_tile<false>(s, state, tile, count);
    return forward<T>(s, pending, tile, x, k, j, count);
  }
  with_width_of<V>(s, [&](auto width) {
    constexpr int W = width();
    if constexpr (W > 0 && W <= kNarrow) {
      Forward<W, V> rows(pending);
      eliminate_in_registers<W, false>(state, tile, count, [&](Index t, const V* m) { rows.take(m, x[j + t]); });
      rows.save(pending);
    }
  });
}

// Whether `count` pivots, `stride` apart, are in (0, inf), in all lanes.
template <class V>
bool all_positive(const V* pivots, Index stride, Index count) {
  bool all = true;
  run([&] {
    if constexpr (std::is_arithmetic_v<V>) {
      bool good = true;
      for (Index t = 0; t < count; ++t) good &= positive(pivots[t * stride]);
      all = good;
    } else {
      const V infinite = V{} + std::numeric_limits<std::decay_t<decltype(pivots[0][0])>>::infinity();
      auto good = V{} == V{};
      for (Index t = 0; t < count; ++t) good &= (pivots[t * stride] > V{}) & (pivots[t * stride] < infinite);
      for (std::size_t l = 0; l < sizeof(V) / sizeof(pivots[0][0]); ++l) all &= good[l] != 0;
    }
  });
  return all;
}

template <class T>
bool all_positive(const Two<T>* pivots, Index stride, Index count) {
  return all_positive(&pivots->low, 2 * stride, count) && all_positive(&pivots->high, 2 * stride, count);
}

// Notes in info[l] the 1-based first pivot of lane l that is not in (0, inf), if it has none so far.
template <class T, int L, class V>
void note_pivots(const V* tile, Index stride, Index j, Index count, int* info) {
  if (all_positive(tile, stride, count)) return;
  const T* pivots = reinterpret_cast<const T*>(tile);
  for (Index t = 0; t < count; ++t) {
    for (int l = 0; l < L; ++l)
      if (!positive(pivots[l]) && !info[l]) info[l] = static_cast<int>(j + t + 1);
    pivots += stride * L;
  }
}

// The whole factorisation: after(j, count, tile) sees each tile, which stand in the same place one after the other.
template <bool Raw, int L, class T, class V, class F>
void eliminate(const Bands& s, const Lanes<const T, L>& ab, V* state, V* tile, int* info, const F& after) {
  std::fill_n(state, s.window(), V{});
  std::fill(info, info + L, 0);
  tiles(s.n, [&](Index j, Index count) {
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
      eliminate<true>(s, from, state, state + s.state(), bad, [&](Index j, Index count, const auto* tile) {
        store_columns(tile, s, to, j, count);
      });
      if (info) std::copy_n(bad, to.live, info + first);
    });
  });
}

}  // namespace bandhess
