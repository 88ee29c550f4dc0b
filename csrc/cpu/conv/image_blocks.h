// What the kernels on blocks of images share.
#pragma once

#include <cstring>

#include "common/image_blocks.h"
#include "common/macros.h"

namespace lth {

typedef float Images __attribute__((vector_size(4 * kBlock), aligned(4)));

// A rectangle of a plane's pixels, without the border.
struct Pixels {
  int64_t y, x, rows, columns;
};

// Writes the zeros of the border that lie beside these pixels: with its part of the plane, each thread writes
// its part of the border, which otherwise would travel from one core's cache to another's.
inline void clear_border(Images* plane, int64_t height, int64_t width, const Pixels& pixels) {
  const int64_t row = width + 2;
  const bool left = pixels.x == 0, right = pixels.x + pixels.columns == width;
  for (int64_t y = pixels.y + 1; y <= pixels.y + pixels.rows; ++y) {
    if (left) std::memset(static_cast<void*>(plane + y * row), 0, sizeof(Images));
    if (right) std::memset(static_cast<void*>(plane + y * row + width + 1), 0, sizeof(Images));
  }
  Images* start = plane + pixels.x + 1 - left;
  const size_t bytes = (pixels.columns + left + right) * sizeof(Images);
  if (pixels.y == 0) std::memset(static_cast<void*>(start), 0, bytes);
  if (pixels.y + pixels.rows == height) std::memset(static_cast<void*>(start + (height + 1) * row), 0, bytes);
}

// A sum as a layer hands it on: with what is added to it, and relu if asked. NaN stays NaN.
LTH_INLINE Images finish(Images sum, const Images* other, bool relu) {
  const Images zero = {};
  if (other) sum += *other;
  if (relu) sum = zero > sum ? zero : sum;
  return sum;
}

}  // namespace lth
