// What the kernels on blocks of images share.
#pragma once

#include <cstring>

#include "../common/image_blocks.h"
#include "../common/macros.h"
#include "../common/parallel.h"

namespace lth {

typedef float Images __attribute__((vector_size(4 * kBlock), aligned(4)));

inline void clear_border(Images* plane, int64_t height, int64_t width) {
  const int64_t row = width + 2;
  std::memset(static_cast<void*>(plane), 0, row * sizeof(Images));
  std::memset(static_cast<void*>(plane + (height + 1) * row), 0, row * sizeof(Images));
  for (int64_t y = 1; y <= height; ++y) {
    std::memset(static_cast<void*>(plane + y * row), 0, sizeof(Images));
    std::memset(static_cast<void*>(plane + y * row + width + 1), 0, sizeof(Images));
  }
}

// Writes the zeros around all planes of an output.
inline void clear_borders(float* planes, int64_t num_planes, int64_t height, int64_t width) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      clear_border(reinterpret_cast<Images*>(planes) + i * (height + 2) * (width + 2), height, width);
  };
  parallel_for(num_planes, 64, body);
}

// A sum as a layer hands it on: with what is added to it, and rectified if asked. NaN stays NaN.
LTH_INLINE Images finish(Images sum, const Images* other, bool rectified) {
  const Images zero = {};
  if (other) sum += *other;
  if (rectified) sum = sum < zero ? zero : sum;
  return sum;
}

}  // namespace lth
