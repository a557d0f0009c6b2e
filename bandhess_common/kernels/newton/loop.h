// The trust-region method of optimise/newton/trust_region.py by requests, with its names: a caller brings f, or the
// derivatives, of the point that is asked for, and every answer leads to the next request. A call that was not asked for
// changes nothing.
#pragma once

#include "region.h"
#include "visit.h"

namespace bandhess::newton {

using interior::kBandTooNarrow, interior::kConverged, interior::kMaxSteps, interior::kNonfinite;
using interior::kPrecisionFloor, interior::kStalled, interior::kUnbounded, interior::Status;

template <class T>
class Loop {
 public:
  // scratch for `numbers` numbers.
  Loop(const Bands& s, const State<T>& state, T* scratch)
      : s_(s), state_(state), num_(state.num), n_(s.n), scratch_(scratch), visit_(s, state, scratch) {}

  static Index numbers(const Bands& s) {
    return std::max(Visit<T>::numbers(s), Shifted<T>::scratch(s) + 2 * s.n);
  }

  void trial(T f) {
    num_.fresh = 0;
    if (num_.request != kValues) return;
    num_.trial = f;
    if (num_.purpose == kFirst) return ask(kFirst);
    const Outlook<T> view(num_);
    const Answer<T>& t = num_.answer;
    const T ratio = (num_.now.value - f) / t.predicted;
    num_.accepted = t.predicted > 0 && ratio >= num_.set.accept;
    // Near the end differences of f are noise: where they do not speak for the step, the slopes at its ends do (the
    // trapezoidal rule; Hager and Zhang 2005), or the gradient.
    const bool polish = t.shift <= view.soft && t.predicted <= view.noise && f <= num_.now.value + view.noise;
    if (num_.accepted || polish) return ask(kTrial);
    Tried<T> tried{view, f, ratio, num_.now.length};
    tried.bad = !std::isfinite(f);
    num_.trial = 0;  // which may be NaN
    settle(tried);
  }

  void begin(const T* grad, const T* ab, const T* products) {
    num_.fresh = 0;
    if (num_.request != kDerivatives) return;
    if (num_.purpose == kRefining) return refine_by(products);
    if (num_.purpose == kClosing) {
      const bool narrow = visit_.narrow(visit_.unscaled(), products);
      num_.request = kDone;
      num_.status = narrow ? T(kBandTooNarrow) : num_.status;
      return;
    }
    arrive(grad, ab, products);
  }

 private:
  const Bands& s_;
  const State<T>& state_;
  Numbers<T>& num_;
  const Index n_;
  T* const scratch_;
  Visit<T> visit_;

  void ask(Purpose purpose) {
    const bool checks = (purpose == kFirst || purpose == kClosing) && num_.set.checked > 0;
    num_.request = kDerivatives;
    num_.purpose = T(purpose);
    num_.products = checks ? T(2) : purpose == kRefining && !(num_.set.given > 0) ? T(1) : T(0);
    num_.wants_band = purpose == kFirst || purpose == kTrial;
    if (purpose == kClosing) std::copy_n(state_.x(), n_, state_.trial());
  }

  void end(Status status) {
    num_.status = T(status);
    num_.request = kDone;
    // Couplings may vanish at x0 (products of zeros): the end is checked, too.
    const bool at_solution = status == kConverged || status == kPrecisionFloor || status == kStalled;
    if (num_.set.checked > 0 && num_.steps > 0 && at_solution) ask(kClosing);
  }

  // ---- Derivatives of x0, or of a trial that may serve --------------------------------------------------------------

  void arrive(const T* grad, const T* brought, const T* products) {
    const Answer<T>& t = num_.answer;
    const Facts<T> before = num_.now;
    Tried<T> tried{Outlook<T>(num_), num_.trial, (before.value - num_.trial) / t.predicted, before.length};
    tried.first = num_.purpose == kFirst;
    if (tried.first) tried.ratio = 0;
    const T* ab = visit_.cleaned(brought);
    tried.narrow = num_.products > 0 && visit_.narrow(ab, products);
    const Found<T> found = visit_.measure(grad, ab, tried.first);
    const Facts<T>& then = found.facts;
    tried.bad = !finite(then);
    const bool polish = !tried.first && !(num_.accepted > 0);
    const bool earned =
        polish && t.predicted > 0 && -(t.slope + then.slope) / 2 >= num_.set.accept * t.predicted;
    const bool serves = num_.accepted > 0 || earned || then.grad_norm < before.grad_norm;
    tried.moved = tried.first || (!tried.bad && serves);
    if (polish && !tried.bad && !(then.grad_norm <= before.grad_norm / 2)) {
      tried.floor = t.predicted <= 32 * kEps<T> * tried.view.unit || (tried.view.small && !earned);
    }
    if (tried.moved) visit_.take(found);
    settle(tried);
  }

  // ---- After a step -------------------------------------------------------------------------------------------------

  void settle(const Tried<T>& tried) {
    const Answer<T>& t = num_.answer;
    Region<T>& at = num_.at;
    const T begun = tried.first ? std::abs(tried.value) : t.predicted;
    if (num_.steps == 0) at.fall = std::max(at.fall, begun);
    if (tried.moved) {
      go_on(num_, tried);
    } else {
      turn_back(num_, tried);
    }
    const bool unseen = at.radius <= 4 * kEps<T> * tried.length && t.predicted <= 32 * kEps<T> * tried.view.unit;
    const bool collapsed = !tried.moved && (unseen || at.radius <= std::sqrt(kTiny<T>));
    const bool crept = at.crept >= num_.set.creep;
    const bool falling = !tried.first && tried.value <= -power<T>(-1.5) * at.fall;  // -inf included
    if (tried.moved) report(tried);
    if (tried.first && tried.bad) return end(kNonfinite);
    if (tried.narrow) return end(kBandTooNarrow);
    if (falling) return end(kUnbounded);
    if (tried.floor || (crept && tried.view.small)) return end(kPrecisionFloor);
    if (collapsed && tried.bad) return end(kNonfinite);
    if (collapsed || crept) return end(kStalled);
    begin_work();
    seek(true);
  }

  void report(const Tried<T>& tried) {
    const Answer<T>& t = num_.answer;
    if (!tried.first) num_.steps += 1;
    num_.fresh = 1;
    num_.size = t.size;
    num_.shift = t.shift;
    num_.radius = num_.at.radius;
    num_.ratio = tried.ratio;
  }

  // ---- The next step ------------------------------------------------------------------------------------------------

  void begin_work() {
    const Work<T> work = state_.work();
    std::fill_n(work.step, n_, T(0));
    std::copy_n(state_.grad(), n_, work.residual);
    std::fill_n(work.last, n_, T(0));
    std::fill_n(work.image, n_, T(0));
  }

  // -(H + shift I)^-1 residual goes to p.
  Answer<T> search(const Query<T>& query) {
    const Settings<T>& set = num_.set;
    const SearchConstants constants{set.near, set.hard, set.grow, static_cast<int>(set.tries)};
    Shifted<T> H(s_, state_.ab, scratch_);
    T* work = scratch_ + Shifted<T>::scratch(s_);
    return Search<T>(H, n_, state_.work().residual, state_.noise(), constants, query, state_.p(), work).run_to_end();
  }

  // refinable: not where refinement found nothing.
  void seek(bool refinable) {
    const Outlook<T> view(num_);
    const Region<T>& at = num_.at;
    const bool opening = num_.opening > 0 && refinable;
    num_.opening = 0;
    Answer<T> t = search({at.radius, at.shift, at.low, at.high, at.guess, view.soft, view.enough, T(opening), 0});
    if (!(refinable && kTiny<T> < t.shift && t.shift <= view.soft && t.found > 0)) return decide(t);
    t.size = t.slope = t.predicted = t.settled = 0;
    num_.answer = t;
    num_.turns = 1;
    num_.widening = T(opening);
    solve_residual();
  }

  // A turn of refinement asks for H z, z = -(H + shift I)^-1 residual by one factorisation.
  void solve_residual() {
    const T shift = std::max(num_.answer.shift, Outlook<T>(num_).soft);
    num_.solved = search({0, shift, shift, shift, shift, shift, -1, 1, 0}).found;
    ask(kRefining);
  }

  void refine_by(const T* products) {
    const T* z = state_.p();
    const T* image = num_.set.given > 0 ? visit_.times(z) : visit_.image(products);
    bool more = false;
    run([&] {
      more = refine(state_.work(), n_, state_.grad(), z, image, num_.solved > 0, num_.widening > 0, num_.set.enough,
                    num_.answer);
    });
    if (more && num_.turns < num_.set.refinements) {
      num_.turns += 1;
      return solve_residual();
    }
    if (!(num_.answer.predicted > 0)) return seek(false);
    std::fill_n(state_.p(), n_, T(0));
    num_.answer.settled = num_.answer.predicted <= Outlook<T>(num_).enough;
    decide(Answer<T>(num_.answer));
  }

  // Ends, or tries the step: p, with what refinement found.
  void decide(const Answer<T>& t) {
    const Outlook<T> view(num_);
    if (t.settled > 0) return end(t.shift <= kTiny<T> && view.flat ? kConverged : kPrecisionFloor);
    if (num_.steps >= num_.limits.steps) return end(kMaxSteps);
    if (!(t.found > 0)) return end(kStalled);
    num_.answer = t;
    const T *step = state_.work().step, *x = state_.x(), *units = state_.units();
    T *p = state_.p(), *to = state_.trial();
    each(0, n_, [=](Index i) {
      p[i] += step[i];
      to[i] = x[i] + units[i] * p[i];
    });
    num_.request = kValues;
    num_.purpose = kTrial;
  }
};

}  // namespace bandhess::newton
