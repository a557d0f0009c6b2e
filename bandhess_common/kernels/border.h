// A border of p rows beside the elimination of a band H = M D M^T: block elimination, which needs no H^-1 border^T.
//
//     [H       border^T] [x]   [b]      u = M^-1 b,  V = M^-1 border^T              forwards
//     [border  corner  ] [z] = [c]      S = corner - V^T D^-1 V,  S z = c - V^T D^-1 u
//                                       x = M^-T D^-1 (u - V z)                     backwards, b's columns alone
//
// For H = 2, border = 1, corner = 3, (b, c) = (4, 7): D = 2, u = 4, V = 1, S = 3 - 1/2, z = (7 - 4/2) / S = 2 and
// x = (4 - 1 * 2) / 2 = 1. The order of elimination is any: D and M are those of the rows in that order.
// (Golub and Van Loan 2013, section 4.2.)
#pragma once

#include "ldl.h"

namespace bandhess {

// V and its products, for rows that are eliminated one after the other. C columns of V are side by side in a vector.
template <class T>
class Border {
 public:
  static constexpr int C = kLaneBytes / sizeof(T);
  typedef T V __attribute__((vector_size(kLaneBytes)));

  // Numbers, a multiple of C.
  static Index scratch(const Bands& s, Index p, Index k, Index length) {
    return chunks(p) * C * (length + s.stride + chunks(p) * C + 2 * k);
  }

  Border(const Bands& s, const T* border, Index p, Index k, Index length, T* scratch)
      : s_(s),
        border_(border),
        p_(p),
        k_(k),
        length_(length),
        chunks_(chunks(p)),
        rows_(reinterpret_cast<V*>(scratch)),
        pending_(rows_ + chunks_ * length),
        sums_(pending_ + chunks_ * s.stride),
        z_(sums_ + chunks_ * sums()) {}

  void begin() { std::fill(pending_, z_, V{}); }

  // The border's columns first, first + step, ... as rows [j, j + count). Lanes beyond p repeat its last row.
  void read(Index first, Index step, Index j, Index count) {
    run([&] {
      for (Index a = 0; a < chunks_; ++a) {
        const T* from[C];
        for (int l = 0; l < C; ++l) from[l] = border_ + std::min(a * C + l, p_ - 1) * s_.n + first;
        V* to = rows_ + a * length_ + j;
        for (Index t = 0; t < count; ++t) {
          V row;
          UNROLL for (int l = 0; l < C; ++l) row[l] = from[l][t * step];
          to[t] = row;
        }
      }
    });
  }

  // Rows [j, j + w) less what `other`, whose next rows they are in reverse, has pending on them.
  void meet(const Border& other, Index j) {
    for (Index a = 0; a < chunks_; ++a)
      for (Index t = 0; t < s_.w; ++t)
        rows_[a * length_ + j + t] -= other.pending_[a * s_.stride + s_.w - 1 - t];
  }

  // Rows [j, j + count) <- M^-1 of them, and their part of the products. tile: their columns [d, m]; u: their rows of u.
  void forward(const T* tile, const T* u, Index j, Index count) {
    if (!p_) return;
    with_width(s_.stride - 1, [&](auto W) {
      run([&] {
        for (Index a = 0; a < chunks_; ++a)
          forward_tile<W()>(pending_ + a * s_.stride, tile, rows_ + a * length_ + j, count, s_.w);
      });
    });
    run([&] {
      tiles(count, [&](Index i, Index within) { multiply(tile + i * s_.stride, u + i * k_, j + i, within); });
    });
  }

  // V^T D^-1 V, for other <= q, and V^T D^-1 u, of the rows so far.
  T with_row(Index q, Index other) const { return sums_[q / C * sums() + other][q % C]; }
  T with_rhs(Index q, Index r) const { return sums_[q / C * sums() + chunks_ * C + r][q % C]; }

  // z (p, k), which `subtract` needs.
  void take(const T* z) {
    std::fill_n(z_, chunks_ * k_, V{});
    for (Index q = 0; q < p_; ++q)
      for (Index r = 0; r < k_; ++r) z_[q / C * k_ + r][q % C] = z[q * k_ + r];
  }

  // u <- u - V z for rows [j, j + count).
  void subtract(T* u, Index j, Index count) const {
    run([&] {
      for (Index a = 0; a < chunks_; ++a)
        for (Index r = 0; r < k_; ++r) {
          const V z = z_[a * k_ + r];
          const V* row = rows_ + a * length_ + j;
          for (Index t = count; t-- > 0;) {
            const V products = row[t] * z;
            T sum = 0;
            UNROLL for (int l = 0; l < C; ++l) sum += products[l];
            u[t * k_ + r] -= sum;
          }
        }
    });
  }

 private:
  const Bands& s_;
  const T* border_;
  Index p_;
  Index k_;
  Index length_;
  Index chunks_;
  V* rows_;     // (chunks, length)
  V* pending_;  // (chunks, stride), on the coming rows
  V* sums_;     // (chunks, sums): with the rows of the border, as far as the chunk goes, then with u
  V* z_;        // (chunks, k)

  static Index chunks(Index p) { return (p + C - 1) / C; }
  Index sums() const { return chunks_ * C + k_; }

  INLINE void multiply(const T* tile, const T* u, Index j, Index count) {
    T reciprocals[kTile];
    V scaled[kTile];
    for (Index t = 0; t < count; ++t) reciprocals[t] = 1 / tile[t * s_.stride];
    for (Index a = 0; a < chunks_; ++a) {
      V* to = sums_ + a * sums();
      for (Index t = 0; t < count; ++t) scaled[t] = rows_[a * length_ + j + t] * reciprocals[t];
      for (Index b = 0; b <= a; ++b) {
        add_products<C>(scaled, reinterpret_cast<const T*>(rows_ + b * length_ + j), C, count, to + b * C);
      }
      for (Index r = 0; r < k_; ++r) add_products<1>(scaled, u + r, k_, count, to + chunks_ * C + r);
    }
  }

  // to[l] += sum_t a[t] b[t, l], in eight sums side by side.
  template <int Q>
  INLINE static void add_products(const V* a, const T* b, Index stride, Index count, V* to) {
    constexpr int R = 8 / Q;
    V part[R][Q] = {};
    Index t = 0;
    for (; t + R <= count; t += R) {
      UNROLL for (int i = 0; i < R; ++i) {
        UNROLL for (int l = 0; l < Q; ++l) part[i][l] += a[t + i] * b[(t + i) * stride + l];
      }
    }
    for (; t < count; ++t) {
      UNROLL for (int l = 0; l < Q; ++l) part[0][l] += a[t] * b[t * stride + l];
    }
    for (int i = 0; i < R; ++i)
      for (int l = 0; l < Q; ++l) to[l] += part[i][l];
  }
};

}  // namespace bandhess
