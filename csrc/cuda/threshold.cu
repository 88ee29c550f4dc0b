// Pruning by rank on CUDA. First the threshold's key of every group, by a sampled bracket and, where that
// missed it, by digits; then the masks:
//
//   classify            prune below the threshold, count ties and NaN of each chunk
//   share_ties          how many ties each chunk prunes, in flat order
//   prune_ties          reads again only the chunks that prune ties
//
// All counts are integers, so the result does not depend on the order of blocks. Bytes per float32 weight:
// two reads of score and mask and one write of the mask, 8 + 3/8; by digits 16 + 5/8.
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "../threshold.h"
#include "launch.h"
#include "select.h"

namespace lth {
namespace {

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
      if (four.keys[j] == group.base) ++ties;
      if (four.keys[j] < group.base) {
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
        __uint_as_float(group.empty ? kInfinityBits | 0x80000000u : key_score(group.base, magnitude));
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
  const uint32_t key = work.groups[chunk.group].base;
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

// Room for the keys inside a bracket, of which 2 % of the weights are expected.
int64_t key_room(int64_t num_weights) {
  return num_weights > kMaxSamples ? (num_weights / 8 + kSpan - 1) / kSpan * kSpan : 0;
}

struct Layout {
  std::vector<int64_t> weights;  // of each group
  int64_t chunks = 0, samples = 0, keys = 0;

  Layout(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups) : weights(num_groups, 0) {
    for (size_t i = 0; i < num_tensors; ++i) {
      weights[static_cast<size_t>(tensors[i].group)] += tensors[i].numel;
      chunks += num_chunks(tensors[i]);
    }
    for (int64_t n : weights) {
      samples += n < kMaxSamples ? n : kMaxSamples;
      keys += key_room(n);
    }
  }

  // Sets where everything lies from `memory` on; the tables, which are uploaded, come first. Returns the
  // bytes of the tables, and those of everything.
  std::pair<size_t, size_t> place(Work& work, char* memory, size_t num_tensors) const {
    size_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used);
      used += padded(static_cast<size_t>(count) * sizeof(*pointer));
    };
    const auto groups = static_cast<int64_t>(weights.size());
    take(work.tensors, static_cast<int64_t>(num_tensors));
    take(work.chunks, chunks);
    take(work.groups, groups);
    take(work.key_blocks, keys / kSpan);
    const size_t tables = used;
    take(work.bins, groups * kBins);
    take(work.counts, groups);
    take(work.ties, chunks);
    take(work.samples, samples);
    take(work.keys, keys);
    work.num_chunks = static_cast<unsigned>(chunks);
    work.num_groups = static_cast<unsigned>(groups);
    work.num_key_blocks = static_cast<unsigned>(keys / kSpan);
    return {tables, used};
  }
};

// The chunks of a group lie together, in flat order.
void fill_tables(const Work& work, const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                 const std::vector<int64_t>& weights) {
  std::memcpy(work.tensors, tensors, num_tensors * sizeof(ScoreTensor));
  int64_t chunks = 0, samples = 0, keys = 0;
  KeyBlock* block = work.key_blocks;
  for (size_t g = 0; g < weights.size(); ++g) {
    GroupState group{};
    group.last = 0xffffffffu;
    group.empty = num_pruned[g] == 0;
    group.searching = !group.empty;
    group.rank = static_cast<Count>(num_pruned[g]);
    group.first_chunk = chunks;
    group.num_weights = weights[g];
    group.first_sample = samples;
    group.num_samples = weights[g] < kMaxSamples ? weights[g] : kMaxSamples;
    group.first_key = keys;
    group.key_room = key_room(weights[g]);
    int64_t before = 0;
    for (size_t i = 0; i < num_tensors; ++i) {
      if (tensors[i].group != static_cast<int32_t>(g)) continue;
      for (int64_t begin = 0; begin < tensors[i].numel; begin += kSpan) {
        work.chunks[chunks++] = {static_cast<int32_t>(i), static_cast<int32_t>(g), begin, before + begin};
      }
      before += tensors[i].numel;
    }
    group.num_chunks = chunks - group.first_chunk;
    for (int64_t begin = 0; begin < group.key_room; begin += kSpan)
      *block++ = {static_cast<int32_t>(g), begin};
    samples += group.num_samples;
    keys += group.key_room;
    work.groups[g] = group;
  }
}

}  // namespace

size_t prune_workspace_bytes_cuda(const ScoreTensor* tensors, size_t num_tensors, size_t num_groups) {
  Work work;
  return Layout(tensors, num_tensors, num_groups).place(work, nullptr, num_tensors).second;
}

void prune_lowest_cuda(const ScoreTensor* tensors, size_t num_tensors, const int64_t* num_pruned,
                       size_t num_groups, bool magnitude, SelectBy by, const PruneTally& tally,
                       void* workspace, void* stream) {
  if (num_groups == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  const Layout layout(tensors, num_tensors, num_groups);
  Work work, tables;
  const size_t bytes = layout.place(work, static_cast<char*>(workspace), num_tensors).first;
  std::vector<char> host(bytes);
  layout.place(tables, host.data(), num_tensors);
  fill_tables(tables, tensors, num_tensors, num_pruned, layout.weights);
  // From pageable memory: the call returns when `host` is read.
  cudaMemcpyAsync(workspace, host.data(), bytes, cudaMemcpyHostToDevice, s);
  cudaMemsetAsync(work.bins, 0, num_groups * kBins * sizeof(Count), s);
  cudaMemsetAsync(work.counts, 0, num_groups * sizeof(BracketCounts), s);
  cudaMemsetAsync(tally.counts, 0, num_tensors * 2 * sizeof(int64_t), s);
  cudaMemsetAsync(tally.status, 0, num_groups * sizeof(PruneStatus), s);
  static_assert(static_cast<int>(PruneStatus::kFound) == 0);
  (by == SelectBy::kBracket ? select_by_bracket : select_by_radix)(work, magnitude, tally.status, stream);
  auto* counts = reinterpret_cast<Count*>(tally.counts);
  if (work.num_chunks) LTH_LAUNCH(classify_kernel, work.num_chunks, kThreads, 0, s, work, magnitude, counts);
  LTH_LAUNCH(share_ties_kernel, work.num_groups, kThreads, 0, s, work, magnitude, tally.threshold, counts);
  if (work.num_chunks) LTH_LAUNCH(prune_ties_kernel, work.num_chunks, kThreads, 0, s, work, magnitude);
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
