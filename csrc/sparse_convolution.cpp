#include "sparse_convolution.h"

#include <torch/csrc/stable/library.h>

#include "convolution_checks.h"

namespace lth {
namespace {

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

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A convolution over the kept weights of images in blocks of 16 (sparse_convolution.h). CPU only.
  m.def(
      "sparse_convolution(Tensor input, Tensor values, Tensor col_indices, Tensor row_ptr, Tensor bias, "
      "Tensor? residual, int kernel, int stride, int padding, bool relu) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_convolution", TORCH_BOX(&lth::sparse_convolution));
}
