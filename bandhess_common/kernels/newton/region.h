// What the numbers of a state say before a step is tried, and the region in which the next one is looked for.
#pragma once

#include <cmath>

#include "state.h"

namespace bandhess::newton {

template <class T>
constexpr T kEps = std::numeric_limits<T>::epsilon();
template <class T>
constexpr T kTiny = std::numeric_limits<T>::min();

// Of eps.
template <class T>
T power(double exponent) {
  return static_cast<T>(std::pow(static_cast<double>(kEps<T>), exponent));
}

template <class T>
T norm(const Facts<T>& of) {
  return std::max(std::abs(of.low), std::abs(of.high));
}

template <class T>
bool finite(const Facts<T>& of) {
  return std::isfinite(of.value) && std::isfinite(of.grad_norm) && std::isfinite(of.low) && std::isfinite(of.high);
}

// As `Outlook` of optimise/newton/state.py.
template <class T>
struct Outlook {
  T unit;      // the size of f
  T noise;     // of differences of f
  T soft;      // less curvature than this is lost to rounding
  bool flat;   // max|g| <= tol G
  bool small;  // the gradient is: flat, or at rounding level
  T enough;    // a step that promises less is not worth making; negative where the gradient is not small

  explicit Outlook(const Numbers<T>& num)
      : unit(std::max(std::abs(num.now.value), num.at.value_floor)),
        noise(std::max(power<T>(0.6) * unit, 16 * kEps<T> * num.at.fall)),
        soft(std::max(num.set.lost * kEps<T> * norm(num.now), kTiny<T>)),
        flat(num.now.grad_norm <= num.limits.tol * num.at.grad_unit),
        small(flat || num.now.grad_norm <= 8 * num.now.rounding),
        enough(small ? num.limits.worth * unit : T(-1)) {}
};

// A step that was tried, or the visit of x0.
template <class T>
struct Tried {
  Outlook<T> view;  // from where the step began
  T value;
  T ratio;   // actual over predicted decrease
  T length;  // |x| before
  bool first = false;
  bool moved = false;
  bool bad = false;    // f or a derivative is not finite
  bool floor = false;  // differences of f are noise, and the step did not reduce the gradient by half
  bool narrow = false;
};

// Bounds of the shift for the radius.
template <class T>
void bracket(Numbers<T>& num) {
  const T wanted = num.now.grad_length / num.at.radius;
  num.at.low = std::max(std::max(T(0), -num.now.least), wanted - norm(num.now));
  num.at.high = std::max(num.at.low, wanted + std::max(T(0), -num.now.low));
}

// At a new point.
template <class T>
void go_on(Numbers<T>& num, const Tried<T>& tried) {
  const Answer<T>& t = num.answer;
  Region<T>& at = num.at;
  const bool good = tried.ratio > num.set.good, is_short = t.size <= 128 * kEps<T> * tried.length;
  if (tried.first) {
    at.radius = std::max(T(1), num.now.length);
    at.value_floor = power<T>(0.25) * std::min(T(1), std::abs(tried.value));
    num.opening = 1;
  } else {
    at.radius = good && t.size >= T(0.8) * t.radius ? std::max(t.radius, 2 * t.size) : t.radius;
    at.crept = is_short ? at.crept + T(tried.ratio <= num.set.good) : T(0);
  }
  // The Newton step itself is tried first. Where it fails, a shift like the last one is; or, as where there is no
  // curvature, |g| / radius.
  bracket(num);
  at.shift = at.low;
  at.guess = t.shift > 0 ? t.shift / 3 : num.now.grad_length / at.radius;
  at.grad_unit = std::max(at.grad_unit, num.now.grad_norm);
}

// After a step that was turned down.
template <class T>
void turn_back(Numbers<T>& num, const Tried<T>& tried) {
  const Answer<T>& t = num.answer;
  Region<T>& at = num.at;
  const T curved = tried.value - num.now.value - t.slope, cut = -t.slope / (2 * curved);
  at.radius = t.size * (std::isfinite(curved) && curved > 0 ? std::min(std::max(cut, T(0.1)), T(0.5)) : T(0.1));
  bracket(num);
  at.low = std::max(at.low, t.shift);  // which must grow
  at.high = std::max(at.low, at.high);
  const T inside = std::max(std::sqrt(at.low * at.high), at.low + T(0.01) * (at.high - at.low));
  const T newton = t.shift + (t.length / at.radius - 1) * t.length * t.length / t.bend;
  at.shift = t.shift > 0 ? std::min(2 * t.shift, at.high) : inside;
  if (at.low < newton && newton < at.high) at.shift = newton;
}

}  // namespace bandhess::newton
