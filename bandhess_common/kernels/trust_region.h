// The search of optimise/newton/subproblem.py, with its names: the p of least g^T p + p^T H p / 2 within |p| <= radius,
// by one factorisation of H + shift I after the other (Moré and Sorensen 1983; Conn, Gould, Toint, Trust-Region
// Methods, section 7.3). Its constants come with the call, from bandhess_common/trust_region.py.
#pragma once

#include <cstring>

#include "shifted.h"

namespace bandhess {

struct SearchConstants {
  double near;
  double hard;
  double grow;
  int tries;
};

// What is asked and what is found, in the order of subproblem.py's `Query` and `Answer`.
template <class T>
struct Query {
  T radius, shift, low, high, guess, soft, enough, grow, idle;
};

template <class T>
struct Answer {
  T radius, shift, length, bend, size, slope, predicted, found, settled;
};

constexpr Index kQuery = 9;
constexpr Index kAnswer = 9;

template <class T>
class Search {
 public:
  Search(Shifted<T>& H, Index n, const T* g, const T* start, const SearchConstants& constants, const Query<T>& query,
         T* p, T* work)
      : H_(H),
        n_(n),
        g_(g),
        start_(start),
        constants_(constants),
        query_(query),
        p_(p),
        y_(work),
        z_(work + n),
        radius_(query.radius),
        shift_(query.shift),
        low_(query.low),
        high_(query.high) {}

  Answer<T> run_to_end() {
    const bool idle = query_.idle > 0;
    for (int tries = 0; !idle && tries <= constants_.tries; ++tries) {
      Trial trial = attempt(tries == 0);
      // Many tries are spent: take what there is, cut to the radius; or lengthened to it, where that promises more.
      const bool clip = trial.ok && tries >= constants_.tries / 2;
      if (clip && !trial.serves() && trial.is_short) trial.hard = trial.gains(shift_, radius_);
      if (trial.serves() || clip) return answer(trial);
      narrow(trial);
      shift_ = next_shift(trial);
      failed_ |= !trial.ok;
      high_ = std::max(high_, shift_);
    }
    std::fill_n(p_, n_, T(0));
    Answer<T> none{};
    none.radius = radius_;
    none.shift = shift_;
    return none;
  }

 private:
  // One shift: p = -(H + shift I)^-1 g, and what is known of it.
  struct Trial {
    bool ok = false;        // H + shift I is positive definite, and p finite
    bool fits = false;      // |p| is the radius, nearly
    bool settled = false;   // not worth a step
    bool is_short = false;  // p ends within the radius, and the shift could be less
    bool hard = false;      // an eigenvector takes p to the radius
    T length = 0;           // |p|
    T decrement = 0;        // -g^T p
    T bend = 0;             // p^T (H + shift I)^-1 p
    T curvature = 0;        // of z under H + shift I
    T tau = 0;              // |p + tau z| = radius
    T allowed = 0;          // curvature that lets z serve

    bool serves() const { return fits || settled || hard; }

    // Whether the model gains by tau z: (shift (radius^2 - |p|^2) - tau^2 curvature) / 2.
    bool gains(T shift, T radius) const { return shift * (radius * radius - length * length) > tau * tau * curvature; }
  };

  Shifted<T>& H_;
  const Index n_;
  const T* g_;
  const T* start_;
  const SearchConstants& constants_;
  const Query<T>& query_;
  T* p_;
  T* y_;
  T* z_;  // an approximate eigenvector of the least eigenvalue
  T radius_;
  T shift_;
  T low_;  // the wanted shift lies between these two
  T high_;
  bool failed_ = false;  // a shift has failed
  bool warm_ = false;    // z is one

  T inner(const T* a, const T* b) const {
    T sum;
    run([&] { sum = dot(a, b, n_); });
    return sum;
  }

  Trial attempt(bool first) {
    Trial t;
    if (!H_.factorise(shift_)) return t;
    for (Index i = 0; i < n_; ++i) p_[i] = -g_[i];
    H_.solve(p_);
    t.length = std::sqrt(inner(p_, p_));
    t.ok = t.length < std::numeric_limits<T>::infinity();
    if (!t.ok) return t;
    const T near = static_cast<T>(constants_.near);
    t.decrement = -inner(g_, p_);
    if (query_.grow > 0 && first) radius_ = std::max(radius_, t.length);
    const bool newton_step = shift_ == 0 && t.length <= (1 + near) * radius_;
    t.fits = std::abs(t.length - radius_) <= near * radius_ || newton_step;
    t.settled = shift_ <= query_.soft && t.decrement / 2 <= query_.enough;
    t.is_short = shift_ > 0 && t.length < (1 - near) * radius_;
    std::copy_n(p_, n_, y_);
    H_.forward(y_);
    t.bend = H_.energy(y_);
    if (t.is_short && !t.fits && !t.settled) lengthen(t);
    return t;
  }

  // The hard case. Inverse iteration gives z; tau is the one of smaller size with |p + tau z| = radius. To the model it
  // costs curvature tau^2 / 2: that of z under H + shift I, which also bounds the least eigenvalue.
  void lengthen(Trial& t) {
    if (!warm_) std::copy_n(start_, n_, z_);
    for (int turns = warm_ ? 1 : 2; turns > 0; --turns) {
      std::copy_n(z_, n_, y_);
      H_.solve(y_);
      const T square = inner(y_, y_);
      const T r = 1 / std::sqrt(square);
      t.curvature = inner(z_, y_) / square;
      for (Index i = 0; i < n_; ++i) z_[i] = y_[i] * r;
    }
    warm_ = true;
    const T pz = inner(p_, z_);
    const T room = std::max(radius_ * radius_ - t.length * t.length, T(0));
    t.tau = room / (pz + (pz < 0 ? -1 : 1) * std::sqrt(pz * pz + room));
    t.allowed = static_cast<T>(constants_.hard) * (shift_ * radius_ * radius_ + t.decrement) / (t.tau * t.tau);
    t.hard = t.curvature <= t.allowed;
  }

  // p as it is, with an eigenvector added, or cut to the radius.
  Answer<T> answer(const Trial& t) {
    Answer<T> found{};
    found.radius = radius_;
    found.shift = shift_;
    found.length = t.length;
    found.bend = t.bend;
    if (t.hard) {
      for (Index i = 0; i < n_; ++i) p_[i] += t.tau * z_[i];
      found.size = radius_;
      found.predicted = (t.decrement + shift_ * radius_ * radius_ - t.tau * t.tau * t.curvature) / 2;
    } else {
      const T cut = t.serves() ? T(1) : std::min(T(1), radius_ / t.length);
      if (cut < 1) {
        for (Index i = 0; i < n_; ++i) p_[i] *= cut;
      }
      found.size = cut * t.length;
      const T bent = t.decrement - shift_ * t.length * t.length;  // p^T H p
      found.predicted = (2 * cut * t.decrement - cut * cut * bent) / 2;
    }
    found.slope = inner(g_, p_);
    found.found = 1;
    found.settled = T(t.settled);
    return found;
  }

  // The bracket after a shift that does not serve.
  void narrow(const Trial& t) {
    if (t.ok && t.length < radius_) {
      high_ = std::min(high_, shift_);
    } else {
      low_ = std::max(low_, shift_);
    }
    if (t.is_short && shift_ - t.curvature > low_) low_ = shift_ - t.curvature;
    // Gershgorin's bound may be attained: never close in on it.
    if (!t.ok && shift_ >= T(0.9999) * high_) high_ = T(1.1) * std::max(shift_, query_.soft);
  }

  T next_shift(const Trial& t) const {
    const auto within = [&](T a) { return low_ < a && a < high_; };
    const T middle = std::max(std::sqrt(low_ * high_), low_ + T(0.01) * (high_ - low_));
    if (t.ok) {
      // Newton's method on 1/radius - 1/|p(shift)| = 0.
      const T newton = shift_ + (t.length / radius_ - 1) * t.length * t.length / t.bend;
      if (within(newton)) return newton;
      const T aim = shift_ - t.curvature + t.allowed / 2;  // here z should do
      return t.is_short && within(aim) && aim < shift_ ? aim : middle;
    }
    // At a stationary point: is the curvature negative, or merely zero?
    if (query_.enough >= 0 && shift_ < query_.soft) return query_.soft;
    if (!failed_ && within(query_.guess)) return query_.guess;
    return shift_ > 0 ? std::min(static_cast<T>(constants_.grow) * shift_, middle) : middle;
  }
};

// Kernel. g (n), ab (w + 1, n), start (n), query (9), options near, hard, grow, tries -> p (n), answer (9).
template <class T>
void subproblem(Call& call) {
  static_assert(sizeof(Query<T>) == kQuery * sizeof(T) && sizeof(Answer<T>) == kAnswer * sizeof(T));
  const Bands s = band(call.matrices(1));
  const T* g = call.operand<T>(0, {s.n});
  const T* ab = call.operand<T>(1, {s.rows, s.n});
  const T* start = call.operand<T>(2, {s.n});
  const T* queries = call.operand<T>(3, {kQuery});
  T* p = call.result<T>(0, {s.n});
  T* answers = call.result<T>(1, {kAnswer});
  const SearchConstants constants{call.options[0], call.options[1], call.options[2], call.whole(3, 10000)};
  s.each<T, 1>(call.pool, Shifted<T>::scratch(s) + 2 * s.n, [&](Index system, T* scratch) {
    Shifted<T> H(s, ab + system * s.rows * s.n, scratch);
    T* work = scratch + Shifted<T>::scratch(s);
    Query<T> query;
    std::memcpy(&query, queries + system * kQuery, sizeof query);
    Search<T> search(H, s.n, g + system * s.n, start + system * s.n, constants, query, p + system * s.n, work);
    const Answer<T> answer = search.run_to_end();
    std::memcpy(answers + system * kAnswer, &answer, sizeof answer);
  });
}

}  // namespace bandhess
