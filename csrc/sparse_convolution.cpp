#include "sparse_convolution.h"

#include <torch/csrc/stable/library.h>

#include <string>

#include "convolution_checks.h"

namespace lth {
namespace {

// Weights of a layer whose input's sizes are set; the arguments' names begin with `of`.
void set_weights(SparseConvolution& layer, const std::string& of, const Tensor& input, const Tensor& values,
                 const Tensor& col_indices, const Tensor& row_ptr, const Tensor& bias, int64_t kernel,
                 int64_t stride, int64_t padding, bool relu) {
  check_array((of + "values").c_str(), values, 1, input);
  check_array((of + "bias").c_str(), bias, 1, input);
  layer.num_outputs = bias.numel();
  LTH_CHECK(layer.num_outputs > 0, of, "bias has no output channel");
  layer.num_weights = values.numel();
  layer.relu = relu;
  set_geometry(layer, kernel, stride, padding);
  check_reach("input", layer.num_inputs, layer.height, layer.width);
  check_lists((of + "row_ptr").c_str(), row_ptr, (of + "col_indices").c_str(), col_indices, layer.num_outputs,
              layer.num_inputs * kernel * kernel, input);
  LTH_CHECK(col_indices.numel() == layer.num_weights, of, "col_indices has ", col_indices.numel(),
            " entries, ", of, "values ", layer.num_weights);
  layer.bias = floats(bias);
  layer.values = floats(values);
  layer.col_indices = ints(col_indices);
  layer.row_ptr = ints(row_ptr);
}

Tensor sparse_convolution(const Tensor& input, const Tensor& values, const Tensor& col_indices,
                          const Tensor& row_ptr, const Tensor& bias, const std::optional<Tensor>& residual,
                          int64_t kernel, int64_t stride, int64_t padding, bool relu) {
  SparseConvolution layer{};
  set_operands(layer, input, bias);
  set_weights(layer, "", input, values, col_indices, row_ptr, bias, kernel, stride, padding, relu);
  Tensor output = set_output(layer, input, residual, layer.out_height, layer.out_width);
  sparse_convolution_cpu(layer);
  return output;
}

Tensor sparse_convolution_pair(const Tensor& input, const Tensor& first_values,
                               const Tensor& first_col_indices, const Tensor& first_row_ptr,
                               const Tensor& first_bias, int64_t first_kernel, int64_t first_stride,
                               int64_t first_padding, bool first_relu, const Tensor& values,
                               const Tensor& col_indices, const Tensor& row_ptr, const Tensor& bias,
                               const std::optional<Tensor>& residual, int64_t kernel, int64_t stride,
                               int64_t padding, bool relu) {
  SparseConvolution first{}, second{};
  check_array("first_bias", first_bias, 1, input);
  set_operands(first, input, first_bias);
  set_weights(first, "first_", input, first_values, first_col_indices, first_row_ptr, first_bias,
              first_kernel, first_stride, first_padding, first_relu);
  check_one_pixel(kernel, padding);
  second.num_blocks = first.num_blocks;
  second.num_inputs = first.num_outputs;
  second.height = first.out_height;
  second.width = first.out_width;
  set_weights(second, "", input, values, col_indices, row_ptr, bias, kernel, stride, padding, relu);
  Tensor output = set_output(second, input, residual, second.out_height, second.out_width);
  sparse_convolution_pair_cpu(first, second);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A convolution over the kept weights of images in blocks of 16 (sparse_convolution.h). CPU only.
  m.def(
      "sparse_convolution(Tensor input, Tensor values, Tensor col_indices, Tensor row_ptr, Tensor bias, "
      "Tensor? residual, int kernel, int stride, int padding, bool relu) -> Tensor");
  // Two of them, one after the other, with the bits of two calls.
  m.def(
      "sparse_convolution_pair(Tensor input, Tensor first_values, Tensor first_col_indices, Tensor "
      "first_row_ptr, "
      "Tensor first_bias, int first_kernel, int first_stride, int first_padding, bool first_relu, Tensor "
      "values, "
      "Tensor col_indices, Tensor row_ptr, Tensor bias, Tensor? residual, int kernel, int stride, int "
      "padding, "
      "bool relu) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_convolution", TORCH_BOX(&lth::sparse_convolution));
  m.impl("sparse_convolution_pair", TORCH_BOX(&lth::sparse_convolution_pair));
}
