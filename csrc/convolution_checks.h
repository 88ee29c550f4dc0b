// Checks of the convolutions of images in blocks (common/image_blocks.h).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>

#include "check.h"
#include "common/image_blocks.h"

namespace lth {

inline void check_array(const char* name, const Tensor& t, ScalarType dtype, const char* dtype_name,
                        int64_t dim, const Tensor& input) {
  check_dtype(name, t, dtype, dtype_name);
  check_device(name, t, "input", input);
  LTH_CHECK(t.is_contiguous() && t.dim() == dim, name, " is not contiguous with ", dim, " dimensions");
}

inline void check_array(const char* name, const Tensor& t, int64_t dim, const Tensor& input) {
  check_array(name, t, ScalarType::Float, "float32", dim, input);
}

// Sets the sizes of a layer that input and bias give, and where these lie.
template <class Layer>
void set_operands(Layer& layer, const Tensor& input, const Tensor& bias) {
  check_array("input", input, 5, input);
  check_array("bias", bias, 1, input);
  layer.num_blocks = input.size(0);
  layer.num_inputs = input.size(1);
  layer.height = input.size(2) - 2;
  layer.width = input.size(3) - 2;
  layer.num_outputs = bias.numel();
  LTH_CHECK(input.size(4) == kBlock && layer.height > 0 && layer.width > 0,
            "input has no shape [G, C, H + 2, W + 2, 16] with H and W at least 1");
  LTH_CHECK(layer.num_inputs > 0, "input has no channel");
  LTH_CHECK(layer.num_outputs > 0, "bias has no output channel");
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.bias = static_cast<const float*>(bias.const_data_ptr());
}

inline void check_shape(const char* name, const Tensor& t, const Tensor& like, const char* like_name) {
  check_array(name, t, 5, like);
  for (int64_t d = 0; d < 5; ++d)
    LTH_CHECK(t.size(d) == like.size(d), name, " has ", t.size(d), " entries in dimension ", d, ", ",
              like_name, " ", like.size(d));
}

// Makes the output of a layer, with planes of this size, and sets what is added to it.
template <class Layer>
Tensor set_output(Layer& layer, const Tensor& input, const std::optional<Tensor>& residual, int64_t height,
                  int64_t width) {
  Tensor output =
      torch::stable::new_empty(input, {layer.num_blocks, layer.num_outputs, height + 2, width + 2, kBlock});
  if (residual) {
    check_shape("residual", *residual, output, "the output");
    layer.residual = static_cast<const float*>(residual->const_data_ptr());
  }
  layer.output = static_cast<float*>(output.mutable_data_ptr());
  return output;
}

}  // namespace lth
