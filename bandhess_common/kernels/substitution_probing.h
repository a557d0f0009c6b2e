// Z (C, n), the products of the C = (k + 1) d probes of symmetric substitution -> band (C, n); the algorithm is that of
// extraction/probing/substitution.py. Along a chain of positions p < q in a period
//
//     a[m] = Z[p, m, q] = G[m] + F[m],   b[m] = Z[q, m, p] = F[m] + G[m - 1]:   a running sum.
#pragma once

#include "bands.h"

namespace bandhess {

template <class T>
class Chains {
 public:
  static constexpr Index kBlock = 64;  // periods that stay in cache
  static constexpr Index kGroup = 8;   // periods that are summed at a time

  Chains(const T* z, T* band, Index C, Index n, Index d) : z_(z), band_(band), C_(C), n_(n), d_(d) {}

  static Index blocks(Index C, Index n) { return std::max<Index>(1, (n + C - 1) / C / kBlock); }

  // Calls work(p, q) for every chain.
  template <class W>
  void each(const W& work) const {
    for (Index p = 0; p < C_; ++p)
      for (Index q = (p / d_ + 1) * d_; q < C_; ++q) work(p, q);
  }

  // sizes[c, i]: sum of |Z[c, m, i]| over the block.
  void measure(Index block, T* sizes, T* sums) const {
    const Index from = first(block) * C_;
    const Index end = std::min(n_, first(block + 1) * C_);
    const Index group = kGroup * C_;
    for (Index c = 0; c < C_; ++c) {
      const T* row = z_ + c * n_;
      std::fill_n(sums, group, T(0));
      Index j = from;
      for (; j + group <= end; j += group) {
#pragma GCC ivdep
        for (Index i = 0; i < group; ++i) sums[i] += std::abs(row[j + i]);
      }
      for (Index i = 0; j + i < end; ++i) sums[i] += std::abs(row[j + i]);
      for (Index i = 0; i < C_; ++i) {
        sizes[c * C_ + i] = 0;
        for (Index g = i; g < group; g += C_) sizes[c * C_ + i] += sums[g];
      }
    }
  }

  // The period from which on a chain is summed from its end: where half of its sizes has passed, the last two at most.
  Index joint(Index p, Index q, const T* sizes) const {
    const auto size = [&](Index block) {
      const T* of = sizes + block * C_ * C_;
      return of[p * C_ + q] + of[q * C_ + p];
    };
    T half = 0;
    for (Index block = 0; block < count_; ++block) half += size(block) / 2;
    T passed = 0;
    Index block = 0;
    while (block + 1 < count_ && passed + size(block) <= half) {
      passed += size(block);
      ++block;
    }
    Index m = first(block);
    const Index last = std::min(first(block + 1), periods_ - 2);
    for (; m < last; ++m) {
      passed += std::abs(a(p, q, m)) + std::abs(b(p, q, m));
      if (!(passed <= half)) break;
    }
    return std::max<Index>(0, std::min(m, periods_ - 2));
  }

  // G and F of all periods before the joints; g has C x C entries of work.
  void from_front(T* g, const Index* joints) const {
    std::fill_n(g, C_ * C_, T(0));
    for (Index block = 0; block < count_; ++block) {
      each([&](Index p, Index q) {
        T sum = g[p * C_ + q];
        const Index end = std::min(first(block + 1), joints[p * C_ + q]);
        for (Index m = first(block); m < end; ++m) {
          const T f = b(p, q, m) - sum;
          sum = a(p, q, m) - f;
          F(p, q, m) = f;
          G(p, q, m) = sum;
        }
        g[p * C_ + q] = sum;
      });
    }
  }

  // G and F of the others, and the entries within stages.
  void from_end(T* g, const Index* joints) const {
    std::fill_n(g, C_ * C_, T(0));
    for (Index block = count_; block-- > 0;) {
      each([&](Index p, Index q) {
        const Index end = std::max(first(block), joints[p * C_ + q]);
        g[p * C_ + q] = upwards(p, q, first(block + 1), end, g[p * C_ + q]);
      });
      copy_within_stages(block);
    }
  }

 private:
  const T* z_;
  T* band_;
  Index C_;
  Index n_;
  Index d_;
  Index periods_ = (n_ + C_ - 1) / C_;
  Index count_ = blocks(C_, n_);

  Index first(Index block) const { return block == count_ ? periods_ : block * kBlock; }
  T a(Index p, Index q, Index m) const { return z_[p * n_ + m * C_ + q]; }
  T b(Index p, Index q, Index m) const { return z_[q * n_ + m * C_ + p]; }
  T& F(Index p, Index q, Index m) const { return band_[(q - p) * n_ + m * C_ + p]; }
  T& G(Index p, Index q, Index m) const { return band_[(C_ - q + p) * n_ + m * C_ + q]; }

  // Periods end .. m - 1 of one chain, from the last on; sum is G of period m - 1, and that of end - 1 comes back.
  T upwards(Index p, Index q, Index m, Index end, T sum) const {
    if (m == periods_ && (m - 1) * C_ + q >= n_) {  // the last period lacks q
      --m;
      if (m * C_ + p < n_) {
        sum = b(p, q, m);
        F(p, q, m) = 0;
      }
    }
    while (m-- > end) {
      const T f = a(p, q, m) - sum;
      G(p, q, m) = sum;
      F(p, q, m) = f;
      sum = b(p, q, m) - f;
    }
    return sum;
  }

  // Within a stage entries stand as they are.
  void copy_within_stages(Index block) const {
    for (Index p = 0; p < C_; ++p)
      for (Index q = p; q < (p / d_ + 1) * d_; ++q)
        for (Index m = first(block); m < first(block + 1) && m * C_ + q < n_; ++m) {
          F(p, q, m) = b(p, q, m);
          if (p != q) G(p, q, m) = 0;
        }
  }
};

// Kernel. Products (C, n), option `d` -> band (C, n).
template <class T>
void symmetry(Call& call) {
  const Matrices at = call.matrices(0);
  const Index C = at.rows;
  const Index n = at.columns;
  const Index square = C * C;
  const Index size = C * n;
  const T* products = call.operand<T>(0, {C, n});
  T* band = call.result<T>(0, {C, n});
  const Index d = call.whole(0, C);
  if (at.batch * size == 0) return;
  if (d == 0 || C % d) throw Invalid(std::string(call.kernel) + ": d must divide the number of probes");
  const Index threads = at.batch * size < 5 * kParallel ? 1 : call.pool.threads();
  const Index workers = std::min(threads, at.batch);
  const Index helpers = at.batch > 1 ? 1 : threads;
  const Index blocks = Chains<T>::blocks(C, n);
  const Index group = Chains<T>::kGroup * C;
  const Index scratch = (blocks + 2) * square + helpers * group;
  const Memory memory(workers * scratch * sizeof(T));
  const Memory indices(workers * square * sizeof(Index));
  parallel(call.pool, at.batch, workers, [&](Index worker, Index system) {
    const Chains<T> chains(products + system * size, band + system * size, C, n, d);
    T* sizes = memory.as<T>() + worker * scratch;
    T* sums = sizes + blocks * square;
    T* work = sums + 2 * square;
    Index* joints = indices.as<Index>() + worker * square;
    parallel(call.pool, blocks, helpers, [&](Index helper, Index block) {
      run([&] { chains.measure(block, sizes + block * square, work + helper * group); });
    });
    chains.each([&](Index p, Index q) { joints[p * C + q] = chains.joint(p, q, sizes); });
    parallel(call.pool, 2, std::min<Index>(helpers, 2), [&](Index, Index end) {
      if (end) {
        chains.from_end(sums + square, joints);
      } else {
        chains.from_front(sums, joints);
      }
    });
  });
}

}  // namespace bandhess
