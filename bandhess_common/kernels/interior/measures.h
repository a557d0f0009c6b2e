// How far a point is from a solution: residuals, theta, phi, and the error E(mu) of Wächter and Biegler 2006, (5).
#pragma once

#include "state.h"
#include "vectors.h"

namespace bandhess::interior {

// Whether functions are of float32, and the state is not.
template <class T>
bool coarse(const State<T>& s) {
  return s.constants().precision > std::numeric_limits<T>::epsilon();
}

// A point x + alpha dx whose positive variables are d + alpha dd, with the rows' values there, scaled.
template <class T>
struct Point {
  const T* x;
  const T* h;
  Step<T> step;
  T alpha;
};

template <class T>
INLINE T unit(T bound) {
  return std::max(T(1), std::abs(bound));
}

// What is left of x - lower + relax unit = d, of upper, and of the rows, each at d + alpha dd.
template <class T>
class Residuals {
 public:
  Residuals(const State<T>& s, const Point<T>& at, T barrier) : s_(s), at_(at), relax_(s.relaxation(barrier)) {}

  INLINE T lower(Index j) const {
    return s_.has_lower[j] * (at_.x[j] - s_.lower[j] + relax_ * unit(s_.lower[j]) - d(s_.d_lower, 0, j));
  }
  INLINE T upper(Index j) const {
    return s_.has_upper[j] * (s_.upper[j] - at_.x[j] + relax_ * unit(s_.upper[j]) - d(s_.d_upper, 1, j));
  }
  INLINE T equality(Index i) const { return at_.h[i]; }
  INLINE T inequality(Index i) const { return at_.h[i] + relax_ - d(s_.d_rows, 2, i); }
  INLINE T elastic(Index i) const { return d(s_.d_p, 3, i) - d(s_.d_n, 4, i); }

  void write(T* to_lower, T* to_upper, T* to_rows) const {
    const Index n = s_.n, m = s_.m(), r = s_.r;
    if (s_.reg.lower_count > 0) each(0, n, [=](Index j) { to_lower[j] = lower(j); });
    if (s_.reg.upper_count > 0) each(0, n, [=](Index j) { to_upper[j] = upper(j); });
    each(0, m, [=](Index i) { to_rows[i] = equality(i); });
    each(m, r, [=](Index i) { to_rows[i] = inequality(i); });
    if (s_.elastic()) each(0, r, [=](Index i) { to_rows[i] -= elastic(i); });
  }

  // The sum of their absolute values; `main`: without p and n.
  T theta(bool main) const {
    const Index n = s_.n, m = s_.m(), r = s_.r;
    T total = 0;
    if (s_.reg.lower_count > 0) total += sum<T>(0, n, [=](Index j) { return std::abs(lower(j)); });
    if (s_.reg.upper_count > 0) total += sum<T>(0, n, [=](Index j) { return std::abs(upper(j)); });
    if (main) {
      total += sum<T>(0, m, [=](Index i) { return std::abs(equality(i)); });
      return total + sum<T>(m, r, [=](Index i) { return std::abs(inequality(i)); });
    }
    total += sum<T>(0, m, [=](Index i) { return std::abs(equality(i) - elastic(i)); });
    return total + sum<T>(m, r, [=](Index i) { return std::abs(inequality(i) - elastic(i)); });
  }

 private:
  const State<T>& s_;
  const Point<T> at_;
  const T relax_;

  INLINE T d(const T* at, int kind, Index i) const { return at[i] + at_.alpha * at_.step.d[kind][i]; }
};

template <class T>
T theta(const State<T>& s, const Point<T>& at, T barrier, bool main) {
  return Residuals<T>(s, at, barrier).theta(main);
}

// The sum of v over what is bounded on one side alone. That is damped, by a part of mu times its distance: where nothing
// else depends on it, the barrier would take it to infinity (Wächter and Biegler 2006, section 3.7).
template <class T, class F>
T sum_of_lone(const State<T>& s, const Pair<T>& p, const F& v) {
  if (p.kind == 2) return sum<T>(p.begin, p.end, v);
  if (p.kind > 2 || s.reg.lone_count == 0) return 0;
  return sum<T>(p.begin, p.end, [=, lone = p.lone](Index j) { return lone[j] * v(j); });
}

// The barrier function; f is the objective's scaled value at x.
template <class T>
T phi(const State<T>& s, const Point<T>& at, T f, T barrier, bool main) {
  double logs = 0;
  T damped = 0;
  const Constants<T>& c = s.constants();
  s.pairs(
      [&](const Pair<T>& p) {
        const T* step = at.step.d[p.kind];
        const auto there = [=, d = p.d, a = at.alpha](Index i) { return d[i] + a * step[i]; };
        logs += sum_of_logs(p.begin, p.end, there);
        damped += sum_of_lone(s, p, there);
      },
      !main);
  if (!main) {
    const T *p = s.d_p, *n = s.d_n, *dp = at.step.d[3], *dn = at.step.d[4];
    f = c.rho * sum<T>(0, s.r, [=, a = at.alpha](Index i) { return p[i] + n[i] + a * (dp[i] + dn[i]); });
    f += s.reg.zeta / 2 * sum<T>(0, s.n, [=, x = at.x, from = s.x_r, weight = s.weight](Index j) {
           const T far = weight[j] * (x[j] - from[j]);
           return far * far;
         });
  }
  return f - static_cast<T>(barrier * logs) + c.damping * barrier * damped;
}

// The largest violation of rows and of bounds at x, as the user has them or `scaled`; less what rounding hides of J x, given its sizes.
template <class T>
T violation(const State<T>& s, const T* x, const T* h, const T* sizes, bool scaled = false) {
  const Index n = s.n, m = s.m(), r = s.r;
  const T hidden = sizes ? s.constants().rounding_rows * s.constants().precision : T(0);
  const T* of = sizes ? sizes : s.h;
  const auto beyond = [=, scale = s.h_scale](Index i, T value) {
    return std::max(value - hidden * std::abs(of[i]), T(0)) / (scaled ? T(1) : scale[i]);
  };
  const auto of_bound = [=, unit = s.unit](Index j) { return scaled ? T(1) : unit[j]; };
  T most = largest<T>(0, m, [=](Index i) { return beyond(i, std::abs(h[i])); });
  most = std::max(most, largest<T>(m, r, [=](Index i) { return beyond(i, -h[i]); }));
  if (s.reg.lower_count > 0)
    most = std::max(most, largest<T>(0, n, [=, a = s.lower, has = s.has_lower](Index j) {
                      return has[j] * of_bound(j) * std::max(a[j] - x[j], T(0));
                    }));
  if (s.reg.upper_count > 0)
    most = std::max(most, largest<T>(0, n, [=, a = s.upper, has = s.has_upper](Index j) {
                      return has[j] * of_bound(j) * std::max(x[j] - a[j], T(0));
                    }));
  return most;
}

// In restoration, the largest scaled violation of rows whose multipliers say that it can not be less: of others p and n are
// no more than what mu leaves of them.
template <class T>
T held_violated(const State<T>& s) {
  const auto held = [=, y = s.y, rho = s.constants().rho](Index i, T left) { return std::abs(y[i]) < rho / 2 ? T(0) : left; };
  const T most = largest<T>(0, s.m(), [=, h = s.h](Index i) { return held(i, std::abs(h[i])); });
  return std::max(most, largest<T>(s.m(), s.r, [=, h = s.h](Index i) { return held(i, std::max(-h[i], T(0))); }));
}

// The sum of z times distance from the bound, relaxed; without p and n.
template <class T>
T gap(const State<T>& s, T barrier) {
  const T relax = s.relaxation(barrier);
  T total = 0;
  s.pairs(
      [&](const Pair<T>& p) {
        const T* bound = p.kind == 0 ? s.lower : p.kind == 1 ? s.upper : nullptr;
        total += sum<T>(p.begin, p.end, [=, d = p.d, z = p.z](Index i) {
          return (d[i] + relax * (bound ? unit(bound[i]) : T(1))) * z[i];
        });
      },
      false);
  return total;
}

// What of E(mu) does not hang on mu, into the registers; needs `dual`.
template <class T>
void measure(const State<T>& s) {
  auto& reg = s.reg;
  const auto& c = s.constants();
  const T top = c.error_scale;
  T sum_z = 0, most = 0, least = std::numeric_limits<T>::infinity();
  reg.dual_rows = 0;
  s.pairs([&](const Pair<T>& p) {
    sum_z += sum<T>(p.begin, p.end, [z = p.z](Index i) { return z[i]; });
    run([&] {
      for (Index i = p.begin; i < p.end; ++i) {
        const bool there = !p.has || p.has[i] > 0;
        const T product = p.d[i] * p.z[i];
        most = std::max(most, product);
        least = std::min(least, there ? product : least);
      }
    });
  });
  const T* y = s.y;
  const auto dual = [&](Index begin, const auto& f) {
    reg.dual_rows = std::max(reg.dual_rows, largest<T>(begin, s.r, f));
  };
  dual(s.m(), [=, z = s.z_rows](Index i) { return -y[i] - z[i]; });
  if (s.elastic()) {
    dual(0, [=, z = s.z_p, rho = c.rho](Index i) { return rho - y[i] - z[i]; });
    dual(0, [=, z = s.z_n, rho = c.rho](Index i) { return rho + y[i] - z[i]; });
  }
  reg.dual_max = std::max(reg.dual_rows, largest(s.dual, s.n));
  reg.product_max = most;
  reg.product_min = least;
  const T count = static_cast<T>(s.count()), all = count + static_cast<T>(s.r);
  const T sum_y = sum<T>(0, s.r, [=](Index i) { return std::abs(y[i]); });
  reg.mean_d = std::max(top, (sum_y + sum_z) / std::max(T(1), all)) / top;
  reg.mean_z = std::max(top, sum_z / std::max(T(1), count)) / top;
}

// The largest of the residuals in r_lower, r_upper, r_rows.
template <class T>
T primal_error(const State<T>& s) {
  T primal = largest(s.r_rows, s.r);
  if (s.reg.lower_count > 0) primal = std::max(primal, largest(s.r_lower, s.n));
  if (s.reg.upper_count > 0) primal = std::max(primal, largest(s.r_upper, s.n));
  return primal;
}

// E(mu) without complementarity, given these residuals.
template <class T>
T residual_error(const State<T>& s) {
  return std::max(s.reg.dual_max / s.reg.mean_d, primal_error(s));
}

// How far products d z are from mu.
template <class T>
T product_error(const State<T>& s, T mu) {
  const auto& reg = s.reg;
  return (s.count() > 0 ? std::max(reg.product_max - mu, mu - reg.product_min) : T(0)) / reg.mean_z;
}

// E(mu), given the same.
template <class T>
T error(const State<T>& s, T mu) {
  return std::max(residual_error(s), product_error(s, mu));
}

}  // namespace bandhess::interior
