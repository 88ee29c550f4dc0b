#include "sparse_convolution.h"

#include <torch/csrc/stable/library.h>

#include <limits>

#include "convolution_checks.h"

namespace lth {
namespace {

Tensor sparse_convolution(const Tensor& input, const Tensor& values, const Tensor& col_indices,
                          const Tensor& row_ptr, const Tensor& bias, const std::optional<Tensor>& other,
                          int64_t kernel, int64_t stride, int64_t padding, bool relu) {
  SparseConvolution layer{};
  set_operands(layer, input, bias);
  check_array("values", values, 1, input);
  check_array("col_indices", col_indices, ScalarType::Int, "int32", 1, input);
  check_array("row_ptr", row_ptr, ScalarType::Int, "int32", 1, input);
  layer.num_weights = values.numel();
  layer.kernel = kernel;
  layer.stride = stride;
  layer.padding = padding;
  layer.relu = relu;
  LTH_CHECK(kernel >= 1 && stride >= 1 && padding >= 0 && padding <= 1, "kernel, stride and padding are ",
            kernel, ", ", stride, " and ", padding, ", expected at least 1, at least 1, and 0 or 1");
  LTH_CHECK(layer.height + 2 * padding >= kernel && layer.width + 2 * padding >= kernel, "kernel is ", kernel,
            ", larger than the padded input");
  layer.out_height = (layer.height + 2 * padding - kernel) / stride + 1;
  layer.out_width = (layer.width + 2 * padding - kernel) / stride + 1;
  const int64_t limit = std::numeric_limits<int32_t>::max();
  LTH_CHECK(
      input.size(2) < limit / input.size(3) && layer.num_inputs < limit / (input.size(2) * input.size(3)),
      "input has ", layer.num_inputs, " planes, more than 32-bit offsets reach");
  const int64_t num_taps = layer.num_inputs * kernel * kernel;
  LTH_CHECK(col_indices.numel() == layer.num_weights, "col_indices has ", col_indices.numel(),
            " entries, values ", layer.num_weights);
  LTH_CHECK(row_ptr.numel() == layer.num_outputs + 1, "row_ptr has ", row_ptr.numel(),
            " entries, expected one more than the ", layer.num_outputs, " of bias");
  layer.values = static_cast<const float*>(values.const_data_ptr());
  layer.col_indices = static_cast<const int32_t*>(col_indices.const_data_ptr());
  layer.row_ptr = static_cast<const int32_t*>(row_ptr.const_data_ptr());
  LTH_CHECK(layer.row_ptr[0] == 0 && layer.row_ptr[layer.num_outputs] == layer.num_weights,
            "row_ptr does not go from 0 to the ", layer.num_weights, " of values");
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    LTH_CHECK(layer.row_ptr[o] <= layer.row_ptr[o + 1] && layer.row_ptr[o + 1] <= layer.num_weights,
              "row_ptr decreases at entry ", o + 1);
    for (int64_t i = layer.row_ptr[o]; i < layer.row_ptr[o + 1]; ++i) {
      LTH_CHECK(layer.col_indices[i] >= 0 && layer.col_indices[i] < num_taps, "col_indices[", i, "] is ",
                layer.col_indices[i], ", expected 0 to ", num_taps - 1);
      LTH_CHECK(i == layer.row_ptr[o] || layer.col_indices[i - 1] < layer.col_indices[i], "col_indices[", i,
                "] is ", layer.col_indices[i], ", not above the one before it in output channel ", o);
    }
  }
  Tensor output = set_output(layer, input, other, layer.out_height, layer.out_width);
  sparse_convolution_cpu(layer);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A convolution over the surviving weights of images in blocks of 16 (sparse_convolution.h). CPU only.
  m.def(
      "sparse_convolution(Tensor input, Tensor values, Tensor col_indices, Tensor row_ptr, Tensor bias, "
      "Tensor? "
      "other, "
      "int kernel, int stride, int padding, bool relu) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_convolution", TORCH_BOX(&lth::sparse_convolution));
}
