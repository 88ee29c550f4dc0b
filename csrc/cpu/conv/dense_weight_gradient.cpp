// The gradient of all weights of 3x3 filters: of four output channels and a row of three taps at a time,
// whose sums stay in registers while the pixels of a band of rows go by.
#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/conv/image_blocks.h"
#include "cpu/conv/sum_blocks.h"
#include "cpu/conv/taps.h"
#include "cpu/scratch.h"
#include "sparse_convolution.h"

// Sums over pixels round differently in every implementation anyway, so fma is allowed.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int kSide = 3;
constexpr int64_t kOutputsAtOnce = 4;
constexpr int64_t kBandPixels = 64;  // whose gradients, of four channels, fill half of an L1 cache

struct Work {
  DenseWeightGradient layer;
  Strides strides;
  int64_t fours;   // groups of output channels, the last perhaps smaller
  int64_t rows;    // of a band
  float* partial;  // [num_blocks, num_outputs, num_inputs, 3, 3]
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
LTH_INLINE void sum_outputs(const Work& w, int64_t block, int64_t first, V* sums) {
  const DenseWeightGradient& layer = w.layer;
  const Strides& t = w.strides;
  const int64_t each = kOutputs * kSide;
  std::fill(sums, sums + layer.num_inputs * kSide * each, V{});
  const float* grad = layer.grad + (block * t.out_block + first * t.out_plane + t.out_row + 1) * kBlock;
  for (int64_t y = 0; y < layer.out_height; y += w.rows)
    for (int64_t c = 0; c < layer.num_inputs; ++c)
      for (int64_t row = 0; row < kSide; ++row) {
        const int64_t from = block * t.in_block + c * t.in_plane + (y * layer.stride + row) * t.in_row;
        sum_band<V, kOutputs>(layer.input + from * kBlock, grad + y * t.out_row * kBlock,
                              std::min(w.rows, layer.out_height - y), w, sums + (c * kSide + row) * each);
      }
  constexpr int64_t kLanes = kBlock / kParts<V>;
  const float* sum = reinterpret_cast<const float*>(sums);
  for (int64_t c = 0; c < layer.num_inputs; ++c)
    for (int64_t row = 0; row < kSide; ++row)
      for (int64_t o = 0; o < kOutputs; ++o)
        for (int64_t k = 0; k < kSide; ++k, sum += kLanes) {
          const int64_t filter = (block * layer.num_outputs + first + o) * layer.num_inputs + c;
          w.partial[(filter * kSide + row) * kSide + k] = sum_lanes<kLanes>(sum);
        }
}

// Items: four output channels of a block.
template <class V>
LTH_INLINE void sum_items(const Work& w, int64_t begin, int64_t end) {
  const Scratch scratch(w.layer.num_inputs * kSide * kOutputsAtOnce * kSide * sizeof(V), 0);
  auto* sums = static_cast<V*>(scratch.data());
  for (int64_t item = begin; item < end; ++item) {
    const int64_t block = item / w.fours, first = item % w.fours * kOutputsAtOnce;
    const int64_t count = std::min(kOutputsAtOnce, w.layer.num_outputs - first);
    if (count == kOutputsAtOnce) {
      sum_outputs<V, kOutputsAtOnce>(w, block, first, sums);
    } else {
      for (int64_t o = 0; o < count; ++o) sum_outputs<V, 1>(w, block, first + o, sums);
    }
  }
}

LTH_FOR_EACH_ISA(items, sum_items, (const Work& w, int64_t begin, int64_t end), (w, begin, end))

}  // namespace

void dense_weight_gradient_cpu(const DenseWeightGradient& layer) {
  Work w{layer, strides_of(layer), (layer.num_outputs + kOutputsAtOnce - 1) / kOutputsAtOnce,
         std::max<int64_t>(1, kBandPixels / layer.out_width), nullptr};
  const int64_t count = layer.num_outputs * layer.num_inputs * kSide * kSide;
  std::vector<float> partial(layer.num_blocks * count);
  w.partial = partial.data();
  const auto run = LTH_OF_THIS_CPU(items);
  auto body = [&](int64_t begin, int64_t end) { run(w, begin, end); };
  parallel_for(layer.num_blocks * w.fours, 1, body);
  sum_blocks(w.partial, layer.num_blocks, count, layer.output);
}

}  // namespace lth
