// The algorithms, compiled for float32 and float64 under the names of the list in kernels.h.
#include "kernels.h"

#include <algorithm>

#include "arithmetic.h"
#include "bordered.h"
#include "cholesky.h"
#include "interior.h"
#include "inverse.h"
#include "ldl.h"
#include "lu.h"
#include "newton.h"
#include "solve.h"
#include "substitution_probing.h"
#include "trust_region.h"

namespace bandhess {

// By the first array of reals: states of float32 problems come as int32.
template <class Float, class Double>
void by_dtype(Call& call, const Float& in_float, const Double& in_double) {
  const auto is_real = [](const Array& a) { return a.dtype != DType::kInt32; };
  const Array *operands = call.operands + call.operand_count, *results = call.results + call.result_count;
  const Array* of = std::find_if(call.operands, operands, is_real);
  if (of == operands) of = std::find_if(call.results, results, is_real);
  switch (of == results ? DType::kOther : of->dtype) {
    case DType::kFloat32:
      return in_float(call);
    case DType::kFloat64:
      return in_double(call);
    default:
      throw Invalid(std::string(call.kernel) + ": kernels take float32 and float64");
  }
}

#define BANDHESS_DEFINE(KERNEL, OPERANDS, LEAST, MOST, ...)             \
  const Kernel k_##KERNEL{"bandhess_" #KERNEL, OPERANDS, LEAST, MOST, {__VA_ARGS__}, \
                          [](Call& call) { by_dtype(call, KERNEL<float>, KERNEL<double>); }};
BANDHESS_KERNELS(BANDHESS_DEFINE)
#undef BANDHESS_DEFINE

void run_kernel(const Kernel& kernel, Call& call) {
  const bool fits = call.operand_count == kernel.operands && call.result_count >= kernel.least_results &&
                    call.result_count <= kernel.most_results;
  if (!fits) throw Invalid(std::string(kernel.name) + ": wrong number of operands or results");
  kernel.run(call);
}

void arithmetic(const Operation* operations, Index count, Index rows) {
  run([=] { operate_all(operations, count, rows); });
}

}  // namespace bandhess
