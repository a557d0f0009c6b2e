// The list of all kernels, for the fronts: name, operands, results (of which the last may be left out from `least` on),
// and the names of the options, numbers that come with a call. table.py is the same list for Python.
#pragma once

#include <array>

#include "call.h"

#define BANDHESS_KERNELS(KERNEL)                              \
  KERNEL(columns, 1, 1, 2)                                    \
  KERNEL(cholesky, 1, 2, 2)                                   \
  KERNEL(solve, 2, 1, 3, "room")                              \
  KERNEL(solve_bordered, 4, 1, 2, "room")                     \
  KERNEL(substitute, 2, 1, 1, "raw")                          \
  KERNEL(triangular, 2, 1, 1, "transpose")                    \
  KERNEL(inverse, 2, 1, 1)                                    \
  KERNEL(variances, 1, 1, 1)                                  \
  KERNEL(lu, 1, 3, 3, "l")                                    \
  KERNEL(lu_solve, 4, 1, 1, "transpose")                      \
  KERNEL(subproblem, 4, 2, 2, "near", "hard", "grow", "tries") \
  KERNEL(newton_start, 9, 5, 5)                               \
  KERNEL(newton_trial, 4, 5, 5)                               \
  KERNEL(newton_begin, 6, 5, 5)                               \
  KERNEL(symmetry, 1, 1, 1, "d")                              \
  KERNEL(interior_start, 10, 2, 2, "rows", "m", "shared")     \
  KERNEL(interior_begin, 8, 2, 2, "shared")                   \
  KERNEL(interior_trial, 3, 2, 2, "n", "rows", "shared")      \
  KERNEL(interior_narrow, 6, 1, 1, "shared")                  \
  KERNEL(interior_solution, 1, 5, 5, "n", "r", "rows", "shared")

namespace bandhess {

constexpr int kMostOptions = 4;

struct Kernel {
  const char* name;
  int operands;
  int least_results;
  int most_results;
  std::array<const char*, kMostOptions> options;  // nullptr from the last on
  void (*run)(Call&);
};

// In kernels.cc, which compiles the algorithms for float32 and float64.
#define BANDHESS_DECLARE(name, ...) extern const Kernel k_##name;
BANDHESS_KERNELS(BANDHESS_DECLARE)
#undef BANDHESS_DECLARE

// Runs the kernel on what a front has unpacked. Throws Invalid or std::bad_alloc.
void run_kernel(const Kernel& kernel, Call& call);

}  // namespace bandhess
