// A visit of a point, as in optimise/newton/point.py, with its names.
#pragma once

#include "../interior/narrow.h"
#include "../interior/vectors.h"
#include "state.h"

namespace bandhess::newton {

using interior::each;

// What was brought from a point, in the variables x / units.
template <class T>
struct Found {
  const T* grad;
  const T* ab;
  const T* units;
  Facts<T> facts;
};

// The power of two next above a > 0: scaling by it rounds nothing.
template <class T>
T power_of_two(T a) {
  int exponent;
  std::frexp(a, &exponent);
  return std::ldexp(T(1), exponent);
}

template <class T>
class Visit {
 public:
  // scratch for `numbers` numbers.
  Visit(const Bands& s, const State<T>& state, T* scratch)
      : s_(s), state_(state), n_(s.n), cells_(scratch), vectors_(scratch + s.rows * s.n) {}

  static Index numbers(const Bands& s) { return (s.rows + 6) * s.n; }

  // H as it was brought, dummy variables without a diagonal.
  const T* cleaned(const T* ab) {
    return state_.num.ragged > 0 ? copied(ab) : ab;
  }

  // Whether H has entries outside its band, by the products of noise and of pi times it.
  bool narrow(const T* ab, const T* products) {
    T* again = vectors_;
    const T pi = static_cast<T>(3.14159265358979323846);
    each(0, n_, [=, n = n_](Index i) { again[i] = products[n + i] / pi; });
    const interior::Extracted<T> of{s_, n_, 0, 0, s_.rows, ab, nullptr, nullptr};
    // The noise of the search leaves out dummies.
    T* v = vectors_ + n_;
    each(0, n_, [=](Index i) { v[i] = static_cast<T>(interior::noise(i, 0)); });
    return interior::narrow(of, v, products, again, vectors_ + 2 * n_) > 0;
  }

  // H back in the variables of the user, for `narrow`.
  const T* unscaled() {
    copied(state_.ab);
    T* inverse = vectors_;
    const T* units = state_.units();
    each(0, n_, [=](Index i) { inverse[i] = 1 / units[i]; });
    scale(cells_, inverse);
    return cells_;
  }

  // At the trial point, whose value is known; ab is `cleaned`.
  Found<T> measure(const T* grad, const T* ab, bool first) {
    const T *x = state_.trial(), *p = state_.p(), *old = state_.units();
    T *units = vectors_, *g = units + n_, *z = g + n_, *step = z + n_, *memory = step + n_;
    if (state_.num.set.scaling == kNot) {
      return {grad, ab, old, facts_of(s_, ab, grad, x, p, state_.num.trial, memory)};
    }
    find_units(ab, units, first);
    if (ab != cells_) copied(ab);
    scale(cells_, units);
    each(0, n_, [=](Index i) {
      g[i] = units[i] * grad[i];
      z[i] = x[i] / units[i];
      step[i] = old[i] / units[i] * p[i];
    });
    return {g, cells_, units, facts_of(s_, cells_, g, z, step, state_.num.trial, memory)};
  }

  // The point becomes the state's.
  void take(const Found<T>& found) {
    const T norm = std::max(std::abs(found.facts.low), std::abs(found.facts.high));
    const T doubt = state_.num.set.unsure * std::numeric_limits<T>::epsilon(), size = norm > 0 ? norm : T(1);
    std::copy_n(state_.trial(), n_, state_.x());
    std::copy_n(found.grad, n_, state_.grad());
    std::copy_n(found.ab, s_.rows * n_, state_.ab);
    if (found.units != state_.units()) std::copy_n(found.units, n_, state_.units());
    T *main = state_.ab, *dummies = state_.dummies();
    each(0, n_, [=](Index i) { main[i] -= doubt * std::abs(main[i]); });
    // Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
    if (state_.num.ragged > 0) each(0, n_, [=](Index i) { main[i] += dummies[i] * size; });
    state_.num.now = found.facts;
    state_.num.value = found.facts.value;
    const T *g = state_.grad(), *units = state_.units();
    run([&] { state_.num.grad_norm = largest_of<T>(n_, [=](Index i) { return std::abs(g[i] / units[i]); }); });
  }

  // H v for the state's H, into the result.
  const T* times(const T* v) {
    T *known = vectors_, *scale = known + n_;
    interior::Extracted<T>{s_, n_, 0, 0, s_.rows, state_.ab, nullptr, nullptr}.multiply(v, known, scale);
    return known;
  }

  // The product of the probe, in scaled variables.
  const T* image(const T* product) {
    const T* units = state_.units();
    T* to = vectors_;
    each(0, n_, [=](Index i) { to[i] = units[i] * product[i]; });
    return to;
  }

 private:
  const Bands& s_;
  const State<T>& state_;
  const Index n_;
  T* const cells_;
  T* const vectors_;

  const T* copied(const T* ab) {
    std::copy_n(ab, s_.rows * n_, cells_);
    T* main = cells_;
    const T* dummies = state_.dummies();
    if (state_.num.ragged > 0) each(0, n_, [=](Index i) { main[i] -= dummies[i] * main[i]; });
    return cells_;
  }

  void scale(T* ab, const T* units) const {
    for (Index d = 0; d < std::min(s_.rows, n_); ++d) {
      T* cells = ab + d * n_;
      each(0, n_ - d, [=](Index j) { cells[j] *= units[j] * units[j + d]; });
    }
  }

  // Sizes of the variables: those given, or the smallest |H[j, j]|^(-1/2) met (Moré 1978).
  void find_units(const T* ab, T* units, bool first) const {
    const T* old = state_.units();
    if (state_.num.set.scaling == kGiven) {
      std::copy_n(old, n_, units);
      return;
    }
    T least;
    run([&] { least = largest_of<T>(n_, [=](Index i) { return std::abs(ab[i]); }); });
    least *= std::sqrt(std::numeric_limits<T>::epsilon());
    for (Index i = 0; i < n_; ++i) {
      const T size = std::max(std::abs(ab[i]), least);
      const T unit = 1 / std::sqrt(size > 0 ? size : T(1));
      units[i] = power_of_two(first ? unit : std::min(unit, old[i]));
    }
  }
};

}  // namespace bandhess::newton
