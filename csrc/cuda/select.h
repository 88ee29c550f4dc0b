// What the two ways to a group's threshold share (select_bracket.cu, select_radix.cu): the tables of one
// call, and loads and sums of a block. A block takes one chunk of kSpan weights, each thread four in a row.
#pragma once

#include "../threshold.h"
#include "launch.h"

namespace lth {

using Count = unsigned long long;

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int64_t kTile = 4 * kThreads;
inline constexpr int64_t kSpan = 4 * kTile;
inline constexpr unsigned kFullWarp = 0xffffffffu;
inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;
inline constexpr int kDigits = 3;  // of kBinBits, which a key has
inline constexpr int64_t kMaxSamples = 16384;

struct ChunkPlace {
  int32_t tensor;
  int32_t group;
  int64_t begin;
  int64_t before;  // weights of the group in earlier chunks
};

// The selection in one group so far: its threshold is a key of [base, base + last].
struct GroupState {
  uint32_t base, last;
  int32_t empty;      // nothing is to be pruned
  int32_t searching;  // more than one key is left
  Count rank;         // of the threshold among these keys, from 1; at the end, the number of ties to prune
  int64_t first_chunk, num_chunks;  // its chunks, in flat order
  int64_t num_weights;
  int64_t first_sample, num_samples;  // of the bracket
  int64_t first_key, key_room;        //   room for the keys inside it
  uint32_t low, high;                 //   its ends
};

// What lies where with respect to a group's bracket.
struct BracketCounts {
  Count survivors, below, at_low, at_high, between;
};

struct KeyBlock {
  int32_t group;
  int64_t begin;
};

// Where everything lies in the workspace, and how much of it.
struct Work {
  ScoreTensor* tensors;
  ChunkPlace* chunks;
  GroupState* groups;
  KeyBlock* key_blocks;   // kSpan keys inside the bracket each
  Count* bins;            // [groups][kBins]
  BracketCounts* counts;  // [groups]
  uint32_t* ties;         // [chunks] survivors equal to the threshold, then how many of them to prune
  uint32_t* samples;      // keys, those of one group after those of another
  uint32_t* keys;         // likewise
  unsigned num_chunks, num_groups, num_key_blocks;
};

// Both leave in every group the threshold's key as `base` and the number of ties as `rank`, or a status that
// is not kFound. `stream` is a cudaStream_t.
void select_by_bracket(const Work& work, bool magnitude, PruneStatus* status, void* stream);
void select_by_radix(const Work& work, bool magnitude, PruneStatus* status, void* stream);
// One block a group: goes on to the bin that holds the rank, and clears the bins for the next digit.
void narrow(const Work& work, PruneStatus* status, void* stream);

// The place of sample j of m among the n weights of a group: anywhere in its m-th part.
LTH_HOST_DEVICE inline int64_t sample_place(int64_t j, int64_t m, int64_t n) {
  uint32_t x = static_cast<uint32_t>(j) * 0x9e3779b9u + 1;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return j * n / m + (x ^ x >> 16) % (n / m);
}

#if defined(__CUDACC__) || defined(LTH_HOST_EXECUTOR)

struct Four {
  uint32_t keys[4];
  uint32_t survivors;  // 4 bits
};

__device__ inline uint32_t widen_half(ScoreType type, uint16_t half) {
  return type == ScoreType::kBFloat16 ? widen_bfloat16(half) : widen_float16(half);
}

__device__ inline uint32_t widen(const ScoreTensor& t, int64_t i) {
  if (t.type == ScoreType::kFloat32) return static_cast<const uint32_t*>(t.scores)[i];
  return widen_half(t.type, static_cast<const uint16_t*>(t.scores)[i]);
}

// Weights [i, i + 4) of a tensor; none survives beyond its end.
__device__ inline Four load_four(const ScoreTensor& t, int64_t i, bool magnitude) {
  Four four{};
  if (i >= t.numel) return four;
  four.survivors = t.mask[i / 32] >> (i % 32) & 0xfu;
  // Through __ldg, since the compiler else merges the two ways into four narrow loads.
  const bool wide = i + 4 <= t.numel && reinterpret_cast<uint64_t>(t.scores) % 16 == 0;
  uint32_t bits[4] = {};
  if (wide && t.type == ScoreType::kFloat32) {
    const uint4 x = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint32_t*>(t.scores) + i));
    bits[0] = x.x;
    bits[1] = x.y;
    bits[2] = x.z;
    bits[3] = x.w;
  } else if (wide) {
    const uint2 x = __ldg(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(t.scores) + i));
    const uint32_t halves[4] = {x.x & 0xffffu, x.x >> 16, x.y & 0xffffu, x.y >> 16};
    for (int j = 0; j < 4; ++j) bits[j] = widen_half(t.type, static_cast<uint16_t>(halves[j]));
  } else {
    for (int j = 0; j < 4; ++j) bits[j] = i + j < t.numel ? widen(t, i + j) : 0u;
  }
  for (int j = 0; j < 4; ++j) four.keys[j] = score_key(bits[j], magnitude);
  return four;
}

// The sum of the values of the threads before this one; `total` is that of all.
__device__ inline Count sum_before(Count value, Count& total) {
  __shared__ Count warps[kWarps];
  const unsigned lane = threadIdx.x % 32;
  Count sum = value;
  for (unsigned delta = 1; delta < 32; delta *= 2) {
    const Count below = __shfl_up_sync(kFullWarp, sum, delta);
    if (lane >= delta) sum += below;
  }
  __syncthreads();  // of an earlier call the sums may still be read
  if (lane == 31) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  Count before = sum - value;
  total = 0;
  for (unsigned w = 0; w < kWarps; ++w) {
    if (w < threadIdx.x / 32) before += warps[w];
    total += warps[w];
  }
  return before;
}

// The sum over the block, in every thread.
__device__ inline Count sum_all(Count value) {
  Count total;
  sum_before(value, total);
  return total;
}

// The bin of a key of [base, base + last].
__device__ inline int bin_shift(uint32_t last) {
  const int bits = 32 - __clz(last);
  return bits > kBinBits ? bits - kBinBits : 0;
}

// Adds 1 to the bin of every lane that is `in`: the whole warp calls it. One addition serves all lanes that
// share the first voter's bin: ties would queue up otherwise.
__device__ inline void count_bin(unsigned* bins, bool in, unsigned bin) {
  const unsigned voters = __ballot_sync(kFullWarp, in);
  const int leader = voters ? __ffs(voters) - 1 : 0;
  const unsigned common = __shfl_sync(kFullWarp, bin, leader);
  const unsigned sharers = __ballot_sync(kFullWarp, in && bin == common);
  if (sharers && threadIdx.x % 32 == static_cast<unsigned>(leader)) atomicAdd(&bins[common], __popc(sharers));
  if (in && bin != common) atomicAdd(&bins[bin], 1u);
}

// Calls found(bin, how many are in bins before it) in the one thread that owns the bin with this rank, and
// returns how many are in all bins.
template <class Bin, class Found>
__device__ inline Count find_bin(const Bin* bins, Count rank, Found found) {
  constexpr int kEach = kBins / kThreads;
  Count mine[kEach], sum = 0, total = 0;
  for (int i = 0; i < kEach; ++i) {
    mine[i] = bins[threadIdx.x * kEach + i];
    sum += mine[i];
  }
  Count before = sum_before(sum, total);
  for (int i = 0; i < kEach; ++i) {
    if (before < rank && rank <= before + mine[i]) found(threadIdx.x * kEach + i, before);
    before += mine[i];
  }
  return total;
}

#endif

}  // namespace lth
