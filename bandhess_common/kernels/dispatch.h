// Where and how a kernel runs: the processor it was compiled for, the threads that share the work, and their memory.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "element.h"

namespace bandhess {

// ---- The processor: kernels are compiled for the baseline, and once more for AVX2 with FMA -------------------------

#if defined(__x86_64__) && defined(__GNUC__)
inline bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
inline const bool kAvx2 = has_avx2();

template <class F>
__attribute__((target("avx2,fma"), flatten, noinline)) void run_avx2(const F& kernel) {
  kernel();
}
#endif

template <class F>
__attribute__((flatten, noinline)) void run_baseline(const F& kernel) {
  kernel();
}

template <class F>
void run(const F& kernel) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (kAvx2) return run_avx2(kernel);
#endif
  run_baseline(kernel);
}

// ---- The width: up to 16 a kernel knows it, and keeps its window in registers --------------------------------------

constexpr int kUnrolled = 16;

// The width of the kernel that serves w: the next of those below, or w itself.
inline int padded(int w) {
  for (int W : {1, 2, 3, 4, 6, 8, 10, 12, 16})
    if (w <= W) return W;
  return w;
}

// Calls call(W) with a width that `padded` gives as a constant, and with 0 for wider ones.
template <class F>
void with_width(int width, const F& call) {
  switch (width) {
#define BANDHESS_WIDTH(W) \
  case W:                 \
    return call(std::integral_constant<int, W>());
    BANDHESS_WIDTH(1)
    BANDHESS_WIDTH(2)
    BANDHESS_WIDTH(3)
    BANDHESS_WIDTH(4)
    BANDHESS_WIDTH(6)
    BANDHESS_WIDTH(8)
    BANDHESS_WIDTH(10)
    BANDHESS_WIDTH(12)
    BANDHESS_WIDTH(16)
#undef BANDHESS_WIDTH
  }
  call(std::integral_constant<int, 0>());
}

// ---- Threads -------------------------------------------------------------------------------------------------------

constexpr Index kParallel = 20000;  // cells of a batch, below which threads cost more than they bring

// The threads that a front lends. A task may begin late, or after the call for it has returned.
class Pool {
 public:
  virtual ~Pool() = default;
  virtual Index threads() const = 0;
  virtual void start(std::function<void()> task) = 0;
};

// For how long threads that wait stay awake: from one call to the next in a loop of Python's. To wake one takes tens of
// microseconds, a third of a short call.
constexpr std::chrono::microseconds kAwake{300};

// Whether done() came true while this thread waited for it awake, leaving its core to others that have work.
template <class F>
bool awake_until(const F& done) {
  const auto end = std::chrono::steady_clock::now() + kAwake;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Calls work(worker, group) for each group, on the caller's thread and on idle ones of the pool. The caller waits for
// helpers that hold a group, never for one that has not begun: the pool may be full of callers.
template <class F>
void parallel(Pool& pool, Index groups, Index workers, const F& work) {
  struct State {
    std::atomic<Index> group{0};
    std::atomic<Index> worker{1};
    std::mutex mutex;
    std::condition_variable all_done;
    std::atomic<Index> done{0};
  };
  if (workers <= 1) {
    for (Index group = 0; group < groups; ++group) work(Index{0}, group);
    return;
  }
  const auto state = std::make_shared<State>();
  const auto take_turns = [groups, &work](State& state, Index worker) {
    for (Index group = state.group++; group < groups; group = state.group++) {
      work(worker, group);
      const std::lock_guard<std::mutex> lock(state.mutex);
      if (++state.done == groups) state.all_done.notify_one();
    }
  };
  for (Index i = 1; i < workers; ++i) {
    pool.start([state, take_turns] { take_turns(*state, state->worker++); });
  }
  take_turns(*state, 0);
  if (awake_until([&] { return state->done == groups; })) return;
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == groups; });
}

// ---- Memory --------------------------------------------------------------------------------------------------------

// Uninitialised scratch, in huge pages where it is large: first touches of small ones cost as much as the arithmetic.
//
// One block, of at most kKept bytes, stays with the process between calls for the next one, of whatever thread, that
// finds it large enough: for a block that malloc gave back, the system has new pages to zero, which took as long as a
// solve. Calls at the same time have blocks of their own, of which the largest stays.
class Memory {
 public:
  static constexpr std::size_t kKept = 64 << 20;

  explicit Memory(std::size_t bytes) : block_(kept_.exchange(nullptr)) {
    if (block_ && block_->bytes >= bytes) return;
    std::free(block_);
    block_ = allocate(bytes);
  }
  Memory(const Memory&) = delete;
  ~Memory() {
    const std::size_t bytes = block_->bytes;  // once given away the block may be another's
    Block* spare = bytes > kKept ? block_ : kept_.exchange(block_);
    if (spare && spare != block_ && spare->bytes > bytes) spare = kept_.exchange(spare);
    std::free(spare);
  }

  template <class V>
  V* as() const {
    return reinterpret_cast<V*>(block_->memory);
  }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kHuge = 2 << 20;

  struct Block {
    std::size_t bytes;
    char* memory;
  };

  inline static std::atomic<Block*> kept_{nullptr};
  Block* block_;

  // Has glibc's malloc keep what callers free, their results, up to 62 MiB, for the next call: it raises its limits to
  // the largest block that it was ever given back (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most).
  static void settle_heap() {
    void* volatile block = std::malloc(31 << 20);
    std::free(block);
  }

  static Block* allocate(std::size_t bytes) {
    static std::once_flag settled;
    if (bytes >= kHuge) std::call_once(settled, settle_heap);
    const std::size_t page = bytes < kHuge ? kLine : kHuge;
    const std::size_t size = (bytes + page) / page * page;
    char* const start = static_cast<char*>(std::malloc(kLine + size + page));
    if (!start) throw std::bad_alloc();
    char* const memory = start + kLine + (page - reinterpret_cast<std::uintptr_t>(start + kLine) % page) % page;
#ifdef __linux__
    if (page == kHuge) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return new (start) Block{size, memory};
  }
};

}  // namespace bandhess
