// H x = b for one large system from both ends at once, by two threads: a twisted factorisation.
//
//     columns 0 .. top are eliminated downwards,  columns n - 1 .. top + w upwards,  the w between them last
//
// Neither end meets the other before those w columns, so there is no fill-in and as many operations as from one end.
// What either has pending then lies on them alone. Upwards the kernels of ldl.h see the reversed matrix,
// H[n-1-i, n-1-j].
// A border (border.h) goes along: each end has its rows of V, and substitution waits for z. From one end alone, `bottom`
// is 0.
//
// Of the columns [d, m] no more than `room` bytes are held. An end that has more of them is eliminated in segments, each
// in the place of the one before, with a copy of the state where it begins; backwards, those that are gone are
// eliminated anew from there. For five tiles of columns in the place of two:
//
//     eliminate 0 | 1 2 | 3 4     substitute 4 3     eliminate 1 2, substitute 2 1     eliminate 0, substitute 0
//
// (Meurant 1992, SIAM J. Matrix Anal. Appl. 13, 707, for tridiagonal H; Griewank 1992, Optim. Methods Softw. 1, 35, for
// states that are kept in the place of what follows from them.)
#pragma once

#include "border.h"

namespace bandhess {

constexpr Index kMostBytes = 1 << 30;  // that a call may grant to columns

// The columns that an end eliminates, `rows` of them: `count` segments of at most `held` columns, whole tiles but for
// the last one's last.
struct Segments {
  Index rows;
  Index held;
  Index count;

  Segments(Index rows, Index room) : rows(rows) {
    const Index whole = (rows + kTile - 1) / kTile;
    const Index most = std::max<Index>(1, std::min(whole, room / kTile));
    held = most * kTile;
    count = std::max<Index>(1, (whole + most - 1) / most);
  }

  // The first column of segment i; the first segment takes what is left.
  Index begin(Index i) const {
    const Index end = (rows + kTile - 1) / kTile * kTile;
    return i < count ? std::max<Index>(0, end - (count - i) * held) : rows;
  }
};

template <class T>
class Twisted {
 public:
  static constexpr Index kLong = 60000;  // cells, below which one thread is done sooner

  static bool worth(const Bands& s) { return s.batch == 1 && s.n * s.stride >= kLong && s.n > 4 * s.w; }

  // How a system is cut: columns from above, and from below, beside the w that are eliminated last.
  struct Cut {
    Segments above;
    Segments below;

    // both: from both ends, else from above alone. room: bytes; of wide bands, whose elimination takes longer than fresh
    // memory, all columns are held.
    Cut(const Bands& s, Index room, bool both)
        : above(both ? (s.n - s.w) / 2 : s.n - s.w, held(s, room) / (both ? 2 : 1)),
          below(both ? s.n - s.w - above.rows : 0, held(s, room) / 2) {}

   private:
    static Index held(const Bands& s, Index room) {
      return s.w <= kUnrolled ? room / (s.stride * static_cast<Index>(sizeof(T))) : 2 * (s.n + kTile);
    }
  };

  // A multiple of the numbers in a vector.
  static Index scratch(const Bands& s, const Cut& cut, Index k, Index p = 0) {
    const Index borders = Border<T>::scratch(s, p, k, s.n) + Border<T>::scratch(s, p, k, 0);
    const Index states = 4 * s.state() + (cut.above.count + cut.below.count) * s.window();
    const Index columns = (cut.above.held + cut.below.held + s.w) * s.stride;
    return borders + whole_vectors<T>(states + columns + (cut.below.rows + s.w) * k);
  }

  // border: (p, n), or none.
  Twisted(const Bands& s, const Cut& cut, const T* ab, const T* b, Index k, T* x, T* scratch,
          const T* border = nullptr, Index p = 0)
      : s_(s),
        ab_(ab),
        b_(b),
        k_(k),
        x_(x),
        top_(cut.above.rows),
        bottom_(cut.below.rows),
        above_{cut.above, Border<T>(s, border, p, k, s.n - bottom_, scratch)},
        below_{cut.below,
               Border<T>(s, border, p, k, bottom_, scratch + Border<T>::scratch(s, p, k, s.n - bottom_))} {
    T* at = scratch + Border<T>::scratch(s, p, k, s.n) + Border<T>::scratch(s, p, k, 0);
    const auto take = [&at](Index count) { return std::exchange(at, at + count); };
    for (End* end : {&above_, &below_}) {
      end->state = take(s.state());
      end->pending = take(s.state());
      end->begun = take(end->segments.count * s.window());
      end->columns = take(end->segments.held * s.stride);
    }
    middle_ = take(s.w * s.stride);
    above_.y = x;
    below_.y = at;
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
        pool, [&] { substitute(above_); },
        [&] {
          substitute(below_);
          reverse_rows(below_.y, bottom_, x_ + (s_.n - bottom_) * k_);
        });
  }

 private:
  struct End {
    Segments segments;
    Border<T> border;
    T* state;    // pending on the coming columns
    T* pending;  // for k = 1: and on the coming right-hand sides; upwards, the unknowns below
    T* begun;    // the state at the begin of each segment
    T* columns;  // of one segment
    T* y;        // right-hand side, then unknowns, in the order of elimination
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

  // H's columns [j, j + count) of an end.
  void fetch(const End& end, T* tile, Index j, Index count) const {
    if (&end == &above_) {
      gather(tile, s_.stride, Lanes<const T, 1>(ab_, s_.rows * s_.n, 0, 1), s_.w + 1, s_.n, j, count);
    } else {
      const T* last = ab_ + s_.n - 1 - j;  // of the reversed matrix, whose diagonals end where they began
      run([&] {
        gather_columns(tile, s_.stride, count, -1,
                       [&](Index i) { return i <= s_.w ? last + i * (s_.n - 1) : kZeros<T> + kTile; });
      });
    }
  }

  // Eliminates columns [j, j + count), and substitutes forwards in y and the border.
  void forward(End& end, T* tile, Index j, Index count) {
    eliminate_forward<T>(s_, end.state, end.pending, tile, end.y, k_, j, count);
    end.ok &= all_positive(tile, s_.stride, count);
    end.border.forward(tile, end.y + j * k_, j, count);
  }

  // Calls work(tile, j, count) for the tiles of segment i, downwards or upwards.
  template <class F>
  void tiles_of(const End& end, Index i, bool upwards, const F& work) const {
    const Index first = end.segments.begin(i), rows = end.segments.begin(i + 1) - first;
    const auto at = [&](Index j, Index count) { work(end.columns + j * s_.stride, first + j, count); };
    if (upwards) {
      tiles_upwards(rows, at);
    } else {
      tiles(rows, at);
    }
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

  // Eliminates an end's columns; read(j, count) has its right-hand side and its border ready.
  template <class F>
  void eliminate(End& end, const F& read) {
    end.border.begin();
    std::fill_n(end.state, s_.state(), T(0));
    std::fill_n(end.pending, s_.state(), T(0));
    for (Index i = 0; i < end.segments.count; ++i) {
      std::copy_n(end.state, s_.window(), end.begun + i * s_.window());
      tiles_of(end, i, false, [&](T* tile, Index j, Index count) {
        fetch(end, tile, j, count);
        read(j, count);
        forward(end, tile, j, count);
      });
    }
  }

  void eliminate_from_above() {
    if (k_ != 1) std::copy_n(b_, (top_ + s_.w) * k_, x_);
    eliminate(above_, [&](Index j, Index count) {
      if (k_ == 1) std::copy_n(b_ + j, count, above_.y + j);
      above_.border.read(j, 1, j, count);
    });
  }

  void eliminate_from_below() {
    if (k_ != 1) {
      reverse_rows(b_ + (s_.n - bottom_) * k_, bottom_, below_.y);
      std::fill_n(below_.y + bottom_ * k_, s_.w * k_, T(0));
    }
    eliminate(below_, [&](Index j, Index count) {
      if (k_ == 1) std::reverse_copy(b_ + s_.n - j - count, b_ + s_.n - j, below_.y + j);
      below_.border.read(s_.n - 1 - j, -1, j, count);
    });
  }

  // The columns between the ends, as the last ones from above, without what is pending from below.
  void join() {
    const Index w = s_.w, wide = pitch(s_.stride - 1);
    std::fill_n(middle_, w * s_.stride, T(0));
    for (Index k = 0; k < w; ++k)
      for (Index i = 0; i + k < w; ++i) {
        const Index column = w - 1 - k - i;
        middle_[column * s_.stride + i] = ab_[i * s_.n + top_ + column] - below_.state[k * wide + k + i];
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
    forward(above_, middle_, top_, w);
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

  void substitute(End& end) {
    for (Index i = end.segments.count; i-- > 0;) {
      if (i + 1 < end.segments.count) {
        std::copy_n(end.begun + i * s_.window(), s_.window(), end.state);
        tiles_of(end, i, false, [&](T* tile, Index j, Index count) {
          fetch(end, tile, j, count);
          eliminate_tile<false>(s_, end.state, tile, count);
        });
      }
      tiles_of(end, i, true, [&](const T* tile, Index j, Index count) {
        end.border.subtract(end.y + j * k_, j, count);
        backward<T>(s_, end.pending, tile, end.y, k_, j, count);
      });
    }
  }
};

}  // namespace bandhess
