// What the kernels of pruning by rank share (see threshold.cu): the tables of
// one call, and loads and sums of a block. A chunk is kSpan weights of one tensor, or less at its end; the
// chunks of a group lie together, in flat order, and fill up kWarps of them, so that no block has two groups.
#pragma once

#include "cuda/launch.h"
#include "threshold.h"

namespace lth {

using Count = unsigned long long;

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kEach = 8;  // weights that a thread takes in a row: their mask is one byte
inline constexpr int kRounds = 4;
inline constexpr int kSpanBits = 13;
inline constexpr int kSpan = 1 << kSpanBits;
static_assert(kSpan == kThreads * kEach * kRounds);
inline constexpr unsigned kFullWarp = 0xffffffffu;
inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;
inline constexpr int kDigits = 3;  // of kBinBits, which a key has
inline constexpr int64_t kMaxSamples = 16384;
inline constexpr uint32_t kAboveAll = 0xffffffffu;  // the key of a sample that fell on a pruned weight

struct Chunk {
  const void* scores;  // of its first weight; so the masks
  const uint32_t* mask;
  uint32_t* pruned;
  int32_t length;  // weights; 0 where it only fills up the chunks of its group
  int32_t tensor;
  int32_t group;
  ScoreType type;
};

// What `collect` saw in a chunk. What it cleared are survivors with keys up to the bracket's lower end.
struct alignas(16) ChunkCounts {
  uint16_t survivors, cleared, at_low, at_high;
  uint32_t between;  // keys inside the bracket,
  uint32_t first;    //   from this one of its group on
};
static_assert(kSpan <= 0xffff);

// What remains to be done in a group when `collect` has cleared what it could.
enum class Remains : int32_t { kNothing, kTiesAtLow, kKeysInside, kTiesAtHigh };

struct GroupState {
  Count rank;  // of the threshold among the survivors, from 1; 0 where nothing is to be pruned
  int64_t start, num_weights;  // in the weights of all groups
  uint32_t first_chunk, num_chunks, first_sample;
  unsigned num_done;       // blocks of the kernel that runs
  uint32_t low, high;      // the bracket: the threshold is one of its ends or inside it
  uint32_t base, last;     // the threshold is a key of [base, base + last],
  Count left;              //   of this rank among them
  Count num_between;       // keys inside the bracket
  unsigned num_finalists;  // of these, the ones in [base, base + last]
  Remains remains;
};

// Where everything lies in the workspace.
struct Work {
  Chunk* chunks;
  ChunkCounts* counts;  // [chunks]
  uint32_t* ties;       // [chunks] how many of the ties at an end of the bracket to prune
  GroupState* groups;
  Count* bins;          // [groups][kBins]
  uint32_t* samples;    // keys, those of one group after those of another
  uint32_t* keys;       // those inside the bracket, from key_place() of their group on,
  uint16_t* positions;  //   and where in its chunk each lies
  uint64_t* finalists;  // from finalist_place() of their group on
  PruneTally tally;
  unsigned num_chunks, num_groups;
};

LTH_HOST_DEVICE inline int64_t num_samples(int64_t num_weights) {
  return num_weights < kMaxSamples ? num_weights : kMaxSamples;
}

// Room for the keys inside a bracket, of which 2 % of the weights are expected; none where the sample is all
// of a group, whose bracket then is its threshold. And room for those in one bin of them.
LTH_HOST_DEVICE inline int64_t key_place(int64_t start) { return (start + 7) / 8; }
LTH_HOST_DEVICE inline int64_t key_room(int64_t num_weights) {
  return num_weights > kMaxSamples ? num_weights / 8 : 0;
}
LTH_HOST_DEVICE inline int64_t finalist_place(int64_t start) { return (start + 255) / 256; }
LTH_HOST_DEVICE inline int64_t finalist_room(int64_t num_weights) { return num_weights / 256; }

// Both leave the bracket of every group in its state; by digits it is the threshold's key alone. `stream` is
// a cudaStream_t.
void select_by_bracket(const Work& work, void* stream);
void select_by_radix(const Work& work, bool magnitude, void* stream);

// Prune by the bracket of each group: first what is surely below the threshold, then what is near it.
void collect(const Work& work, bool magnitude, void* stream);
void resolve(const Work& work, bool magnitude, void* stream);

// The place of sample j of m among the n weights of a group: anywhere in its m-th part.
LTH_HOST_DEVICE inline int64_t sample_place(int64_t j, int64_t m, int64_t n) {
  uint32_t x = static_cast<uint32_t>(j) * 0x9e3779b9u + 1;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return j * n / m + (x ^ x >> 16) % (n / m);
}

#if defined(__CUDACC__) || defined(LTH_HOST_EXECUTOR)

__device__ __forceinline__ uint32_t widen(const void* scores, int64_t i, ScoreType type) {
  if (type == ScoreType::kFloat32) return static_cast<const uint32_t*>(scores)[i];
  const uint16_t half = static_cast<const uint16_t*>(scores)[i];
  return type == ScoreType::kBFloat16 ? widen_bfloat16(half) : widen_float16(half);
}

__device__ __forceinline__ uint32_t key_of(const Chunk& chunk, int i, bool magnitude) {
  return score_key(widen(chunk.scores, i, chunk.type), magnitude);
}

// How the scores of a chunk are read: 16 bytes at a time, or one after another where the address forbids
// that.
enum class Access { kWords, kHalves, kNarrow };

__device__ inline Access access_of(const Chunk& chunk) {
  if (reinterpret_cast<uint64_t>(chunk.scores) % 16 != 0) return Access::kNarrow;
  return chunk.type == ScoreType::kFloat32 ? Access::kWords : Access::kHalves;
}

// The float32 bits of weights [i, i + kEach); 0 beyond the chunk's end.
template <Access kAccess>
__device__ __forceinline__ void load_each(const Chunk& chunk, int i, uint32_t (&bits)[kEach]) {
  if (kAccess == Access::kNarrow || i + kEach > chunk.length) {
    for (int j = 0; j < kEach; ++j)
      bits[j] = i + j < chunk.length ? widen(chunk.scores, i + j, chunk.type) : 0u;
  } else if (kAccess == Access::kWords) {
    const auto* words = reinterpret_cast<const uint4*>(static_cast<const uint32_t*>(chunk.scores) + i);
    for (int half = 0; half < 2; ++half) {
      const uint4 x = __ldg(words + half);
      bits[4 * half] = x.x;
      bits[4 * half + 1] = x.y;
      bits[4 * half + 2] = x.z;
      bits[4 * half + 3] = x.w;
    }
  } else {
    const auto* halves = reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(chunk.scores) + i);
    const uint4 x = __ldg(halves);
    const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
    for (int j = 0; j < kEach; ++j) {
      const auto one = static_cast<uint16_t>(pairs[j / 2] >> (16 * (j % 2)));
      bits[j] = chunk.type == ScoreType::kBFloat16 ? widen_bfloat16(one) : widen_float16(one);
    }
  }
}

// The masks of a chunk by the byte, up to the end of the last word.
__device__ inline int num_padded(const Chunk& chunk) { return (chunk.length + 31) / 32 * 32; }
__device__ inline uint32_t mask_byte(const Chunk& chunk, int i) {
  const uint32_t byte = reinterpret_cast<const uint8_t*>(chunk.mask)[i / kEach];
  const int left = chunk.length - i;
  // Bits after the last weight never count as kept.
  return left >= kEach ? byte : left > 0 ? byte & ((1u << left) - 1u) : 0u;
}
__device__ inline void store_mask_byte(const Chunk& chunk, int i, uint32_t byte) {
  reinterpret_cast<uint8_t*>(chunk.pruned)[i / kEach] = static_cast<uint8_t>(byte);
}

__device__ inline ChunkCounts load_counts(const ChunkCounts* from) {
  const uint4 x = __ldcg(reinterpret_cast<const uint4*>(from));
  ChunkCounts counts;
  memcpy(&counts, &x, sizeof counts);
  return counts;
}

// How many weights of a tensor are pruned (0) or NaN (1).
__device__ inline Count* tensor_count(const Work& work, int32_t tensor, int what) {
  return reinterpret_cast<Count*>(work.tally.counts) + 2 * static_cast<int64_t>(tensor) + what;
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

// The sum of the values of the lanes before this one; `total` is that of the warp.
__device__ inline unsigned sum_before_in_warp(unsigned value, unsigned& total) {
  const unsigned lane = threadIdx.x % 32;
  unsigned sum = value;
  for (unsigned delta = 1; delta < 32; delta *= 2) {
    const unsigned below = __shfl_up_sync(kFullWarp, sum, delta);
    if (lane >= delta) sum += below;
  }
  total = __shfl_sync(kFullWarp, sum, 31);
  return sum - value;
}

// Whether this is the last of a group's blocks to come here, in all of its threads: it then sees what the
// others wrote before, if it reads through __ldcg. Counts from anew for the next kernel.
__device__ inline bool is_last_block(GroupState& group, unsigned num_blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(&group.num_done, 1u) + 1 == num_blocks;
    if (last) {
      group.num_done = 0;
      __threadfence();
    }
  }
  __syncthreads();
  return last;
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

__device__ inline Count load_bin(const unsigned* shared) { return *shared; }
__device__ inline Count load_bin(const Count* global) { return __ldcg(global); }

// Calls found(bin, how many are in bins before it, how many in it) in the one thread that owns the bin with
// this rank, and returns how many are in all bins.
template <class Bin, class Found>
__device__ __forceinline__ Count find_bin(const Bin* bins, Count rank, Found found) {
  constexpr int kMine = kBins / kThreads;
  Count mine[kMine], sum = 0, total = 0;
  for (int i = 0; i < kMine; ++i) {
    mine[i] = load_bin(&bins[threadIdx.x * kMine + i]);
    sum += mine[i];
  }
  Count before = sum_before(sum, total);
  for (int i = 0; i < kMine; ++i) {
    if (before < rank && rank <= before + mine[i]) found(threadIdx.x * kMine + i, before, mine[i]);
    before += mine[i];
  }
  return total;
}

#endif

}  // namespace lth
