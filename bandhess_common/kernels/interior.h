// The kernels of the interior-point method by requests: interior/loop.h on the state that interior/state.h lays out.
//
// E is the type of the user's functions and of all arrays but the state, whose numbers are doubles for either: for float
// it comes as words, two for each double. What a caller reads of a state is its head, a result of its own.
#pragma once

#include <optional>

#include "interior/loop.h"
#include "interior/narrow.h"

namespace bandhess {

constexpr Index kMostEntries = 100'000'000;  // of a vector
constexpr Index kNumbers = 5;                 // of a start

template <class E>
using Word = std::conditional_t<sizeof(E) == sizeof(double), double, std::int32_t>;
template <class E>
constexpr Index kWords = sizeof(double) / sizeof(Word<E>);  // of a double

// Doubles that come as words: where they lie, or in a copy where words are not aligned as doubles are.
template <class E>
class Doubles {
 public:
  Doubles(Word<E>* words, Index count) : words_(words), bytes_(count * sizeof(double)) {
    if (reinterpret_cast<std::uintptr_t>(words) % alignof(double) == 0) return;
    copy_.emplace(bytes_);
    std::memcpy(at(0), words_, bytes_);
  }

  double* at(Index i) const { return i + (copy_ ? copy_->template as<double>() : reinterpret_cast<double*>(words_)); }
  void write_back() const {
    if (copy_) std::memcpy(words_, at(0), bytes_);
  }

 private:
  Word<E>* words_;
  std::size_t bytes_;
  std::optional<Memory> copy_;
};

// Result 0: the states of a batch, copies of an operand where it is not the same array. Result 1: their heads.
template <class E>
struct States {
  const interior::Sizes sizes;
  const Index size, heads;
  Doubles<E> doubles;
  E* head;

  States(const Call& call, int before, const interior::Sizes& sizes, Index batch)
      : sizes(sizes),
        size(interior::State<double>::size(sizes)),
        heads(interior::kForCallers + sizes.n + sizes.r),
        doubles(moved(call, before, batch), batch * size),
        head(call.result<E>(1, {heads})) {}

  double* at(Index i) const { return doubles.at(i * size); }
  void show(Index i, const interior::State<double>& state) const {
    const double* registers = reinterpret_cast<const double*>(&state.reg);
    E* to = std::transform(registers, registers + interior::kForCallers, head + i * heads, to_e);
    to = std::transform(state.x_request, state.x_request + sizes.n, to, to_e);
    std::transform(state.y_request, state.y_request + sizes.r, to, to_e);
  }

 private:
  static E to_e(double a) { return static_cast<E>(a); }
  Word<E>* moved(const Call& call, int before, Index batch) const {
    const Word<E>* from = call.operand<Word<E>>(before, {size * kWords<E>});
    Word<E>* to = call.result<Word<E>>(0, {size * kWords<E>});
    if (from != to) std::copy_n(from, batch * size * kWords<E>, to);
    return to;
  }
};

// Arrays of E as doubles, one after the other in a scratch where E is not double.
class Widened {
 public:
  explicit Widened(double* scratch) : scratch_(scratch) {}
  const double* operator()(const double* from, Index) { return from; }
  const double* operator()(const float* from, Index count) {
    double* to = scratch_;
    scratch_ = std::copy_n(from, count, to);
    return to;
  }

 private:
  double* scratch_;
};

inline void check_windows(const Call& call, const Bands& s, const std::int32_t* first, Index count) {
  for (Index i = 0; i < count; ++i)
    if (first[i] < 0 || first[i] > s.n - s.w - 1)
      throw Invalid(std::string(call.kernel) + ": a row's window does not lie among the variables");
}

// Kernel. The problem, a start, numbers, constants, the state before -> state, head. Options: rows of W's band, m, p.
template <class E>
void interior_start(Call& call) {
  using namespace interior;
  const Index batch = call.vectors(0), n = call.operands[0].dims[call.operands[0].rank - 1];
  const Index r = call.operands[4].rank > 0 ? call.operands[4].dims[call.operands[4].rank - 1] : 0;
  const Index rows = call.whole(0, 1 << 20), m = call.whole(1, r), p = call.whole(2, n);
  const Sizes sizes{n, r, rows, p};
  const Bands s(batch, rows, n - p);
  const E* vectors[7] = {call.operand<E>(0, {n}), call.operand<E>(1, {n}), call.operand<E>(2, {n}),
                         call.operand<E>(3, {n}), call.operand<E>(4, {r}), call.operand<E>(5, {n}),
                         call.operand<E>(6, {n})};
  const E* numbers = call.operand<E>(7, {kNumbers});
  const Word<E>* constants = call.operand<Word<E>>(8, {kConstants * kWords<E>});
  const States<E> states(call, 9, sizes, batch);
  s.each<double, 1>(call.pool, 6 * n + r, [&](Index i, double* scratch) {
    const E* number = numbers + i * kNumbers;
    if (number[2] < 0) return states.show(i, State<double>(states.at(i), sizes));
    std::fill_n(states.at(i), states.size, 0.0);
    const State<double> state(states.at(i), sizes, constants + i * kConstants * kWords<E>);
    Widened widened(scratch);
    const auto at = [&](int k, Index count) { return widened(vectors[k] + i * count, count); };
    const Problem<double> problem{at(0, n), at(1, n), at(2, n), at(3, n), at(4, r), at(5, n), at(6, n),
                                  number[0], number[1], number[2], number[3], number[4]};
    start(state, problem, static_cast<double>(m));
    states.show(i, state);
  });
  states.doubles.write_back();
}

// Kernel. State, f, h (r), gradient (n), first (r), rows (r, L + p), W (its first diagonals and p rows, n), narrow ->
// state, head. Options: p.
template <class E>
void interior_begin(Call& call) {
  using namespace interior;
  const Matrices whole = call.matrices(6);
  const Index n = whole.columns, p = call.whole(0, std::min(n, whole.rows - 1));
  const Array& of_rows = call.operands[5];
  const Index L = of_rows.rank > 1 ? of_rows.dims[of_rows.rank - 1] : 0, r = L ? of_rows.dims[of_rows.rank - 2] : 0;
  const Bands s(whole.batch, L - p, n - p);
  const Index diagonals = std::min<Index>(whole.rows - p, s.w + 1), cells = whole.rows * n;
  const Sizes sizes{n, r, s.rows, p};
  const E* f = call.operand<E>(1, {});
  const E* values = call.operand<E>(2, {r});
  const E* gradient = call.operand<E>(3, {n});
  const std::int32_t* first = call.operand<std::int32_t>(4, {r});
  const E* rows = call.operand<E>(5, {r, L});
  const E* w = call.operand<E>(6, {whole.rows, n});
  const E* narrow = call.operand<E>(7, {});
  check_windows(call, s, first, whole.batch * r);
  if (whole.rows - p > diagonals && diagonals < n - p)  // beyond n - p there is nothing
    throw Invalid(std::string(call.kernel) + ": operand 6 must have at most " + std::to_string(diagonals + p) +
                  " rows, as many as fit the rows of operand 5, got " + call.operands[6].described());
  const States<E> states(call, 0, sizes, whole.batch);
  const Index scratch = sizeof(E) == sizeof(double) ? 0 : r + n + r * L + cells;
  s.each<double, 1>(call.pool, scratch + 1, [&](Index i, double* memory) {
    const State<double> state(states.at(i), sizes);
    Widened widened(memory);
    Loop<double>(state).begin({f[i], widened(values + i * r, r), widened(gradient + i * n, n), first + i * r,
                               widened(rows + i * r * L, r * L), widened(w + i * cells, cells), diagonals, narrow[i]});
    states.show(i, state);
  });
  states.doubles.write_back();
}

// Kernel. State, f, h (r) -> state, head. Options: n, rows, p.
template <class E>
void interior_trial(Call& call) {
  using namespace interior;
  const Index n = call.whole(0, kMostEntries), rows = call.whole(1, 1 << 20), p = call.whole(2, n);
  const Array& h = call.operands[2];
  const Index r = h.rank > 0 ? h.dims[h.rank - 1] : 0;
  const Sizes sizes{n, r, rows, p};
  const Index batch = call.vectors(0);
  const E* f = call.operand<E>(1, {});
  const E* values = call.operand<E>(2, {r});
  const Bands s(batch, rows, n - p);
  const States<E> states(call, 0, sizes, batch);
  s.each<double, 1>(call.pool, r + 1, [&](Index i, double* scratch) {
    const State<double> state(states.at(i), sizes);
    Loop<double>(state).trial(f[i], Widened(scratch)(values + i * r, r));
    states.show(i, state);
  });
  states.doubles.write_back();
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
template <class E>
void interior_solution(Call& call) {
  using namespace interior;
  const Index n = call.whole(0, kMostEntries), r = call.whole(1, kMostEntries), rows = call.whole(2, 1 << 20);
  const Sizes sizes{n, r, rows, call.whole(3, n)};
  const Index batch = call.vectors(0), size = State<double>::size(sizes);
  const Doubles<E> states(const_cast<Word<E>*>(call.operand<Word<E>>(0, {size * kWords<E>})), batch * size);
  E* x = call.result<E>(0, {n});
  E* y = call.result<E>(1, {r});
  E* z_lower = call.result<E>(2, {n});
  E* z_upper = call.result<E>(3, {n});
  E* mu = call.result<E>(4, {});
  const auto to_e = [](double a) { return static_cast<E>(a); };
  for (Index i = 0; i < batch; ++i) {
    const State<double> s(states.at(i * size), sizes);
    const double scale = s.reg.f_scale;
    for (Index j = 0; j < n; ++j) x[i * n + j] = to_e(s.unit[j] * s.x[j]);
    for (Index j = 0; j < n; ++j) z_lower[i * n + j] = to_e(s.z_lower[j] / (s.unit[j] * scale));
    for (Index j = 0; j < n; ++j) z_upper[i * n + j] = to_e(s.z_upper[j] / (s.unit[j] * scale));
    for (Index k = 0; k < r; ++k) y[i * r + k] = to_e(s.y[k] * s.h_scale[k] / scale);
    mu[i] = to_e((s.elastic() ? s.reg.main_barrier : s.reg.barrier) / scale);
  }
}

}  // namespace bandhess
