// The threshold's key by digits of 11, 11 and 10 bits, with a read of all weights for each:
//
//   histogram   counts the next digit of the keys that are still possible
//   narrow      chooses the digit
//
// Three reads of scores and masks, whatever the scores are.
#include "select.h"

namespace lth {
namespace {

__global__ void __launch_bounds__(kThreads) histogram_kernel(Work work, bool magnitude) {
  __shared__ unsigned bins[kBins];
  const ChunkPlace chunk = work.chunks[blockIdx.x];
  const GroupState group = work.groups[chunk.group];
  if (!group.searching) return;
  const ScoreTensor t = work.tensors[chunk.tensor];
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const int shift = bin_shift(group.last);
  for (int64_t tile = chunk.begin; tile < chunk.begin + kSpan && tile < t.numel; tile += kTile) {
    const Four four = load_four(t, tile + 4 * static_cast<int64_t>(threadIdx.x), magnitude);
    for (int j = 0; j < 4; ++j) {
      const uint32_t above = four.keys[j] - group.base;
      count_bin(bins, (four.survivors >> j & 1u) && above <= group.last, above >> shift);
    }
  }
  __syncthreads();
  Count* total = work.bins + static_cast<int64_t>(chunk.group) * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i]) atomicAdd(&total[i], static_cast<Count>(bins[i]));
  }
}

__global__ void __launch_bounds__(kThreads) narrow_kernel(Work work, PruneStatus* status) {
  GroupState& group = work.groups[blockIdx.x];
  Count* bins = work.bins + static_cast<int64_t>(blockIdx.x) * kBins;
  const bool searching = group.searching;
  const uint32_t last = group.last;
  const int shift = bin_shift(last);
  const Count rank = group.rank;
  // Its barriers keep the state's readers before its one writer.
  const Count total = find_bin(bins, rank, [&](unsigned bin, Count before) {
    if (!searching) return;
    const uint32_t passed = bin << shift, width = (1u << shift) - 1;
    group.base += passed;
    group.last = last - passed < width ? last - passed : width;
    group.rank = rank - before;
    group.searching = group.last != 0;
  });
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  if (threadIdx.x == 0 && searching && rank > total) {
    status[blockIdx.x] = PruneStatus::kTooMany;
    group.searching = 0;
  }
}

}  // namespace

void narrow(const Work& work, PruneStatus* status, void* stream) {
  LTH_LAUNCH(narrow_kernel, work.num_groups, kThreads, 0, static_cast<cudaStream_t>(stream), work, status);
}

void select_by_radix(const Work& work, bool magnitude, PruneStatus* status, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  for (int digit = 0; digit < kDigits; ++digit) {
    if (work.num_chunks) LTH_LAUNCH(histogram_kernel, work.num_chunks, kThreads, 0, s, work, magnitude);
    narrow(work, status, s);
  }
}

}  // namespace lth
