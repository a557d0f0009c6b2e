// H x = b: factor and substitutions in one, and the substitutions with columns that were kept.
#pragma once

#include "ldl.h"
#include "tridiagonal.h"
#include "twisted.h"

namespace bandhess {

// What `solve` reads and writes, for all systems.
template <class T>
struct Systems {
  Call& call;
  const T* ab;
  const T* b;
  Index k;
  T* x;
  std::int32_t* info;  // nullptr: not asked for
  T* columns;          // nullptr: not asked for; else [d, d m] of every column

  template <int L>
  void report(const Bands& s, Index first, const int* bad, int live) const {
    for (int l = 0; l < live; ++l) {
      if (info) info[first + l] = bad[l];
      if (!bad[l]) continue;
      std::fill_n(x + (first + l) * s.n * k, s.n * k, kNaN<T>);
      call.indefinite = true;
    }
  }
};

// L systems at a time: the forward substitution follows the elimination tile by tile, while the tile is in cache.
template <int L, class T, class V>
void solve_lanes(const Bands& s, const Systems<T>& of, Index first, V* scratch) {
  const Index k = of.k, size = s.n * k;
  const Lanes<const T, L> from(of.ab, s.rows * s.n, first, s.batch);
  const Lanes<const T, L> rhs(of.b, size, first, s.batch);
  const Lanes<T, L> to(of.x, size, first, s.batch);
  V* state = scratch;
  V* pending = state + s.state();
  V* columns = pending + s.state();
  V* y = columns + s.n * s.stride;
  if constexpr (L == 1) {
    y = to.at[0];
    std::copy_n(rhs.at[0], size, y);
  }
  int bad[L] = {};
  std::fill_n(state, s.window(), V{});
  std::fill_n(pending, s.stride, V{});
  tiles(s.n, [&](Index j, Index count) {
    V* tile = columns + j * s.stride;
    gather(tile, s.stride, from, s.w + 1, s.n, j, count);
    if (L > 1) gather(y + j, 1, rhs, 1, s.n, j, count);
    eliminate_forward<T>(s, state, pending, tile, y, k, j, count);
    note_pivots<T, L>(tile, s.stride, j, count, bad);
    if (of.columns) store_columns(tile, s, Lanes<T, L>(of.columns, s.rows * s.n, first, s.batch), j, count);
  });
  std::fill_n(pending, s.stride, V{});
  tiles_upwards(s.n, [&](Index j, Index count) {
    backward<T>(s, pending, columns + j * s.stride, y, k, j, count);
    if (L > 1) scatter(y + j, 1, to, 1, s.n, j, count);
  });
  of.template report<L>(s, first, bad, to.live);
}

// The first pivot that is not in (0, inf), in the order of the columns; the last where only another order finds one.
template <class T>
int first_bad_pivot(const Bands& s, const T* ab) {
  const Memory memory((s.state() + s.tile()) * sizeof(T));
  T* state = memory.as<T>();
  int bad;
  eliminate<false>(s, Lanes<const T, 1>(ab, s.rows * s.n, 0, 1), state, state + s.state(), &bad,
                   [](Index, Index, const T*) {});
  return bad ? bad : static_cast<int>(s.n);
}

// One system from both ends, with `room` bytes for columns.
template <class T>
void solve_twisted(Pool& pool, const Bands& s, const Systems<T>& of, Index room) {
  const typename Twisted<T>::Cut cut(s, room, true);
  const Memory memory(Twisted<T>::scratch(s, cut, of.k) * sizeof(T));
  int bad = 0;
  Twisted<T> band(s, cut, of.ab, of.b, of.k, of.x, memory.as<T>());
  if (band.eliminate(pool)) {
    band.substitute(pool);
  } else {
    bad = of.info ? first_bad_pivot(s, of.ab) : 1;
  }
  of.template report<1>(s, 0, &bad, 1);
}

// Kernel. ab (w + 1, n), b (n, k) -> x = H^-1 b, NaN on failure; if asked for, info, and the columns [d, m] (n, w + 1).
template <class T>
void solve(Call& call) {
  const Bands s = band(call.matrices(0));
  const Index k = call.right_hand_sides(1);
  const Systems<T> of{call,
                      call.operand<T>(0, {s.rows, s.n}),
                      call.operand<T>(1, {s.n, k}),
                      k,
                      call.result<T>(0, {s.n, k}),
                      call.optional<std::int32_t>(1, {}),
                      call.optional<T>(2, {s.n, s.rows})};
  if (s.n == 0) return;
  if (s.w > 1 && k > 0 && !of.columns && Twisted<T>::worth(s)) {
    return solve_twisted(call.pool, s, of, call.whole(0, kMostBytes));
  }
  const Index scratch = 2 * s.state() + s.n * (s.stride + 1);
  constexpr int C = kLaneBytes / sizeof(T);
  if (s.lanes() && k == 1 && s.stride - 1 <= kNarrow && s.batch > C * s.threads(call.pool)) {
    return s.each<T, 2 * C>(call.pool, scratch, [&](Index first, auto* memory) {
      if (s.batch - first > C) return solve_lanes<2 * C>(s, of, first, memory);
      solve_lanes<C>(s, of, first, &memory->low);
    });
  }
  with_lanes<T>(s.lanes() && k == 1, [&](auto lanes) {
    constexpr int L = lanes;
    s.each<T, L>(call.pool, scratch, [&](Index first, auto* memory) {
      if constexpr (L == 1) {
        if (s.w == 1 && k == 1 && !of.columns) {
          bool ok = true;
          const T* d = of.ab + first * s.rows * s.n;
          run([&] { ok = solve_tridiagonal(d, d + s.n, of.b + first * s.n, of.x + first * s.n, memory, s.n); });
          const int bad = ok ? 0 : first_bad_pivot(Bands(1, s.rows, s.n), d);
          return of.template report<1>(s, first, &bad, 1);
        }
      }
      solve_lanes<L>(s, of, first, memory);
    });
  });
}

// Kernel. columns (n, w + 1) of d and m, or with the option `raw` of d and d m, b (n, k) -> (M D M^T)^-1 b.
template <class T>
void substitute(Call& call) {
  const Bands s = columns_of(call.matrices(0));
  const Index k = call.right_hand_sides(1), size = s.n * k;
  const T* columns = call.operand<T>(0, {s.n, s.rows});
  const T* b = call.operand<T>(1, {s.n, k});
  T* x = call.result<T>(0, {s.n, k});
  const bool raw = call.whole(0, 1);
  s.each<T, 1>(call.pool, s.state() + s.tile(), [&](Index system, T* state) {
    const T* from = columns + system * s.n * s.rows;
    T* y = x + system * size;
    T* tile = state + s.state();
    const auto fetch = [&](Index j, Index count) {
      const T* c = from + j * s.rows;
      for (T* to = tile; to != tile + count * s.stride; to += s.stride) {
        const T r = raw ? 1 / c[0] : T(1);
        to[0] = c[0];
        for (int i = 1; i <= s.w; ++i) to[i] = c[i] * r;
        std::fill(to + s.w + 1, to + s.stride, T(0));
        c += s.rows;
      }
    };
    std::copy_n(b + system * size, size, y);
    std::fill_n(state, s.state(), T(0));
    tiles(s.n, [&](Index j, Index count) {
      fetch(j, count);
      forward<T>(s, state, tile, y, k, j, count);
    });
    std::fill_n(state, s.state(), T(0));
    tiles_upwards(s.n, [&](Index j, Index count) {
      fetch(j, count);
      backward<T>(s, state, tile, y, k, j, count);
    });
  });
}

}  // namespace bandhess
