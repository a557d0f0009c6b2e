// Squares of numbers turned about their diagonal in registers: rows become columns.
#pragma once

#include <utility>

#include "element.h"

namespace bandhess {

// A register of numbers at any address.
template <class T>
struct Register {
  static constexpr int C = kLaneBytes / sizeof(T);
  typedef T type __attribute__((vector_size(kLaneBytes), aligned(sizeof(T)), may_alias));
};

template <class T>
INLINE typename Register<T>::type& at(T* numbers) {
  return *reinterpret_cast<typename Register<T>::type*>(numbers);
}

template <class T>
INLINE const typename Register<T>::type& at(const T* numbers) {
  return *reinterpret_cast<const typename Register<T>::type*>(numbers);
}

// Entries Index of a and b one after the other.
template <class V, int... Entry>
INLINE V pick(V a, V b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, Entry...);
#else
  constexpr int size = sizeof(a[0]);
  typedef std::conditional_t<size == 8, std::int64_t, std::int32_t> Mask __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, Mask{Entry...});
#endif
}

// [a b]    [a c]
// [c d] -> [b d]   for blocks of H entries all along two rows that are H apart.
template <int H, class V, std::size_t... I>
INLINE void exchange_blocks(V& upper, V& lower, std::index_sequence<I...>) {
  constexpr int C = sizeof...(I);
  const V above = pick<V, (I & H ? int(C + I - H) : int(I))...>(upper, lower);
  lower = pick<V, (I & H ? int(C + I) : int(I + H))...>(upper, lower);
  upper = above;
}

// C rows of C entries: blocks of half the size, of a quarter, ..., of one.
template <int C, class V, int H = C / 2>
INLINE void transpose(V* rows) {
  if constexpr (H > 0) {
    UNROLL for (int i = 0; i < C; ++i) {
      if (!(i & H)) exchange_blocks<H>(rows[i], rows[i + H], std::make_index_sequence<C>());
    }
    transpose<C, V, H / 2>(rows);
  }
}

// The square whose row i is at from(i), turned, row after row to to(i).
template <class T, class From, class To>
INLINE void turn_square(const From& from, const To& to) {
  constexpr int C = Register<T>::C;
  typename Register<T>::type rows[C];
  UNROLL for (int i = 0; i < C; ++i) rows[i] = at<T>(from(i));
  transpose<C>(rows);
  UNROLL for (int i = 0; i < C; ++i) at<T>(to(i)) = rows[i];
}

}  // namespace bandhess
