// Activations in blocks of 16 images, one per vector lane: [num_blocks, channels, height + 2, width + 2, 16]
// with a border of zeros one pixel wide.
#pragma once

#include <cstdint>

namespace lth {

inline constexpr int64_t kBlock = 16;  // images

}  // namespace lth
