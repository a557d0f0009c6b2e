// The state of the trust-region method between two requests: numbers, vectors (kVectors, n) and the band of H.
#pragma once

#include <cstring>

#include "../facts.h"
#include "../interior/state.h"
#include "../refine.h"
#include "../trust_region.h"

// What callers read, the first of the numbers: what is asked for (kDone, kDerivatives, kValues); with derivatives, how many
// products with the probe (the second of pi times it) and whether the band; the end, or -1; accepted steps; of the last
// iterate f and max|g|, unscaled; whether the last call came to a new one; and of the step that led there size, shift,
// the radius after it, and the actual over the predicted decrease.
#define BANDHESS_NEWTON_HEAD(F)                                                                                 \
  F(request) F(products) F(wants_band) F(status) F(steps) F(value) F(grad_norm) F(fresh) F(size) F(shift) F(radius) \
  F(ratio)

// What comes with a start: constants of stopping.py and trust_region.py, and how variables are scaled (kNot, kByDiagonal,
// kGiven), whether the band is the user's, and whether it is to be checked.
#define BANDHESS_NEWTON_SETTINGS(F)                                                                         \
  F(near) F(hard) F(grow) F(tries) F(enough) F(refinements) F(accept) F(good) F(creep) F(unsure) F(lost) F(scaling) \
  F(given) F(checked)

namespace bandhess::newton {

using interior::kDerivatives, interior::kDone, interior::kValues;  // requests

enum Purpose { kFirst, kTrial, kRefining, kClosing };  // of a visit: x0, a trial, a product with H, the last check
enum Scaling { kNot, kByDiagonal, kGiven };

#define BANDHESS_NEWTON_FIELD(name) T name;
template <class T>
struct Settings {
  BANDHESS_NEWTON_SETTINGS(BANDHESS_NEWTON_FIELD)
};

template <class T>
struct Limits {
  T tol, worth, steps;  // as state.py's `limits_of` has them
};

// As `Search` of optimise/newton/state.py.
template <class T>
struct Region {
  T radius, shift, low, high, guess, grad_unit, value_floor, fall, crept;
};

template <class T>
struct Numbers {
  BANDHESS_NEWTON_HEAD(BANDHESS_NEWTON_FIELD)
  Settings<T> set;
  Limits<T> limits;
  Region<T> at;
  Facts<T> now;
  Answer<T> answer;  // of the step that is being refined, or that was tried last
  T ragged;    // there are dummy variables
  T purpose;
  T trial;     // f there
  T accepted;  // f alone speaks for it
  T opening;   // the first search is still to come
  T turns;     // of refinement of this step
  T solved;    // the last product's vector is a solution
  T widening;  // the region grows to the refined step
};
#undef BANDHESS_NEWTON_FIELD

template <class T>
constexpr Index kNumbers = sizeof(Numbers<T>) / sizeof(T);
constexpr Index kSettings = sizeof(Settings<double>) / sizeof(double);
constexpr Index kLimits = 3;
constexpr Index kVectors = 11;

template <class T>
struct State {
  Numbers<T>& num;
  const Index n, rows;
  T* const base;
  T* const ab;  // H, less UNSURE eps of its diagonal: what is positive definite then, is so in spite of rounding

  T* x() const { return row(0); }
  T* grad() const { return row(1); }
  T* units() const { return row(2); }    // of the variables, powers of two
  T* dummies() const { return row(3); }  // 1 on dummy variables
  T* noise() const { return row(4); }    // where an eigenvector is looked for, and what the band is checked with
  T* trial() const { return row(5); }
  T* p() const { return row(6); }  // the step to be tried; while refining, the preconditioned residual
  Work<T> work() const { return Work<T>(row(7), n); }

 private:
  T* row(Index i) const { return base + i * n; }
};

}  // namespace bandhess::newton
