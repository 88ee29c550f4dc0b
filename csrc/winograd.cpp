#include "winograd.h"

#include <torch/csrc/stable/library.h>

#include "convolution_checks.h"

namespace lth {
namespace {

Tensor winograd_convolution(const Tensor& input, const Tensor& weight, const Tensor& bias,
                            const std::optional<Tensor>& residual, bool relu) {
  WinogradConvolution layer{};
  set_operands(layer, input, bias);
  layer.relu = relu;
  check_array("weight", weight, 4, input);
  LTH_CHECK(weight.size(0) == layer.num_outputs && weight.size(1) == layer.num_inputs &&
                weight.size(2) == 3 && weight.size(3) == 3,
            "weight has shape [", weight.size(0), ", ", weight.size(1), ", ", weight.size(2), ", ",
            weight.size(3), "], expected [O, I, 3, 3] with the ", layer.num_outputs,
            " outputs of bias and the ", layer.num_inputs, " channels of input");
  layer.weight = static_cast<const float*>(weight.const_data_ptr());
  Tensor output = set_output(layer, input, residual, layer.height, layer.width);
  winograd_convolution_cpu(layer);
  return output;
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // A dense 3x3 convolution of images in blocks of 16 (winograd.h). CPU only.
  m.def(
      "winograd_convolution(Tensor input, Tensor weight, Tensor bias, Tensor? residual, bool relu) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("winograd_convolution", TORCH_BOX(&lth::winograd_convolution));
}
