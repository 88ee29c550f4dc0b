// The threshold's key by a sampled bracket (Floyd and Rivest 1975), with one read of all weights:
//
//   sample          the keys of some weights of each group
//   bracket         two of them that enclose the threshold with near certainty
//   collect         counts what is below the bracket and at its ends, keeps the keys inside it
//   settle          the threshold is an end of the bracket, or inside it, or the bracket missed it
//   narrow, refine  finds its key among those kept
//
// Pruned weights take part in the sample as keys above all others, so nothing need be known of the masks. The
// order in which blocks append their keys does not matter: only how many lie where is asked of them.
#include "select.h"

namespace lth {
namespace {

constexpr double kWidth = 3.0;  // half the bracket, in standard deviations of the rank in the sample
constexpr uint32_t kPruned = 0xffffffffu;
constexpr unsigned kMaxRows = 65535;  // of a grid

__global__ void __launch_bounds__(kThreads) sample_kernel(Work work, bool magnitude) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (unsigned g = blockIdx.y; g < work.num_groups; g += gridDim.y) {
    const GroupState group = work.groups[g];
    if (j >= group.num_samples) continue;
    const int64_t place = sample_place(j, group.num_samples, group.num_weights);
    int64_t low = group.first_chunk, high = low + group.num_chunks - 1;
    while (low < high) {  // to the last chunk that does not begin behind it
      const int64_t middle = (low + high + 1) / 2;
      if (work.chunks[middle].before <= place) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const ChunkPlace chunk = work.chunks[low];
    const ScoreTensor& t = work.tensors[chunk.tensor];
    const int64_t i = chunk.begin + (place - chunk.before);
    const bool survives = t.mask[i / 32] >> (i % 32) & 1u;
    work.samples[group.first_sample + j] = survives ? score_key(widen(t, i), magnitude) : kPruned;
  }
}

// The key of this rank, from 0, among `count`; in every thread.
__device__ inline uint32_t nth_key(const uint32_t* keys, int64_t count, int64_t nth) {
  __shared__ unsigned bins[kBins];
  __shared__ uint32_t chosen_bin;
  __shared__ Count passed;
  uint32_t base = 0, last = 0xffffffffu;
  Count rank = static_cast<Count>(nth) + 1;
  while (last != 0) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
    __syncthreads();
    const int shift = bin_shift(last);
    for (int64_t i = 0; i < count; i += kThreads) {
      const bool in = i + threadIdx.x < count;
      const uint32_t above = in ? keys[i + threadIdx.x] - base : 0u;
      count_bin(bins, in && above <= last, above >> shift);
    }
    __syncthreads();
    find_bin(bins, rank, [&](unsigned bin, Count before) {
      chosen_bin = bin;
      passed = before;
    });
    __syncthreads();
    const uint32_t skipped = chosen_bin << shift, width = (1u << shift) - 1;
    base += skipped;
    last = last - skipped < width ? last - skipped : width;
    rank -= passed;
  }
  return base;
}

__global__ void __launch_bounds__(kThreads) bracket_kernel(Work work) {
  GroupState& group = work.groups[blockIdx.x];
  const int64_t size = group.num_samples;
  if (!group.searching || size == 0) return;
  const uint32_t* keys = work.samples + group.first_sample;
  const auto n = static_cast<double>(group.num_weights), m = static_cast<double>(size);
  const double p = fmin(static_cast<double>(group.rank) / n, 1.0);
  int64_t first = static_cast<int64_t>(group.rank) - 1, second = first;  // of a sample of all weights
  if (size < group.num_weights) {
    const double half = 1.0 + kWidth * sqrt(m * p * (1.0 - p));
    first = static_cast<int64_t>(floor(m * p - half));
    second = static_cast<int64_t>(ceil(m * p + half));
  }
  const uint32_t low = first < 0 ? 0u : nth_key(keys, size, first < size ? first : size - 1);
  const uint32_t high = second >= size ? 0xffffffffu : second == first ? low : nth_key(keys, size, second);
  __syncthreads();  // all have read the state
  if (threadIdx.x != 0) return;
  group.low = low;
  group.high = high;
  group.base = high - low > 1 ? low + 1 : low;
  group.last = high - low > 1 ? high - low - 2 : 0u;
}

__global__ void __launch_bounds__(kThreads) collect_kernel(Work work, bool magnitude) {
  __shared__ uint32_t kept[kSpan];
  __shared__ unsigned num_kept;
  __shared__ Count first;
  const ChunkPlace chunk = work.chunks[blockIdx.x];
  const GroupState group = work.groups[chunk.group];
  if (!group.searching) return;
  const ScoreTensor t = work.tensors[chunk.tensor];
  if (threadIdx.x == 0) num_kept = 0;
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  unsigned below = 0, at_low = 0, at_high = 0, survivors = 0;
  for (int64_t tile = chunk.begin; tile < chunk.begin + kSpan && tile < t.numel; tile += kTile) {
    const Four four = load_four(t, tile + 4 * static_cast<int64_t>(threadIdx.x), magnitude);
    survivors += __popc(four.survivors);
    for (int j = 0; j < 4; ++j) {
      const uint32_t key = four.keys[j];
      const bool alive = four.survivors >> j & 1u;
      below += alive && key < group.low;
      at_low += alive && key == group.low;
      at_high += alive && key == group.high && key != group.low;
      const bool between = alive && key > group.low && key < group.high;
      const unsigned voters = __ballot_sync(kFullWarp, between);
      if (voters == 0) continue;
      const int leader = __ffs(voters) - 1;
      unsigned at = 0;
      if (lane == static_cast<unsigned>(leader)) at = atomicAdd(&num_kept, __popc(voters));
      at = __shfl_sync(kFullWarp, at, leader);
      if (between) kept[at + __popc(voters & ((1u << lane) - 1u))] = key;
    }
  }
  // None of them exceeds kSpan, so 16 bits each hold the block's sums. The barriers complete `kept`.
  const Count sums =
      sum_all(Count{below} | Count{at_low} << 16 | Count{at_high} << 32 | Count{survivors} << 48);
  BracketCounts& counts = work.counts[chunk.group];
  if (threadIdx.x == 0) {
    atomicAdd(&counts.below, sums & 0xffffu);
    atomicAdd(&counts.at_low, sums >> 16 & 0xffffu);
    atomicAdd(&counts.at_high, sums >> 32 & 0xffffu);
    atomicAdd(&counts.survivors, sums >> 48);
    first = atomicAdd(&counts.between, static_cast<Count>(num_kept));
  }
  __syncthreads();
  const int shift = bin_shift(group.last);
  Count* bins = work.bins + static_cast<int64_t>(chunk.group) * kBins;
  for (unsigned i = threadIdx.x; i < num_kept; i += kThreads) {
    if (first + i >= static_cast<Count>(group.key_room)) break;
    work.keys[group.first_key + static_cast<int64_t>(first + i)] = kept[i];
    atomicAdd(&bins[(kept[i] - group.base) >> shift], Count{1});
  }
}

__global__ void __launch_bounds__(kThreads) settle_kernel(Work work, PruneStatus* status) {
  const unsigned g = blockIdx.x * kThreads + threadIdx.x;
  if (g >= work.num_groups || !work.groups[g].searching) return;
  GroupState& group = work.groups[g];
  const BracketCounts counts = work.counts[g];
  Count rank = group.rank;
  const Count inside = counts.at_low + counts.between + counts.at_high;
  group.searching = 0;
  if (rank > counts.survivors) {
    status[g] = PruneStatus::kTooMany;
  } else if (rank <= counts.below || rank > counts.below + inside ||
             counts.between > static_cast<Count>(group.key_room)) {
    status[g] = PruneStatus::kMissed;
  } else if ((rank -= counts.below) <= counts.at_low) {
    group.base = group.low;
  } else if ((rank -= counts.at_low) <= counts.between) {
    group.searching = 1;
  } else {
    rank -= counts.between;
    group.base = group.high;
  }
  if (!group.searching) group.last = 0;
  group.rank = rank;
}

__global__ void __launch_bounds__(kThreads) refine_kernel(Work work) {
  const KeyBlock block = work.key_blocks[blockIdx.x];
  const GroupState group = work.groups[block.group];
  if (!group.searching) return;
  const auto end = static_cast<int64_t>(work.counts[block.group].between);
  const int shift = bin_shift(group.last);
  Count* bins = work.bins + static_cast<int64_t>(block.group) * kBins;
  for (int64_t i = block.begin + threadIdx.x; i < block.begin + kSpan && i < end; i += kThreads) {
    const uint32_t above = work.keys[group.first_key + i] - group.base;
    if (above <= group.last) atomicAdd(&bins[above >> shift], Count{1});
  }
}

}  // namespace

void select_by_bracket(const Work& work, bool magnitude, PruneStatus* status, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const unsigned rows = work.num_groups < kMaxRows ? work.num_groups : kMaxRows;
  LTH_LAUNCH(sample_kernel, dim3(kMaxSamples / kThreads, rows), kThreads, 0, s, work, magnitude);
  LTH_LAUNCH(bracket_kernel, work.num_groups, kThreads, 0, s, work);
  if (work.num_chunks) LTH_LAUNCH(collect_kernel, work.num_chunks, kThreads, 0, s, work, magnitude);
  LTH_LAUNCH(settle_kernel, (work.num_groups + kThreads - 1) / kThreads, kThreads, 0, s, work, status);
  narrow(work, status, s);
  for (int digit = 1; digit < kDigits && work.num_key_blocks; ++digit) {
    LTH_LAUNCH(refine_kernel, work.num_key_blocks, kThreads, 0, s, work);
    narrow(work, status, s);
  }
}

}  // namespace lth
