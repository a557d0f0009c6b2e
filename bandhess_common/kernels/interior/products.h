// Products with the rows of the Jacobian, each a window of `stride` entries, and with the band W; shared variables have
// dense columns in the one and dense rows in the other.
#pragma once

#include "../chunks.h"
#include "state.h"
#include "vectors.h"

namespace bandhess::interior {

// Calls work(S, constant) within `run`; S is the stride, known to the compiler up to kUnrolled.
template <class T, class F>
void with_stride(const State<T>& s, const F& work) {
  with_width(s.s.stride - 1, [&](auto W) {
    if constexpr (W() == 0) {
      run([&] { work(s.s.stride); });
    } else {
      run([&] { work(std::integral_constant<int, W() + 1>()); });
    }
  });
}

// The vector of one register, wherever it stands.
template <class T>
struct Chunked {
  static constexpr int kLanes = kLaneBytes / sizeof(T);
  typedef T Chunk __attribute__((vector_size(kLaneBytes), aligned(sizeof(T)), may_alias));
  static INLINE Chunk& at(T* entry) { return *reinterpret_cast<Chunk*>(entry); }
  static INLINE const Chunk& at(const T* entry) { return *reinterpret_cast<const Chunk*>(entry); }
};

// f(0) + .. + f(S - 1), of terms f(p) that are numbers or, by f.chunk(p), chunks of them.
template <class T, class F>
INLINE T sum_of_window(int S, const F& f) {
  using Of = Chunked<T>;
  typename Of::Chunk sums = {};
  int p = 0;
  UNROLL for (; p + Of::kLanes <= S; p += Of::kLanes) sums += f.chunk(p);
  T total = 0;
  UNROLL for (; p < S; ++p) total += f.number(p);
  UNROLL for (int l = 0; l < Of::kLanes; ++l) total += sums[l];
  return total;
}

template <class T>
struct Product {
  const T *a, *b;
  INLINE T number(int p) const { return a[p] * b[p]; }
  INLINE auto chunk(int p) const { return Chunked<T>::at(a + p) * Chunked<T>::at(b + p); }
};

template <class T>
struct SizeOfProduct {
  const T *a, *b;
  INLINE T number(int p) const { return std::abs(a[p] * b[p]); }
  INLINE auto chunk(int p) const {
    const auto c = Product<T>{a, b}.chunk(p);
    return c > 0 ? c : -c;
  }
};

template <class T>
struct WeightedSquare {
  const T *a, *b;
  INLINE T number(int p) const { return a[p] * a[p] * b[p]; }
  INLINE auto chunk(int p) const { return Chunked<T>::at(a + p) * Product<T>{a, b}.chunk(p); }
};

// Whether the windows of rows i .. i + kRun - 1 begin together.
constexpr int kRun = 4;
template <class T>
INLINE bool run_of_rows(const State<T>& s, Index i, Index end) {
  const std::int32_t* starts = s.starts() + i;
  return i + kRun <= end && starts[0] == starts[1] && starts[0] == starts[2] && starts[0] == starts[3];
}

// out = J v
template <class T>
void push(const State<T>& s, const T* v, T* out) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      out[i] = sum_of_window<T>(S, Product<T>{rows + i * S, v + starts[i]});
    }
  });
  for (Index q = 0; q < s.p; ++q)
    each(0, s.r, [=, a = s.column(q), by = v[s.banded + q]](Index i) { out[i] += by * a[i]; });
}

// max |J| |v|
template <class T>
T largest_product(const State<T>& s, const T* v, T* out) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      out[i] = sum_of_window<T>(S, SizeOfProduct<T>{rows + i * S, v + starts[i]});
    }
  });
  for (Index q = 0; q < s.p; ++q)
    each(0, s.r, [=, a = s.column(q), by = v[s.banded + q]](Index i) { out[i] += std::abs(by * a[i]); });
  return largest(out, s.r);
}

// b += J^T u of row i, or of the kRun rows from i on, whose windows begin together.
template <class T>
struct Rows {
  const T* rows;
  const std::int32_t* starts;

  INLINE void add(int S, Index i, const T* u, T* out) const {
    const T* a = rows + i * S;
    T* b = out + starts[i];
    const T by = u[i];
    UNROLL for (int p = 0; p < S; ++p) b[p] += by * a[p];
  }
  INLINE void add_run(int S, Index i, const T* u, T* out) const {
    const T *a0 = rows + i * S, *a1 = a0 + S, *a2 = a1 + S, *a3 = a2 + S;
    T* b = out + starts[i];
    const T u0 = u[i], u1 = u[i + 1], u2 = u[i + 2], u3 = u[i + 3];
#pragma GCC ivdep
    for (int p = 0; p < S; ++p) b[p] += (u0 * a0[p] + u1 * a1[p]) + (u2 * a2[p] + u3 * a3[p]);
  }
  INLINE T times(int S, Index i, const T* v) const {
    return sum_of_window<T>(S, Product<T>{rows + i * S, v + starts[i]});
  }
};

// out = J^T u of the rows before `end`, where prepare(i) has set u_i: each row comes from memory once. From four places
// at a time, for neighbouring rows wait for each other's sums; four rows whose windows begin together are added as one.
template <class T, class F>
void pull_prepared(const State<T>& s, const T* u, T* out, Index end, const F& prepare) {
  const Rows<T> rows{s.row(0), s.starts()};
  with_stride(s, [&](auto stride) {
    const int S = stride;
    std::fill_n(out, s.n + kPad, T(0));
    Index i = 0;
    if (run_of_rows(s, 0, end)) {
      for (; run_of_rows(s, i, end); i += kRun) {
        UNROLL for (int k = 0; k < kRun; ++k) prepare(S, rows, i + k);
        rows.add_run(S, i, u, out);
      }
    } else {
      const Index part = end / kRun;
      for (; i < part; ++i) {
        UNROLL for (int k = 0; k < kRun; ++k) prepare(S, rows, i + k * part);
        UNROLL for (int k = 0; k < kRun; ++k) rows.add(S, i + k * part, u, out);
      }
      i = kRun * part;
    }
    for (; i < end; ++i) {
      prepare(S, rows, i);
      rows.add(S, i, u, out);
    }
  });
  for (Index q = 0; q < s.p; ++q) out[s.banded + q] = inner(s.column(q), u, end);
}

template <class T>
void pull(const State<T>& s, const T* u, T* out, Index end) {
  pull_prepared(s, u, out, end, [](int, const Rows<T>&, Index) {});
}

template <class T>
void pull(const State<T>& s, const T* u, T* out) {
  pull(s, u, out, s.r);
}

// u_i = f(i, J_i v), and out = J^T u
template <class T, class F>
void push_and_pull(const State<T>& s, const T* v, T* u, T* out, const F& f) {
  const T* shared = v + s.banded;
  pull_prepared(s, u, out, s.r, [&](int S, const Rows<T>& rows, Index i) {
    T moved = rows.times(S, i, v);
    for (Index q = 0; q < s.p; ++q) moved += shared[q] * s.column(q)[i];
    u[i] = f(i, moved);
  });
}

// Of R rows a, a + S, .. with one window: entries q .. q + N C - 1, times g, meet each entry p before them, and of those
// from p on. In registers they serve for all p.
template <class T, int R, int N>
INLINE void add_chunks_of_gram(int S, const T* a, const T* g, T* matrix, int q) {
  using Of = Chunked<T>;
  constexpr int C = Of::kLanes;
  typename Of::Chunk held[R][N], lane;
  UNROLL for (int k = 0; k < R; ++k) {
    UNROLL for (int j = 0; j < N; ++j) {
      held[k][j] = g[k] * load_part<T, typename Of::Chunk>(a + k * S + q + j * C, S - q - j * C);
    }
  }
  UNROLL for (int l = 0; l < C; ++l) lane[l] = l;
  const auto sum = [&](int p, int j) {
    typename Of::Chunk total = a[p] * held[0][j];
    UNROLL for (int k = 1; k < R; ++k) total += a[k * S + p] * held[k][j];
    return total;
  };
  T* to = matrix + q;
  int p = 0;
  for (; p <= q; ++p, to += S - 1) {
    UNROLL for (int j = 0; j < N; ++j) Of::at(to + j * C) += sum(p, j);
  }
  for (; p < std::min(S, q + N * C); ++p, to += S - 1) {
    UNROLL for (int j = 0; j < N; ++j) {
      const int before = p - q - j * C;
      if (before < C) Of::at(to + j * C) += lane >= static_cast<T>(before) ? sum(p, j) : typename Of::Chunk{};
    }
  }
}

template <class T, int R>
INLINE void add_gram_of(int S, const T* a, const T* g, T* matrix) {
  constexpr int C = Chunked<T>::kLanes;
  int q = 0;
  for (; q + C < S; q += 2 * C) add_chunks_of_gram<T, R, 2>(S, a, g, matrix, q);
  if (q < S) add_chunks_of_gram<T, R, 1>(S, a, g, matrix, q);
}

// matrix += J^T diag(g) J, by columns, of the banded variables
template <class T>
void add_gram(const State<T>& s, const T* g, T* matrix) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r;) {
      const T* a = rows + i * S;
      T* column = matrix + Index{starts[i]} * S;
      if (S > Chunked<T>::kLanes && run_of_rows(s, i, s.r)) {
        add_gram_of<T, kRun>(S, a, g + i, column);
        i += kRun;
      } else if (S > 2 * Chunked<T>::kLanes && i + 2 <= s.r && starts[i] == starts[i + 1]) {
        add_gram_of<T, 2>(S, a, g + i, column);
        i += 2;
      } else if (S > 2 * Chunked<T>::kLanes) {
        add_gram_of<T, 1>(S, a, g + i, column);
        i += 1;
      } else {
        UNROLL for (int p = 0; p < S; ++p) {
          const T by = g[i] * a[p];
          UNROLL for (int q = p; q < S; ++q) column[p * S + q - p] += by * a[q];
        }
        i += 1;
      }
    }
  });
}

// out = W v
template <class T>
void apply_band(const State<T>& s, const T* v, T* out) {
  run([&] {
    for (Index j = 0; j < s.n; ++j) out[j] = s.w[j] * v[j];
    for (Index i = 1; i < s.diagonals(); ++i) {
      const T* below = s.w + i * s.n;
      const Index count = s.banded - i;
#pragma GCC ivdep
      for (Index j = 0; j < count; ++j) out[j] += below[j] * v[j + i];
#pragma GCC ivdep
      for (Index j = 0; j < count; ++j) out[j + i] += below[j] * v[j];
    }
  });
  for (Index q = 0; q < s.p; ++q) {
    const T* row = s.w_border(q);
    out[s.banded + q] += inner(row, v, s.n);
    each(0, s.banded, [=, by = v[s.banded + q]](Index j) { out[j] += by * row[j]; });
  }
}

// out = sum_k |W_jk|, of the diagonal with what stands in `diagonal` beside it
template <class T>
void band_sizes(const State<T>& s, const T* diagonal, T* out) {
  run([&] {
    for (Index j = 0; j < s.n; ++j) out[j] = std::abs(s.w[j] + diagonal[j]);
    for (Index i = 1; i < s.diagonals(); ++i) {
      const T* below = s.w + i * s.n;
      const Index count = s.banded - i;
#pragma GCC ivdep
      for (Index j = 0; j < count; ++j) out[j] += std::abs(below[j]);
#pragma GCC ivdep
      for (Index j = 0; j < count; ++j) out[j + i] += std::abs(below[j]);
    }
  });
  for (Index q = 0; q < s.p; ++q) {
    const T* row = s.w_border(q);
    out[s.banded + q] += sum<T>(0, s.n, [=](Index j) { return std::abs(row[j]); });
    each(0, s.banded, [=](Index j) { out[j] += std::abs(row[j]); });
  }
}

}  // namespace bandhess::interior
