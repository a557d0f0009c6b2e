// LU with partial pivoting of general bands, as in linalg/lu.py: row i of A stands in ab[u + i - j, j].
// (LAPACK's `gbtrf`, `gbtrs`.)
#pragma once

#include "bands.h"

namespace bandhess {

template <class T>
struct GeneralBand {
  const T* ab;
  Index n;
  int l;
  int u;

  int width() const { return l + u + 1; }

  // A[i, j:] in `width` cells, with zeros outside the band and the matrix.
  INLINE void row(T* to, Index i, Index j) const {
    const T* a = ab + (u + i - j) * n + j;
    const Index used = i < n ? std::min<Index>(u + i - j + 1, n - j) : 0;
    for (int c = 0; c < width(); ++c) to[c] = c < used ? a[c * (1 - n)] : T(0);
  }
};

// U by rows (n, width), the multipliers (n, l), and how far below the pivots stood (n).
template <class T>
struct Factors {
  T* upper;
  T* multipliers;
  std::int32_t* swaps;
};

// The row of the first largest entry in column 0, or of the first NaN, as `argmax` has it.
template <class T>
INLINE int largest_of(const T* window, int count, int width) {
  int found = 0;
  T best = std::abs(window[0]);
  for (int i = 1; i < count; ++i) {
    const T size = std::abs(window[i * width]);
    const bool larger = size > best || (size != size && best == best);
    found = larger ? i : found;
    best = larger ? size : best;
  }
  return found;
}

// window holds rows k .. k + l from column k on; eliminating moves them up by one row and left by one column. l and u
// are arguments of their own, so that the compiler may know them.
template <class T>
INLINE void lu_columns(GeneralBand<T> a, Factors<T> to, T* window, int l, int u) {
  a.l = l;
  a.u = u;
  const int width = a.width();
  for (int i = 0; i < l; ++i) a.row(window + i * width, i, 0);
  for (Index k = 0; k < a.n; ++k) {
    T* upper = to.upper + k * width;
    T* multipliers = to.multipliers + k * l;
    a.row(window + l * width, k + l, k);
    const int p = largest_of(window, static_cast<int>(std::min<Index>(l + 1, a.n - k)), width);
    to.swaps[k] = p;
    T* pivot = window + p * width;
#pragma GCC ivdep
    for (int c = 0; c < width; ++c) {
      upper[c] = pivot[c];
      pivot[c] = window[c];
    }
    for (int i = 0; i < l; ++i) multipliers[i] = window[(i + 1) * width];
    for (int i = 0; i < l; ++i) multipliers[i] /= upper[0];
    for (int i = 0; i < l; ++i) {
      const T m = multipliers[i];
      const T* from = window + (i + 1) * width;
      T* row = window + i * width;
#pragma GCC ivdep
      for (int c = 1; c < width; ++c) row[c - 1] = from[c] - m * upper[c];
      row[width - 1] = 0;
    }
  }
}

// Rows 1 .. count below row x (k entries each) lose m_i x.
template <class T>
INLINE void spread(const T* m, T* x, Index count, Index k) {
  for (Index i = 0; i < count; ++i) {
#pragma GCC ivdep
    for (Index q = 0; q < k; ++q) x[(i + 1) * k + q] -= m[i] * x[q];
  }
}

// Row x loses the sum of their m_i multiples.
template <class T>
INLINE void collect(const T* m, T* x, Index count, Index k) {
  if (k == 1) {
    T v = x[0];
    for (Index i = count; i > 0; --i) v -= m[i - 1] * x[i];  // the nearest last: only it is in the chain of rows
    x[0] = v;
    return;
  }
  for (Index i = 0; i < count; ++i) {
#pragma GCC ivdep
    for (Index q = 0; q < k; ++q) x[q] -= m[i] * x[(i + 1) * k + q];
  }
}

// x (n, k) <- A^-1 x, or A^-T x.
template <class T>
INLINE void lu_rows(const Factors<const T>& of, const std::int32_t* swaps, T* x, Index k, Index n, Index l, Index width,
                    bool transpose) {
  const auto within = [&](Index j, Index count) { return std::min(count, n - 1 - j); };
  const auto exchange = [&](Index j) {
    if (swaps[j]) std::swap_ranges(x + j * k, x + (j + 1) * k, x + (j + swaps[j]) * k);
  };
  const auto scale = [&](Index j) {
    const T r = 1 / of.upper[j * width];
    for (Index q = 0; q < k; ++q) x[j * k + q] *= r;
  };
  if (transpose) {
    for (Index j = 0; j < n; ++j) {
      scale(j);
      spread(of.upper + j * width + 1, x + j * k, within(j, width - 1), k);
    }
    for (Index j = n; j-- > 0;) {
      collect(of.multipliers + j * l, x + j * k, within(j, l), k);
      exchange(j);
    }
  } else {
    for (Index j = 0; j < n; ++j) {
      exchange(j);
      spread(of.multipliers + j * l, x + j * k, within(j, l), k);
    }
    for (Index j = n; j-- > 0;) {
      collect(of.upper + j * width + 1, x + j * k, within(j, width - 1), k);
      scale(j);
    }
  }
}

// Kernel. ab (l + u + 1, n), option `l` -> U by rows (n, l + u + 1), multipliers (n, l), swaps (n).
template <class T>
void lu(Call& call) {
  const Bands s = band(call.matrices(0));
  const int l = call.whole(0, s.rows - 1);
  const int u = static_cast<int>(s.rows) - 1 - l;
  const T* ab = call.operand<T>(0, {s.rows, s.n});
  const Factors<T> factors{call.result<T>(0, {s.n, s.rows}), call.result<T>(1, {s.n, l}),
                           call.result<std::int32_t>(2, {s.n})};
  s.each<T, 1>(call.pool, (l + 1) * s.rows, [&](Index system, T* window) {
    const GeneralBand<T> a{ab + system * s.rows * s.n, s.n, l, u};
    const Factors<T> to{factors.upper + system * s.rows * s.n, factors.multipliers + system * s.n * l,
                        factors.swaps + system * s.n};
    if (l == 1 && u == 1) return run([&] { lu_columns(a, to, window, 1, 1); });
    if (l == 2 && u == 2) return run([&] { lu_columns(a, to, window, 2, 2); });
    run([&] { lu_columns(a, to, window, l, u); });
  });
}

// An interchange outside the matrix would write outside the arrays.
inline void check_swaps(const Call& call, const std::int32_t* swaps, const Bands& s, Index l) {
  for (Index i = 0; i < s.batch * s.n; ++i)
    if (swaps[i] < 0 || swaps[i] > std::min(l, s.n - 1 - i % s.n))
      throw Invalid(std::string(call.kernel) + ": swaps must stay within the matrix");
}

// Kernel. What `lu` gives, b (n, k), option `transpose` -> A^-1 b, or A^-T b.
template <class T>
void lu_solve(Call& call) {
  const Bands s = columns_of(call.matrices(0));
  const Index l = call.operands[1].rank ? call.operands[1].dims[call.operands[1].rank - 1] : 0;
  const Index k = call.right_hand_sides(3);
  const Index size = s.n * k;
  const T* upper = call.operand<T>(0, {s.n, s.rows});
  const T* multipliers = call.operand<T>(1, {s.n, l});
  const std::int32_t* swaps = call.operand<std::int32_t>(2, {s.n});
  const T* b = call.operand<T>(3, {s.n, k});
  T* x = call.result<T>(0, {s.n, k});
  const bool transpose = call.whole(0, 1);
  check_swaps(call, swaps, s, l);
  s.each<T, 1>(call.pool, 0, [&](Index system, T*) {
    const Factors<const T> of{upper + system * s.n * s.rows, multipliers + system * s.n * l, nullptr};
    const std::int32_t* exchanges = swaps + system * s.n;
    T* y = x + system * size;
    std::copy_n(b + system * size, size, y);
    if (k == 1) {
      run([&] { lu_rows(of, exchanges, y, 1, s.n, l, s.rows, transpose); });
    } else {
      run([&] { lu_rows(of, exchanges, y, k, s.n, l, s.rows, transpose); });
    }
  });
}

}  // namespace bandhess
