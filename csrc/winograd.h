// Dense 3x3 convolution with stride 1 and padding 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): 2.25 products a pixel and weight in place
// of 9, for activations in blocks of images (image_blocks.h).
#pragma once

#include <cstdint>

#include "common/image_blocks.h"

namespace lth {

struct WinogradConvolution {
  const float* input;     // [num_blocks, num_inputs, height + 2, width + 2, 16]
  const float* weight;    // [num_outputs, num_inputs, 3, 3]
  const float* bias;      // [num_outputs]
  const float* residual;  // added to the output, of its shape; or nullptr
  float* output;          // [num_blocks, num_outputs, height + 2, width + 2, 16]
  int64_t num_blocks, num_inputs, height, width, num_outputs;
  bool relu;
};

void winograd_convolution_cpu(const WinogradConvolution& layer);

}  // namespace lth
