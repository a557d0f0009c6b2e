// A turn of conjugate gradients on the trust-region step, as in optimise/newton/refinement.py, with its names.
#pragma once

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

}  // namespace bandhess
