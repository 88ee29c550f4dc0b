// Survivors of a list of packed masks, whose table travels as a kernel argument.
#include <algorithm>

#include "cuda/launch.h"
#include "threshold.h"

namespace lth {
namespace {

using Count = unsigned long long;

constexpr int kThreads = 256;
constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kMaxMasks = 160;  // in one launch

struct MaskTable {
  const uint32_t* words[kMaxMasks];
  int64_t num_words[kMaxMasks];
  unsigned first_block[kMaxMasks];
  int num_masks, first_mask;
};
static_assert(sizeof(MaskTable) + sizeof(Count*) <= kFewArgumentBytes);
constexpr int64_t kWordsOfBlock = 16 * kThreads;

__global__ void __launch_bounds__(kThreads)
    count_bits_kernel(const __grid_constant__ MaskTable table, Count* counts) {
  const int mask = last_not_behind(table.num_masks, blockIdx.x, [&](int i) { return table.first_block[i]; });
  const int64_t begin = (blockIdx.x - table.first_block[mask]) * kWordsOfBlock,
                left = table.num_words[mask] - begin;
  const uint32_t* words = table.words[mask] + begin;
  const int count = static_cast<int>(left < kWordsOfBlock ? left : kWordsOfBlock);
  const int wide = reinterpret_cast<uint64_t>(words) % 16 == 0 ? count / 4 * 4 : 0;
  unsigned bits = 0;
  for (int i = 4 * static_cast<int>(threadIdx.x); i < wide; i += 4 * kThreads) {
    const uint4 x = __ldg(reinterpret_cast<const uint4*>(words + i));
    bits += __popc(x.x) + __popc(x.y) + __popc(x.z) + __popc(x.w);
  }
  for (int i = wide + static_cast<int>(threadIdx.x); i < count; i += kThreads) bits += __popc(words[i]);
  const unsigned total = __reduce_add_sync(kFullWarp, bits);
  if (threadIdx.x % 32 == 0 && total) atomicAdd(&counts[table.first_mask + mask], Count{total});
}

}  // namespace

void count_bits_cuda(const MaskWords* masks, size_t num_masks, int64_t* counts, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  cudaMemsetAsync(counts, 0, num_masks * sizeof(int64_t), s);
  MaskTable table;
  for (size_t first = 0; first < num_masks; first += kMaxMasks) {
    table.first_mask = static_cast<int>(first);
    table.num_masks = static_cast<int>(std::min<size_t>(kMaxMasks, num_masks - first));
    int64_t blocks = 0;
    for (int i = 0; i < table.num_masks; ++i) {
      const MaskWords& mask = masks[first + static_cast<size_t>(i)];
      table.words[i] = mask.words;
      table.num_words[i] = mask.num_words;
      table.first_block[i] = static_cast<unsigned>(blocks);
      blocks += (mask.num_words + kWordsOfBlock - 1) / kWordsOfBlock;
    }
    if (blocks == 0) continue;
    LTH_LAUNCH(count_bits_kernel, static_cast<unsigned>(blocks), kThreads, 0, s, table,
               reinterpret_cast<Count*>(counts));
  }
}

}  // namespace lth
