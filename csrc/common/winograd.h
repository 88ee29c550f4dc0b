// Dense 3x3 convolution with stride 1 and padding 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): 4 products a pixel and weight in place of
// 9, for activations in blocks of images (image_blocks.h). Its error is below that of a direct convolution
// here (1e-6 against 3e-6 of unit outputs, in float32); F(4x4, 3x3) took a fifth less time and made an error
// of 2e-5.
#pragma once

#include <cstdint>

#include "image_blocks.h"

namespace lth {

inline constexpr int64_t kWinogradPositions = 36;  // of a transformed tile, 6x6

// Its polynomials are interpolated at 0, these and their negatives, and infinity.
inline constexpr float kWinogradPointA = 0.625f, kWinogradPointB = 1.5f;

struct WinogradConvolution {
  const float* input;   // [num_blocks, num_inputs, height + 2, width + 2, 16]
  const float* weight;  // [36, num_outputs, num_inputs], each 3x3 filter w as G w G'
  const float* bias;    // [num_outputs]
  const float* other;   // added to the output, of its shape; or nullptr
  float* output;        // [num_blocks, num_outputs, height + 2, width + 2, 16]
  int64_t num_blocks, num_inputs, height, width, num_outputs;
  bool rectified;
};

void winograd_convolution_cpu(const WinogradConvolution& layer);

}  // namespace lth
