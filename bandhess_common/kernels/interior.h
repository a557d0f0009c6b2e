// The kernels of the interior-point method by requests: interior/loop.h on the state that interior/state.h lays out.
#pragma once

#include "interior/loop.h"
#include "interior/narrow.h"

namespace bandhess {

constexpr Index kMostEntries = 100'000'000;  // of a vector

// Result 0, a copy of operand 0 where it is not the same array.
template <class T>
T* state_of(Call& call, Index size, Index* batch) {
  *batch = call.vectors(0);
  const T* from = call.operand<T>(0, {size});
  T* to = call.result<T>(0, {size});
  if (from != to) std::copy_n(from, *batch * size, to);
  return to;
}

inline void check_windows(const Call& call, const Bands& s, const std::int32_t* first, Index count) {
  for (Index i = 0; i < count; ++i)
    if (first[i] < 0 || first[i] > s.n - s.w - 1)
      throw Invalid(std::string("bandhess_") + call.kernel + ": a row's window does not lie among the variables");
}

// Kernel. The problem, a start, numbers, constants, the state before -> state. Options: rows of W's band, m, p.
template <class T>
void interior_start(Call& call) {
  using namespace interior;
  const Index batch = call.vectors(0), n = call.operands[0].dims[call.operands[0].rank - 1];
  const Index r = call.operands[3].rank > 0 ? call.operands[3].dims[call.operands[3].rank - 1] : 0;
  const Index rows = call.whole(0, 1 << 20), m = call.whole(1, r), p = call.whole(2, n);
  const Sizes sizes{n, r, rows, p};
  const Bands s(batch, rows, n - p);
  const Index size = State<T>::size(sizes);
  const T* vectors[8] = {call.operand<T>(0, {n}), call.operand<T>(1, {n}), call.operand<T>(2, {n}), nullptr,
                         call.operand<T>(4, {n}), call.operand<T>(5, {r}), call.operand<T>(6, {n}),
                         call.operand<T>(7, {n})};
  const std::int32_t* first = call.operand<std::int32_t>(3, {r});
  const T* numbers = call.operand<T>(8, {4});
  const T* constants = call.operand<T>(9, {kConstants});
  T* states = call.result<T>(0, {size});
  const T* before = call.operand<T>(10, {size});
  check_windows(call, s, first, batch * r);
  s.each<T, 1>(call.pool, 1, [&](Index i, T*) {
    if (numbers[i * 4 + 2] < 0) {
      if (states != before) std::copy_n(before + i * size, size, states + i * size);
      return;
    }
    std::fill_n(states + i * size, size, T(0));
    const State<T> state(states + i * size, sizes, constants + i * kConstants);
    const auto at = [&](int k, Index count) { return vectors[k] + i * count; };
    const T* number = numbers + i * 4;
    const Problem<T> problem{at(0, n), at(1, n), at(2, n), first + i * r, at(4, n), at(5, r), at(6, n),
                             at(7, n), number[0], number[1], number[2], number[3]};
    start(state, problem, static_cast<T>(m));
  });
}

// Kernel. State, f, h (r), gradient (n), rows (r, L + p), W (its first diagonals and p rows, n), narrow -> state.
// Options: p.
template <class T>
void interior_begin(Call& call) {
  using namespace interior;
  const Matrices whole = call.matrices(5);
  const Index n = whole.columns, p = call.whole(0, std::min(n, whole.rows - 1));
  const Array& of_rows = call.operands[4];
  const Index L = of_rows.rank > 1 ? of_rows.dims[of_rows.rank - 1] : 0, r = L ? of_rows.dims[of_rows.rank - 2] : 0;
  const Bands s(whole.batch, L - p, n - p);
  const Index diagonals = std::min<Index>(whole.rows - p, s.w + 1);
  const Sizes sizes{n, r, s.rows, p};
  const Index size = State<T>::size(sizes);
  Index batch;
  const T* f = call.operand<T>(1, {});
  const T* values = call.operand<T>(2, {r});
  const T* gradient = call.operand<T>(3, {n});
  const T* rows = call.operand<T>(4, {r, L});
  const T* w = call.operand<T>(5, {whole.rows, n});
  const T* narrow = call.operand<T>(6, {});
  T* states = state_of<T>(call, size, &batch);
  s.each<T, 1>(call.pool, 1, [&](Index i, T*) {
    const State<T> state(states + i * size, sizes);
    Loop<T>(state).begin({f[i], values + i * r, gradient + i * n, rows + i * r * L, w + i * whole.rows * n, diagonals,
                          narrow[i]});
  });
}

// Kernel. State, f, h (r) -> state. Options: n, rows, p.
template <class T>
void interior_trial(Call& call) {
  using namespace interior;
  const Index n = call.whole(0, kMostEntries), rows = call.whole(1, 1 << 20), p = call.whole(2, n);
  const Array& h = call.operands[2];
  const Index r = h.rank > 0 ? h.dims[h.rank - 1] : 0;
  const Sizes sizes{n, r, rows, p};
  const Index size = State<T>::size(sizes);
  Index batch;
  T* states = state_of<T>(call, size, &batch);
  const T* f = call.operand<T>(1, {});
  const T* values = call.operand<T>(2, {r});
  const Bands s(batch, rows, n - p);
  s.each<T, 1>(call.pool, 1, [&](Index i, T*) {
    const State<T> state(states + i * size, sizes);
    Loop<T>(state).trial(f[i], values + i * r);
  });
}

// Kernel. W (as before), rows (r, L + p), first (r), v (n), (W v, J v) (n + r), the same rounded otherwise -> narrow.
// Options: p.
template <class T>
void interior_narrow(Call& call) {
  using namespace interior;
  const Matrices whole = call.matrices(0);
  const Index n = whole.columns, p = call.whole(0, std::min(n, whole.rows - 1));
  const Array& of_rows = call.operands[1];
  const Index L = of_rows.rank > 1 ? of_rows.dims[of_rows.rank - 1] : 0, r = L ? of_rows.dims[of_rows.rank - 2] : 0;
  const Bands s(whole.batch, L - p, n - p);
  const T* w = call.operand<T>(0, {whole.rows, n});
  const T* rows = call.operand<T>(1, {r, L});
  const std::int32_t* first = call.operand<std::int32_t>(2, {r});
  const T* v = call.operand<T>(3, {n});
  const T* product = call.operand<T>(4, {n + r});
  const T* again = call.operand<T>(5, {n + r});
  T* verdict = call.result<T>(0, {});
  check_windows(call, s, first, whole.batch * r);
  s.each<T, 1>(call.pool, 2 * (n + r), [&](Index i, T* memory) {
    const Extracted<T> of{s, n, r, p, whole.rows - p, w + i * whole.rows * n, rows + i * r * L, first + i * r};
    verdict[i] = narrow(of, v + i * n, product + i * (n + r), again + i * (n + r), memory);
  });
}

// Kernel. State -> x (n), y (r), z_lower (n), z_upper (n), mu, unscaled. Options: n, r, rows, p.
template <class T>
void interior_solution(Call& call) {
  using namespace interior;
  const Index n = call.whole(0, kMostEntries), r = call.whole(1, kMostEntries), rows = call.whole(2, 1 << 20);
  const Sizes sizes{n, r, rows, call.whole(3, n)};
  const Index batch = call.vectors(0), size = State<T>::size(sizes);
  T* states = const_cast<T*>(call.operand<T>(0, {size}));
  T* x = call.result<T>(0, {n});
  T* y = call.result<T>(1, {r});
  T* z_lower = call.result<T>(2, {n});
  T* z_upper = call.result<T>(3, {n});
  T* mu = call.result<T>(4, {});
  for (Index i = 0; i < batch; ++i) {
    const State<T> s(states + i * size, sizes);
    const T scale = s.reg.f_scale;
    for (Index j = 0; j < n; ++j) x[i * n + j] = s.unit[j] * s.x[j];
    for (Index j = 0; j < n; ++j) z_lower[i * n + j] = s.z_lower[j] / (s.unit[j] * scale);
    for (Index j = 0; j < n; ++j) z_upper[i * n + j] = s.z_upper[j] / (s.unit[j] * scale);
    for (Index k = 0; k < r; ++k) y[i * r + k] = s.y[k] * s.h_scale[k] / scale;
    mu[i] = (s.elastic() ? s.reg.main_barrier : s.reg.barrier) / scale;
  }
}

}  // namespace bandhess
