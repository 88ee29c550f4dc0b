#include "batch_norm.h"

#include <algorithm>
#include <cmath>

#include "common/parallel.h"
#include "cpu/conv/image_blocks.h"

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int kAtOnce = 2;  // neighbouring pixels, so that sums are independent

// The sum over the images of a block of lane sums [kAtOnce][16].
template <class V>
LTH_INLINE double sum_images(const V (&sums)[kAtOnce][kParts<V>], int64_t images) {
  const auto* lanes = reinterpret_cast<const float*>(&sums);
  double sum = 0;
  for (int64_t i = 0; i < images; ++i)
    for (int64_t k = 0; k < kAtOnce; ++k) sum += lanes[k * kBlock + i];
  return sum;
}

LTH_INLINE int64_t images_of(const BatchNormShape& s, int64_t block) {
  return std::min(kBlock, s.num_images - block * kBlock);
}

LTH_INLINE double num_pixels(const BatchNormShape& s) {
  return double(s.num_images) * double(s.height) * double(s.width);
}

// The first pixel of row y, without the border.
LTH_INLINE int64_t row_at(const BatchNormShape& s, int64_t block, int64_t channel, int64_t y) {
  return ((block * s.num_channels + channel) * (s.height + 2) + y + 1) * (s.width + 2) + 1;
}

LTH_INLINE void clear_plane_border(const BatchNormShape& s, float* planes, int64_t block, int64_t channel) {
  float* plane = planes + (row_at(s, block, channel, -1) - 1) * kBlock;
  clear_border(plane, s.height, s.width, {0, 0, s.height, s.width});
}

// Sums of (x - shift) and of its square; the shift is a pixel, so that a mean far from 0 loses no precision.
template <class V>
LTH_INLINE void moments(const BatchNorm& layer, int64_t channel, float shift, double* first, double* second) {
  for (int64_t block = 0; block < layer.num_blocks; ++block) {
    V sums[kAtOnce][kParts<V>] = {}, squares[kAtOnce][kParts<V>] = {};
    for (int64_t y = 0; y < layer.height; ++y) {
      const V* row = at<V>(layer.input, row_at(layer, block, channel, y));
      int64_t x = 0;
      const auto add = [&](int64_t count) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int64_t k = 0; k < count; ++k)
#pragma GCC unroll 4
          for (int64_t p = 0; p < kParts<V>; ++p) {
            const V value = row[(x + k) * kParts<V> + p] - shift;
            sums[k][p] += value;
            squares[k][p] += value * value;
          }
      };
      for (; x + kAtOnce <= layer.width; x += kAtOnce) add(kAtOnce);
      if (x < layer.width) add(1);
    }
    *first += sum_images<V>(sums, images_of(layer, block));
    *second += sum_images<V>(squares, images_of(layer, block));
  }
}

template <class V>
LTH_INLINE void normalise(const BatchNorm& layer, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const float shift = layer.input[row_at(layer, 0, c, 0) * kBlock];
    double first = 0, second = 0;
    moments<V>(layer, c, shift, &first, &second);
    const double count = num_pixels(layer), moved = first / count;
    const double mean = shift + moved, variance = std::max(second / count - moved * moved, 0.0);  // NaN stays
    const double rstd = 1 / std::sqrt(variance + double(layer.eps));
    layer.mean[c] = float(mean);
    layer.rstd[c] = float(rstd);
    if (layer.running_mean) {
      const auto move = [&](float& running, double to) {
        running = float(running + layer.momentum * (to - double(running)));
      };
      move(layer.running_mean[c], mean);
      move(layer.running_var[c], variance * (count / std::max(count - 1, 1.0)));
    }
    const float scale = layer.scale[c] = float(layer.weight[c] * rstd);
    const float offset = layer.offset[c] = float(layer.bias[c] - layer.weight[c] * rstd * mean);
    for (int64_t block = layer.num_blocks - 1; block >= 0; --block) {  // the last ones are still in the cache
      clear_plane_border(layer, layer.output, block, c);
      for (int64_t y = 0; y < layer.height; ++y) {
        const int64_t row = row_at(layer, block, c, y);
        const V* in = at<V>(layer.input, row);
        const V* residual = layer.residual ? at<V>(layer.residual, row) : nullptr;
        V* out = reinterpret_cast<V*>(layer.output + row * kBlock);
        for (int64_t i = 0; i < layer.width * kParts<V>; ++i)
          out[i] = finish(in[i] * scale + offset, residual ? residual + i : nullptr, layer.relu);
      }
    }
  }
}

// Where relu followed, and so where it passed a gradient: where y, or what it was made of, is not below or at
// 0 (NaN included).
enum class Passed { kAll, kByInput, kByOutput };

template <class V, Passed passed>
struct Gradients {
  const BatchNormGradient& layer;
  const float mean, scale, offset;

  Gradients(const BatchNormGradient& of, int64_t c)
      : layer(of),
        mean(of.mean[c]),
        scale(passed == Passed::kByInput ? of.scale[c] : 0),
        offset(passed == Passed::kByInput ? of.offset[c] : 0) {}

  // The gradient of y at the i-th vector from a row's first pixel, without the border.
  LTH_INLINE V operator()(int64_t row, int64_t i) const {
    const V grad = at<V>(layer.grad, row)[i], zero = {};
    if constexpr (passed == Passed::kAll) return grad;
    const V y = passed == Passed::kByOutput ? at<V>(layer.output, row)[i]
                                            : at<V>(layer.input, row)[i] * scale + offset;
    return y <= zero ? zero : grad;
  }
};

template <class V, Passed passed>
LTH_INLINE void differentiate_as(const BatchNormGradient& layer, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const Gradients<V, passed> gradient(layer, c);
    const float mean = layer.mean[c], rstd = layer.rstd[c];
    double sum = 0, product = 0;
    for (int64_t block = 0; block < layer.num_blocks; ++block) {
      if (layer.residual_grad) clear_plane_border(layer, layer.residual_grad, block, c);
      V sums[kAtOnce][kParts<V>] = {}, products[kAtOnce][kParts<V>] = {};
      for (int64_t y = 0; y < layer.height; ++y) {
        const int64_t row = row_at(layer, block, c, y);
        const V* in = at<V>(layer.input, row);
        V* residual =
            layer.residual_grad ? reinterpret_cast<V*>(layer.residual_grad + row * kBlock) : nullptr;
        int64_t x = 0;
        const auto add = [&](int64_t count) __attribute__((always_inline)) {
#pragma GCC unroll 2
          for (int64_t k = 0; k < count; ++k)
#pragma GCC unroll 4
            for (int64_t p = 0; p < kParts<V>; ++p) {
              const int64_t i = (x + k) * kParts<V> + p;
              const V g = gradient(row, i);
              if (residual) residual[i] = g;
              sums[k][p] += g;
              products[k][p] += g * (in[i] - mean);
            }
        };
        for (; x + kAtOnce <= layer.width; x += kAtOnce) add(kAtOnce);
        if (x < layer.width) add(1);
      }
      sum += sum_images<V>(sums, images_of(layer, block));
      product += sum_images<V>(products, images_of(layer, block));
    }
    layer.bias_grad[c] = float(sum);
    layer.weight_grad[c] = float(product * rstd);
    const double count = num_pixels(layer);
    const float scale = float(double(layer.weight[c]) * rstd), offset = float(sum / count);
    const float slope = float(product / count * rstd * rstd);
    for (int64_t block = layer.num_blocks - 1; block >= 0; --block) {  // the last ones are still in the cache
      clear_plane_border(layer, layer.input_grad, block, c);
      for (int64_t y = 0; y < layer.height; ++y) {
        const int64_t row = row_at(layer, block, c, y);
        const V* in = at<V>(layer.input, row);
        const V* kept = layer.residual_grad ? at<V>(layer.residual_grad, row) : nullptr;
        V* out = reinterpret_cast<V*>(layer.input_grad + row * kBlock);
        for (int64_t i = 0; i < layer.width * kParts<V>; ++i) {
          const V g = kept ? kept[i] : gradient(row, i);
          out[i] = (g - offset - slope * (in[i] - mean)) * scale;
        }
        for (int64_t image = images_of(layer, block); image < kBlock; ++image)
          for (int64_t x = 0; x < layer.width; ++x) layer.input_grad[(row + x) * kBlock + image] = 0;
      }
    }
  }
}

template <class V>
LTH_INLINE void differentiate(const BatchNormGradient& layer, int64_t begin, int64_t end) {
  if (layer.output) return differentiate_as<V, Passed::kByOutput>(layer, begin, end);
  if (layer.scale) return differentiate_as<V, Passed::kByInput>(layer, begin, end);
  differentiate_as<V, Passed::kAll>(layer, begin, end);
}

LTH_FOR_EACH_ISA(normalise, normalise, (const BatchNorm& layer, int64_t begin, int64_t end),
                 (layer, begin, end))
LTH_FOR_EACH_ISA(differentiate, differentiate, (const BatchNormGradient& layer, int64_t begin, int64_t end),
                 (layer, begin, end))

}  // namespace

void batch_norm_cpu(const BatchNorm& layer) {
  const auto run = LTH_OF_THIS_CPU(normalise);
  auto body = [&](int64_t begin, int64_t end) { run(layer, begin, end); };
  parallel_for(layer.num_channels, 1, body);
}

void batch_norm_gradient_cpu(const BatchNormGradient& layer) {
  const auto run = LTH_OF_THIS_CPU(differentiate);
  auto body = [&](int64_t begin, int64_t end) { run(layer, begin, end); };
  parallel_for(layer.num_channels, 1, body);
}

}  // namespace lth
