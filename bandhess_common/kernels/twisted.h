// H x = b for one large system from both ends at once, by two threads: a twisted factorisation.
//
//     columns 0 .. top are eliminated downwards,  columns n - 1 .. top + w upwards,  the w between them last
//
// Neither end meets the other before those w columns, so there is no fill-in and as many operations as from one end.
// What either has pending then lies on them alone. Upwards the kernels of ldl.h see the reversed matrix,
// H[n-1-i, n-1-j].
// A border (border.h) goes along: each end has its rows of V, and substitution waits for z. From one end alone, `bottom`
// is 0.
// (Meurant 1992, SIAM J. Matrix Anal. Appl. 13, 707, for tridiagonal H.)
#pragma once

#include "border.h"

namespace bandhess {

template <class T>
class Twisted {
 public:
  static constexpr Index kLong = 60000;  // cells, below which one thread is done sooner

  static bool worth(const Bands& s) { return s.batch == 1 && s.n * s.stride >= kLong && s.n > 4 * s.w; }

  // A multiple of the numbers in a vector.
  static Index scratch(const Bands& s, Index k, Index p = 0) {
    const Index borders = Border<T>::scratch(s, p, k, s.n) + Border<T>::scratch(s, p, k, 0);
    return borders + whole_vectors<T>(4 * s.state() + s.n * (s.stride + k));
  }

  // both: from both ends, else from above alone. border: (p, n), or none.
  Twisted(const Bands& s, const T* ab, const T* b, Index k, T* x, T* scratch, bool both = true,
          const T* border = nullptr, Index p = 0)
      : s_(s),
        ab_(ab),
        b_(b),
        k_(k),
        x_(x),
        top_(both ? (s.n - s.w) / 2 : s.n - s.w),
        bottom_(s.n - s.w - top_),
        above_{Border<T>(s, border, p, k, s.n - bottom_, scratch)},
        below_{Border<T>(s, border, p, k, bottom_, scratch + Border<T>::scratch(s, p, k, s.n - bottom_))} {
    T* states = scratch + Border<T>::scratch(s, p, k, s.n) + Border<T>::scratch(s, p, k, 0);
    T* columns = states + 4 * s.state();
    above_.state = states;
    above_.pending = states + s.state();
    above_.columns = columns;
    above_.y = x;
    middle_ = columns + top_ * s.stride;
    below_.state = states + 2 * s.state();
    below_.pending = states + 3 * s.state();
    below_.columns = middle_ + s.w * s.stride;
    below_.y = columns + s.n * s.stride;
  }

  // Forwards. Returns whether all pivots are in (0, inf); nothing else is of use where not.
  bool eliminate(Pool& pool) {
    at_each_end(pool, [&] { eliminate_from_above(); }, [&] { eliminate_from_below(); });
    join();
    return above_.ok && below_.ok;
  }

  // The border's products: of its row q with its row t <= q, and with right-hand side r.
  T with_row(Index q, Index t) const { return above_.border.with_row(q, t) + below_.border.with_row(q, t); }
  T with_rhs(Index q, Index r) const { return above_.border.with_rhs(q, r) + below_.border.with_rhs(q, r); }

  // Backwards; z (p, k) are the border's unknowns.
  void substitute(Pool& pool, const T* z = nullptr) {
    above_.border.take(z);
    below_.border.take(z);
    part();
    at_each_end(
        pool, [&] { substitute(above_, top_); },
        [&] {
          substitute(below_, bottom_);
          reverse_rows(below_.y, bottom_, x_ + (s_.n - bottom_) * k_);
        });
  }

 private:
  struct End {
    Border<T> border;
    T* state;    // pending on the coming columns
    T* pending;  // for k = 1: and on the coming right-hand sides; upwards, the unknowns below
    T* columns;
    T* y;  // right-hand side, then unknowns, in the order of elimination
    bool ok = true;
  };

  const Bands& s_;
  const T* ab_;
  const T* b_;
  Index k_;  // right-hand sides; of several, what is pending stands in the coming rows of y, and so do the unknowns
  T* x_;
  Index top_;
  Index bottom_;
  End above_;
  End below_;
  T* middle_;

  // Eliminates columns [j, j + count) of an end, which fetch has put into their tile.
  void eliminate(End& end, Index j, Index count) {
    T* tile = end.columns + j * s_.stride;
    eliminate_tile<false>(s_, end.state, tile, count);
    for (Index t = 0; t < count; ++t) end.ok &= positive(tile[t * s_.stride]);
    forward<T>(s_, end.pending, tile, end.y, k_, j, count);
    end.border.forward(tile, end.y + j * k_, j, count);
  }

  template <class Above, class Below>
  void at_each_end(Pool& pool, const Above& above, const Below& below) const {
    parallel(pool, 2, bottom_ ? std::min<Index>(2, pool.threads()) : 1, [&](Index, Index end) {
      if (end) {
        below();
      } else {
        above();
      }
    });
  }

  // Rows of k numbers in reverse.
  void reverse_rows(const T* from, Index rows, T* to) const {
    for (Index i = 0; i < rows; ++i) std::copy_n(from + i * k_, k_, to + (rows - 1 - i) * k_);
  }

  void begin(End& end) {
    end.border.begin();
    std::fill_n(end.state, s_.state(), T(0));
    std::fill_n(end.pending, s_.state(), T(0));
  }

  void eliminate_from_above() {
    const Lanes<const T, 1> from(ab_, s_.rows * s_.n, 0, 1);
    begin(above_);
    if (k_ != 1) std::copy_n(b_, (top_ + s_.w) * k_, x_);
    tiles(top_, [&](Index j, Index count) {
      gather(above_.columns + j * s_.stride, s_.stride, from, s_.w + 1, s_.n, j, count);
      if (k_ == 1) std::copy_n(b_ + j, count, above_.y + j);
      above_.border.read(j, 1, j, count);
      eliminate(above_, j, count);
    });
  }

  void eliminate_from_below() {
    begin(below_);
    if (k_ != 1) {
      reverse_rows(b_ + (s_.n - bottom_) * k_, bottom_, below_.y);
      std::fill_n(below_.y + bottom_ * k_, s_.w * k_, T(0));
    }
    tiles(bottom_, [&](Index j, Index count) {
      T* tile = below_.columns + j * s_.stride;
      for (Index i = 0; i < s_.stride; ++i) {
        const T* last = ab_ + i * s_.n + (s_.n - 1 - j - i);  // of the reversed column j
        for (Index t = 0; t < count; ++t) tile[t * s_.stride + i] = i <= s_.w ? last[-t] : T(0);
      }
      if (k_ == 1) std::reverse_copy(b_ + s_.n - j - count, b_ + s_.n - j, below_.y + j);
      below_.border.read(s_.n - 1 - j, -1, j, count);
      eliminate(below_, j, count);
    });
  }

  // The columns between the ends, as the last ones from above, without what is pending from below.
  void join() {
    const Index w = s_.w;
    const Index wide = s_.stride - 1;
    std::fill_n(middle_, w * s_.stride, T(0));
    for (Index k = 0; k < w; ++k)
      for (Index i = 0; i + k < w; ++i) {
        const Index column = w - 1 - k - i;
        middle_[column * s_.stride + i] = ab_[i * s_.n + top_ + column] - below_.state[k * wide + i];
      }
    T* rows = x_ + top_ * k_;
    if (k_ == 1) {
      for (Index t = 0; t < w; ++t) rows[t] = b_[top_ + t] - below_.pending[w - 1 - t];
    } else {
      for (Index t = 0; t < w; ++t)
        for (Index q = 0; q < k_; ++q) rows[t * k_ + q] += below_.y[(bottom_ + w - 1 - t) * k_ + q];
      // Which the kernels meet with multipliers that are zero.
      std::fill_n(rows + w * k_, std::min(w, bottom_) * k_, T(0));
    }
    above_.border.read(top_, 1, top_, w);
    above_.border.meet(below_.border, top_);
    eliminate(above_, top_, w);
  }

  // Those columns backwards. Where a column has fewer than `wide` unknowns below it, its multipliers are zero.
  void part() {
    const Index w = s_.w;
    T* rows = x_ + top_ * k_;
    std::fill_n(above_.pending, s_.state(), T(0));
    std::fill_n(below_.pending, s_.state(), T(0));
    above_.border.subtract(rows, top_, w);
    backward<T>(s_, above_.pending, middle_, x_, k_, top_, w);
    reverse_rows(rows, w, k_ == 1 ? below_.pending : below_.y + bottom_ * k_);
  }

  void substitute(End& end, Index count) {
    tiles_upwards(count, [&](Index j, Index within) {
      end.border.subtract(end.y + j * k_, j, within);
      backward<T>(s_, end.pending, end.columns + j * s_.stride, end.y, k_, j, within);
    });
  }
};

}  // namespace bandhess
