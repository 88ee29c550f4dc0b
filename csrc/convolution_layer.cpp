#include "convolution_layer.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "convolution_checks.h"

namespace lth {
namespace {

using Optional = std::optional<Tensor>;

float* data(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
float* data(const Optional& t) { return t ? data(*t) : nullptr; }

// Floats of [count] or [rows, count].
const float* channels(const char* name, const Tensor& t, int64_t count, const Tensor& input,
                      int64_t rows = 0) {
  check_array(name, t, rows ? 2 : 1, input);
  LTH_CHECK(t.size(rows ? 1 : 0) == count && (rows == 0 || t.size(0) == rows), name, " has not the shape [",
            rows ? "3, " : "", count, "]");
  return floats(t);
}

void check_num_images(int64_t num_images, int64_t num_blocks) {
  LTH_CHECK(num_images > (num_blocks - 1) * kBlock && num_images <= num_blocks * kBlock && num_images > 0,
            "num_images is ", num_images, ", which do not make the ", num_blocks, " blocks of input");
}

// What a layer of these input channels reads.
Read read_of(const Tensor& input, const Optional& affine, const Optional& residual, bool relu) {
  Read read{};
  check_array("input", input, 5, input);
  LTH_CHECK(input.size(4) == kBlock && input.size(1) > 0 && input.size(2) > 0 && input.size(3) > 0,
            "input has no shape [G, C, H, W, 16] with C, H and W at least 1");
  LTH_CHECK(affine || !(residual || relu), "residual and relu are given without affine");
  read.values = floats(input);
  if (affine) read.affine = channels("affine", *affine, input.size(1), input, 3);
  if (residual) {
    check_shape("residual", *residual, input, "input");
    read.residual = floats(*residual);
  }
  read.relu = relu;
  return read;
}

void set_sizes(ConvolutionShape& layer, const Tensor& input, int64_t num_outputs, int64_t kernel,
               int64_t stride, int64_t padding) {
  layer.num_blocks = input.size(0);
  layer.num_inputs = input.size(1);
  layer.height = input.size(2);
  layer.width = input.size(3);
  layer.num_outputs = num_outputs;
  LTH_CHECK(num_outputs > 0, "weight has no output channel");
  check_one_pixel(kernel, padding);
  set_geometry(layer, kernel, stride, padding);
  check_reach("input", layer.num_inputs, layer.height, layer.width);
  check_reach("output", layer.num_outputs, layer.out_height, layer.out_width);
}

Weights weights_of(const ConvolutionShape& layer, const Tensor& weight, const Optional& col_indices,
                   const Optional& row_ptr, const Tensor& input, bool forward) {
  Weights weights{};
  const int64_t inputs = layer.num_inputs, outputs = layer.num_outputs;
  LTH_CHECK(col_indices.has_value() == row_ptr.has_value(), "col_indices and row_ptr are given together");
  weights.num_weights = weight.numel();
  weights.values = floats(weight);
  if (!col_indices) {
    check_array("weight", weight, 4, input);
    LTH_CHECK(weight.size(0) == outputs && weight.size(1) == inputs && weight.size(2) == 3 &&
                  weight.size(3) == 3 && layer.kernel == 3 && layer.padding == 1,
              "weight without col_indices is not [", outputs, ", ", inputs, ", 3, 3] with padding 1");
    LTH_CHECK(layer.stride == 1 || !forward, "stride is ", layer.stride, ", expected 1 without col_indices");
    return weights;
  }
  check_array("weight", weight, 1, input);
  check_lists("row_ptr", *row_ptr, "col_indices", *col_indices, outputs, inputs * layer.kernel * layer.kernel,
              input);
  LTH_CHECK(col_indices->numel() == weights.num_weights, "col_indices has ", col_indices->numel(),
            " entries, weight ", weights.num_weights);
  weights.col_indices = ints(*col_indices);
  weights.row_ptr = ints(*row_ptr);
  return weights;
}

// What was kept of the input, which a residual needs.
void set_finished(Read& read, const Optional& finished, const Tensor& input) {
  if (!finished) return;
  LTH_CHECK(read.affine, "finished is given without affine");
  check_shape("finished", *finished, input, "input");
  read.finished = floats(*finished);
}

Tensor none(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

std::tuple<Tensor, Tensor, Tensor, Tensor> convolution_layer(
    const Tensor& input, const Optional& affine, const Optional& residual, bool relu, bool keep,
    const Tensor& weight, const Optional& col_indices, const Optional& row_ptr, int64_t num_outputs,
    int64_t kernel, int64_t stride, int64_t padding, const Optional& gain, const Optional& bias,
    const Optional& running_mean, const Optional& running_var, int64_t num_images, double eps,
    double momentum) {
  ConvolutionLayer layer{};
  layer.read = read_of(input, affine, residual, relu);
  set_sizes(layer, input, num_outputs, kernel, stride, padding);
  layer.weights = weights_of(layer, weight, col_indices, row_ptr, input, true);
  check_num_images(num_images, layer.num_blocks);
  layer.num_images = num_images;
  LTH_CHECK(gain.has_value() == bias.has_value(), "gain and bias are given together");
  LTH_CHECK(running_mean.has_value() == running_var.has_value() && (gain || !running_mean),
            "running_mean and running_var are given together, and with gain");
  if (gain) {
    LTH_CHECK(num_images > 1 || layer.out_height * layer.out_width > 1,
              "num_images is 1, of one pixel: a normalisation needs two values of a channel");
    layer.gain = channels("gain", *gain, num_outputs, input);
    layer.bias = channels("bias", *bias, num_outputs, input);
  }
  if (running_mean) {
    channels("running_mean", *running_mean, num_outputs, input);
    channels("running_var", *running_var, num_outputs, input);
    layer.running_mean = data(running_mean);
    layer.running_var = data(running_var);
  }
  layer.eps = float(at_least("eps", eps, 0));
  layer.momentum = at_least("momentum", momentum, 0);
  LTH_CHECK(affine || !keep, "keep is given without affine");
  Tensor output = torch::stable::new_empty(
      input, {layer.num_blocks, num_outputs, layer.out_height, layer.out_width, kBlock});
  Tensor made = gain ? torch::stable::new_empty(input, {3, num_outputs}) : none(input),
         rstd = gain ? torch::stable::empty_like(*gain) : none(input),
         finished = keep ? torch::stable::empty_like(input) : none(input);
  layer.output = data(output);
  layer.affine = data(made);
  layer.rstd = data(rstd);
  layer.read.kept = keep ? data(finished) : nullptr;
  convolution_layer_cpu(layer);
  return {output, made, rstd, finished};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> convolution_layer_gradient(
    const Tensor& grad, const Optional& affine_grad, const Optional& finished_grad, const Tensor& input,
    const Optional& affine, const Optional& finished, bool relu, const Tensor& weight,
    const Optional& col_indices, const Optional& row_ptr, const Optional& row_indices,
    const Optional& col_ptr, const Optional& order, int64_t kernel, int64_t stride, int64_t padding,
    const Optional& gain, const Optional& output, const Optional& output_affine, const Optional& rstd,
    int64_t num_images, bool passes_on) {
  ConvolutionLayerGradient layer{};
  layer.read = read_of(input, affine, std::nullopt, relu);
  set_finished(layer.read, finished, input);
  check_array("grad", grad, 5, input);
  const int64_t outputs = grad.size(1);
  set_sizes(layer, input, outputs, kernel, stride, padding);
  LTH_CHECK(grad.size(0) == layer.num_blocks && grad.size(2) == layer.out_height &&
                grad.size(3) == layer.out_width && grad.size(4) == kBlock,
            "grad has no shape [", layer.num_blocks, ", O, ", layer.out_height, ", ", layer.out_width,
            ", 16]");
  layer.weights = weights_of(layer, weight, col_indices, row_ptr, input, passes_on);
  LTH_CHECK(col_indices.has_value() == (row_indices && col_ptr && order),
            "the lists by output and by input channel are given together");
  if (row_indices) {
    check_lists("col_ptr", *col_ptr, "row_indices", *row_indices, layer.num_inputs, outputs * kernel * kernel,
                input);
    LTH_CHECK(row_indices->numel() == layer.weights.num_weights, "row_indices has ", row_indices->numel(),
              " entries, weight ", layer.weights.num_weights);
    layer.weights.order = checked_order(*order, layer.weights.num_weights, input);
    layer.weights.row_indices = ints(*row_indices);
    layer.weights.col_ptr = ints(*col_ptr);
  }
  check_num_images(num_images, layer.num_blocks);
  layer.num_images = num_images;
  layer.grad = floats(grad);
  if (finished_grad) {
    check_shape("finished_grad", *finished_grad, input, "input");
    layer.finished_grad = floats(*finished_grad);
  }
  const bool normalises = gain.has_value();
  LTH_CHECK(normalises == (affine_grad && output && output_affine && rstd),
            "gain, affine_grad, output, output_affine and rstd are given together");
  Tensor gain_grad = normalises ? torch::stable::empty_like(*gain) : none(input);
  if (normalises) {
    layer.gain = channels("gain", *gain, outputs, input);
    layer.affine_grad = channels("affine_grad", *affine_grad, outputs, input, 3);
    check_shape("output", *output, grad, "grad");
    layer.output = floats(*output);
    layer.affine = channels("output_affine", *output_affine, outputs, input, 3);
    layer.rstd = channels("rstd", *rstd, outputs, input);
    layer.gain_grad = data(gain_grad);
  }
  Tensor weight_grad = torch::stable::empty_like(weight);
  layer.weight_grad = data(weight_grad);
  Tensor input_grad = passes_on ? torch::stable::empty_like(input) : none(input),
         input_affine_grad = passes_on && affine ? torch::stable::empty_like(*affine) : none(input);
  if (passes_on) layer.read_grad = {data(input_grad), affine ? data(input_affine_grad) : nullptr};
  convolution_layer_gradient_cpu(layer);
  return {input_grad, input_affine_grad, weight_grad, gain_grad};
}

Normalised normalised_of(const Tensor& input, int64_t num_images) {
  return {input.size(0), input.size(1), input.size(2), input.size(3), num_images, {}};
}

Tensor normalise(const Tensor& input, const Tensor& affine, const Optional& residual, bool relu) {
  const Read read = read_of(input, affine, residual, relu);
  Normalised layer = normalised_of(input, input.size(0) * kBlock);
  layer.read = read;
  Tensor finished = torch::stable::empty_like(input);
  layer.read.kept = data(finished);
  normalise_cpu(layer);
  return finished;
}

std::tuple<Tensor, Tensor> normalise_gradient(const Tensor& grad, const Tensor& input, const Tensor& affine,
                                              const Tensor& finished, bool relu, int64_t num_images) {
  const Read read = read_of(input, affine, std::nullopt, relu);
  Normalised layer = normalised_of(input, num_images);
  layer.read = read;
  set_finished(layer.read, finished, input);
  check_shape("grad", grad, input, "input");
  check_num_images(num_images, layer.num_blocks);
  Tensor input_grad = torch::stable::empty_like(input), affine_grad = torch::stable::empty_like(affine);
  normalise_gradient_cpu(layer, floats(grad), {data(input_grad), data(affine_grad)});
  return {input_grad, affine_grad};
}

}  // namespace
}  // namespace lth

STABLE_TORCH_LIBRARY_FRAGMENT(lthbench, m) {
  // Convolutions of a training whose outputs are normalised when they are read (convolution_layer.h), of
  // images in blocks of 16 without a border. CPU only. `affine` belongs to the layer before; without it the
  // input is finished. With `keep` the finished input is returned too. Weights are the kept ones in their
  // lists' order, or without lists all of 3x3 filters. What is handed back for the input is its gradient, or
  // with `affine` that of scale (input - mean), which is the residual's too. What is not there, or not
  // wanted, is empty.
  m.def(
      "convolution_layer(Tensor input, Tensor? affine, Tensor? residual, bool relu, bool keep, Tensor "
      "weight, "
      "Tensor? col_indices, Tensor? row_ptr, int num_outputs, int kernel, int stride, int padding, Tensor? "
      "gain, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, int num_images, float eps, "
      "float "
      "momentum) -> (Tensor output, Tensor affine, Tensor rstd, Tensor finished)");
  m.def(
      "convolution_layer_gradient(Tensor grad, Tensor? affine_grad, Tensor? finished_grad, Tensor input, "
      "Tensor? affine, Tensor? finished, bool relu, Tensor weight, Tensor? col_indices, Tensor? row_ptr, "
      "Tensor? row_indices, Tensor? col_ptr, Tensor? order, int kernel, int stride, int padding, Tensor? "
      "gain, "
      "Tensor? output, Tensor? output_affine, Tensor? rstd, int num_images, bool passes_on) -> (Tensor "
      "input_grad, Tensor input_affine_grad, Tensor weight_grad, Tensor gain_grad)");
  m.def("normalise(Tensor input, Tensor affine, Tensor? residual, bool relu) -> Tensor");
  m.def(
      "normalise_gradient(Tensor grad, Tensor input, Tensor affine, Tensor finished, bool relu, int "
      "num_images) -> (Tensor input_grad, Tensor affine_grad)");
}

STABLE_TORCH_LIBRARY_IMPL(lthbench, CPU, m) {
  m.impl("convolution_layer", TORCH_BOX(&lth::convolution_layer));
  m.impl("convolution_layer_gradient", TORCH_BOX(&lth::convolution_layer_gradient));
  m.impl("normalise", TORCH_BOX(&lth::normalise));
  m.impl("normalise_gradient", TORCH_BOX(&lth::normalise_gradient));
}
