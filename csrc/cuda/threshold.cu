// Pruning by rank on CUDA: a radix selection of the threshold's key over 11 + 11 + 10 bits, then the masks.
//
//   histogram, narrow   three times: count the next digit of the keys that match so far, choose the digit
//   classify            prune below the threshold, count ties and NaN of each chunk
//   share_ties          how many ties each chunk prunes, in flat order
//   prune_ties          reads again only the chunks that prune ties
//
// All counts are integers, so the result does not depend on the order of blocks. A block takes one chunk of
// kSpan weights, each thread four in a row. Bytes per weight: 4 reads of the score and 5/8 for the masks.
#include <cstring>
#include <vector>

#include "../threshold.h"
#include "launch.h"

namespace lth {
namespace {

using Count = unsigned long long;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kTile = 4 * kThreads;
constexpr int64_t kSpan = 4 * kTile;
constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kBins = 2048;
constexpr int kDigits = 3;
__device__ inline int digit_shift(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
__device__ inline int digit_bits(int digit) { return digit == 2 ? 10 : 11; }

struct ChunkPlace {
  int32_t tensor;
  int32_t group;
  int64_t begin;
};

// The selection in one group so far: keys whose bits above the digits left equal `key` are still in it.
struct GroupState {
  uint32_t key;
  int32_t empty;  // nothing is to be pruned
  Count rank;     // of the threshold among them, from 1; at the end, the number of ties to prune
  int64_t first_chunk, num_chunks;  // its chunks, in flat order
};

struct Four {
  uint32_t keys[4];
  uint32_t survivors;  // 4 bits
};

// Where everything lies in the workspace.
struct Work {
  ScoreTensor* tensors;
  ChunkPlace* chunks;
  GroupState* groups;
  Count* bins;     // [groups][kBins]
  uint32_t* ties;  // [chunks] survivors equal to the threshold, then how many of them to prune
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

__global__ void __launch_bounds__(kThreads) histogram_kernel(Work work, int digit, bool magnitude) {
  __shared__ unsigned bins[kBins];
  const ChunkPlace chunk = work.chunks[blockIdx.x];
  const GroupState group = work.groups[chunk.group];
  if (group.empty) return;
  const ScoreTensor t = work.tensors[chunk.tensor];
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const int shift = digit_shift(digit), bits = digit_bits(digit), above = shift + bits;
  const unsigned lane = threadIdx.x % 32;
  for (int64_t tile = chunk.begin; tile < chunk.begin + kSpan && tile < t.numel; tile += kTile) {
    const Four four = load_four(t, tile + 4 * static_cast<int64_t>(threadIdx.x), magnitude);
    for (int j = 0; j < 4; ++j) {
      const uint32_t key = four.keys[j];
      const bool in = (four.survivors >> j & 1u) && (above == 32 || (key ^ group.key) >> (above % 32) == 0);
      const unsigned bin = key >> shift & ((1u << bits) - 1u);
      // One addition for all lanes that share the first voter's bin: ties would queue up otherwise.
      const unsigned voters = __ballot_sync(kFullWarp, in);
      const int leader = voters ? __ffs(voters) - 1 : 0;
      const unsigned common = __shfl_sync(kFullWarp, bin, leader);
      const unsigned sharers = __ballot_sync(kFullWarp, in && bin == common);
      if (sharers && lane == static_cast<unsigned>(leader)) atomicAdd(&bins[common], __popc(sharers));
      if (in && bin != common) atomicAdd(&bins[bin], 1u);
    }
  }
  __syncthreads();
  Count* total = work.bins + static_cast<int64_t>(chunk.group) * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i]) atomicAdd(&total[i], static_cast<Count>(bins[i]));
  }
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

// One block a group: the digit's bin that holds the rank. Clears the bins for the next digit.
__global__ void __launch_bounds__(kThreads) narrow_kernel(Work work, int digit, int32_t* impossible) {
  constexpr int kEach = kBins / kThreads;
  GroupState& group = work.groups[blockIdx.x];
  Count* bins = work.bins + static_cast<int64_t>(blockIdx.x) * kBins;
  const bool empty = group.empty;
  const Count rank = group.rank;
  Count mine[kEach], sum = 0, total = 0;
  for (int i = 0; i < kEach; ++i) {
    mine[i] = bins[threadIdx.x * kEach + i];
    bins[threadIdx.x * kEach + i] = 0;
    sum += mine[i];
  }
  Count before = sum_before(sum, total);  // its barriers also keep the state's readers before its writer
  if (empty) return;
  if (threadIdx.x == 0 && rank > total) impossible[blockIdx.x] = 1;
  for (int i = 0; i < kEach; ++i) {
    if (before < rank && rank <= before + mine[i]) {
      group.key |= (threadIdx.x * kEach + i) << digit_shift(digit);
      group.rank = rank - before;
    }
    before += mine[i];
  }
}

// The sum over the block, in every thread.
__device__ inline Count sum_all(Count value) {
  Count total;
  sum_before(value, total);
  return total;
}

__global__ void __launch_bounds__(kThreads) classify_kernel(Work work, bool magnitude, Count* counts) {
  const ChunkPlace chunk = work.chunks[blockIdx.x];
  const GroupState group = work.groups[chunk.group];
  const ScoreTensor t = work.tensors[chunk.tensor];
  const uint32_t nan = nan_key(magnitude);
  unsigned ties = 0, below = 0, num_nan = 0;
  for (int64_t tile = chunk.begin; tile < chunk.begin + kSpan && tile < t.numel; tile += kTile) {
    const int64_t i = tile + 4 * static_cast<int64_t>(threadIdx.x);
    const Four four = load_four(t, i, magnitude);
    uint32_t kept = four.survivors;
    for (int j = 0; j < 4; ++j) {
      if (!(four.survivors >> j & 1u)) continue;
      if (four.keys[j] == nan) ++num_nan;
      if (group.empty) continue;
      if (four.keys[j] == group.key) ++ties;
      if (four.keys[j] < group.key) {
        ++below;
        kept &= ~(1u << j);
      }
    }
    // Eight lanes hold a word of 32 weights.
    uint32_t word = kept << (4 * (threadIdx.x % 8));
    for (unsigned lanes = 1; lanes < 8; lanes *= 2) word |= __shfl_xor_sync(kFullWarp, word, lanes);
    if (threadIdx.x % 8 == 0 && i < t.numel) t.pruned[i / 32] = word;
  }
  const Count all_ties = sum_all(ties), all_below = sum_all(below), all_nan = sum_all(num_nan);
  if (threadIdx.x == 0) {
    work.ties[blockIdx.x] = static_cast<uint32_t>(all_ties);
    if (all_below) atomicAdd(&counts[2 * chunk.tensor], all_below);
    if (all_nan) atomicAdd(&counts[2 * chunk.tensor + 1], all_nan);
  }
}

// One block a group: the ties of its chunks are pruned in order until there are enough.
__global__ void __launch_bounds__(kThreads)
    share_ties_kernel(Work work, bool magnitude, float* threshold, Count* counts) {
  const GroupState group = work.groups[blockIdx.x];
  if (threadIdx.x == 0) {
    threshold[blockIdx.x] =
        __uint_as_float(group.empty ? kInfinityBits | 0x80000000u : key_score(group.key, magnitude));
  }
  Count passed = 0;
  for (int64_t base = 0; base < group.num_chunks; base += kThreads) {
    const bool in = base + threadIdx.x < group.num_chunks;
    const int64_t at = group.first_chunk + base + threadIdx.x;
    const Count ties = in && !group.empty ? work.ties[at] : 0;
    Count total;
    const Count before = passed + sum_before(ties, total);
    const Count left = group.rank > before && !group.empty ? group.rank - before : 0;
    const Count pruned = ties < left ? ties : left;
    if (in) {
      work.ties[at] = static_cast<uint32_t>(pruned);
      if (pruned) atomicAdd(&counts[2 * work.chunks[at].tensor], pruned);
    }
    passed += total;
  }
}

__global__ void __launch_bounds__(kThreads) prune_ties_kernel(Work work, bool magnitude) {
  const Count wanted = work.ties[blockIdx.x];
  if (wanted == 0) return;
  const ChunkPlace chunk = work.chunks[blockIdx.x];
  const uint32_t key = work.groups[chunk.group].key;
  const ScoreTensor t = work.tensors[chunk.tensor];
  Count passed = 0;
  for (int64_t tile = chunk.begin; tile < chunk.begin + kSpan && tile < t.numel && passed < wanted;
       tile += kTile) {
    const int64_t i = tile + 4 * static_cast<int64_t>(threadIdx.x);
    const Four four = load_four(t, i, magnitude);
    unsigned ties = 0;
    for (int j = 0; j < 4; ++j) {
      if ((four.survivors >> j & 1u) && four.keys[j] == key) ties |= 1u << j;
    }
    Count total;
    Count before = passed + sum_before(__popc(ties), total);
    uint32_t pruned = 0;
    for (int j = 0; j < 4; ++j) {
      if (!(ties >> j & 1u)) continue;
      if (before < wanted) pruned |= 1u << j;
      ++before;
    }
    uint32_t word = pruned << (4 * (threadIdx.x % 8));
    for (unsigned lanes = 1; lanes < 8; lanes *= 2) word |= __shfl_xor_sync(kFullWarp, word, lanes);
    if (threadIdx.x % 8 == 0 && word) t.pruned[i / 32] &= ~word;
    passed += total;
  }
}

__global__ void __launch_bounds__(kThreads)
    count_bits_kernel(const uint32_t* words, int64_t num_words, Count* count) {
  unsigned bits = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < num_words; i += stride) {
    bits += __popc(words[i]);
  }
  const Count total = sum_all(bits);
  if (threadIdx.x == 0 && total) atomicAdd(count, total);
}

size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }

int64_t num_chunks(const ScoreTensor& t) { return (t.numel + kSpan - 1) / kSpan; }

struct Sizes {
  size_t tensors, chunks, groups, bins, ties;
  size_t upload() const { return tensors + chunks + groups; }
  size_t total() const { return upload() + bins + ties; }
};

Sizes sizes_of(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups) {
  int64_t chunks = 0;
  for (size_t i = 0; i < num_tensors; ++i) chunks += num_chunks(tensors[i]);
  const auto n = static_cast<size_t>(chunks);
  return {padded(num_tensors * sizeof(ScoreTensor)), padded(n * sizeof(ChunkPlace)),
          padded(num_groups * sizeof(GroupState)), padded(num_groups * kBins * sizeof(Count)),
          padded(n * sizeof(uint32_t))};
}

Work work_in(char* workspace, const Sizes& sizes) {
  Work work;
  work.tensors = reinterpret_cast<ScoreTensor*>(workspace);
  work.chunks = reinterpret_cast<ChunkPlace*>(workspace + sizes.tensors);
  work.groups = reinterpret_cast<GroupState*>(workspace + sizes.tensors + sizes.chunks);
  work.bins = reinterpret_cast<Count*>(workspace + sizes.upload());
  work.ties = reinterpret_cast<uint32_t*>(workspace + sizes.upload() + sizes.bins);
  return work;
}

}  // namespace

size_t prune_workspace_bytes_cuda(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups) {
  return sizes_of(tensors, num_tensors, num_groups).total();
}

void prune_lowest_cuda(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                       size_t num_groups, bool magnitude, const PruneTally& tally, void* workspace,
                       void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const Sizes sizes = sizes_of(tensors, num_tensors, num_groups);
  const Work work = work_in(static_cast<char*>(workspace), sizes);

  // The chunks of a group lie together, in flat order.
  std::vector<char> host(sizes.upload());
  const Work table = work_in(host.data(), sizes);
  std::memcpy(table.tensors, tensors, num_tensors * sizeof(ScoreTensor));
  int64_t chunks = 0;
  for (size_t g = 0; g < num_groups; ++g) {
    GroupState& group = table.groups[g];
    group = {0, num_pruned[g] == 0, static_cast<Count>(num_pruned[g]), chunks, 0};
    for (size_t i = 0; i < num_tensors; ++i) {
      if (tensors[i].group != static_cast<int32_t>(g)) continue;
      for (int64_t begin = 0; begin < tensors[i].numel; begin += kSpan) {
        table.chunks[chunks++] = {static_cast<int32_t>(i), static_cast<int32_t>(g), begin};
      }
    }
    group.num_chunks = chunks - group.first_chunk;
  }
  // From pageable memory: the call returns when `host` is read.
  cudaMemcpyAsync(workspace, host.data(), sizes.upload(), cudaMemcpyHostToDevice, s);
  cudaMemsetAsync(work.bins, 0, sizes.bins, s);
  cudaMemsetAsync(tally.counts, 0, num_tensors * 2 * sizeof(int64_t), s);
  cudaMemsetAsync(tally.impossible, 0, num_groups * sizeof(int32_t), s);
  auto* counts = reinterpret_cast<Count*>(tally.counts);
  const auto blocks = static_cast<unsigned>(chunks), groups = static_cast<unsigned>(num_groups);
  if (groups == 0) return;
  for (int digit = 0; digit < kDigits; ++digit) {
    if (blocks) LTH_LAUNCH(histogram_kernel, blocks, kThreads, 0, s, work, digit, magnitude);
    LTH_LAUNCH(narrow_kernel, groups, kThreads, 0, s, work, digit, tally.impossible);
  }
  if (blocks) LTH_LAUNCH(classify_kernel, blocks, kThreads, 0, s, work, magnitude, counts);
  LTH_LAUNCH(share_ties_kernel, groups, kThreads, 0, s, work, magnitude, tally.threshold, counts);
  if (blocks) LTH_LAUNCH(prune_ties_kernel, blocks, kThreads, 0, s, work, magnitude);
}

void count_bits_cuda(const uint32_t* words, int64_t num_words, int64_t* count, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  cudaMemsetAsync(count, 0, sizeof(int64_t), s);
  if (num_words == 0) return;
  const int64_t blocks = (num_words + 16 * kThreads - 1) / (16 * kThreads);
  LTH_LAUNCH(count_bits_kernel, static_cast<unsigned>(blocks < 1024 ? blocks : 1024), kThreads, 0, s, words,
             num_words, reinterpret_cast<Count*>(count));
}

}  // namespace lth
