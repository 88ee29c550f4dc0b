// Two keys that enclose a group's threshold with near certainty, from a sample of its weights (Floyd and
// Rivest 1975). Pruned weights take part in the sample as keys above all others, so nothing need be known of
// the masks.
#include "cuda/threshold/select.h"

namespace lth {
namespace {

constexpr double kWidth = 3.0;  // half the bracket, in standard deviations of the rank in the sample
constexpr int kSamplesEach = static_cast<int>(kMaxSamples) / kThreads;

// The smallest and the largest of the block's keys but those above all numbers, in every thread.
__device__ inline void key_range(const uint32_t (&keys)[kSamplesEach], uint32_t& smallest,
                                 uint32_t& largest) {
  __shared__ uint32_t smallest_of[kWarps], largest_of[kWarps];
  smallest = kAboveAll;
  largest = 0;
  for (int i = 0; i < kSamplesEach; ++i) {
    smallest = keys[i] < smallest ? keys[i] : smallest;
    largest = keys[i] > largest && keys[i] != kAboveAll ? keys[i] : largest;
  }
  smallest = __reduce_min_sync(kFullWarp, smallest);
  largest = __reduce_max_sync(kFullWarp, largest);
  if (threadIdx.x % 32 == 0) {
    smallest_of[threadIdx.x / 32] = smallest;
    largest_of[threadIdx.x / 32] = largest;
  }
  __syncthreads();
  smallest = __reduce_min_sync(kFullWarp, smallest_of[threadIdx.x % kWarps]);
  largest = __reduce_max_sync(kFullWarp, largest_of[threadIdx.x % kWarps]);
}

// One block per group, which keeps its sample in registers. Both ends are found at once, a digit of them in
// each round, and within the sample's own range, so that few keys share a bin.
__global__ void __launch_bounds__(kThreads) bracket_kernel(Work work) {
  __shared__ unsigned bins[2][kBins];
  __shared__ uint32_t chosen_bin[2];
  __shared__ Count passed[2];
  GroupState& group = work.groups[blockIdx.x];
  const int64_t size = num_samples(group.num_weights);
  if (group.rank == 0 || size == 0) return;
  uint32_t keys[kSamplesEach];
  for (int i = 0; i < kSamplesEach; ++i) {
    const int j = i * kThreads + static_cast<int>(threadIdx.x);
    keys[i] = j < size ? work.samples[group.first_sample + j] : kAboveAll;
  }
  const auto n = static_cast<double>(group.num_weights), m = static_cast<double>(size);
  const double p = fmin(static_cast<double>(group.rank) / n, 1.0);
  int64_t ranks[2] = {static_cast<int64_t>(group.rank), static_cast<int64_t>(group.rank)};  // in the sample
  if (size < group.num_weights) {
    const double half = 1.0 + kWidth * sqrt(m * p * (1.0 - p));
    ranks[0] = static_cast<int64_t>(floor(m * p - half)) + 1;
    ranks[1] = static_cast<int64_t>(ceil(m * p + half)) + 1;
  }
  uint32_t smallest, largest;
  key_range(keys, smallest, largest);
  uint32_t base[2] = {smallest, smallest}, last[2] = {largest - smallest, largest - smallest};
  Count left[2] = {ranks[0] < 1 ? 1u : static_cast<Count>(ranks[0]), static_cast<Count>(ranks[1])};
  if (smallest > largest) last[0] = last[1] = 0;  // no sample is of a survivor
  for (bool first = true; last[0] != 0 || last[1] != 0; first = false) {
    for (int i = threadIdx.x; i < 2 * kBins; i += kThreads) bins[i / kBins][i % kBins] = 0;
    __syncthreads();
    for (int end = 0; end < (first ? 1 : 2); ++end) {
      const int shift = bin_shift(last[end]);
      for (int i = 0; i < kSamplesEach; ++i) {
        const uint32_t above = keys[i] - base[end];
        if (above <= last[end] && keys[i] != kAboveAll) atomicAdd(&bins[end][above >> shift], 1u);
      }
    }
    __syncthreads();
    for (int end = 0; end < 2; ++end) {
      if (threadIdx.x == 0) chosen_bin[end] = kBins;  // none: the rank is that of a pruned weight
      find_bin(bins[first ? 0 : end], left[end], [&](unsigned bin, Count before, Count) {
        chosen_bin[end] = bin;
        passed[end] = before;
      });
    }
    __syncthreads();
    for (int end = 0; end < 2; ++end) {
      if (chosen_bin[end] == kBins) {
        base[end] = kAboveAll;
        last[end] = 0;
        continue;
      }
      const int shift = bin_shift(last[end]);
      const uint32_t skipped = chosen_bin[end] << shift, width = (1u << shift) - 1;
      base[end] += skipped;
      last[end] = last[end] - skipped < width ? last[end] - skipped : width;
      left[end] -= passed[end];
    }
  }
  __syncthreads();  // all have read the state
  if (threadIdx.x != 0) return;
  group.low = ranks[0] < 1 ? 0u : base[0];
  group.high = ranks[1] > size ? kAboveAll : base[1];
}

}  // namespace

void select_by_bracket(const Work& work, void* stream) {
  LTH_LAUNCH(bracket_kernel, work.num_groups, kThreads, 0, static_cast<cudaStream_t>(stream), work);
}

}  // namespace lth
