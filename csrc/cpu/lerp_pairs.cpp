#include <algorithm>
#include <vector>

#include "common/lerp.h"
#include "common/parallel.h"
#include "interpolation.h"

namespace lth {
namespace {

constexpr int64_t kChunk =
    8192;  // both ends' chunks stay in the L2 cache while all points are formed from them

template <bool kRectified>
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void lerp_row(
    const float* __restrict__ a, const float* __restrict__ b, float alpha, float* __restrict__ out,
    int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float w = line_point(a[i], b[i], alpha);
    out[i] = kRectified && w < 0 ? 0 : w;  // NaN stays NaN
  }
}

}  // namespace

void lerp_pairs_cpu(const LerpPair* pairs, int64_t num_pairs, const float* alphas, int64_t num_points,
                    bool relu) {
  std::vector<int64_t> first(num_pairs + 1, 0);  // chunks before each pair
  for (int64_t p = 0; p < num_pairs; ++p) first[p + 1] = first[p] + (pairs[p].count + kChunk - 1) / kChunk;
  auto body = [&](int64_t begin, int64_t end) {
    int64_t p = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      while (first[p + 1] <= chunk) ++p;
      const LerpPair& pair = pairs[p];
      const int64_t offset = (chunk - first[p]) * kChunk, count = std::min(kChunk, pair.count - offset);
      for (int64_t k = 0; k < num_points; ++k) {
        const auto row = relu ? lerp_row<true> : lerp_row<false>;
        row(pair.a + offset, pair.b + offset, alphas[k], pair.out + k * pair.count + offset, count);
      }
    }
  };
  parallel_for(first[num_pairs], std::max<int64_t>(1, 4 / num_points), body);
}

}  // namespace lth
