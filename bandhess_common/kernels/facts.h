// What the trust-region method knows of a point: the numbers of optimise/newton/point.py's `Facts`.
#pragma once

#include "bands.h"

namespace bandhess {

// In the order of `Facts`.
template <class T>
struct Facts {
  T value, grad_length, length, slope, grad_norm, least, low, high, rounding;
};

// The largest f(i) of i < n, NaN where one is. By blocks, which the compiler turns into vectors.
template <class T, class F>
INLINE T largest_of(Index n, const F& f) {
  constexpr int kBlock = 64, kLanes = kLaneBytes / sizeof(T);
  constexpr T kLeast = -std::numeric_limits<T>::infinity();
  typedef T Vector __attribute__((vector_size(kLaneBytes), may_alias));
  alignas(kLaneBytes) T block[kBlock];
  Vector top = kLeast - Vector{};
  auto unordered = top != top;
  for (Index i = 0; i < n; i += kBlock) {
    const Index count = std::min<Index>(kBlock, n - i);
    for (Index l = 0; l < count; ++l) block[l] = f(i + l);
    for (Index l = count; l < kBlock; ++l) block[l] = kLeast;
    UNROLL for (int l = 0; l < kBlock; l += kLanes) {
      const Vector a = *reinterpret_cast<const Vector*>(block + l);
      top = a > top ? a : top;
      unordered |= a != a;
    }
  }
  T most = kLeast;
  for (int l = 0; l < kLanes; ++l) most = unordered[l] || most != most ? kNaN<T> : std::max(most, top[l]);
  return most;
}

// Row by row, sums of |H| off the diagonal, and |H| |x|, added up as point.py does. A block stays in the first cache.
template <class T>
INLINE void add_rows(const Bands& s, const T* ab, const T* x, T* radius, T* size) {
  constexpr Index kBlock = 512;
  for (Index begin = 0; begin < s.n; begin += kBlock) {
    const Index end = std::min(begin + kBlock, s.n);
    for (Index i = begin; i < end; ++i) radius[i] = std::abs(ab[i]);
    for (Index i = begin; i < end; ++i) size[i] = std::abs(ab[i]) * std::abs(x[i]);
    for (Index d = 1; d <= s.w; ++d) {
      const T* cells = ab + d * s.n;
#pragma GCC ivdep
      for (Index i = std::max(begin, d); i < end; ++i) {
        radius[i] += std::abs(cells[i - d]);
        size[i] += std::abs(cells[i - d]) * std::abs(x[i - d]);
      }
#pragma GCC ivdep
      for (Index i = begin; i < std::min(end, s.n - d); ++i) {
        radius[i] += std::abs(cells[i]);
        size[i] += std::abs(cells[i]) * std::abs(x[i + d]);
      }
    }
    for (Index i = begin; i < end; ++i) radius[i] -= std::abs(ab[i]);
  }
}

// memory for 2 n numbers.
template <class T>
Facts<T> facts_of(const Bands& s, const T* ab, const T* g, const T* x, const T* p, T value, T* memory) {
  T *radius = memory, *size = memory + s.n;
  Facts<T> found;
  run([&] {
    add_rows(s, ab, x, radius, size);
    found.value = value;
    found.grad_length = std::sqrt(dot(g, g, s.n));
    found.length = std::sqrt(dot(x, x, s.n));
    found.slope = dot(g, p, s.n);
    found.grad_norm = largest_of<T>(s.n, [=](Index i) { return std::abs(g[i]); });
    found.least = -largest_of<T>(s.n, [=](Index i) { return -ab[i]; });
    found.low = -largest_of<T>(s.n, [=](Index i) { return radius[i] - ab[i]; });
    found.high = largest_of<T>(s.n, [=](Index i) { return radius[i] + ab[i]; });
    found.rounding = std::numeric_limits<T>::epsilon() * largest_of<T>(s.n, [=](Index i) { return size[i]; });
  });
  return found;
}

}  // namespace bandhess
