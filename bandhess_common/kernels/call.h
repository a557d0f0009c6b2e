// A call of a kernel as both fronts hand it over: arrays, a few numbers, threads. The kernel asks for each array with
// the shape and the dtype that it needs, and the call is refused where the array has another.
#pragma once

#include <atomic>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "element.h"

namespace bandhess {

enum class DType : Index { kFloat32 = 0, kFloat64 = 1, kInt32 = 2, kOther = 3 };

template <class T>
constexpr DType kDType = DType::kOther;
template <>
inline constexpr DType kDType<float> = DType::kFloat32;
template <>
inline constexpr DType kDType<double> = DType::kFloat64;
template <>
inline constexpr DType kDType<std::int32_t> = DType::kInt32;

inline const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kInt32:
      return "int32";
    default:
      return "another dtype";
  }
}

// Contiguous, row by row; leading dimensions are a batch.
struct Array {
  void* data;
  DType dtype;
  const Index* dims;
  Index rank;

  std::string described() const {
    std::string text = "(";
    for (Index i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + ") of " + name_of(dtype);
  }
};

// Arguments that do not fit each other.
struct Invalid : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct Matrices {
  Index batch, rows, columns;
};

class Call {
 public:
  static constexpr int kMostArrays = 10;

  Pool& pool;
  const char* const kernel;
  const Array* const operands;
  const int operand_count;
  const Array* const results;
  const int result_count;
  const double* const options;
  std::atomic<bool> indefinite{false};  // some matrix is not positive definite, and what was asked of it is NaN

  Call(Pool& pool, const char* kernel, const Array* operands, int operand_count, const Array* results, int result_count,
       const double* options)
      : pool(pool),
        kernel(kernel),
        operands(operands),
        operand_count(operand_count),
        results(results),
        result_count(result_count),
        options(options) {}

  // The shape of operand i, a batch of matrices. Its leading dimensions are those that all arrays have.
  Matrices matrices(int i) {
    const Array& a = operands[i];
    if (a.rank < 2) refuse("operand", i, a, "a matrix or a batch of them");
    return {batch_of(a, a.rank - 2), a.dims[a.rank - 2], a.dims[a.rank - 1]};
  }

  // The batch of operand i, of vectors.
  Index vectors(int i) {
    const Array& a = operands[i];
    if (a.rank < 1) refuse("operand", i, a, "a vector or a batch of them");
    return batch_of(a, a.rank - 1);
  }

  // Of a vector operand that may be left out: then it has no entries.
  Index length(int i, Index n) const {
    const Array& a = operands[i];
    return a.rank > 0 && a.dims[a.rank - 1] == 0 ? 0 : n;
  }

  // The k of an operand (..., n, k), or 1 for (..., n).
  Index right_hand_sides(int i) const {
    const Array& a = operands[i];
    return a.rank == leading_ + 2 ? a.dims[a.rank - 1] : 1;
  }

  template <class T>
  const T* operand(int i, std::initializer_list<Index> shape) const {
    return checked<T>("operand", i, operands[i], shape);
  }

  template <class T>
  T* result(int i, std::initializer_list<Index> shape) const {
    return checked<T>("result", i, results[i], shape);
  }

  // A result that the caller may leave out; then nullptr.
  template <class T>
  T* optional(int i, std::initializer_list<Index> shape) const {
    return i < result_count ? result<T>(i, shape) : nullptr;
  }

  // A count or a switch among the options, at most `most`.
  int whole(int i, Index most) const {
    const double value = options[i];
    if (!(value >= 0 && value <= static_cast<double>(most) && value == std::floor(value)))
      throw Invalid(std::string(kernel) + ": option " + std::to_string(i) + " must be a whole number from 0 to " +
                    std::to_string(most) + ", got " + std::to_string(value));
    return static_cast<int>(value);
  }

 private:
  const Array* batch_ = nullptr;  // whose first `leading_` dimensions are the batch
  Index leading_ = 0;

  Index batch_of(const Array& a, Index leading) {
    batch_ = &a;
    leading_ = leading;
    Index batch = 1;
    for (Index k = 0; k < leading; ++k) batch *= a.dims[k];
    return batch;
  }

  template <class T>
  T* checked(const char* role, int i, const Array& a, std::initializer_list<Index> shape) const {
    if (a.dtype != kDType<T> || !fits(a, shape)) {
      std::string expected = "(";
      for (Index k = 0; k < leading_; ++k) expected += std::to_string(batch_->dims[k]) + ", ";
      for (Index size : shape) expected += std::to_string(size) + ", ";
      if (expected.size() > 1) expected.resize(expected.size() - 2);
      refuse(role, i, a, expected + ") of " + name_of(kDType<T>));
    }
    return static_cast<T*>(a.data);
  }

  // Whether a has the batch's dimensions and then these; a last dimension of 1 may be missing.
  bool fits(const Array& a, std::initializer_list<Index> shape) const {
    const Index leading = leading_, count = static_cast<Index>(shape.size());
    const Index* sizes = shape.begin();
    const bool as_vector = count == 2 && sizes[1] == 1 && a.rank == leading + 1;
    if (a.rank != leading + count && !as_vector) return false;
    for (Index k = 0; k < a.rank; ++k)
      if (a.dims[k] != (k < leading ? batch_->dims[k] : sizes[k - leading])) return false;
    return true;
  }

  [[noreturn]] void refuse(const char* role, int i, const Array& a, const std::string& expected) const {
    throw Invalid(std::string(kernel) + ": " + role + " " + std::to_string(i) + " must be " + expected + ", got " +
                  a.described());
  }
};

}  // namespace bandhess
