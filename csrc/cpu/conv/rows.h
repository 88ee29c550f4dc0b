// The sums of a layer's convolution, and those of its gradients, for some rows of a block at a time: what the
// layer does before and after them finds the rows in the cache (convolution_layer.cpp).
//
// Of rows [begin, end) of the layer's output, `begin` a multiple of kRowsAtOnce, as `end` is unless it is the
// last. Operands are planes of a few rows with a border, one after the other as the strides tell. Those of
// the output begin with row `begin` - 1, those of the input with what belongs to it, row begin * stride - 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "convolution_layer.h"
#include "cpu/conv/taps.h"

namespace lth {

constexpr int64_t kRowsAtOnce = 4;  // a multiple of the rows of every tile (taps.h, winograd.cpp)

// Writes the rows of an output from those of an input.
struct ConvolutionRows {
  virtual ~ConvolutionRows() = default;
  virtual size_t room() const { return 0; }  // floats of memory that a call needs
  virtual void operator()(const float* input, float* output, int64_t begin, int64_t end,
                          float* room) const = 0;
};

// Writes the sums over the rows, one for each weight.
struct WeightGradientRows {
  virtual ~WeightGradientRows() = default;
  virtual size_t room() const = 0;
  virtual void operator()(const float* input, const float* grad, int64_t begin, int64_t end, float* sums,
                          float* room) const = 0;
};

std::unique_ptr<ConvolutionRows> sparse_rows(const ConvolutionShape& shape, const Strides& strides,
                                             const Weights& weights);
// The gradient of the input, which is written, from that of the output.
std::unique_ptr<ConvolutionRows> sparse_input_gradient_rows(const ConvolutionShape& shape,
                                                            const Strides& strides, const Weights& weights);
std::unique_ptr<WeightGradientRows> sparse_weight_gradient_rows(const ConvolutionShape& shape,
                                                                const Strides& strides,
                                                                const Weights& weights);

// Of all 3x3 filters [num_outputs, num_inputs, 3, 3] with padding 1; the first with stride 1.
std::unique_ptr<ConvolutionRows> winograd_rows(const ConvolutionShape& shape, const Strides& strides,
                                               const float* weight);
std::unique_ptr<WeightGradientRows> dense_weight_gradient_rows(const ConvolutionShape& shape,
                                                               const Strides& strides);

}  // namespace lth
