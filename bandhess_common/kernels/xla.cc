// The front for XLA: an FFI handler bandhess_xla_NAME for each kernel. Threads are those of XLA's pool.
#include "kernels.h"

#include <algorithm>

#include "xla/ffi/api/ffi.h"

namespace bandhess {
namespace {

namespace ffi = xla::ffi;

class XlaPool : public Pool {
 public:
  explicit XlaPool(ffi::ThreadPool& pool) : pool_(pool) {}
  Index threads() const override { return pool_.num_threads(); }
  void start(std::function<void()> task) override { pool_.Schedule(std::move(task)); }

 private:
  ffi::ThreadPool& pool_;
};

DType dtype_of(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::F32:
      return DType::kFloat32;
    case ffi::DataType::F64:
      return DType::kFloat64;
    case ffi::DataType::S32:
      return DType::kInt32;
    default:
      return DType::kOther;
  }
}

Array array_of(const ffi::AnyBuffer& buffer) {
  const auto dims = buffer.dimensions();
  return {buffer.untyped_data(), dtype_of(buffer.element_type()), dims.begin(), static_cast<Index>(dims.size())};
}

ffi::Error unpack_and_run(const Kernel& kernel, ffi::ThreadPool& threads, const ffi::RemainingArgs& operands,
                          const ffi::RemainingRets& results, const ffi::Dictionary& attributes) {
  const int operand_count = static_cast<int>(operands.size());
  const int result_count = static_cast<int>(results.size());
  if (std::max(operand_count, result_count) > Call::kMostArrays) throw Invalid("too many arrays");
  Array given[Call::kMostArrays];
  Array wanted[Call::kMostArrays];
  for (int i = 0; i < operand_count; ++i) given[i] = array_of(operands.get<ffi::AnyBuffer>(i).value());
  for (int i = 0; i < result_count; ++i) wanted[i] = array_of(*results.get<ffi::AnyBuffer>(i).value());
  double options[kMostOptions];
  for (int i = 0; i < kMostOptions && kernel.options[i]; ++i) {
    const auto value = attributes.get<double>(kernel.options[i]);
    if (!value.has_value()) return value.error();
    options[i] = value.value();
  }
  XlaPool pool(threads);
  Call call(pool, kernel.name, given, operand_count, wanted, result_count, options);
  run_kernel(kernel, call);
  return ffi::Error::Success();
}

ffi::Error handle(const Kernel& kernel, ffi::ThreadPool& threads, const ffi::RemainingArgs& operands,
                  const ffi::RemainingRets& results, const ffi::Dictionary& attributes) {
  try {
    return unpack_and_run(kernel, threads, operands, results, attributes);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(kernel.name) + ": out of memory");
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
}

}  // namespace
}  // namespace bandhess

#pragma GCC visibility push(default)
#define BANDHESS_HANDLER(name, ...)                                                                         \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                            \
      bandhess_xla_##name,                                                                                  \
      [](xla::ffi::ThreadPool threads, xla::ffi::RemainingArgs operands, xla::ffi::RemainingRets results,   \
         xla::ffi::Dictionary attributes) {                                                                 \
        return bandhess::handle(bandhess::k_##name, threads, operands, results, attributes);                \
      },                                                                                                    \
      xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>().RemainingArgs().RemainingRets().Attrs());
BANDHESS_KERNELS(BANDHESS_HANDLER)
#undef BANDHESS_HANDLER
#pragma GCC visibility pop
