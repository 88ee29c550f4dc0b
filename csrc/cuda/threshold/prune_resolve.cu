// The last launch of pruning by rank: prunes among the keys inside the bracket, and among ties at its ends.
#include "cuda/launch.h"
#include "cuda/threshold/select.h"

namespace lth {
namespace {

// A finalist is its key above the bin's first, its chunk and its place there, from the highest bit on.
constexpr int kFinalistKeyBits = 32 - kBinBits;
constexpr int kFinalistPlaceBits = 64 - kFinalistKeyBits;

// The mask of a chunk anew, by a warp: what lies below `key` is pruned, and `num_ties` of those at it in
// order.
__device__ inline void prune_again(const Chunk& chunk, bool magnitude, uint32_t key, unsigned num_ties) {
  unsigned passed = 0;
  const int end = num_padded(chunk);
  for (int first = 0; first < end; first += 32 * kEach) {
    const int i = first + static_cast<int>(threadIdx.x % 32) * kEach;
    const uint32_t survivors = i < end ? mask_byte(chunk, i) : 0u;
    uint32_t bits[kEach] = {};
    if (survivors && access_of(chunk) == Access::kWords) {
      load_each<Access::kWords>(chunk, i, bits);
    } else if (survivors) {
      load_each<Access::kNarrow>(chunk, i, bits);
    }
    uint32_t pruned = 0, ties = 0;
    for (int j = 0; j < kEach; ++j) {
      const uint32_t of = score_key(bits[j], magnitude);
      if (of < key) pruned |= 1u << j;
      if (of == key) ties |= 1u << j;
    }
    ties &= survivors;
    unsigned total;
    unsigned before = passed + sum_before_in_warp(__popc(ties), total);
    for (; ties && before < num_ties; ties &= ties - 1, ++before) pruned |= ties & (0u - ties);
    if (i < end) store_mask_byte(chunk, i, survivors & ~pruned);
    passed += total;
  }
}

__device__ inline void clear_bit(const Chunk& chunk, unsigned place) {
  atomicAnd(&chunk.pruned[place / 32], ~(1u << place % 32));
}

// Clears those of a chunk's kept keys that lie below the bin of the threshold, or all of them, and passes on
// those in the bin; by a warp. Returns how many this lane cleared.
__device__ inline unsigned clear_kept(const Work& work, const Chunk& chunk, uint64_t number,
                                      GroupState& state, const ChunkCounts& counts, bool all) {
  unsigned cleared = 0;
  const uint32_t base = state.base, last = state.last;
  const int64_t first = key_place(state.start) + counts.first;
  uint64_t* finalists = work.finalists + finalist_place(state.start);
  for (unsigned i = threadIdx.x % 32; i < counts.between; i += 32) {
    const uint32_t key = work.keys[first + i];
    const unsigned place = work.positions[first + i];
    if (all || key < base) {
      clear_bit(chunk, place);
      ++cleared;
    } else if (key - base <= last) {
      const unsigned at = atomicAdd(&state.num_finalists, 1u);
      finalists[at] = static_cast<uint64_t>(key - base) << kFinalistPlaceBits | number << kSpanBits | place;
    }
  }
  return cleared;
}

// The finalist of this rank, from 1, among `count`: in every thread of the block. Bins narrow them down until
// each thread has one, which it compares with all others.
__device__ inline uint64_t nth_finalist(const uint64_t* finalists, unsigned count, Count rank) {
  __shared__ unsigned bins[kBins];
  __shared__ uint64_t possible[kThreads], chosen;
  __shared__ unsigned chosen_bin, num_possible;
  __shared__ Count passed;
  uint64_t base = 0, last = ~uint64_t{0};
  unsigned in_range = count;
  while (in_range > kThreads) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
    __syncthreads();
    const int bits = 64 - __clzll(static_cast<long long>(last));
    const int shift = bits > kBinBits ? bits - kBinBits : 0;
    for (unsigned i = threadIdx.x; i < count; i += kThreads) {
      const uint64_t above = __ldcg(&finalists[i]) - base;
      if (above <= last) atomicAdd(&bins[above >> shift], 1u);
    }
    __syncthreads();
    find_bin(bins, rank, [&](unsigned bin, Count before, Count in_bin) {
      chosen_bin = bin;
      passed = before;
      num_possible = static_cast<unsigned>(in_bin);
    });
    __syncthreads();
    const uint64_t skipped = static_cast<uint64_t>(chosen_bin) << shift, width = (uint64_t{1} << shift) - 1;
    base += skipped;
    last = last - skipped < width ? last - skipped : width;
    rank -= passed;
    in_range = num_possible;
    __syncthreads();
  }
  if (threadIdx.x == 0) num_possible = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < count; i += kThreads) {
    const uint64_t finalist = __ldcg(&finalists[i]);
    if (finalist - base <= last) possible[atomicAdd(&num_possible, 1u)] = finalist;
  }
  __syncthreads();
  if (threadIdx.x < in_range) {
    const uint64_t mine = possible[threadIdx.x];
    Count before = 0;
    for (unsigned i = 0; i < in_range; ++i) before += possible[i] < mine;
    if (before + 1 == rank) chosen = mine;
  }
  __syncthreads();
  return chosen;
}

// Prunes among the finalists up to the threshold's place among them; one block.
__device__ inline void choose(const Work& work, GroupState& state, int64_t g, bool magnitude) {
  const uint64_t* finalists = work.finalists + finalist_place(state.start);
  const unsigned count = __ldcg(&state.num_finalists);
  const uint64_t threshold = nth_finalist(finalists, count, state.left);
  for (unsigned i = threadIdx.x; i < count; i += kThreads) {
    const uint64_t finalist = __ldcg(&finalists[i]);
    if (finalist > threshold) continue;
    const uint64_t place = finalist & ((uint64_t{1} << kFinalistPlaceBits) - 1);
    const Chunk& chunk = work.chunks[place >> kSpanBits];
    clear_bit(chunk, static_cast<unsigned>(place % kSpan));
    atomicAdd(tensor_count(work, chunk.tensor, 0), Count{1});
  }
  if (threadIdx.x == 0) {
    const uint32_t key = state.base + static_cast<uint32_t>(threshold >> kFinalistPlaceBits);
    work.tally.threshold[g] = __uint_as_float(key_score(key, magnitude));
  }
}

// A warp takes a chunk.
__global__ void __launch_bounds__(kThreads) resolve_kernel(Work work, bool magnitude) {
  const unsigned number = blockIdx.x * kWarps + threadIdx.x / 32;
  const Chunk chunk = work.chunks[number];
  GroupState& group = work.groups[chunk.group];
  const ChunkCounts counts = work.counts[number];
  const Remains remains = group.remains;
  unsigned pruned = 0;
  if (remains == Remains::kKeysInside) {
    pruned = clear_kept(work, chunk, number, group, counts, false);
  } else if (remains == Remains::kTiesAtLow) {
    const unsigned ties = work.ties[number];
    if (ties < counts.at_low) prune_again(chunk, magnitude, group.base, ties);
    if (threadIdx.x % 32 == 0) pruned = ties - counts.at_low;
  } else if (remains == Remains::kTiesAtHigh) {
    const unsigned ties = work.ties[number];
    if (ties > 0) {
      prune_again(chunk, magnitude, group.base, ties);
      if (threadIdx.x % 32 == 0) pruned = ties + counts.between;
    } else {
      pruned = clear_kept(work, chunk, number, group, counts, true);
    }
  }
  pruned = __reduce_add_sync(kFullWarp, pruned) + counts.cleared;
  if (threadIdx.x % 32 == 0 && pruned) atomicAdd(tensor_count(work, chunk.tensor, 0), Count{pruned});
  if (remains == Remains::kKeysInside && is_last_block(group, group.num_chunks / kWarps)) {
    choose(work, group, chunk.group, magnitude);
  }
}

}  // namespace

void resolve(const Work& work, bool magnitude, void* stream) {
  LTH_LAUNCH(resolve_kernel, work.num_chunks / kWarps, kThreads, 0, static_cast<cudaStream_t>(stream), work,
             magnitude);
}

}  // namespace lth
