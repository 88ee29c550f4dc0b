#include "sparse_convolution.h"

#include <torch/csrc/stable/library.h>

#include <limits>

#include "convolution_checks.h"

namespace lth {
namespace {

constexpr int64_t kLargestSide = int64_t(1) << 31;

// Sets kernel, stride, padding and the output's sides of a layer whose input's sides and channels are set.
void set_geometry(ConvolutionShape& layer, int64_t kernel, int64_t stride, int64_t padding) {
  layer.kernel = kernel;
  layer.stride = stride;
  layer.padding = padding;
  LTH_CHECK(kernel >= 1 && stride >= 1 && padding >= 0 && padding <= 1, "kernel, stride and padding are ",
            kernel, ", ", stride, " and ", padding, ", expected at least 1, at least 1, and 0 or 1");
  LTH_CHECK(layer.height + 2 * padding >= kernel && layer.width + 2 * padding >= kernel, "kernel is ", kernel,
            ", larger than the padded input");
  layer.out_height = (layer.height + 2 * padding - kernel) / stride + 1;
  layer.out_width = (layer.width + 2 * padding - kernel) / stride + 1;
}

// Offsets into the planes of a block have 32 bits.
void check_reach(const char* name, int64_t channels, int64_t height, int64_t width) {
  const int64_t limit = std::numeric_limits<int32_t>::max();
  LTH_CHECK(height + 2 < limit / (width + 2) && channels < limit / ((height + 2) * (width + 2)), name,
            " has ", channels, " planes, more than 32-bit offsets reach");
}

const int32_t* ints(const Tensor& t) { return static_cast<const int32_t*>(t.const_data_ptr()); }
const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }

Tensor sparse_convolution(const Tensor& input, const Tensor& values, const Tensor& col_indices,
                          const Tensor& row_ptr, const Tensor& bias, const std::optional<Tensor>& residual,
                          int64_t kernel, int64_t stride, int64_t padding, bool relu) {
  SparseConvolution layer{};
  set_operands(layer, input, bias);
  check_array("values", values, 1, input);
  layer.num_weights = values.numel();
  layer.relu = relu;
  set_geometry(layer, kernel, stride, padding);
  check_reach("input", layer.num_inputs, layer.height, layer.width);
  check_lists("row_ptr", row_ptr, "col_indices", col_indices, layer.num_outputs,
              layer.num_inputs * kernel * kernel, input);
  LTH_CHECK(col_indices.numel() == layer.num_weights, "col_indices has ", col_indices.numel(),
            " entries, values ", layer.num_weights);
  layer.values = floats(values);
  layer.col_indices = ints(col_indices);
  layer.row_ptr = ints(row_ptr);
  Tensor output = set_output(layer, input, residual, layer.out_height, layer.out_width);
  sparse_convolution_cpu(layer);
  return output;
}

// Sets the sizes of a layer from the gradient of its output, and checks that they are those of the geometry.
void set_grad(ConvolutionShape& layer, const Tensor& grad, int64_t kernel, int64_t stride, int64_t padding) {
  check_array("grad", grad, 5, grad);
  LTH_CHECK(layer.num_inputs > 0, "input has no channel");
  LTH_CHECK(layer.height > 0 && layer.height < kLargestSide && layer.width > 0 && layer.width < kLargestSide,
            "height is ", layer.height, " and width ", layer.width, ", expected 1 to ", kLargestSide - 1);
  set_geometry(layer, kernel, stride, padding);
  layer.num_blocks = grad.size(0);
  layer.num_outputs = grad.size(1);
  LTH_CHECK(grad.size(2) == layer.out_height + 2 && grad.size(3) == layer.out_width + 2 &&
                grad.size(4) == kBlock && layer.num_outputs > 0,
            "grad has no shape [G, O, ", layer.out_height + 2, ", ", layer.out_width + 2,
            ", 16] with O at least 1");
  check_reach("input", layer.num_inputs, layer.height, layer.width);
  check_reach("grad", layer.num_outputs, layer.out_height, layer.out_width);
}

// Those of the layer's input, and that it has as many blocks as the gradient.
void set_input(ConvolutionShape& layer, const Tensor& input, const Tensor& grad) {
  check_array("input", input, 5, grad);
  LTH_CHECK(grad.dim() == 5 && input.size(0) == grad.size(0) && input.size(4) == kBlock, "input has ",
            input.size(0), " blocks of ", input.size(4), " images, expected those of grad, of ", kBlock);
  layer.num_inputs = input.size(1);
  layer.height = input.size(2) - 2;
  layer.width = input.size(3) - 2;
}

Tensor sparse_convolution_input_gradient(const Tensor& grad, const Tensor& values, const Tensor& row_indices,
                                         const Tensor& col_ptr, const Tensor& order,
                                         const std::optional<Tensor>& residual, int64_t height, int64_t width,
                                         int64_t kernel, int64_t stride, int64_t padding) {
  SparseInputGradient layer{};
  check_array("col_ptr", col_ptr, ScalarType::Int, "int32", 1, grad);
  layer.num_inputs = col_ptr.numel() - 1;
  LTH_CHECK(layer.num_inputs > 0, "col_ptr has no input channel");
  layer.height = height;
  layer.width = width;
  LTH_CHECK(kernel <= padding + 2, "kernel is ", kernel, ", more than 2 larger than the padding of ",
            padding);
  set_grad(layer, grad, kernel, stride, padding);
  check_array("values", values, 1, grad);
  layer.num_weights = values.numel();
  check_lists("col_ptr", col_ptr, "row_indices", row_indices, layer.num_inputs,
              layer.num_outputs * kernel * kernel, grad);
  LTH_CHECK(row_indices.numel() == layer.num_weights, "row_indices has ", row_indices.numel(),
            " entries, values ", layer.num_weights);
  layer.order = checked_order(order, layer.num_weights, grad);
  Tensor output =
      torch::stable::new_empty(grad, {layer.num_blocks, layer.num_inputs, height + 2, width + 2, kBlock});
  if (residual) {
    check_shape("residual", *residual, output, "the gradient");
    layer.residual = floats(*residual);
  }
  layer.grad = floats(grad);
  layer.values = floats(values);
  layer.row_indices = ints(row_indices);
  layer.col_ptr = ints(col_ptr);
  layer.output = static_cast<float*>(output.mutable_data_ptr());
  sparse_input_gradient_cpu(layer);
  return output;
}

Tensor sparse_convolution_weight_gradient(const Tensor& input, const Tensor& grad, const Tensor& col_indices,
                                          const Tensor& row_ptr, int64_t kernel, int64_t stride,
                                          int64_t padding) {
  SparseWeightGradient layer{};
  set_input(layer, input, grad);
  set_grad(layer, grad, kernel, stride, padding);
  check_lists("row_ptr", row_ptr, "col_indices", col_indices, layer.num_outputs,
              layer.num_inputs * kernel * kernel, input);
  layer.num_weights = col_indices.numel();
  layer.input = floats(input);
  layer.grad = floats(grad);
  layer.col_indices = ints(col_indices);
  layer.row_ptr = ints(row_ptr);
  Tensor output = torch::stable::new_empty(input, {layer.num_weights});
  layer.output = static_cast<float*>(output.mutable_data_ptr());
  sparse_weight_gradient_cpu(layer);
  return output;
}

Tensor dense_convolution_weight_gradient(const Tensor& input, const Tensor& grad, int64_t stride) {
  DenseWeightGradient layer{};
  set_input(layer, input, grad);
  set_grad(layer, grad, 3, stride, 1);
  layer.input = floats(input);
  layer.grad = floats(grad);
  Tensor output = torch::stable::new_empty(input, {layer.num_outputs, layer.num_inputs, 3, 3});
  layer.output = static_cast<float*>(output.mutable_data_ptr());
  dense_weight_gradient_cpu(layer);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A convolution over the kept weights in the batch-blocked layout, and its gradients; that of the weights
  // for the kept ones alone, or for all of a 3x3 kernel with padding 1 (sparse_convolution.h). CPU only.
  m.def(
      "sparse_convolution(Tensor input, Tensor values, Tensor col_indices, Tensor row_ptr, Tensor bias, "
      "Tensor? residual, int kernel, int stride, int padding, bool relu) -> Tensor");
  m.def(
      "sparse_convolution_input_gradient(Tensor grad, Tensor values, Tensor row_indices, Tensor col_ptr, "
      "Tensor order, Tensor? residual, int height, int width, int kernel, int stride, int padding) -> "
      "Tensor");
  m.def(
      "sparse_convolution_weight_gradient(Tensor input, Tensor grad, Tensor col_indices, Tensor row_ptr, "
      "int kernel, int stride, int padding) -> Tensor");
  m.def("dense_convolution_weight_gradient(Tensor input, Tensor grad, int stride) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_convolution", TORCH_BOX(&lth::sparse_convolution));
  m.impl("sparse_convolution_input_gradient", TORCH_BOX(&lth::sparse_convolution_input_gradient));
  m.impl("sparse_convolution_weight_gradient", TORCH_BOX(&lth::sparse_convolution_weight_gradient));
  m.impl("dense_convolution_weight_gradient", TORCH_BOX(&lth::dense_convolution_weight_gradient));
}
