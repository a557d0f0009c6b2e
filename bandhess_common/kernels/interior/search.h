// The filter's line search (Wächter and Biegler 2006, algorithm A), a trial point a turn: second-order corrections of
// the first, one larger shift before a short step, restoration where no step serves.
#pragma once

#include "certificate.h"
#include "curvature.h"
#include "finish.h"
#include "predictor.h"
#include "restoration.h"
#include "rounding.h"

namespace bandhess::interior {

template <class T>
class Search {
 public:
  Search(const State<T>& s, System<T>& system)
      : s_(s), c_(s.constants()), reg_(s.reg), system_(system), direction_(s, system) {}

  // Asks for the first trial of a step that stands in `step()`.
  void begin() {
    look_here();
    if (creeping(s_)) return leave();
    reg_.slope = direction_.slope(s_.step());
    if (uphill_by_noise()) find_without_noise();
    reg_.raised = 0;
    reg_.any_finite = -1;
    reg_.barred = 0;
    reg_.alpha_least = least_alpha();
    whole_step();
    next();
  }

  // There is no step: no shift made the matrix definite.
  void without_step() {
    look_here();
    leave();
  }

  // After the values h, f (scaled) at x_request.
  void judge(T f, const T* h) {
    const Stage stage = static_cast<Stage>(static_cast<int>(reg_.stage));
    const bool correcting = stage == kCorrect;
    const Point<T> at{s_.x_trial, h, correcting ? s_.correction() : s_.step(),
                      correcting ? reg_.correction_alpha : reg_.alpha};
    if (stage == kTiny) return accept(at);
    Verdict verdict = test(at, f);
    if (reg_.predicted > 0 && std::isfinite(verdict.theta) && std::isfinite(f)) verdict = {true, false, verdict.theta};
    reg_.any_finite = std::isfinite(verdict.theta) ? T(1) : std::max(reg_.any_finite, T(0));
    reg_.augment = verdict.augment;
    if (!verdict.accepted) reg_.barred = verdict.barred;
    if (verdict.accepted) return accept(at);
    if (!correcting && worth_correcting(verdict.theta)) return correct(at, verdict.theta, true);
    const bool falling = verdict.theta <= c_.correction_fall * reg_.theta_old;
    if (correcting && falling && reg_.corrections < c_.corrections) return correct(at, verdict.theta, false);
    halve();
  }

  // Where phi decides, noise may turn a step uphill.
  bool uphill_by_noise() const {
    const bool noisy = reg_.shifted >= c_.noise_after && reg_.curved == 0 && reg_.predicted == 0;
    return noisy && reg_.slope > 0 && reg_.theta0 <= s_.filter().theta_min;
  }

  void find_without_noise() {
    reg_.shifted = 0;
    direction_.find(s_.r_lower, s_.r_upper, s_.r_rows, s_.step());
    reg_.slope = direction_.slope(s_.step());
  }

  // Of the step that is taken: how many in a row were short, and whether multipliers are to be estimated anew after it.
  void count_short() {
    if (s_.elastic()) return;
    reg_.short_row = short_row();
    if (static_cast<int>(reg_.stage) == kEstimate) reg_.renewed = 1;
  }

  // A point was turned down, or has no derivatives.
  void halve() {
    reg_.first = 0;
    reg_.alpha /= 2;
    next();
  }

  // Of the step that is taken. The filter's entries may be of a way that is left behind, and cut every step to next to
  // nothing: after a few such steps it forgets them. (Ipopt has options for this, filter_reset_trigger and
  // max_filter_resets.)
  void forget() {
    const bool held_back = reg_.barred > 0 && reg_.alpha < c_.raise_short * reg_.alpha_max;
    reg_.barred_steps = held_back ? reg_.barred_steps + 1 : T(0);
    if (reg_.barred_steps < c_.barred || !(reg_.forgotten < c_.forgotten)) return;
    s_.filter().count = 0;
    reg_.barred_steps = 0;
    reg_.forgotten += 1;
  }

 private:
  struct Verdict {
    bool accepted;
    bool augment;
    T theta;
    bool barred = false;  // by the filter
  };

  const State<T>& s_;
  const Constants<T>& c_;
  Registers<T>& reg_;
  System<T>& system_;
  Direction<T> direction_;

  void look_here() {
    const bool main = !s_.elastic();
    const Point<T> here{s_.x, s_.h, s_.step(), T(0)};
    reg_.phi0 = phi(s_, here, reg_.f, reg_.barrier, main);
    reg_.theta0 = theta(s_, here, reg_.barrier, main);
  }

  void whole_step() {
    const Step<T> step = s_.step();
    reg_.alpha = reg_.alpha_max = fraction_d(s_, step);
    reg_.alpha_z = fraction_z(s_, step);
    if (reg_.predicted > 0 && reg_.alpha == 1 && reg_.alpha_z == 1)
      reg_.alpha = reg_.alpha_max = reg_.alpha_z = longer_step(s_);
    reg_.first = 1;
  }

  // (23), and never below rounding.
  T least_alpha() const {
    if (reg_.curved > 0) return c_.alpha_least_curved;
    T least = c_.theta_fall;
    if (reg_.slope < 0) {
      least = std::min(least, -c_.phi_fall * reg_.theta0 / reg_.slope);
      if (reg_.theta0 <= s_.filter().theta_min)
        least = std::min(least, std::pow(reg_.theta0, c_.theta_power) / std::pow(-reg_.slope, c_.phi_power));
    }
    return std::max(c_.alpha_least * least, c_.precision);
  }

  void request(Stage stage, const T* dx, T alpha) {
    // Rounded first, so that the values belong to this point.
    each(0, s_.n, [=, round = coarse(s_), from = s_.x, to = s_.x_trial](Index j) {
      const T x = from[j] + alpha * dx[j];
      to[j] = round ? static_cast<float>(x) : x;
    });
    ask_at(s_, s_.x_trial);
    reg_.stage = stage;
    reg_.request = kValues;
  }

  void next() {
    if (!(reg_.alpha >= reg_.alpha_least)) return fail();
    const bool once = reg_.curved == 0 && !s_.elastic() && reg_.raised == 0;
    const bool may_raise = once && reg_.delta <= c_.raise_most * reg_.size_w;
    if (may_raise && reg_.alpha < c_.raise_short * reg_.alpha_max) raise();
    request(kSearch, s_.dx, reg_.alpha);
  }

  // One larger shift: a short step in a poor direction is worth less than a long one in a better.
  void raise() {
    reg_.raised = 1;
    T shift = std::max(std::max(c_.shift_grow * reg_.delta, reg_.last_shift), c_.shift_first * reg_.size_w);
    while (!system_.factorise(shift) && shift < c_.shift_most) shift *= c_.shift_grow;
    reg_.last_shift = shift;
    find_without_noise();
    whole_step();
  }

  Verdict test(const Point<T>& at, T f) const {
    const bool main = !s_.elastic();
    const Filter<T> filter = s_.filter();
    const T t = theta(s_, at, reg_.barrier, main);
    const T value = phi(s_, at, f, reg_.barrier, main);
    const T size = std::max(std::abs(reg_.phi0), std::min(T(1), reg_.value_unit));
    const T slack = c_.phi_rounding * c_.precision * size + reg_.phi_noise, noise = reg_.theta_noise;
    const T alpha = reg_.alpha;
    if (!std::isfinite(t) || !std::isfinite(value)) return {false, false, t};
    if (!passes(filter, t - noise, value - slack)) return {false, false, t, true};
    if (reg_.curved > 0) {
      const T model = alpha * reg_.slope + alpha * alpha / 2 * reg_.curvature;
      return {value <= reg_.phi0 + c_.curvature_armijo * model + slack, false, t};
    }
    const bool down = reg_.slope < 0;
    const bool switching =
        down && alpha * std::pow(-reg_.slope, c_.phi_power) > std::pow(reg_.theta0, c_.theta_power);
    const bool armijo = value <= reg_.phi0 + c_.armijo * alpha * reg_.slope + slack;
    if (reg_.theta0 <= filter.theta_min && switching) return {armijo, false, t};
    const bool nearer = t <= (1 - c_.theta_fall) * reg_.theta0 + noise;
    const bool good = nearer || value <= reg_.phi0 - c_.phi_fall * reg_.theta0 + slack;
    return {good, !(switching && armijo), t};
  }

  bool worth_correcting(T t) const {
    return reg_.first > 0 && reg_.curved == 0 && t >= reg_.theta0 && std::isfinite(t) && c_.corrections > 0;
  }

  // A second-order correction: the step whose residuals are alpha times the old ones and those of the trial.
  void correct(const Point<T>& at, T t, bool first) {
    const T alpha = at.alpha;
    const auto add = [alpha](Index count, const T* old, const T* now, T* to) {
      each(0, count, [=](Index i) { to[i] = alpha * old[i] + now[i]; });
    };
    Residuals<T>(s_, at, reg_.barrier).write(s_.w1, s_.w2, s_.v1);
    add(s_.n, first ? s_.r_lower : s_.c_lower, s_.w1, s_.c_lower);
    add(s_.n, first ? s_.r_upper : s_.c_upper, s_.w2, s_.c_upper);
    add(s_.r, first ? s_.r_rows : s_.c_rows, s_.v1, s_.c_rows);
    reg_.corrections = first ? T(1) : reg_.corrections + 1;
    reg_.theta_old = t;
    const Step<T> second = s_.correction();
    direction_.find(s_.c_lower, s_.c_upper, s_.c_rows, second);
    reg_.correction_alpha = fraction_d(s_, second);
    request(kCorrect, second.x, reg_.correction_alpha);
  }

  // The step is taken once its derivatives are known to be finite: `take` in loop.h.
  void accept(const Point<T>& at) {
    if (static_cast<int>(reg_.stage) == kCorrect) {
      reg_.alpha_z = fraction_z(s_, at.step);
      reg_.alpha = at.alpha;
      adopt(at.step);
    }
    reg_.pending = kStepped;
    reg_.leaving = s_.elastic() && restored(s_, at, reg_.f_new);
    const bool estimate = reg_.leaving > 0 || runs_off();
    reg_.sigma = estimate || !s_.elastic() ? reg_.f_scale : T(0);
    each(0, s_.r, [=, y = s_.y, dy = s_.dy, scale = s_.h_scale, to = s_.y_request, a = reg_.alpha](Index i) {
      to[i] = estimate ? T(0) : scale[i] * (y[i] + a * dy[i]);
    });
    reg_.stage = estimate ? kEstimate : kLinearise;
    reg_.request = kDerivatives;
  }

  // With this step.
  T short_row() const { return reg_.alpha < c_.short_step ? reg_.short_row + 1 : T(0); }

  // Multipliers of rows that nearly depend on each other may have run off: the Lagrangian then bends so much, and asks for
  // such shifts, that no step goes far. Those that leave the least gradient begin anew.
  bool runs_off() const {
    if (s_.elastic() || reg_.predicted > 0 || reg_.renewed > 0) return false;
    const bool creeps = short_row() >= c_.short_steps;
    if (!creeps && reg_.delta == 0) return false;
    const T top = largest<T>(0, s_.r, [=, y = s_.y, dy = s_.dy, a = reg_.alpha](Index i) { return y[i] + a * dy[i]; });
    return top > (creeps ? c_.multiplier_most : c_.multiplier_far);
  }

  void adopt(const Step<T>& from) {
    const Step<T> to = s_.step();
    std::copy_n(from.x, s_.n, to.x);
    std::copy_n(from.y, s_.r, to.y);
    s_.pairs([&](const Pair<T>& p) {
      std::copy(from.d[p.kind] + p.begin, from.d[p.kind] + p.end, to.d[p.kind] + p.begin);
      std::copy(from.z[p.kind] + p.begin, from.z[p.kind] + p.end, to.z[p.kind] + p.begin);
    });
  }

  void fail() {
    const T moved = largest<T>(0, s_.n, [x = s_.x, dx = s_.dx](Index j) { return dx[j] / (1 + std::abs(x[j])); });
    const bool near = reg_.theta0 <= s_.filter().theta_min &&
                      (s_.elastic() || reg_.violation <= c_.infeasible * reg_.tol);  // theta_min is large after a start far off
    const bool solves = s_.elastic() || dual_met(s_, std::sqrt(reg_.tol));  // a huge shift, too, leaves no step
    if (reg_.curved == 0 && moved < c_.tiny * c_.precision && near && solves) {
      // Rounding hides any progress: take the step and lower mu.
      reg_.tiny_steps += 1;
      reg_.alpha = reg_.alpha_max;
      reg_.augment = 0;
      if (reg_.barrier > reg_.least_mu) lower_barrier(s_);
      if (reg_.tiny_steps > c_.tiny_steps) return end(s_, s_.elastic() ? kStalled : kPrecisionFloor, &system_);
      return request(kTiny, s_.dx, reg_.alpha);
    }
    if (reg_.any_finite == 0) return end<T>(s_, kNonfinite);
    const bool feasible = !s_.elastic() && !(reg_.theta0 > c_.stalled * reg_.tol);
    if (reg_.curved > 0 && feasible && error(s_, T(0)) <= reg_.tol && met(s_)) {
      return end(s_, kPrecisionFloor, &system_);  // of the negative curvature nothing can be seen in f
    }
    leave();
  }

  // No step serves here: restoration, if there is what to restore.
  void leave() {
    if (s_.elastic()) {
      if (!(reg_.renewals < c_.renewals)) return end(s_, kStalled, &system_);
      reg_.renewals += 1;
      return start_restoration(s_);
    }
    if (!(reg_.theta0 > std::max(c_.stalled * reg_.tol, reg_.theta_noise))) {
      if (at_floor(s_)) return end(s_, kPrecisionFloor, &system_);
      const bool off = largest(s_.y, s_.r) > c_.multiplier_most;
      if (!off || !(reg_.last_renewals < c_.last_renewals)) return end(s_, kStalled, &system_);
      reg_.last_renewals += 1;
      s_.filter().count = 0;
      return estimate_here(s_);
    }
    augment(s_);
    enter_restoration(s_);
  }
};

}  // namespace bandhess::interior
