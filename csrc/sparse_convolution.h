// Convolution over the kept weights only, for activations in blocks of images (image_blocks.h).
#pragma once

#include <cstdint>

#include "common/image_blocks.h"

namespace lth {

// A square kernel on square strides; padding is at most 1.
struct ConvolutionShape {
  int64_t num_blocks, num_inputs, height, width, num_outputs, out_height, out_width;
  int64_t kernel, stride, padding;
};

struct SparseConvolution : ConvolutionShape {
  const float* input;   // [num_blocks, num_inputs, height + 2, width + 2, 16]
  const float* values;  // [num_weights] kept weights, by output channel
  const int32_t*
      col_indices;         // [num_weights] position (input channel * kernel + row) * kernel + column of each
  const int32_t* row_ptr;  // [num_outputs + 1] first weight of each output channel
  const float* bias;       // [num_outputs]
  const float* residual;   // added to the output, of its shape; or nullptr
  float* output;           // [num_blocks, num_outputs, out_height + 2, out_width + 2, 16]
  int64_t num_weights;
  bool relu;
};

void sparse_convolution_cpu(const SparseConvolution& layer);

// The second of the first, whose output is nowhere written but for a few rows in the cache: first.output and
// second.input are not used, and nothing is added to the first. The second's kernel is at most 2 larger than
// its padding.
void sparse_convolution_pair_cpu(const SparseConvolution& first, const SparseConvolution& second);

}  // namespace lth
