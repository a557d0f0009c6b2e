// Lists of arithmetic operations on arrays, number by number: most of what a tape of PyTorch's operations holds. There
// is nothing between two of them but a jump, and a list on matrices of as many rows goes row by row, so that what one
// operation writes is in cache when the next one reads it.
#pragma once

#include "call.h"

#define BANDHESS_ARITHMETIC(OPERATION) \
  OPERATION(add, a + b)                \
  OPERATION(sub, a - b)                \
  OPERATION(mul, a * b)                \
  OPERATION(div, a / b)                \
  OPERATION(neg, -a)                   \
  OPERATION(abs, std::abs(a))          \
  OPERATION(copy, a)

namespace bandhess {

// An array's data, and how many numbers lie between neighbours along each axis: rows, and two more. 0: it is repeated.
struct Place {
  std::int64_t data, row, outer, inner;
};

// out = a, or of a and b, over the rows and over outer x inner numbers in each. out is a or b, or overlaps neither.
struct Operation {
  std::int64_t code, dtype, outer, inner;
  Place out, a, b;
};

template <class T, class F>
INLINE void along(T* out, Index step, const T* a, Index a_step, const T* b, Index b_step, Index count, const F& f) {
  if (step == 1 && a_step == 1 && b_step == 1) {
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) out[i] = f(a[i], b[i]);
  } else if (step == 1 && a_step == 1 && b_step == 0) {
    const T number = *b;
#pragma GCC ivdep
    for (Index i = 0; i < count; ++i) out[i] = f(a[i], number);
  } else {
    for (Index i = 0; i < count; ++i) out[i * step] = f(a[i * a_step], b[i * b_step]);
  }
}

template <class T>
INLINE T* at(const Place& place, Index row, Index outer) {
  return reinterpret_cast<T*>(place.data) + row * place.row + outer * place.outer;
}

template <class T>
INLINE void operate(const Operation& o, Index row) {
  for (Index i = 0; i < o.outer; ++i) {
    T* const out = at<T>(o.out, row, i);
    const T *a = at<const T>(o.a, row, i), *b = at<const T>(o.b, row, i);
    enum Code {
#define BANDHESS_CODE(name, result) k_##name,
      BANDHESS_ARITHMETIC(BANDHESS_CODE)
#undef BANDHESS_CODE
    };
    switch (static_cast<Code>(o.code)) {
#define BANDHESS_CASE(name, result)                                                       \
  case k_##name:                                                                          \
    along(out, o.out.inner, a, o.a.inner, b, o.b.inner, o.inner,                          \
          [](T a, [[maybe_unused]] T b) { return result; });                              \
    break;
      BANDHESS_ARITHMETIC(BANDHESS_CASE)
#undef BANDHESS_CASE
    }
  }
}

INLINE void operate_all(const Operation* operations, Index count, Index rows) {
  for (Index row = 0; row < rows; ++row) {
    for (const Operation* o = operations; o < operations + count; ++o) {
      o->dtype == static_cast<int>(DType::kFloat64) ? operate<double>(*o, row) : operate<float>(*o, row);
    }
  }
}

// In kernels.cc.
void arithmetic(const Operation* operations, Index count, Index rows);

}  // namespace bandhess
