// H + shift I of one system for one shift after the other: what the trust region's search factorises.
#pragma once

#include "ldl.h"
#include "tridiagonal.h"

namespace bandhess {

// The factors M D M^T in columns [d, m]; a tridiagonal one is factored from both ends.
template <class T>
class Shifted {
 public:
  Shifted(const Bands& s, const T* ab, T* scratch) : s_(s), ab_(ab), state_(scratch), columns_(scratch + s.state()) {}

  static Index scratch(const Bands& s) { return s.state() + s.n * s.stride; }

  // False where it is not positive definite.
  bool factorise(T shift) {
    bool ok = true;
    if (s_.w == 1) {
      run([&] { ok = tridiagonal_columns(ab_, ab_ + s_.n, shift, columns_, s_.n); });
      return ok;
    }
    const Lanes<const T, 1> from(ab_, s_.rows * s_.n, 0, 1);
    std::fill_n(state_, s_.window(), T(0));
    for (Index j = 0; ok && j < s_.n; j += kTile) {
      const Index count = std::min(kTile, s_.n - j);
      T* tile = columns_ + j * s_.stride;
      gather(tile, s_.stride, from, s_.rows, s_.n, j, count);
      for (Index t = 0; t < count; ++t) tile[t * s_.stride] += shift;
      eliminate_tile<false>(s_, state_, tile, count);
      ok &= all_positive(tile, s_.stride, count);
    }
    return ok;
  }

  // x <- M^-1 x
  void forward(T* x) {
    if (s_.w == 1) return run([&] { tridiagonal_forward(columns_, x, s_.n); });
    std::fill_n(state_, s_.state(), T(0));
    tiles(s_.n, [&](Index j, Index count) {
      bandhess::forward<T>(s_, state_, columns_ + j * s_.stride, x, 1, j, count);
    });
  }

  // x <- M^-T D^-1 x
  void backward(T* x) {
    if (s_.w == 1) return run([&] { tridiagonal_backward(columns_, x, s_.n); });
    std::fill_n(state_, s_.state(), T(0));
    tiles_upwards(s_.n, [&](Index j, Index count) {
      bandhess::backward<T>(s_, state_, columns_ + j * s_.stride, x, 1, j, count);
    });
  }

  void solve(T* x) {
    forward(x);
    backward(x);
  }

  // x^T D^-1 x
  T energy(const T* x) {
    Sum<T> sum;
    run([&] {
      for (Index i = 0; i < s_.n; ++i) sum.part[i % Sum<T>::kParts] += x[i] * (x[i] / columns_[i * s_.stride]);
    });
    return sum.total();
  }

 private:
  const Bands& s_;
  const T* ab_;
  T* state_;
  T* columns_;
};

}  // namespace bandhess
