// Whether products with noise differ from those with the band and the rows that were extracted, by more than rounding
// explains: then entries lie outside.
#pragma once

#include "products.h"

namespace bandhess::interior {

// What was extracted of the Hessian and of r rows of the Jacobian, unscaled, the last p of the n variables being shared.
template <class T>
struct Extracted {
  const Bands& s;  // of the banded variables
  Index n, r, p, diagonals;
  const T* w;     // (diagonals + p, n), as the state has it
  const T* rows;  // (r, s.w + 1 + p)
  const std::int32_t* first;

  // known = (W v, J v) and scale = (|W| |v|, |J| |v|), `(n + r,)` both.
  void multiply(const T* v, T* known, T* scale) const {
    run([&] {
      std::fill_n(known, n, T(0));
      std::fill_n(scale, n, T(0));
      for (Index j = 0; j < s.n; j += kBlock) multiply_columns(v, j, std::min(j + kBlock, s.n), known, scale);
      for (Index q = 0; q < p; ++q) multiply_shared(v, q, known, scale);
      multiply_rows(v, known + n, scale + n);
    });
  }

 private:
  static constexpr Index kBlock = 512;  // columns, whose vectors stay in the first cache

  static INLINE void add(T term, T* known, T* scale) {
    *known += term;
    *scale += std::abs(term);
  }

  void multiply_columns(const T* v, Index begin, Index end, T* known, T* scale) const {
    for (Index j = begin; j < end; ++j) add(w[j] * v[j], known + j, scale + j);
    for (Index i = 1; i < std::min<Index>(diagonals, s.w + 1); ++i) {
      const T* below = w + i * n;
      const Index last = std::min(end, s.n - i);
#pragma GCC ivdep
      for (Index j = begin; j < last; ++j) add(below[j] * v[j + i], known + j, scale + j);
#pragma GCC ivdep
      for (Index j = begin; j < last; ++j) add(below[j] * v[j], known + j + i, scale + j + i);
    }
  }

  // The diagonal of shared variable q, and its row: with all others.
  void multiply_shared(const T* v, Index q, T* known, T* scale) const {
    const T* row = w + (diagonals + q) * n;
    const Index at = s.n + q;
    add(w[at] * v[at], known + at, scale + at);
    for (Index j = 0; j < n; ++j) add(row[j] * v[j], known + at, scale + at);
    for (Index j = 0; j < s.n; ++j) add(row[j] * v[at], known + j, scale + j);
  }

  void multiply_rows(const T* v, T* known, T* scale) const {
    const Index L = s.w + 1;
    for (Index i = 0; i < r; ++i) {
      const T *row = rows + i * (L + p), *own = v + first[i];
      known[i] = sum_of_window<T>(static_cast<int>(L), Product<T>{row, own});
      scale[i] = sum_of_window<T>(static_cast<int>(L), SizeOfProduct<T>{row, own});
      for (Index q = 0; q < p; ++q) add(row[L + q] * v[s.n + q], known + i, scale + i);
    }
  }
};

// 0, 1: the Hessian has entries outside the band, 2 + i: row i of the Jacobian outside its window. `product` is what the
// operators themselves give, `again` the same by another way of rounding; memory for 2 (n + r) numbers.
template <class T>
T narrow(const Extracted<T>& of, const T* v, const T* product, const T* again, T* memory) {
  const Index n = of.n, size = of.n + of.r;
  T *known = memory, *scale = memory + size;
  of.multiply(v, known, scale);
  constexpr T eps = std::numeric_limits<T>::epsilon();
  const T noise = 64 * largest<T>(0, size, [=](Index i) {
    return scale[i] > 0 ? (product[i] - again[i]) / scale[i] : T(0);
  });
  const T relative = std::isnan(noise) ? noise : std::max(std::sqrt(eps), noise);
  // How many entries from begin on are wrong.
  const auto wrong = [=](Index begin, Index end, T top) {
    return sum<T>(begin, end, [=](Index i) {
      const T error = std::abs(product[i] - known[i]);
      return T((error > relative * scale[i]) & (error > top));
    });
  };
  const T top = 32 * eps * largest(scale + n, of.r);
  if (wrong(n, size, top) > 0) {
    Index i = n;
    while (!(wrong(i, i + 1, top) > 0)) ++i;
    return static_cast<T>(2 + i - n);
  }
  return wrong(0, n, 32 * eps * largest(scale, n)) > 0 ? T(1) : T(0);
}

}  // namespace bandhess::interior
