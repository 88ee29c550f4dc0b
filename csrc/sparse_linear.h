// Products of a linear layer that visit surviving weights only, and their gradients, for activations with one
// feature per row and one image per column.
#pragma once

#include <cstdint>

namespace lth {

// The weights of each row of a matrix [num_rows, anything], or of its transpose.
struct SparseRows {
  const int32_t* index;  // [num_weights] what each weight multiplies, ascending in a row
  const int32_t* ptr;    // [num_rows + 1] first weight of each row
  int64_t num_rows;
};

// output = weights * input + bias.
struct SparseProduct : SparseRows {
  const float* input;    // [num_inputs, num_images]
  const float* values;   // [num_weights]
  const int32_t* order;  // [num_weights] the place in `values` of each weight; or nullptr where it is its own
  const float* bias;     // [num_rows], or nullptr
  float* output;         // [num_rows, num_images]
  int64_t num_images;
};

void sparse_product_cpu(const SparseProduct& product);

// For each weight the sum over images of what it multiplies times the gradient of its output, in the order of
// the images: threads change no bit.
struct SparseProductGradient : SparseRows {
  const float* input;  // [num_inputs, num_images]
  const float* grad;   // [num_rows, num_images] of the output
  float* output;       // [num_weights]
  int64_t num_images;
};

void sparse_product_gradient_cpu(const SparseProductGradient& gradient);

}  // namespace lth
