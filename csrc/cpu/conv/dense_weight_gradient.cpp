// The gradient of all weights of 3x3 filters: of four output channels and a row of three taps at a time,
// whose sums stay in registers while the pixels of a band of rows go by.
#include <algorithm>
#include <vector>

#include "cpu/conv/image_blocks.h"
#include "cpu/conv/rows.h"
#include "cpu/conv/sum_items.h"

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int kSide = 3;
constexpr int64_t kOutputsAtOnce = 4;
constexpr int64_t kBandPixels = 64;  // whose gradients, of four channels, fill half of an L1 cache

struct Work {
  ConvolutionShape layer;
  Strides strides;
  int64_t rows;  // of a band
};

// sums[o][k] += the gradients of channel o times the pixels that tap k of a kernel's row multiplies.
template <class V, int kOutputs>
LTH_INLINE void sum_band(const float* input, const float* grad, int64_t rows, const Work& w, V* all) {
  V sums[kOutputs][kSide];
#pragma GCC unroll 4
  for (int o = 0; o < kOutputs; ++o)
#pragma GCC unroll 3
    for (int k = 0; k < kSide; ++k) sums[o][k] = all[o * kSide + k];
  const int64_t step = w.layer.stride, parts = kParts<V>;
  for (int64_t y = 0; y < rows; ++y) {
    const V* pixels = at<V>(input, y * step * w.strides.in_row);
    const V* grads = at<V>(grad, y * w.strides.out_row);
    for (int64_t x = 0; x < w.layer.out_width; ++x, pixels += step * parts, grads += parts)
#pragma GCC unroll 4
      for (int64_t p = 0; p < parts; ++p) {
        const V taps[kSide] = {pixels[p], pixels[parts + p], pixels[2 * parts + p]};
#pragma GCC unroll 4
        for (int o = 0; o < kOutputs; ++o) {
          const V of_output = grads[o * w.strides.out_plane * parts + p];
#pragma GCC unroll 3
          for (int k = 0; k < kSide; ++k) sums[o][k] += of_output * taps[k];
        }
      }
  }
#pragma GCC unroll 4
  for (int o = 0; o < kOutputs; ++o)
#pragma GCC unroll 3
    for (int k = 0; k < kSide; ++k) all[o * kSide + k] = sums[o][k];
}

template <class V, int kOutputs>
LTH_INLINE void sum_outputs(const Work& w, const float* input, const float* of_grad, int64_t rows,
                            int64_t first, float* result, V* sums) {
  const ConvolutionShape& layer = w.layer;
  const Strides& t = w.strides;
  const int64_t each = kOutputs * kSide;
  std::fill(sums, sums + layer.num_inputs * kSide * each, V{});
  const float* grad = of_grad + (first * t.out_plane + t.out_row + 1) * kBlock;
  for (int64_t y = 0; y < rows; y += w.rows)
    for (int64_t c = 0; c < layer.num_inputs; ++c)
      for (int64_t row = 0; row < kSide; ++row) {
        const int64_t from = c * t.in_plane + (y * layer.stride + row) * t.in_row;
        sum_band<V, kOutputs>(input + from * kBlock, grad + y * t.out_row * kBlock,
                              std::min(w.rows, rows - y), w, sums + (c * kSide + row) * each);
      }
  constexpr int64_t kLanes = kBlock / kParts<V>;
  const float* sum = reinterpret_cast<const float*>(sums);
  for (int64_t c = 0; c < layer.num_inputs; ++c)
    for (int64_t row = 0; row < kSide; ++row)
      for (int64_t o = 0; o < kOutputs; ++o)
        for (int64_t k = 0; k < kSide; ++k, sum += kLanes)
          result[(((first + o) * layer.num_inputs + c) * kSide + row) * kSide + k] = sum_lanes<kLanes>(sum);
}

// Four output channels at a time.
template <class V>
LTH_INLINE void sum_rows(const Work& w, const float* input, const float* grad, int64_t rows, float* result,
                         float* room) {
  V* sums = reinterpret_cast<V*>(room);
  for (int64_t first = 0; first < w.layer.num_outputs; first += kOutputsAtOnce) {
    const int64_t count = std::min(kOutputsAtOnce, w.layer.num_outputs - first);
    if (count == kOutputsAtOnce) {
      sum_outputs<V, kOutputsAtOnce>(w, input, grad, rows, first, result, sums);
    } else {
      for (int64_t o = 0; o < count; ++o) sum_outputs<V, 1>(w, input, grad, rows, first + o, result, sums);
    }
  }
}

LTH_FOR_EACH_ISA(rows, sum_rows,
                 (const Work& w, const float* input, const float* grad, int64_t rows, float* result,
                  float* room),
                 (w, input, grad, rows, result, room))

class DenseWeightGradientRows : public WeightGradientRows {
 public:
  DenseWeightGradientRows(const ConvolutionShape& shape, const Strides& strides)
      : work_{shape, strides, std::max<int64_t>(1, kBandPixels / shape.out_width)} {}

  size_t room() const override { return work_.layer.num_inputs * kSide * kOutputsAtOnce * kSide * kBlock; }

  void operator()(const float* input, const float* grad, int64_t begin, int64_t end, float* sums,
                  float* room) const override {
    run_(work_, input, grad, end - begin, sums, room);
  }

 private:
  Work work_;
  void (*run_)(const Work&, const float*, const float*, int64_t, float*, float*) = LTH_OF_THIS_CPU(rows);
};

}  // namespace

std::unique_ptr<WeightGradientRows> dense_weight_gradient_rows(const ConvolutionShape& shape,
                                                               const Strides& strides) {
  return std::make_unique<DenseWeightGradientRows>(shape, strides);
}

}  // namespace lth
