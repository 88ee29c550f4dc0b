// Sums over the images of items of rows and then over items, in an order that no number of threads changes.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "common/parallel.h"

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

// sums [count] of partial [num_items, count] over the items.
inline void sum_items(const float* partial, int64_t num_items, int64_t count, float* sums) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t item = 0; item < num_items; ++item) sum += partial[item * count + i];
      sums[i] = float(sum);
    }
  };
  parallel_for(count, 4096, body);
}

}  // namespace lth
