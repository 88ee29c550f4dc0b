// The one read of all weights in pruning by rank: the new masks as far as a group's bracket determines them,
// and the keys inside it. The last block of a group settles where its threshold is.
#include "cuda/launch.h"
#include "cuda/threshold/select.h"

namespace lth {
namespace {

struct Bracket {
  uint32_t low, high, num_inside;  // num_inside: keys between the ends
  bool prunes;                     // else all survive
};

// What one thread sees in a chunk.
struct Seen {
  unsigned survivors, cleared, at_low, at_high, num_nan;
  uint32_t inside;  // bit kEach * round + j
};

// A byte of survivors with a key at an end of the bracket, or a NaN among them: these are rare, and are
// counted.
template <bool kMagnitude>
__device__ inline void look_closely(const Bracket& bracket, const uint32_t (&bits)[kEach], uint32_t survivors,
                                    uint32_t& up_to_low, uint32_t& inside, Seen& seen) {
  up_to_low = inside = 0;
  for (int j = 0; j < kEach; ++j) {
    if (!(survivors >> j & 1u)) continue;
    const uint32_t key = score_key(bits[j], kMagnitude);
    if (key == nan_key(kMagnitude)) ++seen.num_nan;
    if (!bracket.prunes) continue;
    if (key == bracket.low) ++seen.at_low;
    if (key == bracket.high && key != bracket.low) ++seen.at_high;
    if (key <= bracket.low) up_to_low |= 1u << j;
    if (key > bracket.low && key < bracket.high) inside |= 1u << j;
  }
}

// Writes the chunk's new mask as far as the bracket determines it.
template <bool kMagnitude, Access kAccess>
__device__ __forceinline__ Seen clear_below(const Chunk& chunk, const Bracket& bracket) {
  Seen seen{};
  const int end = num_padded(chunk);
  uint32_t survivors_of[kRounds];  // read at once: where they are none, no score is read
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int i = (round * kThreads + static_cast<int>(threadIdx.x)) * kEach;
    survivors_of[round] = i < end ? mask_byte(chunk, i) : 0u;
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int i = (round * kThreads + static_cast<int>(threadIdx.x)) * kEach;
    if (i >= end) continue;
    const uint32_t survivors = survivors_of[round];
    uint32_t up_to_low = 0, inside = 0;
    if (survivors) {
      uint32_t bits[kEach];
      load_each<kAccess>(chunk, i, bits);
      bool special = false;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        // Without the one key of all NaN, which look_closely makes.
        const uint32_t key = kMagnitude ? bits[j] & 0x7fffffffu : signed_key(bits[j]);
        if (key <= bracket.low) up_to_low |= 1u << j;
        if (key - bracket.low - 1 < bracket.num_inside) inside |= 1u << j;
        special |= key == bracket.low || key == bracket.high || key >= nan_key(kMagnitude);
      }
      if (special || !bracket.prunes) {
        look_closely<kMagnitude>(bracket, bits, survivors, up_to_low, inside, seen);
      }
    }
    up_to_low &= survivors;
    store_mask_byte(chunk, i, survivors & ~up_to_low);
    seen.survivors += __popc(survivors);
    seen.cleared += __popc(up_to_low);
    seen.inside |= (inside & survivors) << (kEach * round);
  }
  return seen;
}

// The ties of a group's chunks at one end of the bracket are pruned in order until there are `left`.
__device__ inline void share_ties(const Work& work, const GroupState& group, bool at_low, Count left) {
  Count passed = 0;
  for (unsigned first = 0; first < group.num_chunks; first += kThreads) {
    const bool in = first + threadIdx.x < group.num_chunks;
    const unsigned c = group.first_chunk + first + threadIdx.x;
    const ChunkCounts counts = in ? load_counts(&work.counts[c]) : ChunkCounts{};
    const Count ties = at_low ? counts.at_low : counts.at_high;
    Count total;
    const Count before = passed + sum_before(ties, total);
    const Count room = left > before ? left - before : 0;
    if (in) work.ties[c] = static_cast<uint32_t>(ties < room ? ties : room);
    passed += total;
  }
}

// Where the threshold is, with the counts of all chunks of its group; one block.
__device__ inline void settle(const Work& work, GroupState& state, int64_t g, bool magnitude) {
  const GroupState group = state;
  const Count between = __ldcg(&state.num_between);
  Count mine[4] = {};
  for (unsigned c = threadIdx.x; c < group.num_chunks; c += kThreads) {
    const ChunkCounts counts = load_counts(&work.counts[group.first_chunk + c]);
    mine[0] += counts.survivors;
    mine[1] += counts.cleared;
    mine[2] += counts.at_low;
    mine[3] += counts.at_high;
  }
  const Count survivors = sum_all(mine[0]), cleared = sum_all(mine[1]);
  const Count at_low = sum_all(mine[2]), at_high = sum_all(mine[3]);
  const Count rank = group.rank, below = cleared - at_low;
  const auto room = static_cast<Count>(key_room(group.num_weights));
  __syncthreads();  // all have read the state
  Remains remains = Remains::kNothing;
  PruneStatus status = PruneStatus::kFound;
  uint32_t key = 0;
  if (rank > survivors) {
    status = PruneStatus::kTooMany;
  } else if (rank == 0) {
    if (threadIdx.x == 0) work.tally.status[g] = status;
    return;
  } else if (rank <= below || rank > cleared + between + at_high || between > room) {
    status = PruneStatus::kMissed;
  } else if (rank <= cleared) {
    key = group.low;
    if (rank < cleared) remains = Remains::kTiesAtLow;
  } else if (rank <= cleared + between) {
    remains = Remains::kKeysInside;
  } else {
    key = group.high;
    remains = Remains::kTiesAtHigh;
  }
  if (remains == Remains::kTiesAtLow) share_ties(work, group, true, rank - below);
  if (remains == Remains::kTiesAtHigh) share_ties(work, group, false, rank - cleared - between);
  if (threadIdx.x == 0) {
    state.remains = remains;
    state.base = key;
    work.tally.status[g] = status;
    work.tally.threshold[g] = __uint_as_float(key_score(key, magnitude));
  }
  if (remains != Remains::kKeysInside) return;
  const uint32_t base = group.low + 1, last = group.high - group.low - 2;
  const int shift = bin_shift(last);
  const auto finalists = static_cast<Count>(finalist_room(group.num_weights));
  __syncthreads();
  find_bin(work.bins + g * kBins, rank - cleared, [&](unsigned bin, Count before, Count in_bin) {
    const uint32_t passed = bin << shift, width = (1u << shift) - 1;
    state.base = base + passed;
    state.last = last - passed < width ? last - passed : width;
    state.left = rank - cleared - before;
    if (in_bin > finalists) {
      state.remains = Remains::kNothing;
      work.tally.status[g] = PruneStatus::kMissed;
    }
  });
}

template <bool kMagnitude>
__device__ __forceinline__ void collect_chunk(const Work& work, const Chunk& chunk, GroupState& group) {
  __shared__ unsigned masks_of[kWarps], ends_of[kWarps], inside_of[kWarps], nan_of[kWarps];
  __shared__ Count first_of[kWarps];
  const Bracket bracket = {group.low, group.high, group.high > group.low ? group.high - group.low - 1 : 0,
                           group.rank != 0};
  const int64_t first_key = key_place(group.start);
  const auto room = static_cast<Count>(key_room(group.num_weights));
  Seen seen;
  switch (access_of(chunk)) {
    case Access::kWords:
      seen = clear_below<kMagnitude, Access::kWords>(chunk, bracket);
      break;
    case Access::kHalves:
      seen = clear_below<kMagnitude, Access::kHalves>(chunk, bracket);
      break;
    default:
      seen = clear_below<kMagnitude, Access::kNarrow>(chunk, bracket);
  }
  // 16 bits hold each of a block's sums.
  const unsigned warp = threadIdx.x / 32;
  const unsigned masks = __reduce_add_sync(kFullWarp, seen.survivors | seen.cleared << 16);
  const unsigned ends = __reduce_add_sync(kFullWarp, seen.at_low | seen.at_high << 16);
  const unsigned num_nan = __reduce_add_sync(kFullWarp, seen.num_nan);
  unsigned num_inside;
  const unsigned before = sum_before_in_warp(__popc(seen.inside), num_inside);
  if (threadIdx.x % 32 == 0) {
    masks_of[warp] = masks;
    ends_of[warp] = ends;
    inside_of[warp] = num_inside;
    nan_of[warp] = num_nan;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned all_masks = 0, all_ends = 0, all_inside = 0, all_nan = 0;
    for (int w = 0; w < kWarps; ++w) {
      first_of[w] = all_inside;
      all_masks += masks_of[w];
      all_ends += ends_of[w];
      all_inside += inside_of[w];
      all_nan += nan_of[w];
    }
    const Count first = all_inside ? atomicAdd(&group.num_between, Count{all_inside}) : 0;
    for (int w = 0; w < kWarps; ++w) first_of[w] += first;
    work.counts[blockIdx.x] = {static_cast<uint16_t>(all_masks & 0xffffu),
                               static_cast<uint16_t>(all_masks >> 16),
                               static_cast<uint16_t>(all_ends & 0xffffu),
                               static_cast<uint16_t>(all_ends >> 16),
                               all_inside,
                               static_cast<uint32_t>(first)};
    if (all_nan) atomicAdd(tensor_count(work, chunk.tensor, 1), Count{all_nan});
  }
  __syncthreads();
  Count at = first_of[warp] + before;
  const int shift = bin_shift(bracket.high - bracket.low - 2);
  Count* bins = work.bins + static_cast<int64_t>(chunk.group) * kBins;
  for (uint32_t inside = seen.inside; inside && at < room; inside &= inside - 1, ++at) {
    const int bit = __ffs(inside) - 1;
    const int place = (bit / kEach * kThreads + static_cast<int>(threadIdx.x)) * kEach + bit % kEach;
    const uint32_t key = key_of(chunk, place, kMagnitude);
    work.keys[first_key + static_cast<int64_t>(at)] = key;
    work.positions[first_key + static_cast<int64_t>(at)] = static_cast<uint16_t>(place);
    atomicAdd(&bins[(key - bracket.low - 1) >> shift], Count{1});
  }
}

template <bool kMagnitude>
__global__ void __launch_bounds__(kThreads) collect_kernel(Work work) {
  const Chunk chunk = work.chunks[blockIdx.x];
  GroupState& group = work.groups[chunk.group];
  if (chunk.length > 0) {
    collect_chunk<kMagnitude>(work, chunk, group);
  } else if (threadIdx.x == 0) {
    work.counts[blockIdx.x] = ChunkCounts{};
  }
  if (is_last_block(group, group.num_chunks)) settle(work, group, chunk.group, kMagnitude);
}

}  // namespace

void collect(const Work& work, bool magnitude, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  if (magnitude) {
    LTH_LAUNCH(collect_kernel<true>, work.num_chunks, kThreads, 0, s, work);
  } else {
    LTH_LAUNCH(collect_kernel<false>, work.num_chunks, kThreads, 0, s, work);
  }
}

}  // namespace lth
