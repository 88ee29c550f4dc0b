#include "cuda/launch.h"
#include "masks.h"

namespace lth {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;

int num_blocks(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

// A warp packs 32 weights to one word; the last warp's spare lanes vote 0.
__global__ void pack_mask_kernel(const bool* __restrict__ mask, int64_t numel, uint32_t* __restrict__ words) {
  const int64_t padded = (numel + 31) / 32 * 32;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < padded; i += stride) {
    const uint32_t word = __ballot_sync(0xffffffffu, i < numel && mask[i]);
    if (i % 32 == 0) words[i / 32] = word;
  }
}

__global__ void unpack_mask_kernel(const uint32_t* __restrict__ words, int64_t numel,
                                   bool* __restrict__ mask) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < numel; i += stride) {
    mask[i] = (words[i / 32] >> (i % 32)) & 1u;
  }
}

}  // namespace

void pack_mask_cuda(const bool* mask, int64_t numel, uint32_t* words, void* stream) {
  if (numel == 0) return;
  LTH_LAUNCH(pack_mask_kernel, num_blocks(numel), kThreads, 0, static_cast<cudaStream_t>(stream), mask, numel,
             words);
}

void unpack_mask_cuda(const uint32_t* words, int64_t numel, bool* mask, void* stream) {
  if (numel == 0) return;
  LTH_LAUNCH(unpack_mask_kernel, num_blocks(numel), kThreads, 0, static_cast<cudaStream_t>(stream), words,
             numel, mask);
}

}  // namespace lth
