// Sums over the images of blocks and then over blocks, in an order that no number of threads changes.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace lth {

// The sum of kLanes floats, neighbours first.
template <int64_t kLanes>
LTH_INLINE float sum_lanes(const float* lanes) {
  if constexpr (kLanes == 1) {
    return lanes[0];
  } else {
    return sum_lanes<kLanes / 2>(lanes) + sum_lanes<kLanes / 2>(lanes + kLanes / 2);
  }
}

// sums [count] of partial [num_blocks, count] over the blocks.
inline void sum_blocks(const float* partial, int64_t num_blocks, int64_t count, float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    double sum = 0;
    for (int64_t block = 0; block < num_blocks; ++block) sum += partial[block * count + i];
    sums[i] = float(sum);
  }
}

}  // namespace lth
