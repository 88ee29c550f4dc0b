#include "batch_norm.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "convolution_checks.h"

namespace lth {
namespace {

const float* channels(const char* name, const Tensor& t, const Tensor& input) {
  check_array(name, t, 1, input);
  LTH_CHECK(t.numel() == input.size(1), name, " has ", t.numel(), " entries, input ", input.size(1),
            " channels");
  return static_cast<const float*>(t.const_data_ptr());
}

void set_shape(BatchNormShape& layer, const Tensor& input, int64_t num_images) {
  check_array("input", input, 5, input);
  layer.num_blocks = input.size(0);
  layer.num_channels = input.size(1);
  layer.height = input.size(2) - 2;
  layer.width = input.size(3) - 2;
  layer.num_images = num_images;
  LTH_CHECK(input.size(4) == kBlock && layer.height > 0 && layer.width > 0,
            "input has no shape [G, C, H + 2, W + 2, 16] with H and W at least 1");
  LTH_CHECK(num_images > (layer.num_blocks - 1) * kBlock && num_images <= layer.num_blocks * kBlock &&
                num_images > 0,
            "num_images is ", num_images, ", which do not make the ", layer.num_blocks, " blocks of input");
}

float* data(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

const float* data(const std::optional<Tensor>& t) {
  return t ? static_cast<const float*>(t->const_data_ptr()) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> blocked_batch_norm(const Tensor& input, const Tensor& weight,
                                                              const Tensor& bias,
                                                              const std::optional<Tensor>& residual,
                                                              int64_t num_images, double eps, bool relu) {
  BatchNorm layer{};
  set_shape(layer, input, num_images);
  layer.weight = channels("weight", weight, input);
  layer.bias = channels("bias", bias, input);
  if (residual) check_shape("residual", *residual, input, "input");
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.residual = data(residual);
  layer.eps = at_least("eps", eps, 0);
  layer.relu = relu;
  Tensor output = torch::stable::empty_like(input);
  Tensor mean = torch::stable::empty_like(weight), variance = torch::stable::empty_like(weight),
         rstd = torch::stable::empty_like(weight);
  layer.output = data(output);
  layer.mean = data(mean);
  layer.variance = data(variance);
  layer.rstd = data(rstd);
  batch_norm_cpu(layer);
  return {output, mean, variance, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> blocked_batch_norm_gradient(
    const Tensor& grad, const Tensor& input, const std::optional<Tensor>& output, const Tensor& weight,
    const Tensor& mean, const Tensor& rstd, int64_t num_images, bool residual) {
  BatchNormGradient layer{};
  set_shape(layer, input, num_images);
  check_shape("grad", grad, input, "input");
  if (output) check_shape("output", *output, input, "input");
  layer.weight = channels("weight", weight, input);
  layer.mean = channels("mean", mean, input);
  layer.rstd = channels("rstd", rstd, input);
  layer.grad = static_cast<const float*>(grad.const_data_ptr());
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.output = data(output);
  Tensor input_grad = torch::stable::empty_like(input);
  Tensor residual_grad = residual ? torch::stable::empty_like(input) : torch::stable::new_empty(input, {0});
  Tensor weight_grad = torch::stable::empty_like(weight), bias_grad = torch::stable::empty_like(weight);
  layer.input_grad = data(input_grad);
  layer.residual_grad = residual ? data(residual_grad) : nullptr;
  layer.weight_grad = data(weight_grad);
  layer.bias_grad = data(bias_grad);
  batch_norm_gradient_cpu(layer);
  return {input_grad, residual_grad, weight_grad, bias_grad};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // Batch normalisation in training of images in blocks of 16, with what follows it (batch_norm.h). CPU only.
  // Mean, variance (divided by the number of pixels) and rstd are those of the batch. The gradient
  // of `residual` is empty unless asked for.
  m.def(
      "blocked_batch_norm(Tensor input, Tensor weight, Tensor bias, Tensor? residual, int num_images, float "
      "eps, "
      "bool relu) -> (Tensor output, Tensor mean, Tensor variance, Tensor rstd)");
  m.def(
      "blocked_batch_norm_gradient(Tensor grad, Tensor input, Tensor? output, Tensor weight, Tensor mean, "
      "Tensor rstd, int num_images, bool residual) -> (Tensor input_grad, Tensor residual_grad, Tensor "
      "weight_grad, "
      "Tensor bias_grad)");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("blocked_batch_norm", TORCH_BOX(&lth::blocked_batch_norm));
  m.impl("blocked_batch_norm_gradient", TORCH_BOX(&lth::blocked_batch_norm_gradient));
}
