// Sums and maxima over vectors, in partial ones as `dot` in element.h has them.
#pragma once

#include <algorithm>
#include <cmath>

#include "../dispatch.h"
#include "../element.h"

namespace bandhess::interior {

constexpr int kParts = 8;

// f(begin) + .. + f(end - 1); NaN where a term is.
template <class T, class F>
T sum(Index begin, Index end, const F& f) {
  T result;
  run([&] {
    T part[kParts] = {};
    Index i = begin;
    for (; i + kParts <= end; i += kParts) {
      UNROLL for (int l = 0; l < kParts; ++l) part[l] += f(i + l);
    }
    for (; i < end; ++i) part[0] += f(i);
    result = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  });
  return result;
}

// The largest |f(i)|, 0 of none; NaN where one is NaN or infinite. By blocks, which the compiler turns into vectors.
template <class T, class F>
T largest(Index begin, Index end, const F& f) {
  constexpr int kBlock = 64, kLanes = kLaneBytes / sizeof(T);
  T result;
  run([&] {
    typedef T Vector __attribute__((vector_size(kLaneBytes), may_alias));
    alignas(kLaneBytes) T block[kBlock];
    Vector top[2] = {}, total[2] = {};
    for (Index i = begin; i < end; i += kBlock) {
      const Index count = std::min<Index>(kBlock, end - i);
      for (Index l = 0; l < count; ++l) block[l] = std::abs(f(i + l));
      for (Index l = count; l < kBlock; ++l) block[l] = 0;
      for (int l = 0; l < kBlock; l += 2 * kLanes) {
        UNROLL for (int k = 0; k < 2; ++k) {
          const Vector a = *reinterpret_cast<const Vector*>(block + l + k * kLanes);
          top[k] = a > top[k] ? a : top[k];
          total[k] += a;
        }
      }
    }
    T most = 0, sum = 0;
    for (int l = 0; l < kLanes; ++l) {
      most = std::max(most, std::max(top[0][l], top[1][l]));
      sum += total[0][l] + total[1][l];
    }
    result = most + 0 * sum;
  });
  return result;
}

template <class T>
T largest(const T* v, Index n) {
  constexpr int kLanes = kLaneBytes / sizeof(T);
  typedef T Vector __attribute__((vector_size(kLaneBytes), aligned(sizeof(T)), may_alias));
  T most = 0, sum = 0;
  run([&] {
    Vector top[2] = {}, total[2] = {};
    Index i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      UNROLL for (int k = 0; k < 2; ++k) {
        const Vector a = *reinterpret_cast<const Vector*>(v + i + k * kLanes), size = a > 0 ? a : -a;
        top[k] = size > top[k] ? size : top[k];
        total[k] += size;
      }
    }
    for (; i < n; ++i) {
      most = std::max(most, std::abs(v[i]));
      sum += std::abs(v[i]);
    }
    for (int l = 0; l < kLanes; ++l) {
      most = std::max(most, std::max(top[0][l], top[1][l]));
      sum += total[0][l] + total[1][l];
    }
  });
  return most + 0 * sum;
}

template <class T>
T inner(const T* a, const T* b, Index n) {
  return sum<T>(0, n, [=](Index i) { return a[i] * b[i]; });
}

// f(begin) .. f(end - 1), for what they write.
template <class F>
void each(Index begin, Index end, const F& f) {
  run([&] {
#pragma GCC ivdep
    for (Index i = begin; i < end; ++i) f(i);
  });
}

// The sum of log f(i), eight of them by one logarithm of their product; NaN or -inf where f is not positive.
template <class F>
double sum_of_logs(Index begin, Index end, const F& f) {
  double total = 0;
  run([&] {
    Index i = begin;
    for (; i + kParts <= end; i += kParts) {
      double product = 1, least = f(i);
      UNROLL for (int l = 0; l < kParts; ++l) {
        const double a = f(i + l);
        product *= a;
        least = a < least ? a : least;
      }
      if (least > 0 && product > 1e-290 && product < 1e290) {
        total += std::log(product);
      } else {
        for (int l = 0; l < kParts; ++l) total += std::log(static_cast<double>(f(i + l)));
      }
    }
    for (; i < end; ++i) total += std::log(static_cast<double>(f(i)));
  });
  return total;
}

// Numbers in [-1, 1) as band/noise.py has them.
INLINE double noise(Index i, std::uint32_t seed) {
  std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed * 40503u;
  h = (h ^ (h >> 16)) * 2246822507u;
  h = (h ^ (h >> 13)) * 3266489909u;
  return (h ^ (h >> 16)) / 2147483648.0 - 1;
}

}  // namespace bandhess::interior
