// A layer a few rows at a time: what it reads is normalised into memory of their size, convolved, and the
// output's moments found, all in a core's second cache; and so for the gradients.
#include "convolution_layer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "cpu/conv/normalise.h"
#include "cpu/conv/rows.h"
#include "cpu/conv/sum_items.h"
#include "cpu/scratch.h"

namespace lth {
namespace {

int64_t images_of(int64_t num_images, int64_t block) { return std::min(kBlock, num_images - block * kBlock); }

struct Room : Scratch {
  explicit Room(size_t count) : Scratch(count * sizeof(float), 0) {}
  float* floats() const { return static_cast<float*>(data()); }
};

// A block's rows are divided into items, whose part of the input or of the output takes so much of a core's
// second cache where four rows do not take more. Up to three such parts are at work at a time. Measured
// between 96 and 480 KB with a cache of 2 MB, the size made no difference.
constexpr int64_t kItemBytes = 320 * 1024;

// Item i of a layer: rows [begin, end) of a block's output, and what belongs to them, in rows counted with
// the border.
struct Item {
  int64_t block, begin, end;
  bool last;           // of its block
  PlaneRows output;    // its own
  PlaneRows of_grads;  // of the output, which the gradients of `own` read
  PlaneRows own;       // of the input, each in one item
  PlaneRows read;      // of the input, which those of the output read, with those of `own`
};

class Items {
 public:
  explicit Items(const ConvolutionShape& s) : shape_(s) {
    const int64_t in_row = s.stride * s.num_inputs * (s.width + 2),
                  out_row = s.num_outputs * (s.out_width + 2);
    const int64_t bytes = std::max(in_row, out_row) * kBlock * int64_t(sizeof(float));
    const int64_t fit = std::max<int64_t>(1, kItemBytes / bytes), count = (s.out_height + fit - 1) / fit;
    rows_ = ((s.out_height + count - 1) / count + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce;
    in_a_block_ = (s.out_height + rows_ - 1) / rows_;
  }

  int64_t count() const { return shape_.num_blocks * in_a_block_; }
  // That an item's operands have, at most.
  int64_t in_rows() const { return std::min(rows_ * shape_.stride, shape_.height) + 2; }
  int64_t out_rows() const { return std::min(rows_, shape_.out_height) + 2; }

  Item operator[](int64_t i) const {
    const ConvolutionShape& s = shape_;
    Item item{};
    item.block = i / in_a_block_;
    item.begin = i % in_a_block_ * rows_;
    item.end = std::min(item.begin + rows_, s.out_height);
    item.last = item.end == s.out_height;
    item.output = {item.begin + 1, item.end + 1};
    item.of_grads = {item.begin, item.end + 2};
    const int64_t first = item.begin * s.stride;
    const int64_t behind = item.last ? s.height : std::min(item.end * s.stride, s.height);
    item.own = {first + 1, std::max(first, behind) + 1};
    item.read = {first, std::min(std::max((item.end - 1) * s.stride + 3, item.own.end), s.height + 2)};
    return item;
  }

 private:
  const ConvolutionShape& shape_;
  int64_t rows_, in_a_block_;
};

OfPlanes input_of(const ConvolutionShape& s) { return {{s.num_inputs, s.height, s.width}, s.num_blocks}; }
OfPlanes output_of(const ConvolutionShape& s) {
  return {{s.num_outputs, s.out_height, s.out_width}, s.num_blocks};
}

// Of [3, channels] mean and scale, and offset = bias - scale mean.
struct Affine {
  const float *mean = nullptr, *scale = nullptr;
  std::vector<float> offset;

  Affine(const float* affine, int64_t channels) {
    if (!affine) return;
    mean = affine;
    scale = affine + channels;
    for (int64_t c = 0; c < channels; ++c)
      offset.push_back(float(affine[2 * channels + c] - double(scale[c]) * mean[c]));
  }
};

// All 3x3 filters of the gradient of the input.
std::vector<float> turned(const float* weight, int64_t outputs, int64_t inputs) {
  std::vector<float> result(outputs * inputs * 9);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t c = 0; c < inputs; ++c)
      for (int64_t k = 0; k < 9; ++k)
        result[(c * outputs + o) * 9 + 8 - k] = weight[(o * inputs + c) * 9 + k];
  return result;
}

Moments together(const Moments& a, const Moments& b) {
  const double count = a.count + b.count, apart = b.mean - a.mean;
  return {count, a.mean + apart * (b.count / count),
          a.squares + b.squares + apart * apart * (a.count * b.count / count)};
}

// Affine, rstd and the running statistics, from the moments [items][num_outputs].
void set_affine(const ConvolutionLayer& layer, const std::vector<Moments>& of_items) {
  const int64_t channels = layer.num_outputs;
  for (int64_t c = 0; c < channels; ++c) {
    Moments all = of_items[c];
    for (size_t i = c + channels; i < of_items.size(); i += channels) all = together(all, of_items[i]);
    const double variance = all.squares / all.count, rstd = 1 / std::sqrt(variance + double(layer.eps));
    layer.rstd[c] = float(rstd);
    layer.affine[c] = float(all.mean);
    layer.affine[channels + c] = float(layer.gain[c] * rstd);
    layer.affine[2 * channels + c] = layer.bias[c];
    if (!layer.running_mean) continue;
    const auto move = [&](float& running, double to) {
      running = float(running + layer.momentum * (to - double(running)));
    };
    move(layer.running_mean[c], all.mean);
    move(layer.running_var[c], variance * (all.count / std::max(all.count - 1, 1.0)));
  }
}

// Affine's gradients [3, channels] from the sums [items][channels].
void set_affine_grad(const std::vector<GradientSums>& of_items, int64_t channels, const float* scale,
                     float* affine) {
  for (int64_t c = 0; c < channels; ++c) {
    GradientSums all{};
    for (size_t i = c; i < of_items.size(); i += channels) {
      all.sum += of_items[i].sum;
      all.product += of_items[i].product;
    }
    affine[c] = float(-scale[c] * all.sum);
    affine[channels + c] = float(all.product);
    affine[2 * channels + c] = float(all.sum);
  }
}

// Strides of the planes of an item's operands.
Strides item_strides(const ConvolutionShape& s, const Items& items) {
  const int64_t in_row = s.width + 2, out_row = s.out_width + 2;
  return {in_row, items.in_rows() * in_row, 0, out_row, items.out_rows() * out_row, 0};
}

}  // namespace

void convolution_layer_cpu(const ConvolutionLayer& layer) {
  const Items items(layer);
  const Affine of(layer.read.affine, layer.num_inputs);
  const Strides t = item_strides(layer, items);
  const Weights& w = layer.weights;
  const auto sums = w.row_ptr ? sparse_rows(layer, t, w) : winograd_rows(layer, t, w.values);
  const Finish read{input_of(layer), layer.read, of.scale, of.offset.data()};
  const CopyOut copy_out{output_of(layer), layer.output};
  std::vector<Moments> moments(layer.gain ? items.count() * layer.num_outputs : 0);
  auto body = [&](int64_t begin, int64_t end) {
    const Room x(layer.num_inputs * t.in_plane * kBlock), y(layer.num_outputs * t.out_plane * kBlock);
    const Room room(sums->room());
    for (int64_t i = begin; i < end; ++i) {
      const Item item = items[i];
      read(item.block * read.shape.block(), item.read, {x.floats(), t.in_plane}, item.own);
      (*sums)(x.floats(), y.floats(), item.begin, item.end, room.floats());
      copy_out(item.block * copy_out.shape.block(), item.output, images_of(layer.num_images, item.block),
               {y.floats() + t.out_row * kBlock, t.out_plane},
               layer.gain ? moments.data() + i * layer.num_outputs : nullptr);
    }
  };
  parallel_for(items.count(), 1, body);
  if (layer.gain) set_affine(layer, moments);
}

void convolution_layer_gradient_cpu(const ConvolutionLayerGradient& layer) {
  const Items items(layer);
  const int64_t inputs = layer.num_inputs, outputs = layer.num_outputs;
  std::vector<float> constant(outputs), slope(outputs);
  const double pixels = double(layer.num_images) * double(layer.out_height * layer.out_width);
  for (int64_t c = 0; layer.gain && c < outputs; ++c) {
    const double rstd = layer.rstd[c], of_scale = layer.affine_grad[outputs + c];
    layer.gain_grad[c] = float(rstd * of_scale);
    constant[c] = float(layer.affine_grad[c] / pixels);
    slope[c] = float(-rstd * rstd * rstd * layer.gain[c] * of_scale / pixels);
  }
  const Affine of(layer.read.affine, inputs), of_output(layer.gain ? layer.affine : nullptr, outputs);
  const OutputGradient output_gradient{output_of(layer), layer.grad,      layer.output, of_output.scale,
                                       of_output.mean,   constant.data(), slope.data()};
  // Where x was kept, it is read as it is.
  Read of_sums = layer.read;
  if (of_sums.finished) of_sums = {of_sums.finished, nullptr, nullptr, false, nullptr, nullptr};
  const bool as_it_is = !of_sums.affine;
  const Finish read{input_of(layer), of_sums, as_it_is ? nullptr : of.scale, of.offset.data()};
  const InputGradient input_gradient{input_of(layer), layer.read, of.mean, layer.finished_grad,
                                     layer.read_grad.values};
  const Strides t = item_strides(layer, items);
  const Weights& w = layer.weights;
  const bool passes_on = layer.read_grad.values;
  const auto weight_sums =
      w.row_ptr ? sparse_weight_gradient_rows(layer, t, w) : dense_weight_gradient_rows(layer, t);
  std::unique_ptr<ConvolutionRows> input_sums;
  std::vector<float> back;
  if (passes_on && w.row_ptr) {
    input_sums = sparse_input_gradient_rows(layer, t, w);
  } else if (passes_on) {
    back = turned(w.values, outputs, inputs);
    ConvolutionShape shape = layer;
    std::swap(shape.num_inputs, shape.num_outputs);
    input_sums = winograd_rows(shape, {t.out_row, t.out_plane, 0, t.in_row, t.in_plane, 0}, back.data());
  }
  const Room weight_grads(items.count() * w.num_weights);
  std::vector<GradientSums> sums(passes_on && of.mean ? items.count() * inputs : 0);
  auto body = [&](int64_t begin, int64_t end) {
    const Room x(inputs * t.in_plane * kBlock), dx(passes_on ? inputs * t.in_plane * kBlock : 0);
    const Room dy(outputs * t.out_plane * kBlock);
    const Room room(std::max(weight_sums->room(), input_sums ? input_sums->room() : 0));
    for (int64_t i = begin; i < end; ++i) {
      const Item item = items[i];
      const int64_t images = images_of(layer.num_images, item.block);
      const int64_t start = item.block * read.shape.block();
      output_gradient(item.block * output_gradient.shape.block(), item.of_grads, images,
                      {dy.floats(), t.out_plane});
      read(start, item.read, {x.floats(), t.in_plane}, {});
      (*weight_sums)(x.floats(), dy.floats(), item.begin, item.end, weight_grads.floats() + i * w.num_weights,
                     room.floats());
      if (!passes_on) continue;
      const int64_t last = item.last ? std::numeric_limits<int64_t>::max() : item.end;
      (*input_sums)(dy.floats(), dx.floats(), item.begin, last, room.floats());
      input_gradient(start, item.own, images, {dx.floats() + t.in_row * kBlock, t.in_plane},
                     {x.floats() + t.in_row * kBlock, t.in_plane},
                     of.mean ? sums.data() + i * inputs : nullptr);
    }
  };
  parallel_for(items.count(), 1, body);
  sum_items(weight_grads.floats(), items.count(), w.num_weights, layer.weight_grad);
  if (passes_on && of.mean) set_affine_grad(sums, inputs, of.scale, layer.read_grad.affine);
}

namespace {

// A layer that only normalises has the items of a 1x1 convolution.
ConvolutionShape shape_of(const Normalised& layer) {
  const int64_t channels = layer.num_channels, height = layer.height, width = layer.width;
  return {layer.num_blocks, channels, height, width, channels, height, width, 1, 1, 0};
}

}  // namespace

void normalise_cpu(const Normalised& layer) {
  const ConvolutionShape s = shape_of(layer);
  const Items items(s);
  const Affine of(layer.read.affine, layer.num_channels);
  const Finish finish{input_of(s), layer.read, of.scale, of.offset.data()};
  const Strides t = item_strides(s, items);
  auto body = [&](int64_t begin, int64_t end) {
    const Room x(s.num_inputs * t.in_plane * kBlock);
    for (int64_t i = begin; i < end; ++i) {
      const Item item = items[i];
      finish(item.block * finish.shape.block(), item.own, {x.floats(), t.in_plane}, item.own);
    }
  };
  parallel_for(items.count(), 1, body);
}

void normalise_gradient_cpu(const Normalised& layer, const float* grad, const ReadGradients& read_grad) {
  const ConvolutionShape s = shape_of(layer);
  const Items items(s);
  const Affine of(layer.read.affine, layer.num_channels);
  // Both into planes of rows, as what lies there for a convolution's.
  const Read finished{layer.read.finished, nullptr, nullptr, false, nullptr, nullptr},
      of_grad{grad, nullptr, nullptr, false, nullptr, nullptr};
  const Finish read{input_of(s), finished, nullptr, nullptr},
      read_of_grad{input_of(s), of_grad, nullptr, nullptr};
  const InputGradient input_gradient{input_of(s), layer.read, of.mean, nullptr, read_grad.values};
  const Strides t = item_strides(s, items);
  std::vector<GradientSums> sums(items.count() * layer.num_channels);
  auto body = [&](int64_t begin, int64_t end) {
    const Room x(s.num_inputs * t.in_plane * kBlock), dx(s.num_inputs * t.in_plane * kBlock);
    for (int64_t i = begin; i < end; ++i) {
      const Item item = items[i];
      const int64_t start = item.block * read.shape.block();
      read(start, item.own, {x.floats(), t.in_plane}, {});
      read_of_grad(start, item.own, {dx.floats(), t.in_plane}, {});
      input_gradient(start, item.own, images_of(layer.num_images, item.block), {dx.floats(), t.in_plane},
                     {x.floats(), t.in_plane}, sums.data() + i * layer.num_channels);
    }
  };
  parallel_for(items.count(), 1, body);
  set_affine_grad(sums, layer.num_channels, of.scale, read_grad.affine);
}

}  // namespace lth
