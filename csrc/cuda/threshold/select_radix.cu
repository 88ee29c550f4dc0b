// The threshold's key by digits of 11, 11 and 10 bits, with a read of all scores and masks for each, whatever
// the scores are. The last block of a group to count a digit chooses it.
#include "cuda/threshold/select.h"

namespace lth {
namespace {

template <bool kMagnitude, Access kAccess>
__device__ __forceinline__ void count_digits(const Chunk& chunk, uint32_t base, uint32_t last,
                                             unsigned* bins) {
  const int shift = bin_shift(last);
#pragma unroll 1
  for (int round = 0; round < kRounds; ++round) {
    const int i = (round * kThreads + static_cast<int>(threadIdx.x)) * kEach;
    const uint32_t survivors = i < chunk.length ? mask_byte(chunk, i) : 0u;
    if (__ballot_sync(kFullWarp, survivors != 0) == 0) continue;
    uint32_t bits[kEach] = {};
    if (survivors) load_each<kAccess>(chunk, i, bits);
    for (int j = 0; j < kEach; ++j) {
      const uint32_t above = score_key(bits[j], kMagnitude) - base;
      count_bin(bins, (survivors >> j & 1u) && above <= last, above >> shift);
    }
  }
}

// 64 registers: left alone, nvcc takes 40 and spills.
template <bool kMagnitude>
__global__ void __launch_bounds__(kThreads, 4) histogram_kernel(Work work) {
  __shared__ unsigned bins[kBins];
  const Chunk chunk = work.chunks[blockIdx.x];
  GroupState& group = work.groups[chunk.group];
  if (group.rank == 0) return;
  const uint32_t base = group.base, last = group.last;
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  switch (access_of(chunk)) {
    case Access::kWords:
      count_digits<kMagnitude, Access::kWords>(chunk, base, last, bins);
      break;
    case Access::kHalves:
      count_digits<kMagnitude, Access::kHalves>(chunk, base, last, bins);
      break;
    default:
      count_digits<kMagnitude, Access::kNarrow>(chunk, base, last, bins);
  }
  __syncthreads();
  Count* total = work.bins + static_cast<int64_t>(chunk.group) * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i]) atomicAdd(&total[i], static_cast<Count>(bins[i]));
  }
  if (!is_last_block(group, group.num_chunks)) return;
  const int shift = bin_shift(last);
  const Count left = group.left;
  __syncthreads();  // all have read the state
  // With fewer survivors than the rank no bin is found, and what is found does not matter.
  find_bin(total, left, [&](unsigned bin, Count before, Count) {
    const uint32_t passed = bin << shift, width = (1u << shift) - 1;
    group.base = group.low = group.high = base + passed;
    group.last = last - passed < width ? last - passed : width;
    group.left = left - before;
  });
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads) total[i] = 0;
}

}  // namespace

void select_by_radix(const Work& work, bool magnitude, void* stream) {
  if (work.num_chunks == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  for (int digit = 0; digit < kDigits; ++digit) {
    if (magnitude) {
      LTH_LAUNCH(histogram_kernel<true>, work.num_chunks, kThreads, 0, s, work);
    } else {
      LTH_LAUNCH(histogram_kernel<false>, work.num_chunks, kThreads, 0, s, work);
    }
  }
}

}  // namespace lth
