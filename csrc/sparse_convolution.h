// Convolution over the kept weights only, and its gradients, for activations in blocks of images
// (image_blocks.h).
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

// The gradient of the input; kernel is at most padding + 2, so that no tap reaches beyond the border.
struct SparseInputGradient : ConvolutionShape {
  const float* grad;     // [num_blocks, num_outputs, out_height + 2, out_width + 2, 16] of the output
  const float* values;   // [num_weights] kept weights, by output channel
  const int32_t* order;  // [num_weights] the position in `values` of each weight, by input channel
  const int32_t*
      row_indices;         // [num_weights] position (output channel * kernel + row) * kernel + column of each
  const int32_t* col_ptr;  // [num_inputs + 1] first weight of each input channel
  const float* residual;   // added to the gradient, of its shape; or nullptr
  float* output;           // [num_blocks, num_inputs, height + 2, width + 2, 16]
  int64_t num_weights;
};

void sparse_input_gradient_cpu(const SparseInputGradient& layer);

// The gradient of the surviving weights: for each the sum over images and pixels of what it multiplies times
// the gradient of its output. Sums over a block's images come first, then those of the blocks in order, so
// that the number of threads changes no bit.
struct SparseWeightGradient : ConvolutionShape {
  const float* input;          // [num_blocks, num_inputs, height + 2, width + 2, 16]
  const float* grad;           // [num_blocks, num_outputs, out_height + 2, out_width + 2, 16] of the output
  const int32_t* col_indices;  // [num_weights] as of SparseConvolution
  const int32_t* row_ptr;      // [num_outputs + 1]
  float* output;               // [num_weights]
  int64_t num_weights;
};

void sparse_weight_gradient_cpu(const SparseWeightGradient& layer);

// That of all weights [num_outputs, num_inputs, 3, 3] of a kernel of 3 with padding 1.
struct DenseWeightGradient : ConvolutionShape {
  const float* input;
  const float* grad;
  float* output;
};

void dense_weight_gradient_cpu(const DenseWeightGradient& layer);

}  // namespace lth
