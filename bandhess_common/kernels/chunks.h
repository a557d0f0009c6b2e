// Registers of a row's numbers, of which the last one may be used in part.
#pragma once

#include "bands.h"

namespace bandhess {

// What B columns at a time are made of: of vectors with a system per lane, row by row; of numbers in registers, of C rows
// each.
template <class V, bool = std::is_arithmetic_v<V>>
struct Chunks {
  static constexpr int C = 1, B = 2;
  typedef V type;
};
template <class T>
struct Chunks<T, true> {
  static constexpr int C = Register<T>::C, B = C;
  typedef typename Register<T>::type type;
};

// The first `used` entries of a chunk, of which the others are zero, and back.
template <class V, class Chunk>
INLINE Chunk load_part(const V* entries, int used) {
  constexpr int C = Chunks<V>::C;
  if (used >= C) return *reinterpret_cast<const Chunk*>(entries);
  Chunk chunk{};
  if constexpr (C > 1) {
    for (int l = 0; l < C; ++l) chunk[l] = l < used ? entries[l] : 0;
  }
  return chunk;
}

template <class V, class Chunk>
INLINE void store_part(V* entries, int used, const Chunk& chunk) {
  constexpr int C = Chunks<V>::C;
  if (used >= C) {
    *reinterpret_cast<Chunk*>(entries) = chunk;
  } else if constexpr (C > 1) {
    for (int l = 0; l < used; ++l) entries[l] = chunk[l];
  }
}

}  // namespace bandhess
