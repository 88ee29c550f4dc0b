// Masks of one bit per weight: bit i % 32 of word i / 32, zero after the last weight.
#pragma once

#include <cstdint>

namespace lth {

void pack_mask_cpu(const bool* mask, int64_t numel, uint32_t* words);
void unpack_mask_cpu(const uint32_t* words, int64_t numel, bool* mask);

// `stream` is a cudaStream_t.
void pack_mask_cuda(const bool* mask, int64_t numel, uint32_t* words, void* stream);
void unpack_mask_cuda(const uint32_t* words, int64_t numel, bool* mask, void* stream);

}  // namespace lth
