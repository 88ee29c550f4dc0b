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

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blocked_batch_norm(
    const Tensor& input, const Tensor& weight, const Tensor& bias, const std::optional<Tensor>& residual,
    const std::optional<Tensor>& running_mean, const std::optional<Tensor>& running_var, int64_t num_images,
    double eps, double momentum, bool relu) {
  BatchNorm layer{};
  set_shape(layer, input, num_images);
  layer.weight = channels("weight", weight, input);
  layer.bias = channels("bias", bias, input);
  if (residual) check_shape("residual", *residual, input, "input");
  LTH_CHECK(running_mean.has_value() == running_var.has_value(),
            "running_mean and running_var are given together");
  if (running_mean) {
    channels("running_mean", *running_mean, input);
    channels("running_var", *running_var, input);
    layer.running_mean = data(*running_mean);
    layer.running_var = data(*running_var);
  }
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.residual = data(residual);
  layer.eps = at_least("eps", eps, 0);
  layer.momentum = at_least("momentum", momentum, 0);
  layer.relu = relu;
  Tensor output = torch::stable::empty_like(input);
  Tensor mean = torch::stable::empty_like(weight), rstd = torch::stable::empty_like(weight),
         scale = torch::stable::empty_like(weight), offset = torch::stable::empty_like(weight);
  layer.output = data(output);
  layer.mean = data(mean);
  layer.rstd = data(rstd);
  layer.scale = data(scale);
  layer.offset = data(offset);
  batch_norm_cpu(layer);
  return {output, mean, rstd, scale, offset};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> blocked_batch_norm_gradient(
    const Tensor& grad, const Tensor& input, const std::optional<Tensor>& output,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& offset, const Tensor& weight,
    const Tensor& mean, const Tensor& rstd, int64_t num_images, bool residual) {
  BatchNormGradient layer{};
  set_shape(layer, input, num_images);
  check_shape("grad", grad, input, "input");
  if (output) check_shape("output", *output, input, "input");
  LTH_CHECK(scale.has_value() == offset.has_value() && !(scale && output),
            "scale and offset are given together, and without output");
  layer.weight = channels("weight", weight, input);
  layer.mean = channels("mean", mean, input);
  layer.rstd = channels("rstd", rstd, input);
  layer.grad = static_cast<const float*>(grad.const_data_ptr());
  layer.input = static_cast<const float*>(input.const_data_ptr());
  layer.output = data(output);
  layer.scale = scale ? channels("scale", *scale, input) : nullptr;
  layer.offset = offset ? channels("offset", *offset, input) : nullptr;
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
  // Mean and rstd are those of the batch; the output is scale x + offset before what is added. The gradient
  // knows where relu passed it by the output, where something was added before, and otherwise by scale and
  // offset, which costs no reading of the output. That of `residual` is empty unless asked for.
  m.def(
      "blocked_batch_norm(Tensor input, Tensor weight, Tensor bias, Tensor? residual, Tensor(a!)? "
      "running_mean, "
      "Tensor(b!)? running_var, int num_images, float eps, float momentum, bool relu) -> (Tensor output, "
      "Tensor "
      "mean, Tensor rstd, Tensor scale, Tensor offset)");
  m.def(
      "blocked_batch_norm_gradient(Tensor grad, Tensor input, Tensor? output, Tensor? scale, Tensor? offset, "
      "Tensor weight, Tensor mean, Tensor rstd, int num_images, bool residual) -> (Tensor input_grad, Tensor "
      "residual_grad, Tensor weight_grad, Tensor bias_grad)");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("blocked_batch_norm", TORCH_BOX(&lth::blocked_batch_norm));
  m.impl("blocked_batch_norm_gradient", TORCH_BOX(&lth::blocked_batch_norm_gradient));
}
