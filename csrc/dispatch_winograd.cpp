#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "check.h"
#include "common/winograd.h"

namespace lth {
namespace {

void check_array(const char* name, const Tensor& t, int64_t dim) {
  check_dtype(name, t, ScalarType::Float, "float32");
  LTH_CHECK(t.is_contiguous() && t.dim() == dim, name, " is not contiguous with ", dim, " dimensions");
}

Tensor winograd_convolution(const Tensor& input, const Tensor& weight, const Tensor& bias,
                            const std::optional<Tensor>& other, bool rectified) {
  check_array("input", input, 5);
  check_array("weight", weight, 3);
  check_array("bias", bias, 1);
  WinogradConvolution layer{};
  layer.num_blocks = input.size(0);
  layer.num_inputs = input.size(1);
  layer.height = input.size(2) - 2;
  layer.width = input.size(3) - 2;
  layer.num_outputs = bias.numel();
  layer.rectified = rectified;
  LTH_CHECK(input.size(4) == kBlock && layer.height > 0 && layer.width > 0,
            "input has no shape [G, C, H + 2, W + 2, 16] with H and W at least 1");
  LTH_CHECK(weight.size(0) == kWinogradPositions && weight.size(1) == layer.num_outputs &&
                weight.size(2) == layer.num_inputs,
            "weight has shape [", weight.size(0), ", ", weight.size(1), ", ", weight.size(2),
            "], expected [16, O, I] with the ", layer.num_outputs, " outputs of bias and the ",
            layer.num_inputs, " channels of input");
  Tensor output = torch::stable::new_empty(
      input, {layer.num_blocks, layer.num_outputs, layer.height + 2, layer.width + 2, kBlock});
  if (other) {
    check_array("other", *other, 5);
    for (int64_t d = 0; d < 5; ++d)
      LTH_CHECK(other->size(d) == output.size(d), "other has ", other->size(d), " entries in dimension ", d,
                ", the output ", output.size(d));
    layer.other = static_cast<const float*>(other->const_data_ptr());
  }
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.weight = static_cast<const float*>(weight.const_data_ptr());
  layer.bias = static_cast<const float*>(bias.const_data_ptr());
  layer.output = static_cast<float*>(output.mutable_data_ptr());
  winograd_convolution_cpu(layer);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A dense 3x3 convolution of images in blocks of 16 (winograd.h). CPU only.
  m.def(
      "winograd_convolution(Tensor input, Tensor weight, Tensor bias, Tensor? other, bool rectified) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("winograd_convolution", TORCH_BOX(&lth::winograd_convolution));
}
