// The Newton system of a step, condensed to one positive definite band.
//
//     [ H   J^T ] [ dx ]   [ b1 ]      H = W + diagonal + shift,   gamma_i small beside row i of J H^-1 J^T,
//     [ J   -E  ] [ dy ] = [ b2 ]      G = 1 / (E + gamma),        M = H + J^T G J
//
// M is positive definite exactly when the matrix with gamma has inertia (n, r, 0): the elimination's pivots tell. The
// system without gamma is solved by refinement with the one with gamma,
//
//     dx = M^-1 (r1 + J^T G r2),    dy = G (J dx - r2),    r1 <- r1 - H dx - J^T dy,    r2 <- -gamma dy:
//
// an eigenvalue lambda of J H^-1 J^T + E leaves gamma / (lambda + gamma) of r2. Where a round leaves more than a small
// part, rows nearly depend on each other, and conjugate gradients on w = gamma dy / (E + gamma) take over,
//
//     (J M^-1 J^T + E (E + gamma) / gamma) w = J M^-1 (b1 + J^T G b2) - b2,
//
// preconditioned by gamma G^2: lambda becomes lambda / (lambda + gamma).
#pragma once

#include "border.h"
#include "condense.h"

namespace bandhess::interior {

template <class T>
class System {
 public:
  explicit System(const State<T>& s) : s_(s), c_(s.constants()), reg_(s.reg) {}

  // Weighs the rows against H and condenses; needs W, diagonal, e and size_w.
  void condense() {
    band_sizes(s_, s_.diagonal, s_.w1);
    const T size_w = reg_.size_w;
    each(0, s_.n, [=, h = s_.w1, size = s_.column_size](Index j) { h[j] = 1 / std::max(h[j], size_w * size[j]); });
    std::fill_n(s_.w1 + s_.n, kPad, T(0));
    weigh_rows(s_);
    fill_matrix(s_);
    add_gram(s_, s_.g, s_.matrix);
    condense_border(s_);
    hold_unused();
  }

  // What nothing depends on stays where it is, and needs no shift.
  void hold_unused() {
    const auto hold = [&](T& entry, Index j) {
      if (entry != 0 || s_.dual[j] != 0) return;
      entry = reg_.size_w;
      s_.diagonal[j] += reg_.size_w;
    };
    for (Index j = 0; j < s_.banded; ++j) hold(s_.matrix[j * s_.s.stride], j);
    for (Index q = 0; q < s_.p; ++q) hold(s_.border(q)[s_.banded + q], s_.banded + q);
  }

  // False where M with this shift, its diagonal larger by a relative one (`raised`), is not positive definite.
  bool factorise(T shift, T relative = 0) {
    reg_.delta = shift;
    const Bands& s = s_.s;
    std::fill_n(s_.pending, s.state(), T(0));
    for (Index j = 0; j < s.n; j += kTile) {
      const Index count = std::min(kTile, s.n - j);
      T* tile = s_.factor + j * s.stride;
      std::copy_n(s_.matrix + j * s.stride, count * s.stride, tile);
      for (Index t = 0; t < count; ++t) tile[t * s.stride] += raised(tile[t * s.stride], shift * s_.free[j + t], relative);
      eliminate_tile<false>(s, s_.pending, tile, count);
      for (Index t = 0; t < count; ++t)
        if (!positive(tile[t * s.stride])) return false;
    }
    return factorise_border(s_, shift, relative);
  }

  // The first shift with which M has a factor: 0, a third of the last one, eightfold steps from there. False: none.
  bool find_shift() {
    T shift = 0;
    const T last = reg_.last_shift;
    while (!factorise(shift)) {
      if (!(shift < c_.shift_most)) return false;
      const T first = last > 0 ? last / c_.shift_fall : c_.shift_first * reg_.size_w;
      shift = shift > 0 ? shift * (last > 0 ? c_.shift_grow : c_.shift_grow_first) : first;
    }
    if (shift > 0) reg_.last_shift = shift;
    return true;
  }

  // x <- M^-1 x
  void substitute(T* x) {
    substitute_band(s_, x);
    substitute_border(s_, x);
  }

  // dx and dy to the relative residual target, or as far as rounds bring it.
  void solve(const T* b1, const T* b2, T target, T* dx, T* dy) {
    size1_ = largest(b1, s_.n);
    size2_ = largest(b2, s_.r);
    if (!well_posed() || !refine(b1, b2, target, dx, dy)) solve_nearly_dependent(b1, b2, target, dx, dy);
  }

  // out = (H + shift) v
  void apply(const T* v, T* out) {
    apply_band(s_, v, out);
    each(0, s_.n, [=, d = s_.diagonal, free = s_.free, shift = reg_.delta](Index j) {
      out[j] += (d[j] + shift * free[j]) * v[j];
    });
  }

 private:
  static constexpr T kRefined = T(0.01);  // of a residual, at most, that a round of refinement leaves

  const State<T>& s_;
  const Constants<T>& c_;
  Registers<T>& reg_;
  T size1_ = 0;
  T size2_ = 0;

  // Whether refinement is tried: where rounding of J x shows in the violation, it leaves more of it than conjugate
  // gradients do.
  bool well_posed() const {
    if (reg_.quadratic > 0) return true;
    const T least = 1 / largest<T>(0, s_.r, [scale = s_.h_scale](Index i) { return 1 / scale[i]; });
    const T rounded = std::numeric_limits<T>::epsilon() * reg_.row_size * std::max(T(1), largest(s_.x, s_.n));
    return s_.r == 0 || c_.rounding_rows * rounded <= reg_.tol * least;
  }

  // Whether rounds of refinement reach the target. Where E = 0, what the rows of a round leave is to be pulled back as
  // what they were: J^T G gamma y = J^T y.
  bool refine(const T* b1, const T* b2, T target, T* dx, T* dy) {
    std::fill_n(dx, s_.n + kPad, T(0));
    std::fill_n(dy, s_.r, T(0));
    const bool pliant = s_.m() < s_.r || s_.elastic();
    T *x = s_.w1, *y = s_.v1, *force = s_.w4, *left1 = s_.w3, *left2 = s_.v3;
    T unit1 = 0, unit2 = 0, error = 1 / kRefined;
    weighted_force(b2, b1, x);
    const T *r1 = b1, *r2 = b2;
    for (int round = 0; round < static_cast<int>(c_.refinements); ++round) {
      substitute(x);
      push_and_pull(s_, x, y, force, [=, g = s_.g](Index i, T moved) { return g[i] * (moved - r2[i]); });
      apply(x, s_.w2);
      each(0, s_.n, [=, curved = s_.w2](Index j) { left1[j] = r1[j] - curved[j] - force[j]; });
      each(0, s_.r, [=, gamma = s_.gamma](Index i) { left2[i] = -gamma[i] * y[i]; });
      r1 = left1;
      r2 = left2;
      const T size1 = largest(r1, s_.n), size2 = largest(r2, s_.r);
      if (round == 0) {
        unit1 = size1_ + largest(force, s_.n);
        unit2 = size2 <= target * size2_ ? size2_ : size_of_products(x);
      }
      const T size = larger(relative(size1, unit1), relative(size2, unit2));
      if (!(size <= kRefined * error)) return false;
      add(x, y, dx, dy);
      error = size;
      if (error <= target) return true;
      if (pliant) {
        weighted_force(r2, r1, x);
      } else {
        each(0, s_.n, [=](Index j) { x[j] = r1[j] - force[j]; });
      }
    }
    return false;
  }

  // out = r1 + J^T G r2
  void weighted_force(const T* r2, const T* r1, T* out) {
    each(0, s_.r, [=, g = s_.g, to = s_.v2](Index i) { to[i] = g[i] * r2[i]; });
    pull(s_, s_.v2, out);
    each(0, s_.n, [=](Index j) { out[j] += r1[j]; });
  }

  static T relative(T left, T unit) { return unit > 0 ? left / unit : left * 0; }
  static T larger(T a, T b) { return a > b || !(a == a) ? a : b; }

  // Rounds of conjugate gradients.
  void solve_nearly_dependent(const T* b1, const T* b2, T target, T* dx, T* dy) {
    std::fill_n(dx, s_.n + kPad, T(0));
    std::fill_n(dy, s_.r, T(0));
    T error = std::numeric_limits<T>::infinity();
    const T* r1 = b1;
    const T* r2 = b2;
    for (int round = 0; round < static_cast<int>(c_.rounds); ++round) {
      const bool first = round == 0;
      iterate(r1, r2, target, dx);
      add(dx, dy, s_.w1, s_.v1);
      T size = residual(b1, b2);
      if (first && !(size < c_.poor)) size = regularised_or(b1, b2, size);
      if (!(size < std::numeric_limits<T>::infinity()) || !(first || size <= error / 2)) return;
      std::copy_n(s_.w1, s_.n, dx);
      std::copy_n(s_.v1, s_.r, dy);
      error = size;
      if (error <= target) return;
      r1 = s_.w3;
      r2 = s_.v3;
    }
  }

  // One round of conjugate gradients: w1 = M^-1 (r1 + J^T G r2) - M^-1 J^T w, v1 = (E + gamma) / gamma w.
  void iterate(const T* r1, const T* r2, T target, const T* dx) {
    const Index n = s_.n, r = s_.r;
    T *x = s_.w1, *m = s_.w2, *w = s_.v1, *d = s_.v2, *rest = s_.v4, *q = s_.v5, *scaled = s_.v6, *spare = s_.v7;
    const T *g = s_.g, *gamma = s_.gamma, *e = s_.e;
    each(0, r, [=](Index i) { spare[i] = g[i] * r2[i]; });
    pull(s_, spare, x);
    each(0, n, [=](Index j) { x[j] += r1[j]; });
    substitute(x);
    std::fill_n(w, r, T(0));
    if (r == 0) return;
    push(s_, x, rest);
    each(0, n, [=, at = s_.w3](Index j) { at[j] = x[j] + dx[j]; });
    const T enough = target * size_of_products(s_.w3);
    each(0, r, [=](Index i) {
      rest[i] -= r2[i];
      d[i] = gamma[i] * g[i] * g[i] * rest[i];
    });
    T size = inner(rest, d, r);
    const T first = size;
    for (int turn = 0; turn < static_cast<int>(c_.cg_steps) && size > c_.cg_least * first; ++turn) {
      pull(s_, d, m);
      substitute(m);
      push(s_, m, q);
      each(0, r, [=](Index i) { q[i] += e[i] / (g[i] * gamma[i]) * d[i]; });
      const T curvature = inner(d, q, r);
      const T flat = sum<T>(0, r, [=](Index i) { return d[i] * d[i] / (gamma[i] * g[i] * g[i]); });
      if (!(curvature > c_.cg_flat * flat)) break;  // a dependent row
      const T a = size / curvature;
      each(0, n, [=](Index j) { x[j] -= a * m[j]; });
      each(0, r, [=](Index i) {
        w[i] += a * d[i];
        rest[i] -= a * q[i];
        scaled[i] = gamma[i] * g[i] * g[i] * rest[i];
      });
      const T now = inner(rest, scaled, r), by = now / size;
      size = now;
      each(0, r, [=](Index i) { d[i] = scaled[i] + by * d[i]; });
      if (largest(rest, r) <= enough) break;
    }
    each(0, r, [=](Index i) { w[i] /= gamma[i] * g[i]; });
  }

  // What J x and b2 are small beside: never less than J x is rounded to.
  T size_of_products(const T* x) {
    const T rounding = c_.rounding_rows * std::numeric_limits<T>::epsilon() * reg_.row_size * largest(x, s_.n);
    return size2_ + c_.target_small * largest_product(s_, x, s_.v7) + rounding;
  }

  void add(const T* dx, const T* dy, T* x, T* y) {
    each(0, s_.n, [=](Index j) { x[j] += dx[j]; });
    each(0, s_.r, [=](Index i) { y[i] += dy[i]; });
  }

  // What (w1, v1) leave of b1 and b2, in w3 and v3, without gamma; its size beside b1, b2 and what cancels in it.
  T residual(const T* b1, const T* b2) {
    const T *x = s_.w1, *y = s_.v1;
    T *r1 = s_.w3, *r2 = s_.v3;
    pull(s_, y, s_.w4);
    apply(x, r1);
    push(s_, x, r2);
    each(0, s_.n, [=, force = s_.w4](Index j) { r1[j] = b1[j] - r1[j] - force[j]; });
    each(0, s_.r, [=, e = s_.e](Index i) { r2[i] = b2[i] - r2[i] + e[i] * y[i]; });
    const T unit1 = size1_ + largest(s_.w4, s_.n);
    const T unit2 = size_of_products(x);
    const T left1 = largest(r1, s_.n), left2 = largest(r2, s_.r);
    return larger(relative(left1, unit1), relative(left2, unit2));
  }

  // The solution with gamma for r1 and r2, in (w1, v1).
  void regularised(const T* r1, const T* r2) {
    each(0, s_.r, [=, g = s_.g, to = s_.v2](Index i) { to[i] = g[i] * r2[i]; });
    pull(s_, s_.v2, s_.w1);
    each(0, s_.n, [=, x = s_.w1](Index j) { x[j] += r1[j]; });
    substitute(s_.w1);
    push(s_, s_.w1, s_.v1);
    each(0, s_.r, [=, y = s_.v1, g = s_.g](Index i) { y[i] = g[i] * (y[i] - r2[i]); });
  }

  // The step of the system with gamma in (w1, v1), or NaN where it is no better than `size`.
  T regularised_or(const T* b1, const T* b2, T size) {
    regularised(b1, b2);
    const T plain = residual(b1, b2);
    return plain < size || !(size == size) ? plain : kNaN<T>;
  }
};

}  // namespace bandhess::interior
