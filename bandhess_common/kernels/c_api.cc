// The front for C callers, such as ctypes: a function bandhess_NAME for each kernel. It knows no framework.
//
//     int bandhess_NAME(const int64_t* arrays, int64_t operands, int64_t results, const double* options,
//                       int64_t threads, char* message, int64_t room)
//
// arrays describes the operands and then the results, one after the other: the address of its data, its dtype (0
// float32, 1 float64, 2 int32), its rank r, and r sizes. Arrays are contiguous, row by row. options are the kernel's
// numbers in the list's order. Returns 0, or 1 for arguments that do not fit, 2 without memory; then message says what
// is wrong. 3 is no error: some matrix is not positive definite, and its results are NaN.
#include <algorithm>
#include <cstring>

#include "arithmetic.h"
#include "helpers.h"
#include "interior/state.h"
#include "kernels.h"
#include "newton/state.h"

namespace bandhess {
namespace {

// Threads for one call: at most the given number, the caller's among them.
class Threads : public Pool {
 public:
  explicit Threads(Index count) : count_(std::max<Index>(1, count)) {}
  ~Threads() override {
    if (helpers_) helpers_->drop(this);
  }

  Index threads() const override { return count_; }

  void start(std::function<void()> task) override {
    if (!helpers_) helpers_ = &Helpers::of_process();
    helpers_->start(this, std::move(task), count_ - 1);
  }

 private:
  const Index count_;
  Helpers* helpers_ = nullptr;
};

const std::int64_t* read_array(const std::int64_t* words, Array* array) {
  const std::int64_t code = words[1];
  array->data = reinterpret_cast<void*>(words[0]);
  array->dtype = code >= 0 && code <= 2 ? static_cast<DType>(code) : DType::kOther;
  array->rank = words[2];
  array->dims = words + 3;
  if (array->rank < 0) throw Invalid("an array of negative rank");
  Index size = 1;
  for (Index i = 0; i < array->rank; ++i) {
    if (array->dims[i] < 0) throw Invalid("an array of negative size");
    size *= array->dims[i];
  }
  if (size > 0 && !array->data) throw Invalid("an array without data");
  return array->dims + array->rank;
}

// Whether all matrices were positive definite that had to be.
bool unpack_and_run(const Kernel& kernel, const std::int64_t* words, Index operands, Index results,
                    const double* options, Index threads) {
  Array arrays[2 * Call::kMostArrays];
  if (operands < 0 || results < 0 || operands + results > 2 * Call::kMostArrays) throw Invalid("too many arrays");
  for (Index i = 0; i < operands + results; ++i) words = read_array(words, arrays + i);
  Threads pool(threads);
  const int given = static_cast<int>(operands);
  Call call(pool, kernel.name, arrays, given, arrays + given, static_cast<int>(results), options);
  run_kernel(kernel, call);
  return !call.indefinite;
}

void say(const char* text, char* message, Index room) {
  if (room <= 0) return;
  std::strncpy(message, text, room - 1);
  message[room - 1] = 0;
}

int handle(const Kernel& kernel, const std::int64_t* arrays, Index operands, Index results, const double* options,
           Index threads, char* message, Index room) {
  try {
    return unpack_and_run(kernel, arrays, operands, results, options, threads) ? 0 : 3;
  } catch (const std::bad_alloc&) {
    say("out of memory", message, room);
    return 2;
  } catch (const std::exception& error) {
    say(error.what(), message, room);
    return 1;
  }
}

}  // namespace
}  // namespace bandhess

#define BANDHESS_FUNCTION(name, ...) \
  extern "C" __attribute__((visibility("default"))) int bandhess_##name( \
      const std::int64_t* arrays, std::int64_t operands, std::int64_t results, const double* options, \
      std::int64_t threads, char* message, std::int64_t room) { \
    return bandhess::handle(bandhess::k_##name, arrays, operands, results, options, threads, message, room); \
  }
BANDHESS_KERNELS(BANDHESS_FUNCTION)
#undef BANDHESS_FUNCTION

extern "C" __attribute__((visibility("default"))) void bandhess_arithmetic(
    const bandhess::Operation* operations, std::int64_t count, std::int64_t rows) {
  bandhess::arithmetic(operations, count, rows);
}

// The lists as they were compiled, a line a kernel, then arithmetic's operations, and those of the interior point and
// of Newton's method: Python
// compares them with its own.
#define BANDHESS_LINE(...) #__VA_ARGS__ "\n"
#define BANDHESS_NAME(name) " " #name
#define BANDHESS_N(name) " n:" #name
#define BANDHESS_R(name) " r:" #name
#define BANDHESS_OPERATION(name, result) " " #name
extern "C" __attribute__((visibility("default"))) const char* bandhess_list() {
  return BANDHESS_KERNELS(BANDHESS_LINE)
      "arithmetic:" BANDHESS_ARITHMETIC(BANDHESS_OPERATION) "\n"
      "constants:" BANDHESS_INTERIOR_CONSTANTS(BANDHESS_NAME) "\n"
      "registers:" BANDHESS_INTERIOR_REGISTERS(BANDHESS_NAME) "\n"
      "vectors:" BANDHESS_INTERIOR_VECTORS(BANDHESS_N, BANDHESS_R) "\n"
      "newton head:" BANDHESS_NEWTON_HEAD(BANDHESS_NAME) "\n"
      "newton settings:" BANDHESS_NEWTON_SETTINGS(BANDHESS_NAME) "\n";
}
#undef BANDHESS_LINE
#undef BANDHESS_NAME
#undef BANDHESS_N
#undef BANDHESS_R
#undef BANDHESS_OPERATION
