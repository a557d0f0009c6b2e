// The interior-point method with a filter (Wächter and Biegler 2006) by requests: derivatives bring a step and its first
// trial, values judge a trial. benchmarks/sqp_methods/README.md states the method.
#pragma once

#include "alone.h"
#include "lag.h"
#include "rounding.h"
#include "search.h"
#include "start.h"

namespace bandhess::interior {

template <class T>
class Loop {
 public:
  explicit Loop(const State<T>& s)
      : s_(s), c_(s.constants()), reg_(s.reg), system_(s), direction_(s, system_), search_(s, system_) {}

  void begin(const Derivatives<T>& at) {
    receive(at);
    go_alone();
  }

  void trial(T f, const T* h) {
    reg_.fresh = 0;
    if (reg_.request != kValues) return;
    each(0, s_.r, [=, scale = s_.h_scale, to = s_.top](Index i) { to[i] = scale[i] * h[i]; });
    reg_.f_new = reg_.f_scale * f;
    search_.judge(reg_.f_new, s_.top);
    go_alone();
  }

 private:
  const State<T>& s_;
  const Constants<T>& c_;
  Registers<T>& reg_;
  System<T> system_;
  Direction<T> direction_;
  Search<T> search_;

  Point<T> here() const { return {s_.x, s_.h, s_.step(), T(0)}; }

  void receive(const Derivatives<T>& at) {
    reg_.fresh = 0;
    if (reg_.request != kDerivatives) return;
    if (!(at.narrow == 0)) {
      reg_.narrow = at.narrow;
      return end<T>(s_, kBandTooNarrow);
    }
    if (reg_.stage == kScale) return look_at_start(at);
    if (reg_.ahead > 0 && !(finite(at) && agrees(s_, at))) return begin_anew(s_);
    reg_.ahead = 0;
    if (!finite(at)) return bad_derivatives();
    const bool starting = reg_.stage == kEstimate && reg_.pending == kNothing;
    if (starting) {
      note_tops(s_, at);
      note_bend(s_, at.gradient);
      set_scales(s_);
      note_rows(s_, at, false);
      measure_columns(s_);
      if (reg_.measured == 0) equilibrate(s_);
    }
    if (reg_.stage == kEstimate) forget_multipliers(s_);
    if (reg_.pending == kStepped) take();
    if (reg_.pending == kEntering) reg_.step = reg_.fraction = 0;
    if (reg_.pending != kNothing) reg_.steps += 1;
    reg_.pending = kNothing;
    load(s_, at, starting ? reg_.f_scale : T(1));
    if (reg_.stage == kLinearise) return linearise();
    if (starting && reg_.measured == 0 && choose_units(s_)) return place_start(s_);
    if (starting) start_point();
    if (reg_.start == 0 || !starting) estimate_multipliers(s_, system_, c_.multiplier_most);
    if (starting) set_limits(s_, theta(s_, here(), reg_.barrier, true));
    ask_for_derivatives();
  }

  void look_at_start(const Derivatives<T>& at) {
    note_tops(s_, at);
    note_rows(s_, at, true);
    reg_.f_new = std::isfinite(at.f) ? std::abs(at.f) : T(0);
    std::copy_n(s_.x_trial, s_.n, s_.cx);
    each(0, s_.n, [=, g = at.gradient, mask = s_.mask, to = s_.c_lower](Index j) { to[j] = mask[j] * g[j]; });
    std::copy_n(at.h, s_.r, s_.c_rows);
    ask_at(s_, s_.x);
    reg_.stage = kEstimate;
  }

  // From request to request without the caller, where `alone.h` says what it would tell. An end is the caller's to confirm.
  void go_alone() {
    for (int left = steps_alone(s_); goes_alone(s_);) {
      if (reg_.request == kValues) {
        reg_.f_new = follow_values(s_);
        search_.judge(reg_.f_new, s_.top);
      } else if (reg_.request == kDerivatives && reg_.pending == kStepped && reg_.stage == kLinearise) {
        follow_gradient(s_);
        take();
        reg_.steps += 1;
        reg_.pending = kNothing;
        reg_.ahead = 1;
        lagrangian_gradient(s_);
        linearise();
        const bool ended = reg_.request == kDone || !(reg_.quadratic > 0);
        if (ended || --left == 0) return ask_here();
      } else {
        return;
      }
    }
  }

  void ask_here() {
    reg_.status = -1;
    reg_.pending = kNothing;
    ask_at(s_, s_.x);
    ask_for_derivatives();
  }

  // Cells that storage does not use are not read.
  bool finite(const Derivatives<T>& at) const {
    const Index n = s_.n, r = s_.r, entries = r * (s_.s.w + 1 + s_.p);
    T zero = at.f * 0 + largest(at.h, r) * 0 + largest(at.gradient, n) * 0 + largest(at.rows, entries) * 0;
    zero += largest(at.w, n) * 0;
    for (Index i = 1; i < at.diagonals; ++i) zero += largest(at.w + i * n, s_.banded - i) * 0;
    return zero + largest(at.w + at.diagonals * n, s_.p * n) * 0 == 0;
  }

  // At the start this is the end; later the step is cut as if its values were not finite.
  void bad_derivatives() {
    if (reg_.pending != kStepped) return end<T>(s_, kNonfinite);
    reg_.pending = kNothing;
    reg_.any_finite = 0;
    search_.halve();
  }

  // The step that was accepted.
  void take() {
    const T mu = reg_.barrier, range = c_.multiplier_range, alpha = reg_.alpha, alpha_z = reg_.alpha_z;
    const Step<T> step = s_.step();
    reg_.step = alpha * length(s_, step.x);
    reg_.fraction = alpha;
    reg_.shift = reg_.delta;
    search_.forget();
    search_.count_short();
    if (reg_.augment > 0) augment(s_);
    std::copy_n(s_.x_trial, s_.n, s_.x);
    each(0, s_.r, [=, y = s_.y](Index i) { y[i] += alpha * step.y[i]; });
    s_.pairs([&](const Pair<T>& p) {
      const T *dd = step.d[p.kind], *dz = step.z[p.kind];
      each(p.begin, p.end, [=](Index i) {
        const T d = p.d[i] + alpha * dd[i], z = p.z[i] + alpha_z * dz[i];
        p.d[i] = d;
        p.z[i] = (p.has ? p.has[i] : T(1)) * std::max(mu / (range * d), std::min(z, range * mu / d));
      });
    });
    if (reg_.leaving > 0) leave_restoration(s_);
    reg_.leaving = 0;
  }

  void start_point() {
    const T eps = std::numeric_limits<T>::epsilon();
    const T size = std::max(largest(s_.gradient, s_.n), c_.size_least);
    reg_.least_w = std::sqrt(std::sqrt(eps)) * size / std::max(T(1), largest(s_.x, s_.n));
    // A warm start may lie where f nearly vanishes: what it is beside, is its size.
    reg_.value_unit = reg_.f == 0 ? T(1) : std::max(std::abs(reg_.f), reg_.f_scale * reg_.f_new);
    if (reg_.start > 0) each(0, s_.r, [=, y = s_.y, scale = s_.h_scale, f = reg_.f_scale](Index i) { y[i] *= f / scale[i]; });
    if (reg_.start == kWarm) {
      start_warm(s_);
    } else {
      start_cold(s_);
    }
  }

  void ask_for_derivatives() {
    each(0, s_.r, [=, y = s_.y, scale = s_.h_scale, to = s_.y_request](Index i) { to[i] = scale[i] * y[i]; });
    reg_.sigma = reg_.f_scale;
    reg_.stage = kLinearise;
    reg_.request = kDerivatives;
  }

  // The tests of an end, then a step and its first trial.
  void linearise() {
    if (reg_.steps == 0 && !s_.elastic()) start_predictor(s_);
    Residuals<T>(s_, here(), reg_.barrier).write(s_.r_lower, s_.r_upper, s_.r_rows);
    while (true) {
      measure(s_);
      find_noise(s_);
      if (multipliers_lag(s_)) {
        renew_lagging(s_, system_);
        return ask_for_derivatives();
      }
      report();
      const T size = error(s_, T(0));
      if (reg_.ahead > 0 && !(size > reg_.tol && reg_.steps < reg_.max_steps)) return ask_here();
      if (!std::isfinite(size)) return end<T>(s_, kNonfinite);
      if (!s_.elastic() && unbounded(s_)) return end<T>(s_, kUnbounded);
      const bool stationary = s_.elastic() ? least_violation(s_) : size <= reg_.tol && met(s_);
      set_up(s_, system_);
      if (!system_.find_shift()) return search_.without_step();
      const bool near = largest(s_.r_rows, s_.r) <= c_.mu_error * reg_.barrier;
      reg_.shifted = reg_.delta > 0 && near && !s_.elastic() ? reg_.shifted + 1 : T(0);
      const bool curved = find_curvature(stationary);
      reg_.curved = curved;
      const bool settled = stationary && !curved, closing = settled && !s_.elastic();
      if (settled && !closing) {
        if (!(largest(s_.gradient, s_.n) > c_.centred * c_.rho)) return end_in_restoration();
        centre(s_);
        continue;
      }
      const bool spent = reg_.steps >= reg_.max_steps;
      if (spent && !closing) return end<T>(s_, kMaxSteps);
      if (reg_.quadratic > 0) watch_predictor(s_, size, least_barrier(s_));
      reg_.predicted = closing ? T(0) : reg_.quadratic;
      if (!stationary && !curved && stays_at_floor(s_)) return end(s_, kPrecisionFloor, &system_);
      if (!curved && !closing) choose_barrier();
      const T eps = std::numeric_limits<T>::epsilon();
      reg_.tau = std::min(std::max(c_.boundary, 1 - reg_.barrier), 1 - 4 * eps);
      const bool corrected = reg_.predicted > 0;
      if (!curved) direction_.find(s_.r_lower, s_.r_upper, s_.r_rows, s_.step(), corrected ? s_.correction().z : nullptr);
      if (closing) {
        if (!worth_a_step(s_, s_.dx) && worth_little_unshifted()) return end(s_, kConverged, &system_);
        if (reg_.held >= c_.held || nearly_flat()) return end(s_, kPrecisionFloor, &system_);
        if (spent) return end<T>(s_, kMaxSteps);
        reg_.held += 1;
      }
      return search_.begin();
    }
  }

  void report() {
    const T scale = reg_.f_scale, own = s_.elastic() ? reg_.main_barrier : reg_.barrier;
    reg_.value = reg_.f / scale;
    reg_.grad_norm = largest<T>(0, s_.n, [g = s_.dual, unit = s_.unit](Index j) { return g[j] / unit[j]; }) / scale;
    reg_.violation = violation<T>(s_, s_.x, s_.h, nullptr);
    reg_.gap = gap(s_, reg_.barrier) / scale;
    reg_.mu = s_.count(false) > 0 ? own / scale : T(0);
    reg_.fresh = 1;
  }

  // Whether M is positive definite without the shift, but for its rounding, in any units, and that step, too, is worth
  // little: a shift may hide what can be gained.
  bool worth_little_unshifted() {
    const T shift = reg_.delta;
    if (shift == 0) return true;
    const Step<T> step = s_.correction();
    bool little = system_.factorise(0, c_.rounding_matrix * std::numeric_limits<T>::epsilon());
    if (little) {
      direction_.find(s_.r_lower, s_.r_upper, s_.r_rows, step);
      little = !worth_a_step(s_, step.x);
    }
    system_.factorise(shift);
    return little;
  }

  // Curvature is negative, or none beyond rounding, and neither along it nor by the shifted step can f fall by its tolerance.
  bool nearly_flat() const {
    const bool hidden = reg_.delta > 0 && reg_.delta <= std::sqrt(c_.precision) * reg_.size_w;
    return (reg_.flat > 0 || hidden) && !worth_a_step(s_, s_.dx, T(1));
  }

  bool find_curvature(bool stationary) {
    reg_.flat = 0;
    if (!(reg_.delta > std::sqrt(c_.precision) * reg_.size_w)) return false;
    if (!stationary && !(error(s_, reg_.barrier) <= c_.curvature_error * reg_.barrier)) return false;
    return find_curved(s_, system_, direction_, s_.step());
  }

  // (7): mu falls while the point solves its barrier problem well enough.
  void choose_barrier() {
    reg_.least_mu = least_barrier(s_);
    if (reg_.predicted > 0) {
      reg_.barrier = std::max(predicted_barrier(s_, direction_, s_.correction().z), reg_.least_mu);
      return Residuals<T>(s_, here(), reg_.barrier).write(s_.r_lower, s_.r_upper, s_.r_rows);
    }
    while (error_seen(s_, reg_.barrier) <= c_.mu_error * reg_.barrier && reg_.barrier > reg_.least_mu) {
      lower_barrier(s_);
      if (s_.elastic()) reg_.zeta = std::sqrt(reg_.barrier);
      Residuals<T>(s_, here(), reg_.barrier).write(s_.r_lower, s_.r_upper, s_.r_rows);
    }
  }

  void end_in_restoration() {
    largest_product(s_, s_.x, s_.v7);
    const T most = std::max(violation<T>(s_, s_.x, s_.h, s_.v7), violation<T>(s_, s_.x, s_.h, s_.v7, true));
    if (most > c_.infeasible * reg_.tol && held_violated(s_) > reg_.tol) return end(s_, kInfeasible, &system_);
    if (reg_.entries > 2 * c_.restorations) return end(s_, kStalled, &system_);
    take_up(s_);
  }
};

}  // namespace bandhess::interior
