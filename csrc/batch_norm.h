// Batch normalisation in training for activations in blocks of images (image_blocks.h), with what follows it.
//
// Over the N pixels x of a channel, padding images left out:
//
//     mean = sum x / N,   variance = sum (x - mean)^2 / N,   rstd = 1 / sqrt(variance + eps)
//     y = weight rstd (x - mean) + bias,   then + residual, then relu
//
// and with g, the gradient of y where relu passes it:
//
//     dbias = sum g,   dweight = rstd sum g (x - mean)
//     dx = weight rstd (g - sum g / N - rstd^2 (x - mean) sum g (x - mean) / N)
//
// The running statistics move by momentum towards the mean and the variance divided by N - 1 (by 1 where N is
// 1), as torch's do.
//
// One thread sums all blocks of a channel in order, so that the number of threads changes no bit.
#pragma once

#include <cstdint>

#include "common/image_blocks.h"

namespace lth {

struct BatchNormShape {
  int64_t num_blocks, num_channels, height, width;
  int64_t num_images;  // the last block's lanes beyond these are padding
};

struct BatchNorm : BatchNormShape {
  const float* input;                 // [num_blocks, num_channels, height + 2, width + 2, 16]
  const float *weight, *bias;         // [num_channels]
  const float* residual;              // added to the output, of its shape; or nullptr
  float* output;                      // of the input's shape
  float *mean, *rstd;                 // [num_channels]
  float *scale, *offset;              // [num_channels], y = scale x + offset before what is added
  float *running_mean, *running_var;  // [num_channels]; or nullptr
  float eps;
  double momentum;
  bool relu;
};

void batch_norm_cpu(const BatchNorm& layer);

struct BatchNormGradient : BatchNormShape {
  const float* grad;                  // of the output
  const float* input;                 // of the layer
  const float* output;                // of the layer where a sum and relu followed, or nullptr
  const float *scale, *offset;        // where relu followed by itself: [num_channels]; or nullptr
  const float *weight, *mean, *rstd;  // [num_channels]
  float* input_grad;                  // 0 for padding images
  float* residual_grad;               // g, the gradient of what was added; or nullptr
  float *weight_grad, *bias_grad;     // [num_channels]
};

void batch_norm_gradient_cpu(const BatchNormGradient& layer);

}  // namespace lth
