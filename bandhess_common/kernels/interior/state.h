// The state between two requests, one flat array: registers, filters, vectors, bands. kernels/interior.py has the same
// lists for Python, and `library.load` compares them.
#pragma once

#include <cstddef>
#include <cstring>

#include "../bands.h"
#include "constants.h"

// The first line is for callers, who read them after each call; the others are the engine's own.
#define BANDHESS_INTERIOR_REGISTERS(R)                                                                           \
  R(status) R(request) R(sigma) R(steps) R(value) R(grad_norm) R(violation) R(step) R(fraction) R(shift) R(mu)   \
  R(gap) R(fresh) R(narrow)                                                                                      \
  R(m) R(tol) R(max_steps) R(start) R(lower_count) R(upper_count) R(f_scale) R(value_unit) R(least_w) R(size_w)  \
  R(row_size) R(noise_size) R(stage) R(elastic) R(pending) R(leaving) R(warm_mu) R(f) R(f_new) R(barrier) R(main_barrier) R(theta_r)  \
  R(zeta) R(delta) R(last_shift) R(shifted) R(tiny_steps) R(least_mu) R(tau) R(alpha) R(alpha_max) R(alpha_z)    \
  R(alpha_least) R(phi0) R(theta0) R(slope) R(curved) R(curvature) R(first) R(raised) R(augment) R(any_finite)   \
  R(corrections) R(correction_alpha) R(theta_old) R(dual_max) R(product_max) R(product_min) R(mean_d) R(mean_z)  \
  R(main_theta_max) R(main_theta_min) R(main_count) R(own_theta_max) R(own_theta_min) R(own_count) \
  R(entries) R(renewals) R(theta_mark) R(since_mark) R(quadratic) R(predicted) R(best_error) R(since_best) R(diagonals) \
  R(held) R(theta_noise) R(phi_noise) R(hidden_primal) R(hidden_dual) R(dual_rows) R(measured) R(apart) R(lone_count) \
  R(barred) R(barred_steps) R(forgotten) R(flat) R(alone) R(ahead) R(short_row) R(renewed) R(last_renewals) \
  R(last_dual) R(last_top) R(fresh_y)

// With the number of entries: N of variables, R of rows. Those of variables are followed by zeros.
#define BANDHESS_INTERIOR_VECTORS(N, R)                                                                           \
  N(x_request) R(y_request) N(x) N(x_trial) R(y)                                                                  \
  N(lower) N(upper) N(has_lower) N(has_upper) N(lone_lower) N(lone_upper) N(free) N(unit) N(mask) N(noise) R(first) R(h_scale) R(top) N(column_size)          \
  N(d_lower) N(d_upper) R(d_rows) R(d_p) R(d_n) N(z_lower) N(z_upper) R(z_rows) R(z_p) R(z_n)                     \
  R(h) N(gradient) N(dual) N(r_lower) N(r_upper) R(r_rows) N(x_r) N(weight)                                       \
  N(dx) R(dy) N(dd_lower) N(dd_upper) R(dd_rows) R(dd_p) R(dd_n)                                                  \
  N(dz_lower) N(dz_upper) R(dz_rows) R(dz_p) R(dz_n)                                                              \
  N(cx) R(cy) N(cd_lower) N(cd_upper) R(cd_rows) R(cd_p) R(cd_n)                                                  \
  N(cz_lower) N(cz_upper) R(cz_rows) R(cz_p) R(cz_n) N(c_lower) N(c_upper) R(c_rows)                              \
  N(diagonal) R(e) R(gamma) R(g) N(b1) R(b2)                                                                      \
  N(w1) N(w2) N(w3) N(w4) N(w5) R(v1) R(v2) R(v3) R(v4) R(v5) R(v6) R(v7)

namespace bandhess::interior {

constexpr Index kFilter = 64;
constexpr Index kPad = kUnrolled;  // zeros behind a vector of variables: windows are padded, too

template <class T>
struct Registers {
#define BANDHESS_MEMBER(name) T name;
  BANDHESS_INTERIOR_REGISTERS(BANDHESS_MEMBER)
#undef BANDHESS_MEMBER
};

constexpr Index kForCallers = offsetof(Registers<double>, m) / sizeof(double);  // registers

enum Status {
  kConverged = 0,
  kPrecisionFloor = 1,
  kMaxSteps = 2,
  kStalled = 3,
  kNonfinite = 4,
  kBandTooNarrow = 5,
  kInfeasible = 6,
  kRankDeficient = 7,
  kUnbounded = 8,
};

enum Request { kDone = 0, kDerivatives = 1, kValues = 2 };

// What the derivatives or values that are asked for are wanted for.
enum Stage { kScale = 0, kEstimate = 1, kLinearise = 2, kSearch = 3, kCorrect = 4, kTiny = 5 };

// What the next derivatives, if finite, make the current point: register `pending`.
enum Pending { kNothing = 0, kStepped = 1, kEntering = 2 };

// Theta and phi that later points must not both reach, with the bounds of theta: of the problem, or of a restoration.
template <class T>
struct Filter {
  T* theta;
  T* phi;
  T& count;
  T& theta_max;
  T& theta_min;
};

// A direction, in x, y and in every positive variable and its multiplier: lower, upper, rows, p, n.
template <class T>
struct Step {
  T* x;
  T* y;
  T* d[5];
  T* z[5];
};

// Entries [begin, end) of one kind of positive variables, d > 0 with multipliers z; `has` tells those that are there,
// nullptr for all. Others have d = 1, z = 0 and do not move. `lone`: 1 for those that nothing bounds from the other side.
template <class T>
struct Pair {
  int kind;
  Index begin, end;
  const T* has;
  const T* lone;
  T* d;
  T* z;
};

inline Index rounded(Index count) { return (count + 7) / 8 * 8; }

// n variables, the last p of them shared: any row may touch them; r rows; W of `rows` diagonals on the others.
struct Sizes {
  Index n, r, rows, p;
};

template <class T>
class State {
 public:
  const Index n, r, p, banded;
  const Bands s;  // of the banded variables

  State(T* base, const Sizes& of, const void* constants) : State(base, of) {
    std::memcpy(constants_, constants, kConstants * sizeof(T));
  }

  State(T* base, const Sizes& of)
      : n(of.n), r(of.r), p(of.p), banded(n - p), s(1, of.rows, banded), reg(*reinterpret_cast<Registers<T>*>(base)) {
    constexpr Index registers = sizeof(Registers<T>) / sizeof(T);
    T* at = base + rounded(registers);
    const auto take = [&at](Index count) {
      T* here = at;
      at += rounded(count);
      return here;
    };
#define BANDHESS_N(name) name = take(n + kPad);
#define BANDHESS_R(name) name = take(r);
    BANDHESS_INTERIOR_VECTORS(BANDHESS_N, BANDHESS_R)
#undef BANDHESS_N
#undef BANDHESS_R
    constants_ = take(kConstants);
    filters_ = take(4 * kFilter);
    w = take((s.w + 1 + p) * n);
    matrix = take((banded + kPad) * s.stride);
    factor = take((banded + kPad) * s.stride);
    pending = take(s.state());
    border_ = take(p * n);
    solved_ = take(p * banded);
    corner = take(p * p);
    columns_ = take(p * r);
    rows_ = at;
  }

  // Grows with r, so that another r is refused.
  static Index size(const Sizes& of) {
    const Index n = of.n, r = of.r, p = of.p, banded = n - p;
    const Bands s(1, of.rows, banded);
    Index total = rounded(sizeof(Registers<T>) / sizeof(T));
#define BANDHESS_N(name) total += rounded(n + kPad);
#define BANDHESS_R(name) total += rounded(r);
    BANDHESS_INTERIOR_VECTORS(BANDHESS_N, BANDHESS_R)
#undef BANDHESS_N
#undef BANDHESS_R
    total += rounded(kConstants) + rounded(4 * kFilter) + rounded((s.w + 1 + p) * n) + rounded(s.state());
    total += rounded(p * n) + rounded(p * banded) + rounded(p * p) + rounded(p * r);
    return total + 2 * rounded((banded + kPad) * s.stride) + r * s.stride;
  }

  Registers<T>& reg;
#define BANDHESS_MEMBER(name) T* name;
  BANDHESS_INTERIOR_VECTORS(BANDHESS_MEMBER, BANDHESS_MEMBER)
#undef BANDHESS_MEMBER
  T* w;        // (w + 1 + p, n), of fixed variables zeros: the band, with the diagonal of all n, and the border; of the
               // band register `diagonals` tells how many hold anything, the others are not read
  T* matrix;   // condensed, by columns of `stride` entries, without shift
  T* factor;   // [d, m] with shift
  T* pending;  // of eliminations and substitutions
  T* corner;   // (p, p), the Cholesky factor of the Schur complement, by rows

  const Constants<T>& constants() const { return *reinterpret_cast<const Constants<T>*>(constants_); }
  Index m() const { return static_cast<Index>(reg.m); }
  Index diagonals() const { return static_cast<Index>(reg.diagonals); }
  bool elastic() const { return reg.elastic > 0; }

  // Row i of the Jacobian, scaled, of fixed variables zeros: entries of the columns starts()[i], .. one after the other.
  T* row(Index i) const { return rows_ + i * s.stride; }
  // What shared variable q has in the Jacobian's rows; in W, off the diagonal; in the condensed matrix; and that last
  // one solved for with the factor's band.
  T* column(Index q) const { return columns_ + q * r; }
  T* w_border(Index q) const { return w + (s.w + 1 + q) * n; }
  T* border(Index q) const { return border_ + q * n; }
  T* solved(Index q) const { return solved_ + q * banded; }
  std::int32_t* starts() const { return reinterpret_cast<std::int32_t*>(first); }

  Step<T> step() const {
    return {dx, dy, {dd_lower, dd_upper, dd_rows, dd_p, dd_n}, {dz_lower, dz_upper, dz_rows, dz_p, dz_n}};
  }
  Step<T> correction() const {
    return {cx, cy, {cd_lower, cd_upper, cd_rows, cd_p, cd_n}, {cz_lower, cz_upper, cz_rows, cz_p, cz_n}};
  }

  // Calls work(pair) for each kind of positive variables; `all`: with p and n where they exist.
  template <class F>
  void pairs(const F& work, bool all = true) const {
    if (reg.lower_count > 0) work(Pair<T>{0, 0, n, has_lower, lone_lower, d_lower, z_lower});
    if (reg.upper_count > 0) work(Pair<T>{1, 0, n, has_upper, lone_upper, d_upper, z_upper});
    if (m() < r) work(Pair<T>{2, m(), r, nullptr, nullptr, d_rows, z_rows});
    if (!all || !elastic()) return;
    work(Pair<T>{3, 0, r, nullptr, nullptr, d_p, z_p});
    work(Pair<T>{4, 0, r, nullptr, nullptr, d_n, z_n});
  }

  // Bounds and inequalities, and in a restoration the 2 r elastic variables.
  Index count(bool all = true) const {
    const Index own = static_cast<Index>(reg.lower_count + reg.upper_count) + r - m();
    return all && elastic() ? own + 2 * r : own;
  }

  Filter<T> filter(bool main) const {
    T* at = filters_ + (main ? 0 : 2 * kFilter);
    if (main) return {at, at + kFilter, reg.main_count, reg.main_theta_max, reg.main_theta_min};
    return {at, at + kFilter, reg.own_count, reg.own_theta_max, reg.own_theta_min};
  }
  Filter<T> filter() const { return filter(!elastic()); }

  T relaxation(T barrier) const { return std::min(constants().relax, constants().relax_factor * barrier); }

 private:
  T* constants_;
  T* filters_;
  T* border_;
  T* solved_;
  T* columns_;
  T* rows_;
};

}  // namespace bandhess::interior
