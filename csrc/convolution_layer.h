// A convolution of a training, with the batch normalisation behind it or without one. What it hands on is
// normalised later, by what reads it: activations are then read and written once for both, a few rows at a
// time. Blocks of images as in common/image_blocks.h but without a border: [num_blocks, channels, height,
// width, 16].
//
// What a layer reads is
//
//     x = y                                                   or, where it is to be normalised,
//     x = relu(scale (y - mean) + bias + residual)            relu and residual where there are such,
//
// with one mean, scale and bias per channel: "affine" [3, channels]. Where a normalisation follows, the
// output y' of the convolution of x has over its N pixels, padding images left out, for each channel
//
//     mean' = sum y' / N,   variance = sum (y' - mean')^2 / N,   rstd = 1 / sqrt(variance + eps)
//     scale' = gain rstd,   bias' the normalisation's own
//
// The running statistics move by momentum towards the mean and the variance divided by N - 1 (by 1 where N is
// 1), as torch's do.
//
// What is handed back for y, where it was to be normalised, is the gradient g of x where relu passes it: that
// of scale (y - mean), which is that of the residual too, so that there is one tensor for both. With it come
// dscale = sum g (y - mean), dbias = sum g and dmean = - scale dbias, from which the layer that made y has
//
//     dgain = rstd dscale',   dvariance = - rstd^3 gain dscale' / 2
//     dy' = scale' g + dmean' / N + 2 dvariance (y' - mean') / N
//
// Padding images count for nothing: what was handed back for them is 0, and so is what is handed back. Their
// activations are those of an image of zeros.
//
// Sums go over items of rows (cpu/conv/rows.h) and then over the items in order, so that the number of
// threads changes no bit.
#pragma once

#include <cstdint>

#include "sparse_convolution.h"

namespace lth {

// What a layer reads.
struct Read {
  const float* values;    // [num_blocks, channels, height, width, 16]
  const float* affine;    // [3, channels]; or nullptr, where they are finished
  const float* residual;  // of the shape of values; or nullptr
  bool relu;
  float* kept;            // forward: x, of the shape of values, is written there; or nullptr
  const float* finished;  // for gradients: x as it was kept; or nullptr
};

// Its gradients, or nullptr where they are not wanted.
struct ReadGradients {
  float *values, *affine;
};

// Kept weights, by output and by input channel; or all of a 3x3 kernel with padding 1.
struct Weights {
  const float* values;         // [num_weights], by output channel; or [num_outputs, num_inputs, 3, 3]
  const int32_t* col_indices;  // [num_weights] as of SparseConvolution
  const int32_t* row_ptr;      // [num_outputs + 1]; nullptr where all are there
  const int32_t* row_indices;  // [num_weights] (output channel * kernel + row) * kernel + column
  const int32_t* col_ptr;      // [num_inputs + 1] first weight of each input channel
  const int32_t* order;        // [num_weights] position in `values` of each weight of row_indices
  int64_t num_weights;
};

// The kernel is at most 2 larger than the padding, so that no weight reaches beyond one pixel of border.
struct ConvolutionLayer : ConvolutionShape {
  int64_t num_images;  // the last block's lanes beyond these are padding
  Read read;
  Weights weights;
  float* output;  // [num_blocks, num_outputs, out_height, out_width, 16]
  // Of the normalisation that follows; gain is nullptr without one.
  const float *gain, *bias;           // [num_outputs]
  float *running_mean, *running_var;  // [num_outputs]; or nullptr
  float eps;
  double momentum;
  float *affine, *rstd;  // [3, num_outputs], [num_outputs]
};

void convolution_layer_cpu(const ConvolutionLayer& layer);

struct ConvolutionLayerGradient : ConvolutionShape {
  int64_t num_images;
  const float* grad;           // what was handed back for the output; 0 for padding images
  const float* affine_grad;    // [3, num_outputs]
  const float* finished_grad;  // what else was handed back for what is read; or nullptr
  Read read;
  Weights weights;
  const float *gain, *output, *affine, *rstd;  // of the normalisation; or nullptr
  ReadGradients read_grad;
  float* weight_grad;  // [num_weights]
  float* gain_grad;    // [num_outputs]
};

void convolution_layer_gradient_cpu(const ConvolutionLayerGradient& layer);

// x alone, for what is no convolution, and its gradients.
struct Normalised {
  int64_t num_blocks, num_channels, height, width, num_images;
  Read read;
};

void normalise_cpu(const Normalised& layer);
void normalise_gradient_cpu(const Normalised& layer, const float* grad, const ReadGradients& read_grad);

}  // namespace lth
