#include "common/lerp.h"
#include "cuda/launch.h"
#include "interpolation.h"

namespace lth {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4096;  // elements of one pair that a block takes
constexpr int kMaxPairs = 64;     // in one launch: the table travels as a kernel argument, of at most 4 KiB

struct Table {
  LerpPair pairs[kMaxPairs];
  unsigned first_block[kMaxPairs];  // of each pair
  int num_pairs;
};
static_assert(sizeof(Table) <= 4000);

template <bool kRectified>
__device__ __forceinline__ float point(float a, float b, float alpha) {
  const float w = line_point(a, b, alpha);
  return kRectified && w < 0 ? 0 : w;
}

// One block reads one chunk of both ends once and writes it for every point.
template <bool kRectified>
__global__ void __launch_bounds__(kThreads)
    lerp_kernel(const __grid_constant__ Table table, const float* __restrict__ alphas, int64_t num_points) {
  const int p = last_not_behind(table.num_pairs, blockIdx.x, [&](int i) { return table.first_block[i]; });
  const LerpPair pair = table.pairs[p];
  const int64_t begin = int64_t(blockIdx.x - table.first_block[p]) * kChunk;
  const int64_t end = begin + kChunk < pair.count ? begin + kChunk : pair.count;
  const uint64_t addresses = reinterpret_cast<uint64_t>(pair.a) | reinterpret_cast<uint64_t>(pair.b) |
                             reinterpret_cast<uint64_t>(pair.out);
  if (addresses % sizeof(float4) == 0 && pair.count % 4 == 0) {
    for (int64_t i = begin + 4 * int64_t(threadIdx.x); i < end; i += 4 * kThreads) {
      const float4 a = *reinterpret_cast<const float4*>(pair.a + i);
      const float4 b = *reinterpret_cast<const float4*>(pair.b + i);
      for (int64_t k = 0; k < num_points; ++k) {
        const float alpha = alphas[k];
        *reinterpret_cast<float4*>(pair.out + k * pair.count + i) =
            make_float4(point<kRectified>(a.x, b.x, alpha), point<kRectified>(a.y, b.y, alpha),
                        point<kRectified>(a.z, b.z, alpha), point<kRectified>(a.w, b.w, alpha));
      }
    }
  } else {
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      const float a = pair.a[i], b = pair.b[i];
      for (int64_t k = 0; k < num_points; ++k)
        pair.out[k * pair.count + i] = point<kRectified>(a, b, alphas[k]);
    }
  }
}

}  // namespace

void lerp_pairs_cuda(const LerpPair* pairs, int64_t num_pairs, const float* alphas, int64_t num_points,
                     bool relu, void* stream) {
  Table table;
  table.num_pairs = 0;
  int64_t num_blocks = 0;
  auto launch = [&] {
    if (table.num_pairs == 0) return;
    const auto s = static_cast<cudaStream_t>(stream);
    if (relu) {
      LTH_LAUNCH(lerp_kernel<true>, unsigned(num_blocks), kThreads, 0, s, table, alphas, num_points);
    } else {
      LTH_LAUNCH(lerp_kernel<false>, unsigned(num_blocks), kThreads, 0, s, table, alphas, num_points);
    }
    table.num_pairs = 0;
    num_blocks = 0;
  };
  for (int64_t p = 0; p < num_pairs; ++p) {
    if (pairs[p].count == 0) continue;
    table.pairs[table.num_pairs] = pairs[p];
    table.first_block[table.num_pairs++] = unsigned(num_blocks);
    num_blocks += (pairs[p].count + kChunk - 1) / kChunk;
    if (table.num_pairs == kMaxPairs) launch();
  }
  launch();
}

}  // namespace lth
