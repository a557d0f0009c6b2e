// H = M D M^T column by column, by the derivation of linalg/ldl.py:
//
//     c = a_j - S[:, 0],   d_j = c[0],   m_j = c[1:] / d_j,   S <- shift(S) + c[1:] m_j^T
//
// S is what the columns so far have pending on the coming ones. A tile kernel takes `count` columns, w + 1 entries
// apart (W + 1 where W is not 0), and a state that passes from tile to tile: state[k * pitch(w) + r], for k <= r < w, is
// pending on row r of the k-th coming column, rows and columns counted from the next one on. Its element V is a number
// of one system, or a vector with one system per lane. (Golub and Van Loan 2013, section 4.3.6.)
//
// Where registers do not hold S, every column would load and store all of it. So B columns are eliminated among
// themselves, and S takes their products together. For B = 2, H = [4 2 2; 2 5 3; 2 3 6] and S = 0:
//
//     d_0 = 4, l = 2/4, d_1 = 5 - 2 l = 4        the two columns' own rows
//     c_0 = 2, c_1 = 3 - l c_0 = 2               the row below them
//     S   = c_0^2 / d_0 + c_1^2 / d_1 = 1 + 1    once for both: d_2 = 6 - S = 4
#pragma once

#include "chunks.h"

namespace bandhess {

// An entry over its pivot. Raw goes on past any pivot, and then keeps zeros zeros: a row and column of zeros harms no
// other.
template <bool Raw, class V, class R>
INLINE V multiplier(const V& entry, const R& reciprocal) {
  if constexpr (Raw) {
    return entry == 0 ? V{} : entry * reciprocal;
  } else {
    return entry * reciprocal;
  }
}

// [a_0 .. a_w] becomes [d, m], or [d, d m] if Raw, one column after the other. m stands behind the window.
template <bool Raw, class V>
INLINE void eliminate_columns(V* state, V* columns, Index count, int w) {
  const int P = pitch(w);
  V* const m = state + P * w;
  for (V* c = columns; c != columns + count * (w + 1); c += w + 1) {
    for (int i = 0; i < w; ++i) c[i] -= state[i];
    const V r = 1 / c[0];
    for (int k = 1; k <= w; ++k) {
      const V factor = m[k - 1] = multiplier<Raw>(c[k], r);
      const V* from = state + k * P;
      V* to = state + (k - 1) * P - 1;
#pragma GCC ivdep
      for (int i = k; i < w; ++i) to[i] = from[i] + factor * c[i];
      to[w] = factor * c[w];
    }
    if (!Raw) std::copy_n(m, w, c + 1);
  }
}

// The same with the whole state in registers, as far as there are some; each(t, m) has the multipliers of column t.
template <int W, bool Raw, class V, class F>
INLINE void eliminate_in_registers(V* state, V* columns, Index count, const F& each) {
  constexpr int P = pitch(W);
  V s[W][W];
  V c[W + 1];
  V m[W + 1];
  UNROLL for (int k = 0; k < W; ++k) {
    UNROLL for (int r = k; r < W; ++r) s[k][r] = state[k * P + r];
  }
  for (Index t = 0; t < count; ++t) {
    V* column = columns + t * (W + 1);
    UNROLL for (int i = 0; i < W; ++i) c[i] = column[i] - s[0][i];
    c[W] = column[W];
    column[0] = c[0];
    const V r = 1 / c[0];
    UNROLL for (int k = 1; k <= W; ++k) {
      m[k] = multiplier<Raw>(c[k], r);
      UNROLL for (int i = k; i < W; ++i) s[k - 1][i - 1] = s[k][i] + m[k] * c[i];
      s[k - 1][W - 1] = m[k] * c[W];
      column[k] = Raw ? c[k] : m[k];
    }
    each(t, m);
  }
  UNROLL for (int k = 0; k < W; ++k) {
    UNROLL for (int r = k; r < W; ++r) state[k * P + r] = s[k][r];
  }
}

// B columns of one system, or of one a lane, that are eliminated together, and what they have for the state. `row` counts
// rows from the first column's own one on.
template <bool Raw, class V>
struct Block {
  static constexpr int C = Chunks<V>::C, B = Chunks<V>::B;
  typedef typename Chunks<V>::type Chunk;

  V* state;
  V* columns;
  int w;
  Chunk* c;     // of column s, rows B + q C and on: c[s * chunks + q]
  Chunk* m;     // the same over its pivot
  V l[B][B];    // multipliers of the rows that are columns of the block
  V r[B] = {};  // one over the pivots

  INLINE int chunks() const { return (w + C - 1) / C; }

  INLINE void eliminate_own_rows() {
    V own[B][B];
    UNROLL for (int s = 0; s < B; ++s) {
      UNROLL for (int t = s; t < B; ++t) own[s][t] = columns[s * w + t] - state[s * pitch(w) + t];
    }
    UNROLL for (int s = 0; s < B; ++s) {
      r[s] = 1 / own[s][s];
      UNROLL for (int t = s + 1; t < B; ++t) {
        l[s][t] = multiplier<Raw>(own[s][t], r[s]);
        UNROLL for (int i = t; i < B; ++i) own[t][i] -= l[s][t] * own[s][i];
      }
      columns[s * (w + 1)] = own[s][s];
      UNROLL for (int t = s + 1; t < B; ++t) columns[s * w + t] = Raw ? own[s][t] : l[s][t];
    }
  }

  // Rows B + q C and on.
  INLINE void eliminate_rows(int q) {
    const int row = B + q * C;
    UNROLL for (int s = 0; s < B; ++s) {
      V* entries = columns + s * w + row;
      const int used = w + s + 1 - row;  // of the rows, so many belong to the column
      Chunk rest = load_part<V, Chunk>(entries, used);
      if (row < w) rest -= *reinterpret_cast<const Chunk*>(state + s * pitch(w) + row);
      UNROLL for (int t = 0; t < s; ++t) rest -= l[t][s] * c[t * chunks() + q];
      c[s * chunks() + q] = rest;
      m[s * chunks() + q] = multiplier<Raw>(rest, r[s]);
      store_part(entries, used, Raw ? rest : m[s * chunks() + q]);
    }
  }

  // What the block has for column k of the state.
  INLINE void load_factors(int k, V* factors) const {
    UNROLL for (int s = 0; s < B; ++s) factors[s] = reinterpret_cast<const V*>(m + s * chunks())[k];
  }

  // Rows B + q C and on, of N chunks, of all columns that have them: what a register holds of c serves the whole way down.
  template <int N>
  INLINE void give_rows(int q) {
    const int P = pitch(w), Q = chunks();
    Chunk held[B][N];
    UNROLL for (int s = 0; s < B; ++s) {
      UNROLL for (int i = 0; i < N; ++i) held[s][i] = c[s * Q + q + i];
    }
    const V* of[B];
    UNROLL for (int s = 0; s < B; ++s) of[s] = reinterpret_cast<const V*>(m + s * Q);
    const auto column = [&](int k, auto first, auto pending) {
      Chunk sums[N] = {};
      V* to = state + k * P + q * C;
      const V* from = to + B * (P + 1);
      UNROLL for (int i = first; i < N; ++i) {
        if (pending && B + (q + i) * C < w) sums[i] = *reinterpret_cast<const Chunk*>(from + i * C);
        UNROLL for (int s = 0; s < B; ++s) sums[i] += of[s][k] * held[s][i];
        *reinterpret_cast<Chunk*>(to + i * C) = sums[i];
      }
    };
    using Yes = std::true_type;
    using No = std::false_type;
    const int most = std::min(w, (q + 1) * C), whole = std::min(most, w - B);
    int k = 0;
    for (; k < whole; ++k) column(k, std::integral_constant<int, 0>(), Yes());
    for (; k < most; ++k) column(k, std::integral_constant<int, 0>(), No());
    if constexpr (N > 1) {
      const int more = std::min(w, (q + 2) * C);
      for (; k < std::min(more, w - B); ++k) column(k, std::integral_constant<int, 1>(), Yes());
      for (; k < more; ++k) column(k, std::integral_constant<int, 1>(), No());
    }
  }

  // Rows B + q C and on of that column.
  INLINE void give(const V* factors, int k, int q, bool pending) {
    Chunk sum{};
    if (pending) sum = *reinterpret_cast<const Chunk*>(state + (k + B) * pitch(w) + B + q * C);
    UNROLL for (int s = 0; s < B; ++s) sum += factors[s] * c[s * chunks() + q];
    *reinterpret_cast<Chunk*>(state + k * pitch(w) + q * C) = sum;
  }
};

// The same, B columns at a time, and those that are left one by one. W is a width known to the compiler, or 0.
template <int W, bool Raw, class V>
INLINE void eliminate_blocks(V* state, V* columns, Index count, int width) {
  using Columns = Block<Raw, V>;
  constexpr int B = Columns::B, C = Columns::C, room = B * ((W + C - 1) / C) + 1;
  typename Columns::Chunk local[2 * room];
  const int w = W ? W : width;
  const int Q = (w + C - 1) / C;
  auto* c = W ? local : reinterpret_cast<typename Columns::Chunk*>(state + pitch(w) * (w + 1));
  for (; count >= B; count -= B, columns += B * (w + 1)) {
    Columns block{state, columns, w, c, c + (W ? room : B * Q)};
    block.eliminate_own_rows();
    V factors[B];
    if constexpr (W > 0) {
      UNROLL for (int q = 0; q < Q; ++q) block.eliminate_rows(q);
      UNROLL for (int k = 0; k < W; ++k) {
        block.load_factors(k, factors);
        UNROLL for (int q = k / C; q < Q; ++q) block.give(factors, k, q, k + B < w && B + q * C < w);
      }
    } else {
      for (int q = 0; q < Q; ++q) block.eliminate_rows(q);
      int q = 0;
      if constexpr (B <= 4) {
        for (; q + 1 < Q; q += 2) block.template give_rows<2>(q);
      }
      for (; q < Q; ++q) block.template give_rows<1>(q);
    }
  }
  eliminate_columns<Raw>(state, columns, count, w);
}

template <int W, bool Raw, class V>
INLINE void eliminate_tile(V* state, V* columns, Index count, int w) {
  if constexpr (W == 0 && !std::is_arithmetic_v<V>) {
    eliminate_columns<Raw>(state, columns, count, w);
  } else if constexpr (W == 0 || (W > kNarrow && W >= Chunks<V>::B)) {
    eliminate_blocks<W, Raw>(state, columns, count, w);
  } else {
    eliminate_in_registers<W, Raw>(state, columns, count, [](Index, const V*) {});
  }
}

}  // namespace bandhess
