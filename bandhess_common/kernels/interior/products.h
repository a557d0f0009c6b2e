// Products with the rows of the Jacobian, each a window of `stride` entries, and with the band W; shared variables have
// dense columns in the one and dense rows in the other.
#pragma once

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

// out = J v
template <class T>
void push(const State<T>& s, const T* v, T* out) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      const T* a = rows + i * S;
      const T* b = v + starts[i];
      T total = 0;
      UNROLL for (int p = 0; p < S; ++p) total += a[p] * b[p];
      out[i] = total;
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
      const T* a = rows + i * S;
      const T* b = v + starts[i];
      T total = 0;
      UNROLL for (int p = 0; p < S; ++p) total += std::abs(a[p] * b[p]);
      out[i] = total;
    }
  });
  for (Index q = 0; q < s.p; ++q)
    each(0, s.r, [=, a = s.column(q), by = v[s.banded + q]](Index i) { out[i] += std::abs(by * a[i]); });
  return largest(out, s.r);
}

// out = J^T u of the rows before `end`, from four places at a time: neighbouring rows wait for each other's sums.
template <class T>
void pull(const State<T>& s, const T* u, T* out, Index end) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    std::fill_n(out, s.n + kPad, T(0));
    const Index part = end / 4;
    const auto add = [=](Index i) {
      const T* a = rows + i * S;
      T* b = out + starts[i];
      const T by = u[i];
      UNROLL for (int p = 0; p < S; ++p) b[p] += by * a[p];
    };
    for (Index i = 0; i < part; ++i) {
      UNROLL for (int k = 0; k < 4; ++k) add(i + k * part);
    }
    for (Index i = 4 * part; i < end; ++i) add(i);
  });
  for (Index q = 0; q < s.p; ++q) out[s.banded + q] = inner(s.column(q), u, end);
}

template <class T>
void pull(const State<T>& s, const T* u, T* out) {
  pull(s, u, out, s.r);
}

// matrix += J^T diag(g) J, by columns, of the banded variables
template <class T>
void add_gram(const State<T>& s, const T* g, T* matrix) {
  const T* rows = s.row(0);
  const std::int32_t* starts = s.starts();
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      const T* a = rows + i * S;
      T* column = matrix + Index{starts[i]} * S;
      UNROLL for (int p = 0; p < S; ++p) {
        const T by = g[i] * a[p];
        UNROLL for (int q = p; q < S; ++q) column[p * S + q - p] += by * a[q];
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
