// What all kernels compute with: the index type, elements that are numbers or vectors of them, and a few sums.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

// `always_inline`, so that a kernel is compiled once for every processor that `run` in dispatch.h tells apart.
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 17")

namespace bandhess {

using Index = std::int64_t;

constexpr int kLaneBytes = 32;  // one register of AVX2, two of SSE2 or NEON

// The numbers of two registers side by side. Their operations do not wait for each other.
template <class T>
struct Two {
  typedef T V __attribute__((vector_size(kLaneBytes)));

  V low;
  V high;

  Two() = default;
  INLINE Two(const V& low, const V& high) : low(low), high(high) {}
  // Written out, as compilers copy memory otherwise, and not registers.
  INLINE Two(const Two& other) : low(other.low), high(other.high) {}
  INLINE Two& operator=(const Two& other) {
    low = other.low;
    high = other.high;
    return *this;
  }

  friend INLINE Two operator+(const Two& a, const Two& b) { return {a.low + b.low, a.high + b.high}; }
  friend INLINE Two operator-(const Two& a, const Two& b) { return {a.low - b.low, a.high - b.high}; }
  friend INLINE Two operator*(const Two& a, const Two& b) { return {a.low * b.low, a.high * b.high}; }
  friend INLINE Two operator/(const Two& a, const Two& b) { return {a.low / b.low, a.high / b.high}; }
  friend INLINE Two operator/(T a, const Two& b) { return {a / b.low, a / b.high}; }
  INLINE Two& operator+=(const Two& other) { return *this = *this + other; }
  INLINE Two& operator-=(const Two& other) { return *this = *this - other; }
};

template <class V>
constexpr bool kSeveralRegisters = false;
template <class T>
constexpr bool kSeveralRegisters<Two<T>> = true;

// The element of L systems side by side: the number T, or a vector with one system per lane, or several.
template <class T, int L, int R = L * int(sizeof(T)) / kLaneBytes>
struct Element {
  static_assert(R == 2);
  typedef Two<T> type;
};
template <class T, int L>
struct Element<T, L, 1> {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
};
template <class T>
struct Element<T, 1, 0> {
  typedef T type;
};

// `count` numbers and what is left of the last one's vector.
template <class T>
constexpr Index whole_vectors(Index count) {
  constexpr Index C = kLaneBytes / sizeof(T);
  return (count + C - 1) / C * C;
}

template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

// Whether a pivot lies in (0, inf); false for NaN.
template <class T>
INLINE bool positive(T pivot) {
  return pivot > 0 && pivot < std::numeric_limits<T>::infinity();
}

// Eight partial sums: the compiler keeps the order of additions, so one sum would be one chain of them.
template <class V>
struct Sum {
  static constexpr int kParts = 8;
  V part[kParts] = {};

  INLINE V total() const {
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  }
};

// a^T b for vectors of n entries.
template <class V>
INLINE V dot(const V* a, const V* b, Index n) {
  constexpr int P = Sum<V>::kParts;
  Sum<V> sum;
  Index i = 0;
  for (; i + P <= n; i += P) {
    UNROLL for (int l = 0; l < P; ++l) sum.part[l] += a[i + l] * b[i + l];
  }
  for (; i < n; ++i) sum.part[i % P] += a[i] * b[i];
  return sum.total();
}

}  // namespace bandhess
