// Quadratic programs between two requests. Where rows are linear and the objective quadratic (`is_quadratic`), derivatives
// at x tell values and gradients of all other points,
//
//     f(x + s) = f + g . s + s . W s / 2,    g(x + s) = g + W s,    h(x + s) = h + J s,
//
// and the loop goes on by them, without the caller, until an end is near. What it says of an end it says of the user's
// functions: it asks for their derivatives there. Where they are not what followed, they are quadratic near the start
// alone, as max(0, x)^2 is: the loop begins anew, and asks for each point.
#pragma once

#include "load.h"

namespace bandhess::interior {

// What a call may take, in entries of factors times their width: tens of milliseconds, after which callers can look at a
// clock.
constexpr double kWorkAlone = 1e8;

template <class T>
int steps_alone(const State<T>& s) {
  const double stride = s.s.stride, work = static_cast<double>(s.n) * stride * stride;
  return static_cast<int>(std::max(1.0, kWorkAlone / work));
}

template <class T>
bool goes_alone(const State<T>& s) {
  return s.reg.alone > 0 && s.reg.quadratic > 0 && !s.elastic();
}

// W s in w2, for the step s to x_trial, in w1.
template <class T>
void move_to_trial(const State<T>& s) {
  each(0, s.n, [=, x = s.x, to = s.x_trial, move = s.w1](Index j) { move[j] = to[j] - x[j]; });
  std::fill_n(s.w1 + s.n, kPad, T(0));
  apply_band(s, s.w1, s.w2);
}

// Of x_trial: f, and h in `top`.
template <class T>
T follow_values(const State<T>& s) {
  move_to_trial(s);
  push(s, s.w1, s.v1);
  each(0, s.r, [=, h = s.h, along = s.v1, to = s.top](Index i) { to[i] = h[i] + along[i]; });
  return s.reg.f + sum<T>(0, s.n, [=, g = s.gradient, move = s.w1, curved = s.w2](Index j) {
           return (g[j] + curved[j] / 2) * move[j];
         });
}

// Of x_trial, whose values were judged last: they and the objective's gradient become those of x.
template <class T>
void follow_gradient(const State<T>& s) {
  move_to_trial(s);
  each(0, s.n, [=, g = s.gradient, curved = s.w2](Index j) { g[j] += curved[j]; });
  std::copy_n(s.top, s.r, s.h);
  s.reg.f = s.reg.f_new;
}

// That of the Lagrangian from that of the objective.
template <class T>
void lagrangian_gradient(const State<T>& s) {
  pull(s, s.y, s.w1);
  each(0, s.n, [=, g = s.gradient, force = s.w1, low = s.z_lower, up = s.z_upper, to = s.dual](Index j) {
    to[j] = g[j] + force[j] - (low[j] - up[j]);
  });
}

// Whether derivatives at x, which the caller brings, are what followed, to rounding: on the way from the start, which lies
// in x_r, x may have fallen, and what is left of rows and gradients was rounded where it was large. f is the sum of its
// gradient.
template <class T>
bool agrees(const State<T>& s, const Derivatives<T>& at) {
  const T straight = s.constants().straight;
  const T far = std::max(largest(s.x, s.n), largest(s.x_r, s.n));
  const T rows = largest<T>(0, s.r, [=, h = s.h, scale = s.h_scale](Index i) { return scale[i] * at.h[i] - h[i]; });
  std::fill_n(s.w2, s.n, T(0));
  band_sizes(s, s.w2, s.w1);
  pull(s, s.y, s.w3);
  const T size = largest(s.w1, s.n) * far + largest(s.gradient, s.n) + largest(s.w3, s.n);
  const T off = largest<T>(0, s.n, [=, mask = s.mask, dual = s.dual, low = s.z_lower, up = s.z_upper](Index j) {
    return at.gradient[j] * mask[j] - (dual[j] + low[j] - up[j]);
  });
  return rows <= straight * (s.reg.row_size * far + largest(s.h, s.r)) && off <= straight * size;
}

// From the start once more, by requests alone.
template <class T>
void begin_anew(const State<T>& s) {
  auto& reg = s.reg;
  reg.alone = reg.ahead = reg.quadratic = reg.start = reg.steps = 0;
  reg.last_shift = reg.shifted = reg.tiny_steps = reg.held = reg.theta_mark = reg.since_mark = 0;
  reg.short_row = reg.renewed = reg.last_renewals = 0;
  reg.sigma = reg.f_scale = 1;
  std::fill_n(s.h_scale, s.r, T(1));
  std::fill_n(s.y_request, s.r, T(0));
  place_start(s);
}

}  // namespace bandhess::interior
