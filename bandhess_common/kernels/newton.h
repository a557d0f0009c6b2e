// The kernels of the trust-region method by requests: newton/loop.h on the state that newton/state.h lays out.
#pragma once

#include "newton/loop.h"

namespace bandhess {

// Results 0 to 2: the states of a batch, copies of operands where these are not the same arrays. Results 3 and 4: the
// points where something is asked for, and the vectors whose products with H are.
template <class T>
struct NewtonStates {
  const Index n, rows;
  T *const numbers, *const vectors, *const band, *const x, *const probe;

  // first: the operand with the numbers; the others follow. Of a batch of bands.
  NewtonStates(const Call& call, int first, const Bands& s)
      : n(s.n),
        rows(s.rows),
        numbers(moved(call, first, 0, {newton::kNumbers<T>}, s.batch * newton::kNumbers<T>)),
        vectors(moved(call, first, 1, {newton::kVectors, n}, s.batch * newton::kVectors * n)),
        band(moved(call, first, 2, {rows, n}, s.batch * rows * n)),
        x(call.result<T>(3, {n})),
        probe(call.result<T>(4, {n})) {}

  newton::State<T> at(Index i) const {
    auto* numbers_of = reinterpret_cast<newton::Numbers<T>*>(numbers + i * newton::kNumbers<T>);
    return {*numbers_of, n, rows, vectors + i * newton::kVectors * n, band + i * rows * n};
  }

  void show(Index i, const newton::State<T>& state) const {
    std::copy_n(state.trial(), n, x + i * n);
    T* to = probe + i * n;
    const T *p = state.p(), *units = state.units();
    if (state.num.products > 1) {
      newton::each(0, n, [=](Index j) { to[j] = static_cast<T>(interior::noise(j, 0)); });
    } else {
      newton::each(0, n, [=](Index j) { to[j] = units[j] * p[j]; });
    }
  }

 private:
  static T* moved(const Call& call, int first, int i, std::initializer_list<Index> shape, Index count) {
    const T* from = call.operand<T>(first + i, shape);
    T* to = call.result<T>(i, shape);
    if (from != to) std::copy_n(from, count, to);
    return to;
  }
};

// Kernel. x (n), limits, settings, sizes of the variables (n, or 0 of them), dummies (n, or 0 of them), whether a state
// goes on, that state -> state, x, probe.
template <class T>
void newton_start(Call& call) {
  using namespace newton;
  const Bands s = band(call.matrices(8));
  const T* x = call.operand<T>(0, {s.n});
  const T* limits = call.operand<T>(1, {kLimits});
  const T* settings = call.operand<T>(2, {kSettings});
  const Index sizes = call.length(3, s.n), masked = call.length(4, s.n);
  const T* scale = call.operand<T>(3, {sizes});
  const T* dummies = call.operand<T>(4, {masked});
  const std::int32_t* begun = call.operand<std::int32_t>(5, {});
  const NewtonStates<T> states(call, 6, s);
  s.each<T, 1>(call.pool, 0, [&](Index i, T*) {
    const State<T> state = states.at(i);
    if (begun[i] > 0) return states.show(i, state);
    std::fill_n(states.vectors + i * kVectors * s.n, kVectors * s.n, T(0));
    std::fill_n(state.ab, s.rows * s.n, T(0));
    state.num = Numbers<T>{};
    std::memcpy(&state.num.set, settings + i * kSettings, sizeof state.num.set);
    std::memcpy(&state.num.limits, limits + i * kLimits, sizeof state.num.limits);
    state.num.ragged = masked > 0;
    state.num.request = kValues;
    state.num.status = -1;
    for (Index j = 0; j < s.n; ++j) {
      const T dummy = masked ? dummies[i * s.n + j] : T(0);
      state.x()[j] = state.trial()[j] = x[i * s.n + j];
      state.dummies()[j] = dummy;
      state.units()[j] = sizes && !(dummy > 0) ? power_of_two(scale[i * s.n + j]) : T(1);
      state.noise()[j] = (1 - dummy) * static_cast<T>(interior::noise(j, 0));
    }
    states.show(i, state);
  });
}

// Kernel. State, f -> state, x, probe.
template <class T>
void newton_trial(Call& call) {
  using namespace newton;
  const Bands s = band(call.matrices(2));
  const T* f = call.operand<T>(3, {});
  const NewtonStates<T> states(call, 0, s);
  s.each<T, 1>(call.pool, Loop<T>::numbers(s), [&](Index i, T* scratch) {
    const State<T> state = states.at(i);
    Loop<T>(s, state, scratch).trial(f[i]);
    states.show(i, state);
  });
}

// Kernel. State, gradient (n), H's band, the products of the probe and of pi times it (2, n) -> state, x, probe.
template <class T>
void newton_begin(Call& call) {
  using namespace newton;
  const Bands s = band(call.matrices(2));
  const T* grad = call.operand<T>(3, {s.n});
  const T* ab = call.operand<T>(4, {s.rows, s.n});
  const T* products = call.operand<T>(5, {2, s.n});
  const NewtonStates<T> states(call, 0, s);
  s.each<T, 1>(call.pool, Loop<T>::numbers(s), [&](Index i, T* scratch) {
    const State<T> state = states.at(i);
    Loop<T>(s, state, scratch).begin(grad + i * s.n, ab + i * s.rows * s.n, products + 2 * i * s.n);
    states.show(i, state);
  });
}

}  // namespace bandhess
