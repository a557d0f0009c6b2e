// The Newton step of the barrier problem, and how far positive variables let it go.
#pragma once

#include "measures.h"
#include "system.h"

namespace bandhess::interior {

// H's diagonal beside W, E, and the size of W; then the condensed matrix.
template <class T>
void set_up(const State<T>& s, System<T>& system) {
  auto& reg = s.reg;
  const T tiny = std::numeric_limits<T>::min();
  T* diagonal = s.diagonal;
  each(0, s.n, [=, by = s.elastic() ? reg.zeta : T(0), weight = s.weight](Index j) {
    diagonal[j] = by * weight[j] * weight[j];
  });
  apply_band(s, s.noise, s.w1);
  const T square = sum<T>(0, s.n, [=, of = s.w1, v = s.noise](Index j) {
    const T curved = of[j] + diagonal[j] * v[j];
    return curved * curved;
  });
  reg.size_w = std::max(std::sqrt(square) / std::max(reg.noise_size, tiny), reg.least_w);
  std::fill_n(s.e, s.r, T(0));
  s.pairs([&](const Pair<T>& p) {
    if (p.kind < 2) {
      each(0, s.n, [=, d = p.d, z = p.z](Index j) { diagonal[j] += z[j] / d[j]; });
    } else {
      each(p.begin, p.end, [=, d = p.d, z = p.z, e = s.e](Index i) { e[i] += d[i] / std::max(z[i], tiny); });
    }
  });
  each(0, s.n, [=, free = s.free, size = reg.size_w](Index j) { diagonal[j] += (1 - free[j]) * size; });
  system.condense();
}

// The largest -dv / v, 0 where none is positive: what part of v a step takes away.
template <class T>
T largest_fall(const T* v, const T* dv, Index begin, Index end) {
  T most = 0;
  run([&] {
    T part[kParts] = {};
    Index i = begin;
    for (; i + kParts <= end; i += kParts) {
      UNROLL for (int l = 0; l < kParts; ++l) {
        const T a = -dv[i + l] / v[i + l];
        part[l] = a > part[l] ? a : part[l];
      }
    }
    for (; i < end; ++i) {
      const T a = -dv[i] / v[i];
      part[0] = a > part[0] ? a : part[0];
    }
    for (int l = 0; l < kParts; ++l) most = std::max(most, part[l]);
  });
  return most;
}

// The largest alpha <= 1 with v + alpha dv >= (1 - tau) v.
template <class T>
T fraction(const T* v, const T* dv, Index begin, Index end, T tau) {
  const T most = largest_fall(v, dv, begin, end);
  return most > tau ? tau / most : T(1);
}

template <class T>
T fraction_d(const State<T>& s, const Step<T>& step) {
  T alpha = 1;
  s.pairs([&](const Pair<T>& p) {
    alpha = std::min(alpha, fraction(p.d, step.d[p.kind], p.begin, p.end, s.reg.tau));
  });
  return alpha;
}

template <class T>
T fraction_z(const State<T>& s, const Step<T>& step) {
  T alpha = 1;
  s.pairs([&](const Pair<T>& p) {
    run([&] {
      for (Index i = p.begin; i < p.end; ++i) {
        const T dz = step.z[p.kind][i];
        if (dz < 0 && -s.reg.tau * p.z[i] > alpha * dz) alpha = -s.reg.tau * p.z[i] / dz;
      }
    });
  });
  return alpha;
}

// dd and dz of one kind, where dd = d / z (sign dy + y_sign y - weight + mu / d) is eliminated, or given.
template <class T>
class Direction {
 public:
  Direction(const State<T>& s, System<T>& system) : s_(s), c_(s.constants()), reg_(s.reg), system_(system) {}

  // The step for these residuals of lower and upper bounds and of the rows; `products`, if given, are what it takes to
  // leave of d z besides mu, with their signs turned.
  void find(const T* r_lower, const T* r_upper, const T* r_rows, const Step<T>& to, T* const* products = nullptr,
            bool rough = false) {
    products_ = products;
    right_hand_side(r_lower, r_upper, r_rows);
    const bool newton = reg_.steps == 0 && s_.count() == 0;  // linear rows under a quadratic objective end with this step
    const bool fine = s_.elastic() || reg_.quadratic > 0 || newton;
    const T target = rough ? c_.target_predictor : fine ? c_.target_fine : c_.target;
    system_.solve(s_.b1, s_.b2, target, to.x, to.y);
    const T *dx = to.x, *dy = to.y;
    s_.pairs([&](const Pair<T>& p) {
      T *dd = to.d[p.kind], *dz = to.z[p.kind];
      if (p.kind == 0) {
        each(0, s_.n, [=, has = p.has](Index j) { dd[j] = has[j] * (dx[j] + r_lower[j]); });
      } else if (p.kind == 1) {
        each(0, s_.n, [=, has = p.has](Index j) { dd[j] = has[j] * (r_upper[j] - dx[j]); });
      } else {
        const T sign = p.kind == 4 ? T(-1) : T(1);
        each(p.begin, p.end, [=, *this](Index i) { dd[i] = p.d[i] / z_of(p, i) * (sign * dy[i] + force(p, i)); });
      }
      each(p.begin, p.end, [=, *this](Index i) { dz[i] = (centre(p, i) - p.z[i] * dd[i]) / p.d[i] - p.z[i]; });
    });
  }

  // The derivative of phi along a step.
  T slope(const Step<T>& to) const {
    T total = inner(s_.gradient, to.x, s_.n);
    s_.pairs([&](const Pair<T>& p) {
      const T* dd = to.d[p.kind];
      total -= reg_.barrier * sum<T>(p.begin, p.end, [=](Index i) { return dd[i] / p.d[i]; });
      total += reg_.barrier * c_.damping * sum_of_lone(s_, p, [=](Index i) { return dd[i]; });
      if (p.kind > 2) total += c_.rho * sum<T>(0, s_.r, [=](Index i) { return dd[i]; });
    });
    return total;
  }

 private:
  const State<T>& s_;
  const Constants<T>& c_;
  Registers<T>& reg_;
  System<T>& system_;
  T* const* products_ = nullptr;

  // What d z is to be.
  INLINE T centre(const Pair<T>& p, Index i) const {
    const T mu = (p.has ? p.has[i] : T(1)) * reg_.barrier;
    return products_ ? mu - products_[p.kind][i] : mu;
  }

  static INLINE T z_of(const Pair<T>& p, Index i) { return std::max(p.z[i], std::numeric_limits<T>::min()); }

  // What pushes a positive variable of the rows: with dy it gives dd z / d.
  INLINE T force(const Pair<T>& p, Index i) const {
    const T y = p.kind == 4 ? -s_.y[i] : s_.y[i];
    return y - (p.kind == 2 ? T(0) : c_.rho) + centre(p, i) / p.d[i] - (p.kind == 2 ? reg_.barrier * c_.damping : T(0));
  }

  void right_hand_side(const T* r_lower, const T* r_upper, const T* r_rows) {
    T *b1 = s_.b1, *b2 = s_.b2;
    each(0, s_.n, [=, dual = s_.dual](Index j) { b1[j] = -dual[j]; });
    each(0, s_.r, [=](Index i) { b2[i] = -r_rows[i]; });
    s_.pairs([&](const Pair<T>& p) {
      if (p.kind < 2) {
        const T sign = p.kind == 0 ? T(1) : T(-1);
        const T* left = p.kind == 0 ? r_lower : r_upper;
        each(0, s_.n, [=, *this](Index j) {
          b1[j] -= sign * (p.z[j] + (p.z[j] * left[j] - centre(p, j)) / p.d[j]);
        });
        const T damping = sign * reg_.barrier * c_.damping;
        if (reg_.lone_count > 0) each(0, s_.n, [=, lone = p.lone](Index j) { b1[j] -= damping * lone[j]; });
      } else {
        const T sign = p.kind == 4 ? T(-1) : T(1);
        each(p.begin, p.end, [=, *this](Index i) { b2[i] += sign * p.d[i] / z_of(p, i) * force(p, i); });
      }
    });
    // Leaves symmetric saddles: what is added grows along negative curvature alone.
    if (reg_.shifted >= c_.noise_after) {
      const T size = c_.noise * std::sqrt(inner(b1, b1, s_.n) / s_.n);
      each(0, s_.n, [=](Index j) { b1[j] += size * static_cast<T>(noise(j, 2)); });
    }
    each(0, s_.n, [=, free = s_.free](Index j) { b1[j] *= free[j]; });
  }
};

}  // namespace bandhess::interior
