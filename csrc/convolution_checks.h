// Checks of the convolutions of images in blocks (common/image_blocks.h), and of lists of surviving weights.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "check.h"
#include "common/image_blocks.h"
#include "sparse_convolution.h"

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

// Lists of weights of `count` channels: those of channel c at [ptr[c], ptr[c + 1]), ascending, each below
// `limit`.
inline void check_lists(const char* ptr_name, const Tensor& ptr, const char* name, const Tensor& entries,
                        int64_t count, int64_t limit, const Tensor& input) {
  check_array(name, entries, ScalarType::Int, "int32", 1, input);
  check_array(ptr_name, ptr, ScalarType::Int, "int32", 1, input);
  LTH_CHECK(ptr.numel() == count + 1, ptr_name, " has ", ptr.numel(), " entries, expected one more than the ",
            count, " channels");
  const auto* begin = static_cast<const int32_t*>(ptr.const_data_ptr());
  const auto* entry = static_cast<const int32_t*>(entries.const_data_ptr());
  const int64_t length = entries.numel();
  LTH_CHECK(begin[0] == 0 && begin[count] == length, ptr_name, " does not go from 0 to the ", length, " of ",
            name);
  for (int64_t c = 0; c < count; ++c) {
    LTH_CHECK(begin[c] <= begin[c + 1] && begin[c + 1] <= length, ptr_name, " decreases at entry ", c + 1);
    for (int64_t i = begin[c]; i < begin[c + 1]; ++i) {
      LTH_CHECK(entry[i] >= 0 && entry[i] < limit, name, "[", i, "] is ", entry[i], ", expected 0 to ",
                limit - 1);
      LTH_CHECK(i == begin[c] || entry[i - 1] < entry[i], name, "[", i, "] is ", entry[i],
                ", not above the one before it in channel ", c);
    }
  }
}

// Where each of `count` weights stands in their values.
inline const int32_t* checked_order(const Tensor& order, int64_t count, const Tensor& input) {
  check_array("order", order, ScalarType::Int, "int32", 1, input);
  LTH_CHECK(order.numel() == count, "order has ", order.numel(), " entries, values ", count);
  const auto* places = static_cast<const int32_t*>(order.const_data_ptr());
  for (int64_t i = 0; i < count; ++i)
    LTH_CHECK(places[i] >= 0 && places[i] < count, "order[", i, "] is ", places[i], ", expected 0 to ",
              count - 1);
  return places;
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

// Sets kernel, stride, padding and the output's sides of a layer whose input's sides and channels are set.
inline void set_geometry(ConvolutionShape& layer, int64_t kernel, int64_t stride, int64_t padding) {
  layer.kernel = kernel;
  layer.padding = padding;
  LTH_CHECK(kernel >= 1 && stride >= 1 && padding >= 0 && padding <= 1, "kernel, stride and padding are ",
            kernel, ", ", stride, " and ", padding, ", expected at least 1, at least 1, and 0 or 1");
  layer.stride =
      std::min(stride, std::max(layer.height, layer.width) + 2);  // larger ones leave one pixel too
  LTH_CHECK(layer.height + 2 * padding >= kernel && layer.width + 2 * padding >= kernel, "kernel is ", kernel,
            ", larger than the padded input");
  layer.out_height = (layer.height + 2 * padding - kernel) / stride + 1;
  layer.out_width = (layer.width + 2 * padding - kernel) / stride + 1;
}

// That no weight reaches beyond one pixel of border.
inline void check_one_pixel(int64_t kernel, int64_t padding) {
  LTH_CHECK(kernel <= padding + 2, "kernel is ", kernel, ", more than 2 larger than the padding of ",
            padding);
}

// Offsets into the planes of a block have 32 bits.
inline void check_reach(const char* name, int64_t channels, int64_t height, int64_t width) {
  const int64_t limit = std::numeric_limits<int32_t>::max();
  LTH_CHECK(height + 2 < limit / (width + 2) && channels < limit / ((height + 2) * (width + 2)), name,
            " has ", channels, " planes, more than 32-bit offsets reach");
}

inline const int32_t* ints(const Tensor& t) { return static_cast<const int32_t*>(t.const_data_ptr()); }
inline const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }

}  // namespace lth
