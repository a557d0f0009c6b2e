// The banded solvers compiled for the CPU, as XLA FFI handlers; _cpu.py binds them. H = M D M^T, as in _ldl.py; general
// bands as in _lu.py, with a kernel of their own; the running sums of _substitution.py; the search of _subproblem.py.
//
// A band (w + 1, n) is read tile by tile into columns [d, m_1 .. m_w], where the kernels work in place. Their element V
// is a scalar of one system, or a vector with one system per lane. Up to w = 16 they know the width, rounded up to W,
// and keep the window of pending updates in registers. They are compiled twice, for the baseline and for AVX2 with FMA;
// everything else here moves data. Cells that storage does not use are never read.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Index = std::int64_t;

constexpr Index kTile = 32;         // columns
constexpr int kLaneBytes = 32;      // one register of AVX2, two of SSE2 or NEON
constexpr int kUnrolled = 16;       // widest band with kernels of its own
constexpr Index kParallel = 20000;  // cells of a batch, below which threads cost more than they bring

template <class T, int L>
struct Element {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
};
template <class T>
struct Element<T, 1> {
  typedef T type;
};

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 17")

// ---- Kernels --------------------------------------------------------------------------------------------------------
// Each takes `count` columns, w + 1 entries apart (W + 1 where W is not 0), and a state that passes from tile to tile.

template <class V>
INLINE V dot(const V* a, const V* b, Index w) {
  constexpr int P = 8;  // partial sums: the compiler keeps the order of additions
  V sum[P] = {};
  Index i = 0;
  for (; i + P <= w; i += P) UNROLL for (int l = 0; l < P; ++l) sum[l] += a[i + l] * b[i + l];
  for (; i < w; ++i) sum[i % P] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

template <class T>
INLINE bool positive(T pivot) {  // false for NaN
  return pivot > 0 && pivot < std::numeric_limits<T>::infinity();
}

// [a_0 .. a_w] becomes [d, m], or [d, d m] if Raw. state[k * w + i] is pending on entry i of the k-th coming column.
// Raw goes on past any pivot, and then keeps zeros zeros: a row and column of zeros harms no other.
template <int W, bool Raw, class V>
INLINE void ldl_tile(V* state, V* columns, Index count, int w) {
  if constexpr (W == 0) {
    V *s = state, *m = state + w * w;
    for (V* c = columns; c != columns + count * (w + 1); c += w + 1) {
      for (int i = 0; i < w; ++i) c[i] -= s[i];
      const V r = 1 / c[0];
      for (int k = 1; k <= w; ++k) m[k] = Raw && c[k] == 0 ? 0 : c[k] * r;
      for (int k = 1; k <= w; ++k) {
        const V factor = m[k], *from = s + k * w, *below = c + k;
        V* to = s + (k - 1) * w;
#pragma GCC ivdep
        for (int i = 0; i < w - k; ++i) to[i] = from[i] + factor * below[i];
        to[w - k] = factor * c[w];
      }
      if (!Raw) std::copy(m + 1, m + w + 1, c + 1);
    }
  } else {
    V s[W * W], c[W + 1];
    std::copy(state, state + W * W, s);
    for (V* column = columns; column != columns + count * (W + 1); column += W + 1) {
      UNROLL for (int i = 0; i < W; ++i) c[i] = column[i] - s[i];
      c[W] = column[W];
      column[0] = c[0];
      const V r = 1 / c[0];
      UNROLL for (int k = 1; k <= W; ++k) {
        const V m = Raw ? (c[k] == 0 ? V{} : c[k] * r) : c[k] * r;
        V* to = s + (k - 1) * W;
        UNROLL for (int i = 0; i < W - k; ++i) to[i] = to[W + i] + m * c[k + i];
        to[W - k] = m * c[W];
        column[k] = Raw ? c[k] : m;
      }
    }
    std::copy(s, s + W * W, state);
  }
}

// x <- M^-1 x; state[i] is pending on the i-th coming row.
template <int W, class V>
INLINE void forward_tile(V* state, const V* columns, V* x, Index count, int w) {
  V registers[W + 1], *p = W ? registers : state;
  if (W) w = W, std::copy(state, state + W, p);
  for (Index t = 0; t < count; ++t) {
    const V *m = columns + t * (w + 1), v = x[t] - p[0];
    if constexpr (W == 0) {
#pragma GCC ivdep
      for (int i = 1; i < w; ++i) p[i - 1] = p[i] + m[i] * v;
    } else {
      UNROLL for (int i = 1; i < W; ++i) p[i - 1] = p[i] + m[i] * v;
    }
    p[w - 1] = m[w] * v;
    x[t] = v;
  }
  if (W) std::copy(p, p + W, state);
}

// x <- M^-T D^-1 x, upwards; state holds the w entries of x below.
template <int W, class V>
INLINE void backward_tile(V* state, const V* columns, V* x, Index count, int w) {
  if constexpr (W == 0) {
    for (Index t = count; t-- > 0;) {
      const V *m = columns + t * (w + 1) + 1, v = x[t] / m[-1] - dot(m, state, w);
      std::copy_backward(state, state + w - 1, state + w);
      x[t] = state[0] = v;
    }
  } else {
    V below[W];
    std::copy(state, state + W, below);
    for (Index t = count; t-- > 0;) {
      const V* m = columns + t * (W + 1) + 1;
      V v = x[t] / m[-1];
      UNROLL for (int i = W - 1; i >= 0; --i) v -= m[i] * below[i];
      UNROLL for (int i = W - 1; i > 0; --i) below[i] = below[i - 1];
      x[t] = below[0] = v;
    }
    std::copy(below, below + W, state);
  }
}

// The same for k right-hand sides, x (n, k), of which `left` rows are still to come at the tile's first column.
template <class T>
INLINE void forward_rows(const T* columns, T* x, Index k, Index count, int w, Index left, Index stride) {
  for (Index t = 0; t < count; ++t, columns += stride, x += k)
    for (Index i = 1; i <= std::min<Index>(w, left - 1 - t); ++i)
#pragma GCC ivdep
      for (Index q = 0; q < k; ++q) x[i * k + q] -= columns[i] * x[q];
}

template <class T>
INLINE void backward_rows(const T* columns, T* x, Index k, Index count, int w, Index left, Index stride) {
  for (Index t = count; t-- > 0;) {
    const T* m = columns + t * stride;
    T* row = x + t * k;
    for (Index q = 0; q < k; ++q) row[q] /= m[0];
    for (Index i = 1; i <= std::min<Index>(w, left - 1 - t); ++i)
#pragma GCC ivdep
      for (Index q = 0; q < k; ++q) row[q] -= m[i] * row[i * k + q];
  }
}

// Column [1 / d, m] becomes that of the inverse, upwards: below the diagonal -Z m, with Z the inverse's w x w block that
// starts one below (state, symmetric, both halves; then w entries of work), on it 1 / d + m^T Z m.
template <class V>
INLINE void inverse_tile(V* state, V* columns, Index count, int w, Index stride) {
  V* z = state + w * w;
  for (V* c = columns + count * stride; c != columns;) {
    c -= stride;
    const V* m = c + 1;
    std::fill(z, z + w, V{});
    for (int k = 0; k < w; ++k)
#pragma GCC ivdep
      for (int i = 0; i < w; ++i) z[i] -= state[k * w + i] * m[k];
    c[0] -= dot(m, z, w);
    std::copy(z, z + w, c + 1);
    for (int k = w; k-- > 1;) std::copy_backward(state + (k - 1) * w, state + k * w - 1, state + (k + 1) * w);
    for (int i = 0; i < w; ++i) state[i] = state[i * w] = c[i];
  }
}

// The tridiagonal solve from both ends at once: two chains of divisions run side by side and meet at row n / 2.
// m is work, n entries. Returns whether all pivots are in (0, inf).
template <class T>
INLINE bool solve_tridiagonal(const T* d, const T* e, const T* b, T* x, T* m, Index n) {
  struct End {
    T ee = 0, r = 1, m = 0, x = 0;  // of the row before: its coupling squared, 1 / pivot, coupling / pivot, unscaled x
  } above, below;
  bool ok = true;
  const auto eliminate = [&](End& end, Index i, T coupling) {
    const T pivot = d[i] - end.ee * end.r;
    ok &= positive(pivot);
    end.x = b[i] - end.m * end.x;
    end.r = 1 / pivot, end.ee = coupling * coupling;
    m[i] = end.m = coupling * end.r;
    x[i] = end.x * end.r;
  };
  const Index half = (n - 1) / 2, middle = n / 2;
  for (Index i = 0; i < half; ++i) eliminate(above, i, e[i]), eliminate(below, n - 1 - i, e[n - 2 - i]);
  if (half < middle) eliminate(above, half, e[half]);
  const T pivot = d[middle] - above.ee * above.r - below.ee * below.r;
  ok &= positive(pivot);
  T up = (b[middle] - above.m * above.x - below.m * below.x) / pivot, down = up;
  x[middle] = up;
  for (Index t = 1; t <= half; ++t) {
    x[middle - t] = up = x[middle - t] - m[middle - t] * up;
    x[middle + t] = down = x[middle + t] - m[middle + t] * down;
  }
  if (half < middle) x[0] -= m[0] * up;
  return ok;
}

// The same in pieces. Columns are pairs [1 / d, m], m being the coupling to the next row towards the middle over d.
template <class T>
INLINE bool tridiagonal_columns(const T* d, const T* e, T shift, T* columns, Index n) {
  bool ok = true;
  const auto eliminate = [&](T& pending, Index i, T coupling) {
    const T pivot = d[i] + shift - pending, r = 1 / pivot;
    ok &= positive(pivot);
    pending = coupling * coupling * r;
    columns[2 * i] = r, columns[2 * i + 1] = coupling * r;
  };
  const Index half = (n - 1) / 2, middle = n / 2;
  T above = 0, below = 0;
  for (Index i = 0; i < half; ++i) eliminate(above, i, e[i]), eliminate(below, n - 1 - i, e[n - 2 - i]);
  if (half < middle) eliminate(above, half, e[half]);
  above += below;
  eliminate(above, middle, T(0));
  return ok;
}

template <class T>
INLINE void tridiagonal_forward(const T* columns, T* x, Index n) {
  const Index half = (n - 1) / 2, middle = n / 2;
  T above = 0, below = 0;  // pending on the next row
  for (Index i = 0, k = n - 1; i < half; ++i, --k) {
    x[i] -= above, above = columns[2 * i + 1] * x[i];
    x[k] -= below, below = columns[2 * k + 1] * x[k];
  }
  if (half < middle) x[half] -= above, above = columns[2 * half + 1] * x[half];
  x[middle] -= above + below;
}

template <class T>
INLINE void tridiagonal_backward(const T* columns, T* x, Index n) {
  const Index half = (n - 1) / 2, middle = n / 2;
  T up = x[middle] * columns[2 * middle], down = up;
  x[middle] = up;
  for (Index t = 1; t <= half; ++t) {
    const Index i = middle - t, k = middle + t;
    x[i] = up = x[i] * columns[2 * i] - columns[2 * i + 1] * up;
    x[k] = down = x[k] * columns[2 * k] - columns[2 * k + 1] * down;
  }
  if (half < middle) x[0] = x[0] * columns[0] - columns[1] * up;
}

// General bands, as in _lu.py: row i of A stands in ab[u + i - j, j].

// Columns of LU with partial pivoting. window holds rows k .. k + l from column k on, each `width` = l + u + 1 entries;
// eliminating moves them up by one row and left by one column. Rows beyond the matrix are zeros.
template <class T>
INLINE void lu_columns(const T* ab, T* window, T* upper, T* multipliers, std::int32_t* swaps, Index n, int l, int u) {
  const int width = l + u + 1;
  const auto load = [&](T* row, Index i, Index j) {  // A[i, j:]
    const T* a = ab + (u + i - j) * n + j;
    const Index used = i < n ? std::min<Index>(u + i - j + 1, n - j) : 0;
    for (int c = 0; c < width; ++c) row[c] = c < used ? a[c * (1 - n)] : T(0);
  };
  for (int i = 0; i < l; ++i) load(window + i * width, i, 0);
  for (Index k = 0; k < n; ++k, upper += width, multipliers += l) {
    load(window + l * width, k + l, k);
    int p = 0;
    T best = std::abs(window[0]);
    for (int i = 1; i <= l; ++i) {  // the first largest or the first NaN, as argmax
      const T size = std::abs(window[i * width]);
      const bool larger = size > best || (size != size && best == best);
      p = larger ? i : p, best = larger ? size : best;
    }
    swaps[k] = p;
    T* pivot = window + p * width;
#pragma GCC ivdep
    for (int c = 0; c < width; ++c) upper[c] = pivot[c], pivot[c] = window[c];
    for (int i = 0; i < l; ++i) multipliers[i] = window[(i + 1) * width];
    for (int i = 0; i < l; ++i) multipliers[i] /= upper[0];
    for (int i = 0; i < l; ++i) {
      const T m = multipliers[i], *from = window + (i + 1) * width;
      T* to = window + i * width;
#pragma GCC ivdep
      for (int c = 1; c < width; ++c) to[c - 1] = from[c] - m * upper[c];
      to[width - 1] = 0;
    }
  }
}

// Rows 1 .. count below row x (k entries each) lose m_i x; or x loses the sum of their m_i multiples.
template <class T>
INLINE void spread(const T* m, T* x, Index count, Index k) {
  for (Index i = 0; i < count; ++i)
#pragma GCC ivdep
    for (Index q = 0; q < k; ++q) x[(i + 1) * k + q] -= m[i] * x[q];
}

template <class T>
INLINE void collect(const T* m, T* x, Index count, Index k) {
  if (k == 1) {
    T v = x[0];
    for (Index i = count; i > 0; --i) v -= m[i - 1] * x[i];  // the nearest last: only it is in the chain of rows
    x[0] = v;
    return;
  }
  for (Index i = 0; i < count; ++i)
#pragma GCC ivdep
    for (Index q = 0; q < k; ++q) x[q] -= m[i] * x[(i + 1) * k + q];
}

// x (n, k) <- A^-1 x or A^-T x.
template <class T>
INLINE void lu_rows(const T* upper, const T* multipliers, const std::int32_t* swaps, T* x, Index k, Index n, Index l,
                    Index width, bool transpose) {
  const auto within = [&](Index j, Index count) { return std::min(count, n - 1 - j); };
  const auto exchange = [&](Index j) {
    if (swaps[j]) std::swap_ranges(x + j * k, x + (j + 1) * k, x + (j + swaps[j]) * k);
  };
  const auto scale = [&](Index j) {
    const T r = 1 / upper[j * width];
    for (Index q = 0; q < k; ++q) x[j * k + q] *= r;
  };
  if (transpose) {
    for (Index j = 0; j < n; ++j) scale(j), spread(upper + j * width + 1, x + j * k, within(j, width - 1), k);
    for (Index j = n; j-- > 0;) collect(multipliers + j * l, x + j * k, within(j, l), k), exchange(j);
  } else {
    for (Index j = 0; j < n; ++j) exchange(j), spread(multipliers + j * l, x + j * k, within(j, l), k);
    for (Index j = n; j-- > 0;) collect(upper + j * width + 1, x + j * k, within(j, width - 1), k), scale(j);
  }
}

// ---- Dispatch: the processor, the width, the dtype, the threads ------------------------------------------------------

#if defined(__x86_64__) && defined(__GNUC__)
const bool kAvx2 = (__builtin_cpu_init(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));

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

// The width of the kernel that serves w: the next of those below, or w itself.
int padded(int w) {
  for (int W : {1, 2, 3, 4, 6, 8, 10, 12, 16})
    if (w <= W) return W;
  return w;
}

template <class F>
void with_width(int width, const F& call) {
  switch (width) {
#define WIDTH(W) \
  case W:        \
    return call(std::integral_constant<int, W>());
    WIDTH(1) WIDTH(2) WIDTH(3) WIDTH(4) WIDTH(6) WIDTH(8) WIDTH(10) WIDTH(12) WIDTH(16)
#undef WIDTH
  }
  call(std::integral_constant<int, 0>());
}

// Calls work(worker, group) for each group, on the caller's thread and on idle ones of the pool. The caller waits for
// helpers that hold a group, never for one that has not begun: the pool may be full of callers.
template <class F>
void parallel(ffi::ThreadPool& pool, Index groups, Index workers, const F& work) {
  struct State {
    std::atomic<Index> group{0}, worker{1};
    std::mutex mutex;
    std::condition_variable all_done;
    Index done = 0;
  };
  const auto state = std::make_shared<State>();
  const auto take_turns = [groups, &work](State& state, Index worker) {
    for (Index group; (group = state.group++) < groups;) {
      work(worker, group);
      const std::lock_guard<std::mutex> lock(state.mutex);
      if (++state.done == groups) state.all_done.notify_one();
    }
  };
  for (Index i = 1; i < workers; ++i) pool.Schedule([state, take_turns] { take_turns(*state, state->worker++); });
  take_turns(*state, 0);
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == groups; });
}

// Calls call(T(), L) with the dtype's T and L systems side by side.
template <class F>
ffi::Error dispatch(ffi::DataType dtype, bool lanes, const F& call) try {
  using One = std::integral_constant<int, 1>;
  if (dtype == ffi::DataType::F64)
    lanes ? call(double(), std::integral_constant<int, kLaneBytes / 8>()) : call(double(), One());
  else if (dtype == ffi::DataType::F32)
    lanes ? call(float(), std::integral_constant<int, kLaneBytes / 4>()) : call(float(), One());
  else
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "bandhess kernels take float32 and float64");
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "bandhess: out of memory");
}

// ---- Data between bands (w + 1, n) and tiles -------------------------------------------------------------------------

// Uninitialised scratch, in huge pages where it is large: first touches of small ones cost as much as the arithmetic.
class Memory {
 public:
  explicit Memory(std::size_t bytes) {
    const std::size_t page = bytes < kHuge ? 64 : kHuge;
    const std::size_t size = (bytes + page) / page * page;
    memory_ = std::aligned_alloc(page, size);
    if (!memory_) throw std::bad_alloc();
#ifdef __linux__
    if (page == kHuge) madvise(memory_, size, MADV_HUGEPAGE);
#endif
  }
  Memory(const Memory&) = delete;
  ~Memory() { std::free(memory_); }

  template <class V>
  V* as() const {
    return static_cast<V*>(memory_);
  }

 private:
  static constexpr std::size_t kHuge = 2 << 20;
  void* memory_;
};

// A batch of bands and the columns they are worked on in.
struct Bands {
  Index batch = 1, rows, n;
  int w, stride;  // rows beyond the matrix are left out

  explicit Bands(const ffi::AnyBuffer& ab) {
    const auto dims = ab.dimensions();
    for (std::size_t i = 0; i + 2 < dims.size(); ++i) batch *= dims[i];
    shape(dims[dims.size() - 2], dims[dims.size() - 1]);
  }

  static Bands of_columns(const ffi::AnyBuffer& unit) {  // unit (n, w): row j is m_j
    Bands s(unit);
    s.shape(s.n + 1, s.rows);
    return s;
  }

  void shape(Index rows_, Index n_) {
    rows = rows_, n = n_;
    w = static_cast<int>(std::min(rows, std::max<Index>(n, 1)) - 1);
    stride = padded(w) + 1;
  }

  bool lanes() const { return batch > 1 && w <= kUnrolled; }
  Index state() const { return Index{stride} * (stride + 1); }
  Index tile() const { return kTile * stride; }

  // Calls work(first system, scratch) for each group of L systems.
  template <class T, int L, class F>
  void each(ffi::ThreadPool& pool, Index scratch, const F& work) const {
    using V = typename Element<T, L>::type;
    const Index groups = (batch + L - 1) / L;
    const Index threads = batch * n * stride < kParallel ? 1 : pool.num_threads();
    const Index workers = std::max<Index>(1, std::min(groups, threads));
    const Memory memory(workers * scratch * sizeof(V));
    parallel(pool, groups, workers, [&](Index i, Index group) { work(group * L, memory.as<V>() + i * scratch); });
  }
};

// The operand of L systems, `size` entries each; lanes beyond the batch repeat its last system and are not written.
template <class T, int L>
struct Lanes {
  T* at[L];
  int live;

  Lanes(T* base, Index size, Index first, Index batch) : live(static_cast<int>(std::min<Index>(L, batch - first))) {
    for (int l = 0; l < L; ++l) at[l] = base + std::min(first + l, batch - 1) * size;
  }
};

// Columns [j, j + count) of `rows` diagonals of length n.
template <int L, class T, class U>
void gather(U* tile, Index stride, const Lanes<const T, L>& from, Index rows, Index n, Index j, Index count) {
  T* cells = reinterpret_cast<T*>(tile);
  for (Index i = 0; i < stride; ++i) {
    const Index used = i < rows ? std::max<Index>(0, std::min(count, n - i - j)) : 0;
    for (Index t = 0; t < used; ++t)
      for (int l = 0; l < L; ++l) cells[(t * stride + i) * L + l] = from.at[l][i * n + j + t];
    for (Index t = used; t < count; ++t)
      for (int l = 0; l < L; ++l) cells[(t * stride + i) * L + l] = 0;
  }
}

template <int L, class T, class U>
void scatter(const U* tile, Index stride, const Lanes<T, L>& to, Index rows, Index n, Index j, Index count) {
  const T* cells = reinterpret_cast<const T*>(tile);
  for (Index i = 0; i < rows; ++i) {
    const Index used = std::max<Index>(0, std::min(count, n - i - j));
    for (int l = 0; l < to.live; ++l) {
      T* row = to.at[l] + i * n + j;
      for (Index t = 0; t < used; ++t) row[t] = cells[(t * stride + i) * L + l];
      std::fill(row + used, row + count, T(0));
    }
  }
}

// The columns [d, m] of one system from d (n) and m (n, rows - 1).
template <class T>
void join(const Bands& s, T* tile, const T* d, const T* m, Index j, Index count) {
  for (Index t = 0; t < count; ++t, tile += s.stride) {
    tile[0] = d[j + t];
    std::copy_n(m + (j + t) * (s.rows - 1), s.w, tile + 1);
    std::fill(tile + s.w + 1, tile + s.stride, T(0));
  }
}

template <class F>
void tiles(Index n, const F& work) {
  for (Index j = 0; j < n; j += kTile) work(j, std::min(kTile, n - j));
}

template <class F>
void tiles_upwards(Index n, const F& work) {
  for (Index j = (n - 1) / kTile * kTile; j >= 0; j -= kTile) work(j, std::min(kTile, n - j));
}

// ---- Algorithms ------------------------------------------------------------------------------------------------------

// LDL^T tile by tile: after(j, count, tile) sees each, kept in `columns` one after the other if `keep`. info[l] becomes
// the 1-based first pivot of lane l that is not in (0, inf), or 0.
template <bool Raw, int L, class T, class V, class F>
void eliminate(const Bands& s, const Lanes<const T, L>& ab, V* state, V* columns, bool keep, int* info, const F& after) {
  std::fill(state, state + s.state(), V{});
  std::fill(info, info + L, 0);
  tiles(s.n, [&](Index j, Index count) {
    V* tile = keep ? columns + j * s.stride : columns;
    gather(tile, s.stride, ab, s.w + 1, s.n, j, count);
    with_width(s.stride - 1, [&](auto W) { run([&] { ldl_tile<W(), Raw>(state, tile, count, s.w); }); });
    const T* pivots = reinterpret_cast<const T*>(tile);
    for (Index t = 0; t < count; ++t, pivots += s.stride * L)
      for (int l = 0; l < L; ++l)
        if (!positive(pivots[l]) && !info[l]) info[l] = static_cast<int>(j + t + 1);
    after(j, count, tile);
  });
}

template <class T, class V>
void forward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if (std::is_same<T, V>() && k != 1)
    return run([&] { forward_rows(tile, x + j * k, k, count, s.w, s.n - j, s.stride); });
  with_width(s.stride - 1, [&](auto W) { run([&] { forward_tile<W()>(state, tile, x + j, count, s.w); }); });
}

template <class T, class V>
void backward(const Bands& s, V* state, const V* tile, V* x, Index k, Index j, Index count) {
  if (std::is_same<T, V>() && k != 1)
    return run([&] { backward_rows(tile, x + j * k, k, count, s.w, s.n - j, s.stride); });
  with_width(s.stride - 1, [&](auto W) { run([&] { backward_tile<W()>(state, tile, x + j, count, s.w); }); });
}

template <class T>
T* cells(const ffi::AnyBuffer& buffer) {
  return static_cast<T*>(buffer.untyped_data());
}

// The k of b (n, k), or 1 of b (n), beside a band of the same batch.
Index right_hand_sides(const ffi::AnyBuffer& b, const ffi::AnyBuffer& band) {
  const auto dims = b.dimensions();
  return dims.size() == band.dimensions().size() ? dims[dims.size() - 1] : 1;
}

// Z (C, n), the products of C = (k + 1) d probes -> band (C, n); the algorithm is _substitution.py's. Along a chain of
// positions p < q in a period, a = Z[p, m, q] = G[m] + F[m] and b = Z[q, m, p] = F[m] + G[m - 1]: a running sum.
template <class T>
struct Chains {
  static constexpr Index kBlock = 64, kGroup = 8;  // periods that stay in cache, and those that are summed at a time

  static Index blocks(Index C, Index n) { return std::max<Index>(1, (n + C - 1) / C / kBlock); }

  const T* z;
  T* band;
  Index C, n, d, periods = (n + C - 1) / C, count = blocks(C, n);

  Index first(Index block) const { return block == count ? periods : block * kBlock; }
  T a(Index p, Index q, Index m) const { return z[p * n + m * C + q]; }
  T b(Index p, Index q, Index m) const { return z[q * n + m * C + p]; }
  T& F(Index p, Index q, Index m) const { return band[(q - p) * n + m * C + p]; }
  T& G(Index p, Index q, Index m) const { return band[(C - q + p) * n + m * C + q]; }

  template <class W>
  void each(const W& work) const {  // chains
    for (Index p = 0; p < C; ++p)
      for (Index q = (p / d + 1) * d; q < C; ++q) work(p, q);
  }

  // sizes[c, i]: sum of |Z[c, m, i]| over the block.
  void measure(Index block, T* sizes, T* sums) const {
    const Index from = first(block) * C, end = std::min(n, first(block + 1) * C), group = kGroup * C;
    for (Index c = 0; c < C; ++c) {
      const T* row = z + c * n;
      std::fill_n(sums, group, T(0));
      Index j = from;
      for (; j + group <= end; j += group)
#pragma GCC ivdep
        for (Index i = 0; i < group; ++i) sums[i] += std::abs(row[j + i]);
      for (Index i = 0; j < end; ++i, ++j) sums[i] += std::abs(row[j]);
      for (Index i = 0; i < C; ++i) {
        sizes[c * C + i] = 0;
        for (Index g = i; g < group; g += C) sizes[c * C + i] += sums[g];
      }
    }
  }

  // The period from which on a chain is summed from its end: where half of its sizes has passed, the last two at most.
  Index joint(Index p, Index q, const T* sizes) const {
    const auto size = [&](Index block) { return sizes[block * C * C + p * C + q] + sizes[block * C * C + q * C + p]; };
    T half = 0, passed = 0;
    for (Index block = 0; block < count; ++block) half += size(block) / 2;
    Index block = 0;
    for (; block + 1 < count && passed + size(block) <= half; ++block) passed += size(block);
    Index m = first(block);
    const Index last = std::min(first(block + 1), periods - 2);
    for (; m < last && (passed += std::abs(a(p, q, m)) + std::abs(b(p, q, m))) <= half;) ++m;
    return std::max<Index>(0, std::min(m, periods - 2));
  }

  void from_front(T* g, const Index* joints) const {
    std::fill_n(g, C * C, T(0));
    for (Index block = 0; block < count; ++block)
      each([&](Index p, Index q) {
        T sum = g[p * C + q];
        const Index end = std::min(first(block + 1), joints[p * C + q]);
        for (Index m = first(block); m < end; ++m) {
          const T f = F(p, q, m) = b(p, q, m) - sum;
          G(p, q, m) = sum = a(p, q, m) - f;
        }
        g[p * C + q] = sum;
      });
  }

  void from_end(T* g, const Index* joints) const {
    std::fill_n(g, C * C, T(0));
    for (Index block = count; block-- > 0;) {
      each([&](Index p, Index q) {
        T sum = g[p * C + q];
        Index m = first(block + 1);
        if (m == periods && (m - 1) * C + q >= n) {  // the last period lacks q
          --m;
          if (m * C + p < n) sum = b(p, q, m), F(p, q, m) = 0;
        }
        for (const Index end = std::max(first(block), joints[p * C + q]); m-- > end;) {
          G(p, q, m) = sum;
          const T f = F(p, q, m) = a(p, q, m) - sum;
          sum = b(p, q, m) - f;
        }
        g[p * C + q] = sum;
      });
      for (Index p = 0; p < C; ++p)  // within a stage entries stand as they are
        for (Index q = p; q < (p / d + 1) * d; ++q)
          for (Index m = first(block); m < first(block + 1) && m * C + q < n; ++m) {
            F(p, q, m) = b(p, q, m);
            if (p != q) G(p, q, m) = 0;
          }
    }
  }
};

// H + shift I of one system, and its factors M D M^T.
template <class T>
struct Shifted {
  const Bands& s;
  const T* ab;
  T *state, *columns;

  bool factorise(T shift) {  // false where it is not positive definite
    bool ok = true;
    if (s.w == 1) {
      run([&] { ok = tridiagonal_columns(ab, ab + s.n, shift, columns, s.n); });
      return ok;
    }
    const Lanes<const T, 1> from(ab, s.rows * s.n, 0, 1);
    std::fill_n(state, s.state(), T(0));
    for (Index j = 0; ok && j < s.n; j += kTile) {
      const Index count = std::min(kTile, s.n - j);
      T* tile = columns + j * s.stride;
      gather(tile, s.stride, from, s.rows, s.n, j, count);
      for (Index t = 0; t < count; ++t) tile[t * s.stride] += shift;
      with_width(s.stride - 1, [&](auto W) { run([&] { ldl_tile<W(), false>(state, tile, count, s.w); }); });
      for (Index t = 0; t < count; ++t) ok &= positive(tile[t * s.stride]);
    }
    return ok;
  }

  void forward(T* x) {  // x <- M^-1 x
    if (s.w == 1) return run([&] { tridiagonal_forward(columns, x, s.n); });
    std::fill_n(state, s.state(), T(0));
    tiles(s.n, [&](Index j, Index count) { ::forward<T>(s, state, columns + j * s.stride, x, 1, j, count); });
  }

  void backward(T* x) {  // x <- M^-T D^-1 x
    if (s.w == 1) return run([&] { tridiagonal_backward(columns, x, s.n); });
    std::fill_n(state, s.state(), T(0));
    tiles_upwards(s.n, [&](Index j, Index count) { ::backward<T>(s, state, columns + j * s.stride, x, 1, j, count); });
  }

  T energy(const T* x) {  // x^T D^-1 x
    T sum[8] = {};
    run([&] {
      for (Index i = 0; i < s.n; ++i) {
        const T d = columns[i * s.stride];
        sum[i % 8] += x[i] * x[i] * (s.w == 1 ? d : 1 / d);
      }
    });
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  }
};

// The search of _subproblem.py, with its names and its numbers: start and p (n), query (9) and answer (9) packed.
constexpr double kNear = 0.03, kHard = 0.02, kGrow = 8;
constexpr int kTries = 60;

template <class T>
void search(Shifted<T>& H, const T* g, const T* start, const T* query, T* p, T* y, T* z, T* answer) {
  const Index n = H.s.n;
  const auto inner = [n](const T* a, const T* b) {
    T sum;
    run([&] { sum = dot(a, b, n); });
    return sum;
  };
  T radius = query[0], shift = query[1], low = query[2], high = query[3];
  const T guess = query[4], soft = query[5], enough = query[6];
  const bool grow = query[7] > 0, idle = query[8] > 0;
  const T near = static_cast<T>(kNear);
  std::fill_n(p, n, T(0));
  std::fill_n(answer, 9, T(0));
  answer[0] = radius, answer[1] = shift;
  bool failed = false, warm = false;
  for (int tries = 0; !idle && tries <= kTries; ++tries) {
    T length = 0, bend = 0, curvature = 0, allowed = 0;
    bool ok = H.factorise(shift), is_short = false;
    if (ok) {
      for (Index i = 0; i < n; ++i) p[i] = -g[i];
      H.forward(p), H.backward(p);
      length = std::sqrt(inner(p, p));
      ok = length < std::numeric_limits<T>::infinity();
    }
    if (ok) {
      const T decrement = -inner(g, p);
      if (grow && tries == 0) radius = std::max(radius, length);
      const bool fits = std::abs(length - radius) <= near * radius || (shift == 0 && length <= (1 + near) * radius);
      const bool settled = shift <= soft && decrement / 2 <= enough;
      is_short = shift > 0 && length < (1 - near) * radius;
      std::copy_n(p, n, y);
      H.forward(y);
      bend = H.energy(y);
      T tau = 0, cut = 1;
      bool hard = false;
      if (is_short && !fits && !settled) {
        if (!warm) std::copy_n(start, n, z);
        for (int turns = warm ? 1 : 2; turns > 0; --turns) {
          std::copy_n(z, n, y);
          H.forward(y), H.backward(y);
          const T square = inner(y, y), r = 1 / std::sqrt(square);
          curvature = inner(z, y) / square;
          for (Index i = 0; i < n; ++i) z[i] = y[i] * r;
        }
        warm = true;
        const T pz = inner(p, z), room = std::max(radius * radius - length * length, T(0));
        tau = room / (pz + (pz < 0 ? -1 : 1) * std::sqrt(pz * pz + room));
        allowed = static_cast<T>(kHard) * (shift * radius * radius + decrement) / (tau * tau);
        hard = curvature <= allowed;
      }
      const bool clip = !fits && !settled && !hard && tries >= kTries / 2;
      if (fits || settled || hard || clip) {
        if (clip) cut = std::min(T(1), radius / length);
        if (hard)
          for (Index i = 0; i < n; ++i) p[i] += tau * z[i];
        else if (clip)
          for (Index i = 0; i < n; ++i) p[i] *= cut;
        const T twice = hard ? decrement + shift * radius * radius - tau * tau * curvature
                             : 2 * cut * decrement - cut * cut * (decrement - shift * length * length);
        const T found[] = {radius,          shift,     length, bend, hard ? radius : cut * length,
                           inner(g, p), twice / 2, 1,      T(settled)};
        std::copy_n(found, 9, answer);
        return;
      }
    }
    if (ok && length < radius)
      high = std::min(high, shift);
    else
      low = std::max(low, shift);
    if (is_short && shift - curvature > low) low = shift - curvature;
    if (!ok && shift >= T(0.9999) * high) high = T(1.1) * std::max(shift, soft);
    const auto within = [&](T a) { return low < a && a < high; };
    const T middle = std::max(std::sqrt(low * high), low + T(0.01) * (high - low));
    if (ok) {
      const T newton = shift + (length / radius - 1) * length * length / bend, aim = shift - curvature + allowed / 2;
      shift = within(newton) ? newton : is_short && within(aim) && aim < shift ? aim : middle;
    } else if (enough >= 0 && shift < soft) {
      shift = soft;
    } else if (!failed && within(guess)) {
      shift = guess;
    } else {
      shift = shift > 0 ? std::min(static_cast<T>(kGrow) * shift, middle) : middle;
    }
    failed |= !ok;
    high = std::max(high, shift);
    answer[0] = radius, answer[1] = shift;
  }
  std::fill_n(p, idle ? 0 : n, T(0));
}

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

// ---- Handlers: any number of leading batch dimensions, the same for all operands -------------------------------------

// ab (w + 1, n) -> columns (n, w + 1): d and d m, whatever the pivots.
ffi::Error columns(ffi::ThreadPool pool, Buffer ab, Result out) {
  const Bands s(ab);
  return dispatch(ab.element_type(), s.lanes(), [&](auto zero, auto lanes) {
    using T = decltype(zero);
    constexpr int L = lanes;
    s.each<T, L>(pool, s.state() + s.tile(), [&](Index first, auto* state) {
      const Lanes<const T, L> a(cells<T>(ab), s.rows * s.n, first, s.batch);
      const Lanes<T, L> c(cells<T>(*out), s.rows * s.n, first, s.batch);
      int info[L];
      eliminate<true>(s, a, state, state + s.state(), false, info, [&](Index j, Index count, const auto* tile) {
        const T* column = reinterpret_cast<const T*>(tile);
        for (int l = 0; l < c.live; ++l)
          for (Index t = 0; t < count; ++t) {
            T* row = c.at[l] + (j + t) * s.rows;
            const Index used = std::min<Index>(s.w + 1, s.n - j - t);
            for (Index i = 0; i < used; ++i) row[i] = column[(t * s.stride + i) * L + l];
            std::fill(row + used, row + s.rows, T(0));
          }
      });
    });
  });
}

// ab (w + 1, n) -> L (w + 1, n), NaN on failure, and info.
ffi::Error cholesky(ffi::ThreadPool pool, Buffer ab, Result cb, Result info) {
  const Bands s(ab);
  return dispatch(ab.element_type(), s.lanes(), [&](auto zero, auto lanes) {
    using T = decltype(zero);
    constexpr int L = lanes;
    s.each<T, L>(pool, s.state() + s.tile(), [&](Index first, auto* state) {
      const Lanes<const T, L> a(cells<T>(ab), s.rows * s.n, first, s.batch);
      const Lanes<T, L> c(cells<T>(*cb), s.rows * s.n, first, s.batch);
      int failed[L];
      eliminate<false>(s, a, state, state + s.state(), false, failed, [&](Index j, Index count, auto* tile) {
        T* column = reinterpret_cast<T*>(tile);
        for (Index t = 0; t < count; ++t, column += s.stride * L)
          for (int l = 0; l < L; ++l) {
            const T root = column[l] = std::sqrt(column[l]);
            for (int i = 1; i <= s.w; ++i) column[i * L + l] *= root;
          }
        scatter(tile, s.stride, c, s.rows, s.n, j, count);
      });
      for (int l = 0; l < c.live; ++l) {
        cells<std::int32_t>(*info)[first + l] = failed[l];
        if (failed[l]) std::fill(c.at[l], c.at[l] + s.rows * s.n, T(kNaN));
      }
    });
  });
}

// ab (w + 1, n), b (n, k) -> H^-1 b, NaN on failure.
ffi::Error solve(ffi::ThreadPool pool, Buffer ab, Buffer b, Result x) {
  const Bands s(ab);
  const Index k = right_hand_sides(b, ab), size = s.n * k;
  return dispatch(ab.element_type(), s.lanes() && k == 1, [&](auto zero, auto lanes) {
    using T = decltype(zero);
    constexpr int L = lanes;
    const Index scratch = 2 * s.state() + s.n * (s.stride + 1);
    s.each<T, L>(pool, scratch, [&](Index first, auto* state) {
      using V = std::remove_reference_t<decltype(*state)>;
      const Lanes<const T, L> a(cells<T>(ab), s.rows * s.n, first, s.batch), rhs(cells<T>(b), size, first, s.batch);
      const Lanes<T, L> to(cells<T>(*x), size, first, s.batch);
      V *pending = state + s.state(), *columns = pending + s.state(), *y = columns + s.n * s.stride;
      int failed[L];
      if constexpr (L == 1) {
        if (s.w == 1 && k == 1) {
          run([&] { failed[0] = !solve_tridiagonal(a.at[0], a.at[0] + s.n, rhs.at[0], to.at[0], columns, s.n); });
          if (failed[0]) std::fill(to.at[0], to.at[0] + size, T(kNaN));
          return;
        }
        y = to.at[0];
        if (k != 1) std::copy(rhs.at[0], rhs.at[0] + size, y);
      }
      std::fill(pending, columns, V{});
      eliminate<false>(s, a, state, columns, true, failed, [&](Index j, Index count, const V* tile) {
        if (k == 1) gather(y + j, 1, rhs, 1, s.n, j, count);
        forward<T>(s, pending, tile, y, k, j, count);
      });
      std::fill(pending, columns, V{});
      tiles_upwards(s.n, [&](Index j, Index count) {
        backward<T>(s, pending, columns + j * s.stride, y, k, j, count);
        if (L > 1) scatter(y + j, 1, to, 1, s.n, j, count);
      });
      for (int l = 0; l < to.live; ++l)
        if (failed[l]) std::fill(to.at[l], to.at[l] + size, T(kNaN));
    });
  });
}

// columns (n, w + 1) of d and m, or raw of d and d m, b (n, k) -> (M D M^T)^-1 b.
ffi::Error substitute(ffi::ThreadPool pool, Buffer columns, Buffer b, Result x, bool raw) {
  Bands s(columns);
  s.shape(s.n, s.rows);
  const Index k = right_hand_sides(b, columns), size = s.n * k;
  return dispatch(columns.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, s.state() + s.tile(), [&](Index system, T* state) {
      T *y = cells<T>(*x) + system * size, *tile = state + s.state();
      const T* from = cells<T>(columns) + system * s.n * s.rows;
      const auto fetch = [&](Index j, Index count) {
        T* to = tile;
        for (const T* c = from + j * s.rows; to != tile + count * s.stride; c += s.rows, to += s.stride) {
          const T r = raw ? 1 / c[0] : T(1);
          to[0] = c[0];
          for (int i = 1; i <= s.w; ++i) to[i] = c[i] * r;
          std::fill(to + s.w + 1, to + s.stride, T(0));
        }
      };
      std::copy_n(cells<T>(b) + system * size, size, y);
      std::fill_n(state, s.state(), T(0));
      tiles(s.n, [&](Index j, Index count) { fetch(j, count), forward<T>(s, state, tile, y, k, j, count); });
      std::fill_n(state, s.state(), T(0));
      tiles_upwards(s.n, [&](Index j, Index count) { fetch(j, count), backward<T>(s, state, tile, y, k, j, count); });
    });
  });
}

// L's band cb (w + 1, n), b (n, k) -> L^-1 b or L^-T b.
ffi::Error triangular(ffi::ThreadPool pool, Buffer cb, Buffer b, Result x, bool transpose) {
  const Bands s(cb);
  const Index k = right_hand_sides(b, cb);
  return dispatch(cb.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, s.state() + s.tile(), [&](Index system, T* state) {
      const Lanes<const T, 1> from(cells<T>(cb), s.rows * s.n, system, s.batch);
      T *y = cells<T>(*x) + system * s.n * k, *tile = state + s.state();
      std::copy_n(cells<T>(b) + system * s.n * k, s.n * k, y);
      std::fill_n(state, s.state(), T(0));
      const auto fetch = [&](Index j, Index count) {  // [L_jj, m]
        gather(tile, s.stride, from, s.w + 1, s.n, j, count);
        for (T* c = tile; c != tile + count * s.stride; c += s.stride) {
          const T r = 1 / c[0];
          for (int i = 1; i <= s.w; ++i) c[i] *= r;
        }
      };
      if (transpose)
        tiles_upwards(s.n, [&](Index j, Index count) { fetch(j, count), backward<T>(s, state, tile, y, k, j, count); });
      else
        tiles(s.n, [&](Index j, Index count) {
          fetch(j, count), forward<T>(s, state, tile, y, k, j, count);
          for (Index t = 0; t < count; ++t)
            for (Index q = 0; q < k; ++q) y[(j + t) * k + q] /= tile[t * s.stride];
        });
    });
  });
}

// unit (n, w), reciprocals 1 / d (n) -> columns (n, w + 1) of the inverse.
ffi::Error inverse(ffi::ThreadPool pool, Buffer unit, Buffer reciprocals, Result z) {
  const Bands s = Bands::of_columns(unit);
  return dispatch(unit.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, s.state() + s.tile(), [&](Index system, T* state) {
      T *to = cells<T>(*z) + system * s.n * s.rows, *tile = state + s.state();
      std::fill_n(state, s.state(), T(0));
      tiles_upwards(s.n, [&](Index j, Index count) {
        join(s, tile, cells<T>(reciprocals) + system * s.n, cells<T>(unit) + system * s.n * (s.rows - 1), j, count);
        run([&] { inverse_tile(state, tile, count, s.w, s.stride); });
        for (Index t = 0; t < count; ++t) {
          const Index used = std::min<Index>(s.w + 1, s.n - j - t);
          std::copy_n(tile + t * s.stride, used, to + (j + t) * s.rows);
          std::fill_n(to + (j + t) * s.rows + used, s.rows - used, T(0));
        }
      });
    });
  });
}

// ab (l + u + 1, n) -> U by rows (n, l + u + 1), multipliers (n, l), swaps (n).
ffi::Error lu(ffi::ThreadPool pool, Buffer ab, Result upper, Result multipliers, Result swaps) {
  const Bands s(ab);
  const int l = static_cast<int>(multipliers->dimensions().back()), u = static_cast<int>(s.rows) - 1 - l;
  return dispatch(ab.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, (l + 1) * s.rows, [&](Index system, T* window) {
      const auto factor = [&](int l, int u) {
        lu_columns(cells<T>(ab) + system * s.rows * s.n, window, cells<T>(*upper) + system * s.rows * s.n,
                   cells<T>(*multipliers) + system * s.n * l, cells<std::int32_t>(*swaps) + system * s.n, s.n, l, u);
      };
      if (l == 1 && u == 1) return run([&] { factor(1, 1); });
      if (l == 2 && u == 2) return run([&] { factor(2, 2); });
      run([&] { factor(l, u); });
    });
  });
}

// g (n), ab (w + 1, n), start (n), query -> p (n), answer.
ffi::Error subproblem(ffi::ThreadPool pool, Buffer g, Buffer ab, Buffer start, Buffer query, Result p, Result answer) {
  const Bands s(ab);
  const Index asked = query.dimensions().back(), told = answer->dimensions().back();
  return dispatch(ab.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, s.state() + s.n * (s.stride + 2), [&](Index system, T* state) {
      Shifted<T> H{s, cells<T>(ab) + system * s.rows * s.n, state, state + s.state()};
      T* work = H.columns + s.n * s.stride;
      search(H, cells<T>(g) + system * s.n, cells<T>(start) + system * s.n, cells<T>(query) + system * asked,
             cells<T>(*p) + system * s.n, work, work + s.n, cells<T>(*answer) + system * told);
    });
  });
}

// What lu gives, b (n, k) -> A^-1 b or A^-T b.
ffi::Error lu_solve(ffi::ThreadPool pool, Buffer upper, Buffer multipliers, Buffer swaps, Buffer b, Result x,
                    bool transpose) {
  const Bands s = Bands::of_columns(upper);
  const Index k = right_hand_sides(b, upper), l = multipliers.dimensions().back(), width = s.rows - 1;
  return dispatch(upper.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    s.each<T, 1>(pool, 0, [&](Index system, T*) {
      T* y = cells<T>(*x) + system * s.n * k;
      std::copy_n(cells<T>(b) + system * s.n * k, s.n * k, y);
      const auto solve = [&](Index k) {
        lu_rows(cells<T>(upper) + system * s.n * width, cells<T>(multipliers) + system * s.n * l,
                cells<std::int32_t>(swaps) + system * s.n, y, k, s.n, l, width, transpose);
      };
      run([&] { k == 1 ? solve(1) : solve(k); });
    });
  });
}

// Products (C, n) of the probes of symmetric substitution -> band (C, n).
ffi::Error symmetry(ffi::ThreadPool pool, Buffer products, Result ab, std::int64_t d) {
  const Bands s(products);
  const Index C = s.rows, square = C * C, size = C * s.n;
  if (s.batch * size == 0) return ffi::Error::Success();
  return dispatch(products.element_type(), false, [&](auto zero, auto) {
    using T = decltype(zero);
    const Index threads = s.batch * size < 5 * kParallel ? 1 : pool.num_threads();
    const Index workers = std::min(threads, s.batch), helpers = s.batch > 1 ? 1 : threads;
    const Index blocks = Chains<T>::blocks(C, s.n), group = Chains<T>::kGroup * C;
    const Index scratch = (blocks + 2) * square + helpers * group;
    const Memory memory(workers * scratch * sizeof(T)), indices(workers * square * sizeof(Index));
    parallel(pool, s.batch, workers, [&](Index worker, Index system) {
      const Chains<T> chains{cells<T>(products) + system * size, cells<T>(*ab) + system * size, C, s.n, d};
      T *sizes = memory.as<T>() + worker * scratch, *sums = sizes + blocks * square, *work = sums + 2 * square;
      Index* joints = indices.as<Index>() + worker * square;
      parallel(pool, blocks, helpers, [&](Index helper, Index block) {
        run([&] { chains.measure(block, sizes + block * square, work + helper * group); });
      });
      chains.each([&](Index p, Index q) { joints[p * C + q] = chains.joint(p, q, sizes); });
      parallel(pool, 2, std::min<Index>(helpers, 2), [&](Index, Index end) {
        end ? chains.from_end(sums + square, joints) : chains.from_front(sums, joints);
      });
    });
  });
}

}  // namespace

#define HANDLER(name, bind) XLA_FFI_DEFINE_HANDLER_SYMBOL(bandhess_##name, name, bind)
#define POOL ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()

HANDLER(columns, POOL.Arg<Buffer>().Ret<Buffer>());
HANDLER(cholesky, POOL.Arg<Buffer>().Ret<Buffer>().Ret<Buffer>());
HANDLER(solve, POOL.Arg<Buffer>().Arg<Buffer>().Ret<Buffer>());
HANDLER(substitute, POOL.Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Attr<bool>("raw"));
HANDLER(triangular, POOL.Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Attr<bool>("transpose"));
HANDLER(inverse, POOL.Arg<Buffer>().Arg<Buffer>().Ret<Buffer>());
HANDLER(subproblem,
        POOL.Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Ret<Buffer>());
HANDLER(lu, POOL.Arg<Buffer>().Ret<Buffer>().Ret<Buffer>().Ret<Buffer>());
HANDLER(lu_solve,
        POOL.Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>().Attr<bool>("transpose"));
HANDLER(symmetry, POOL.Arg<Buffer>().Ret<Buffer>().Attr<std::int64_t>("d"));
