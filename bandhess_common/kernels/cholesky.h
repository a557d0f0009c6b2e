// H = L L^T with L = M sqrt(D), and the substitutions with L or L^T.
#pragma once

#include "ldl.h"

namespace bandhess {

// The column [d, m] becomes [sqrt(d), m sqrt(d)].
template <class T, int L, class V>
void take_roots(const Bands& s, V* tile, Index count) {
  T* column = reinterpret_cast<T*>(tile);
  for (Index t = 0; t < count; ++t) {
    for (int l = 0; l < L; ++l) {
      const T root = std::sqrt(column[l]);
      column[l] = root;
      for (int i = 1; i <= s.w; ++i) column[i * L + l] *= root;
    }
    column += s.stride * L;
  }
}

// Kernel. ab (w + 1, n) -> cb (w + 1, n), NaN on failure, and info.
template <class T>
void cholesky(Call& call) {
  const Bands s = band(call.matrices(0));
  const T* ab = call.operand<T>(0, {s.rows, s.n});
  T* cb = call.result<T>(0, {s.rows, s.n});
  std::int32_t* info = call.result<std::int32_t>(1, {});
  with_lanes<T>(s.lanes(), [&](auto lanes) {
    constexpr int L = lanes;
    s.each<T, L>(call.pool, s.state() + s.tile(), [&](Index first, auto* state) {
      const Lanes<const T, L> from(ab, s.rows * s.n, first, s.batch);
      const Lanes<T, L> to(cb, s.rows * s.n, first, s.batch);
      int bad[L];
      eliminate<false>(s, from, state, state + s.state(), bad, [&](Index j, Index count, auto* tile) {
        take_roots<T, L>(s, tile, count);
        scatter(tile, s.stride, to, s.rows, s.n, j, count);
      });
      for (int l = 0; l < to.live; ++l) {
        info[first + l] = bad[l];
        if (!bad[l]) continue;
        std::fill_n(to.at[l], s.rows * s.n, kNaN<T>);
        call.indefinite = true;
      }
    });
  });
}

// Kernel. cb (w + 1, n), b (n, k) -> L^-1 b, or L^-T b with the option `transpose`.
template <class T>
void triangular(Call& call) {
  const Bands s = band(call.matrices(0));
  const Index k = call.right_hand_sides(1);
  const T* cb = call.operand<T>(0, {s.rows, s.n});
  const T* b = call.operand<T>(1, {s.n, k});
  T* x = call.result<T>(0, {s.n, k});
  const bool transpose = call.whole(0, 1);
  s.each<T, 1>(call.pool, s.state() + s.tile(), [&](Index system, T* state) {
    const Lanes<const T, 1> from(cb, s.rows * s.n, system, s.batch);
    T* y = x + system * s.n * k;
    T* tile = state + s.state();
    std::copy_n(b + system * s.n * k, s.n * k, y);
    std::fill_n(state, s.state(), T(0));
    const auto fetch = [&](Index j, Index count) {  // [L_jj, m]
      gather(tile, s.stride, from, s.w + 1, s.n, j, count);
      for (T* c = tile; c != tile + count * s.stride; c += s.stride) {
        const T r = 1 / c[0];
        for (int i = 1; i <= s.w; ++i) c[i] *= r;
      }
    };
    if (transpose) {
      tiles_upwards(s.n, [&](Index j, Index count) {
        fetch(j, count);
        backward<T>(s, state, tile, y, k, j, count);
      });
    } else {
      tiles(s.n, [&](Index j, Index count) {
        fetch(j, count);
        forward<T>(s, state, tile, y, k, j, count);
        for (Index t = 0; t < count; ++t)
          for (Index q = 0; q < k; ++q) y[(j + t) * k + q] /= tile[t * s.stride];
      });
    }
  });
}

}  // namespace bandhess
