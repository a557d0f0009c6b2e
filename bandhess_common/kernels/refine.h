// A turn of conjugate gradients on the trust-region step, as in optimise/newton/refinement.py, with its names.
#pragma once

#include <cstring>

#include "trust_region.h"

namespace bandhess {

// The vectors of `Work`, one after the other.
template <class T>
struct Work {
  T *step, *residual, *last, *image;

  Work(T* rows, Index n) : step(rows), residual(rows + n), last(rows + 2 * n), image(rows + 3 * n) {}
};

// How far to go along the direction, and whether that is the minimum there; else it is where the region ends.
template <class T>
struct Length {
  T length;
  bool inside;

  // sizes: d^T d, step^T d, step^T step.
  Length(const T (&sizes)[3], T slope, T curvature, T radius, bool grow) {
    const T a = sizes[0], b = sizes[1], c = sizes[2] - radius * radius;
    const T minimum = curvature > 0 ? -slope / curvature : std::numeric_limits<T>::infinity();
    const T root = b + std::sqrt(std::max(b * b - a * c, T(0)));
    const T border = root > 0 ? std::max(-c, T(0)) / root : T(0);
    inside = minimum < border || (grow && curvature > 0);
    length = inside ? minimum : border;
  }
};

// `to` begins as a copy of the work so far. Returns whether to go on: the next turn may add something.
template <class T>
bool refine(const Work<T>& to, Index n, const T* g, const T* z, const T* image, bool found, bool grow, T enough,
            Answer<T>& t) {
  const T overlap = dot(to.last, to.image, n);
  // Conjugate to the last direction, whatever rounding did to the preconditioner.
  const T beta = overlap > 0 ? dot(z, to.image, n) / overlap : T(0);
#pragma GCC ivdep
  for (Index i = 0; i < n; ++i) {
    to.last[i] = z[i] - beta * to.last[i];
    to.image[i] = image[i] - beta * to.image[i];
  }
  const T slope = dot(to.last, to.residual, n), curvature = dot(to.last, to.image, n);
  const T sizes[3] = {dot(to.last, to.last, n), dot(to.step, to.last, n), dot(to.step, to.step, n)};
  const Length<T> along(sizes, slope, curvature, t.radius, grow);
  const T a = along.length;
  if (!(found && slope < 0 && std::abs(a) < std::numeric_limits<T>::infinity())) {
    t.size = std::sqrt(sizes[2]);
    t.radius = std::max(t.radius, t.size);
    return false;
  }
  const T earned = -a * slope - a * a * curvature / 2;
  t.size = std::sqrt(std::max(sizes[2] + a * (2 * sizes[1] + a * sizes[0]), T(0)));
  t.radius = std::max(t.radius, t.size);
  t.slope += a * dot(to.last, g, n);
  t.predicted += earned;
#pragma GCC ivdep
  for (Index i = 0; i < n; ++i) {
    to.step[i] += a * to.last[i];
    to.residual[i] += a * to.image[i];
  }
  return along.inside && earned > enough * t.predicted;
}

// Kernel. work (4, n), g (n), z (n), image (n), whether z is new and the region may grow (2), answer (9), option enough
// -> work (4, n), answer (9), whether to go on ().
template <class T>
void refinement(Call& call) {
  const Matrices rows = call.matrices(0);
  const Index n = rows.columns;
  const Bands s(rows.batch, 1, n);
  const T* work = call.operand<T>(0, {4, n});
  const T* g = call.operand<T>(1, {n});
  const T* z = call.operand<T>(2, {n});
  const T* image = call.operand<T>(3, {n});
  const T* numbers = call.operand<T>(4, {2});
  const T* answers = call.operand<T>(5, {kAnswer});
  T* out = call.result<T>(0, {4, n});
  T* answers_out = call.result<T>(1, {kAnswer});
  T* more = call.result<T>(2, {});
  const T enough = static_cast<T>(call.options[0]);
  s.each<T, 1>(call.pool, 0, [&](Index i, T*) {
    Answer<T> t;
    std::memcpy(&t, answers + i * kAnswer, sizeof t);
    if (out != work) std::copy_n(work + 4 * i * n, 4 * n, out + 4 * i * n);
    const Work<T> to(out + 4 * i * n, n);
    const bool found = numbers[2 * i] > 0, grow = numbers[2 * i + 1] > 0;
    run([&] { more[i] = T(refine(to, n, g + i * n, z + i * n, image + i * n, found, grow, enough, t)); });
    std::memcpy(answers_out + i * kAnswer, &t, sizeof t);
  });
}

}  // namespace bandhess
