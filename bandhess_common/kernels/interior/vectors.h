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

// The largest |f(i)|, 0 of none; NaN where one is NaN or infinite.
template <class T, class F>
T largest(Index begin, Index end, const F& f) {
  T result;
  run([&] {
    T top[kParts] = {};
    T bad[kParts] = {};
    Index i = begin;
    for (; i + kParts <= end; i += kParts) {
      UNROLL for (int l = 0; l < kParts; ++l) {
        const T a = std::abs(f(i + l));
        top[l] = a > top[l] ? a : top[l];
        bad[l] += a * T(0);
      }
    }
    for (; i < end; ++i) {
      const T a = std::abs(f(i));
      top[0] = a > top[0] ? a : top[0];
      bad[0] += a * T(0);
    }
    for (int l = 1; l < kParts; ++l) {
      top[0] = std::max(top[0], top[l]);
      bad[0] += bad[l];
    }
    result = top[0] + bad[0];
  });
  return result;
}

template <class T>
T largest(const T* v, Index n) {
  return largest<T>(0, n, [=](Index i) { return v[i]; });
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

// Numbers in [-1, 1) as interior_point/noise.py has them.
INLINE double noise(Index i, std::uint32_t seed) {
  std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed * 40503u;
  h = (h ^ (h >> 16)) * 2246822507u;
  h = (h ^ (h >> 13)) * 3266489909u;
  return (h ^ (h >> 16)) / 2147483648.0 - 1;
}

}  // namespace bandhess::interior
