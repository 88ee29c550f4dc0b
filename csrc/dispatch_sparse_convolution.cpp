#include <torch/csrc/stable/library.h>

#include <limits>

#include "block_arguments.h"
#include "common/sparse_convolution.h"

namespace lth {
namespace {

Tensor sparse_convolution(const Tensor& input, const Tensor& values, const Tensor& taps,
                          const Tensor& row_starts, const Tensor& bias, const std::optional<Tensor>& other,
                          int64_t kernel, int64_t stride, int64_t padding, bool rectified) {
  SparseConvolution layer{};
  set_operands(layer, input, bias);
  check_array("values", values, 1, input);
  check_array("taps", taps, ScalarType::Int, "int32", 1, input);
  check_array("row_starts", row_starts, ScalarType::Int, "int32", 1, input);
  layer.num_weights = values.numel();
  layer.kernel = kernel;
  layer.stride = stride;
  layer.padding = padding;
  layer.rectified = rectified;
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
  LTH_CHECK(taps.numel() == layer.num_weights, "taps has ", taps.numel(), " entries, values ",
            layer.num_weights);
  LTH_CHECK(row_starts.numel() == layer.num_outputs + 1, "row_starts has ", row_starts.numel(),
            " entries, expected one more than the ", layer.num_outputs, " of bias");
  layer.values = static_cast<const float*>(values.const_data_ptr());
  layer.taps = static_cast<const int32_t*>(taps.const_data_ptr());
  layer.row_starts = static_cast<const int32_t*>(row_starts.const_data_ptr());
  LTH_CHECK(layer.row_starts[0] == 0 && layer.row_starts[layer.num_outputs] == layer.num_weights,
            "row_starts does not go from 0 to the ", layer.num_weights, " of values");
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    LTH_CHECK(layer.row_starts[o] <= layer.row_starts[o + 1] && layer.row_starts[o + 1] <= layer.num_weights,
              "row_starts decreases at entry ", o + 1);
    for (int64_t i = layer.row_starts[o]; i < layer.row_starts[o + 1]; ++i) {
      LTH_CHECK(layer.taps[i] >= 0 && layer.taps[i] < num_taps, "taps[", i, "] is ", layer.taps[i],
                ", expected 0 to ", num_taps - 1);
      LTH_CHECK(i == layer.row_starts[o] || layer.taps[i - 1] < layer.taps[i], "taps[", i, "] is ",
                layer.taps[i], ", not above the one before it in output channel ", o);
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
      "sparse_convolution(Tensor input, Tensor values, Tensor taps, Tensor row_starts, Tensor bias, Tensor? "
      "other, "
      "int kernel, int stride, int padding, bool rectified) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("sparse_convolution", TORCH_BOX(&lth::sparse_convolution));
}
