// What the condensed matrix is made of: how the rows weigh beside H, and H by columns.
#pragma once

#include "products.h"

namespace bandhess::interior {

// gamma from w1 = 1 / sizes of H's rows; G.
template <class T>
void weigh_rows(const State<T>& s) {
  const Constants<T>& c = s.constants();
  Registers<T>& reg = s.reg;
  T* squares = s.v1;
  with_stride(s, [&](auto stride) {
    const int S = stride;
    for (Index i = 0; i < s.r; ++i) {
      const T* a = s.row(0) + i * S;
      const T* b = s.w1 + s.starts()[i];
      s.gamma[i] = sum_of_window<T>(S, WeightedSquare<T>{a, b});
      squares[i] = sum_of_window<T>(S, Product<T>{a, a});
    }
  });
  for (Index q = 0; q < s.p; ++q)
    each(0, s.r, [=, a = s.column(q), by = s.w1[s.banded + q], gamma = s.gamma](Index i) {
      gamma[i] += by * a[i] * a[i];
      squares[i] += a[i] * a[i];
    });
  const T top = largest(squares, s.r);
  reg.row_size = std::sqrt(top);
  const T eps = std::numeric_limits<T>::epsilon();
  const T least = (top > 0 ? eps * top : T(1)) / reg.size_w;
  each(0, s.r, [=, gamma = s.gamma, e = s.e, g = s.g, by = c.gamma](Index i) {
    gamma[i] = by * std::max(gamma[i], least);
    g[i] = 1 / (e[i] + gamma[i]);
  });
}

// H by columns
template <class T>
void fill_matrix(const State<T>& s) {
  const Index n = s.n, banded = s.banded;
  with_stride(s, [&](auto stride) {
    const int S = stride;
    T* column = s.matrix;
    for (Index j = 0; j < banded; ++j, column += S) {
      const int used = static_cast<int>(std::min(s.diagonals() - 1, banded - 1 - j));
      column[0] = s.w[j] + s.diagonal[j];
      for (int i = 1; i <= used; ++i) column[i] = s.w[i * n + j];
      for (int i = used + 1; i < S; ++i) column[i] = 0;
    }
  });
}

}  // namespace bandhess::interior
