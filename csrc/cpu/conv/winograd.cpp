// A band of tiles at a time, neighbours in a row, then in the next row, then in the next block: their input
// is transformed for all channels, one matrix product for each of the 36 positions of a tile sums over the
// channels, and the sums are transformed back. One position's operands stay in the L1 cache.
#include "winograd.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "cpu/conv/rows.h"
#include "cpu/conv/winograd_transforms.h"
#include "cpu/scratch.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kBandVectors = 64;  // of one position's input: tiles of a band times input channels
constexpr int64_t kSums = 4;          // output channels, and tiles, that a product sums at once
constexpr int64_t kFilters = 4096;    // whose transform is worth a thread

// From a position's values to the next one's: their number is a power of two mostly, which would put what is
// read or written together into one set of the L1 cache.
LTH_INLINE int64_t filter_stride(const WinogradConvolution& layer) {
  return layer.num_outputs * layer.num_inputs + kBlock;
}
LTH_INLINE int64_t stride_of(int64_t channels, int64_t width, int64_t parts = 1) {
  return channels * width + parts;
}

struct Shape {
  // In blocks of 16 images.
  int64_t row, in_plane, out_plane, in_block, out_block;
  int64_t first_row;     // of a block's output, that the operands begin with
  bool clears;           // whether the border is written
  int64_t across, down;  // tiles of a plane
  int64_t tiles;         // of a band
  int64_t columns;       // that the tiles of a band in one row read
};

// Tiles of a band that lie side by side. Those at the end of a plane whose sides are no multiples of 4 reach
// over its edge: what they would read there has no part in the pixels that exist, so that any other pixel is
// read in its place, and what is not there is not written.
struct Run {
  int64_t block;
  Pixels pixels;  // of the output, those that exist
  int64_t first;  // its place in the band
  int64_t tiles;
};

// The run that a band of `tiles` tiles from tile `begin` on has at its tile t.
LTH_INLINE Run run_at(const WinogradConvolution& layer, const Shape& s, int64_t begin, int64_t t,
                      int64_t tiles) {
  const int64_t tile = begin + t, x = tile % s.across, y = tile / s.across % s.down;
  const int64_t count = std::min(tiles - t, s.across - x);
  const Pixels pixels{kPixels * y, kPixels * x, std::min(kPixels, layer.height - kPixels * y),
                      std::min(kPixels * count, layer.width - kPixels * x)};
  return {tile / s.across / s.down, pixels, t, count};
}

// transformed [36][num_outputs][num_inputs] = G w G' of the filters w of output channels [begin, end).
template <class V>
LTH_INLINE void transform_filters(const WinogradConvolution& layer, int64_t begin, int64_t end,
                                  float* transformed) {
  const int64_t position = filter_stride(layer);
  const int64_t last = end * layer.num_inputs;
  int64_t i = begin * layer.num_inputs;
  constexpr int64_t kLanes = kBlock / kParts<V>;
  for (; i + kLanes <= last; i += kLanes)
    transform_lanes<V, true>(layer.weight + 9 * i, kLanes, position, transformed + i);
  if (i < last) transform_lanes<V, false>(layer.weight + 9 * i, last - i, position, transformed + i);
}

// transformed [36][num_inputs][tiles] = B' d B of every tile d of a run; `room` holds a row of B' d, all of
// its columns.
template <class V>
LTH_INLINE void transform_input(const WinogradConvolution& layer, const Shape& s, const Run& run,
                                int64_t tiles, V* __restrict__ transformed, V* __restrict__ room) {
  constexpr int64_t parts = kParts<V>;
  const int64_t y = run.pixels.y - s.first_row;
  const float* start = layer.input + (run.block * s.in_block + y * s.row + run.pixels.x) * kBlock;
  const int64_t position = stride_of(layer.num_inputs, tiles * parts, parts);
  const int64_t columns = kPixels * run.tiles + 2;
  int64_t rows[kSide];
  for (int64_t i = 0; i < kSide; ++i) rows[i] = std::min(i, run.pixels.rows + 1) * s.row;
  for (int64_t c = 0; c < layer.num_inputs; ++c) {
    for (int64_t x = 0; x < columns; ++x) {
      const int64_t from = c * s.in_plane + std::min(x, run.pixels.columns + 1);
      for (int64_t p = 0; p < parts; ++p) {
        V column[kSide], result[kSide];
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) column[i] = at<V>(start, from + rows[i])[p];
        transform(column, result);
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) room[(i * parts + p) * s.columns + x] = result[i];
      }
    }
    V* out = transformed + (c * tiles + run.first) * parts;
    for (int64_t i = 0; i < kSide; ++i)
      for (int64_t t = 0; t < run.tiles; ++t)
        for (int64_t p = 0; p < parts; ++p) {
          V result[kSide];
          transform(room + (i * parts + p) * s.columns + kPixels * t, result);
#pragma GCC unroll 6
          for (int64_t j = 0; j < kSide; ++j) out[(kSide * i + j) * position + t * parts + p] = result[j];
        }
  }
}

// sums [kOutputs][width] = weight [kOutputs][num_inputs] times input [num_inputs][width], kAtOnce vectors of
// the width.
template <class V, int kOutputs, int kAtOnce>
LTH_INLINE void multiply(const float* weight, const V* __restrict__ input, int64_t num_inputs, int64_t width,
                         V* __restrict__ sums) {
  V sum[kOutputs][kAtOnce] = {};
  for (int64_t c = 0; c < num_inputs; ++c) {
    const V* from = input + c * width;
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const float w = weight[o * num_inputs + c];
#pragma GCC unroll 8
      for (int t = 0; t < kAtOnce; ++t) sum[o][t] += w * from[t];
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o)
#pragma GCC unroll 8
    for (int t = 0; t < kAtOnce; ++t) sums[o * width + t] = sum[o][t];
}

template <class V, int kOutputs>
LTH_INLINE void multiply_outputs(const float* weight, const V* input, int64_t num_inputs, int64_t width,
                                 V* sums) {
  constexpr int kAtOnce = kParts<V> == 1 ? kSums : 2;  // 16 sums of AVX-512's registers, 8 of the others'
  int64_t t = 0;
  for (; t + kAtOnce <= width; t += kAtOnce)
    multiply<V, kOutputs, kAtOnce>(weight, input + t, num_inputs, width, sums + t);
  for (; t < width; ++t) multiply<V, kOutputs, 1>(weight, input + t, num_inputs, width, sums + t);
}

// summed [36][num_outputs][width]: for each position the product of its weights and its input, of tiles times
// parts of a block.
template <class V>
LTH_INLINE void multiply_positions(const WinogradConvolution& layer, const float* filters, int64_t width,
                                   const V* transformed, V* summed) {
  const int64_t inputs = layer.num_inputs, outputs = layer.num_outputs;
  for (int64_t p = 0; p < kPositions; ++p) {
    const float* weight = filters + p * filter_stride(layer);
    const V* input = transformed + p * stride_of(inputs, width, kParts<V>);
    V* sums = summed + p * stride_of(outputs, width, kParts<V>);
    int64_t o = 0;
    for (; o + kSums <= outputs; o += kSums)
      multiply_outputs<V, kSums>(weight + o * inputs, input, inputs, width, sums + o * width);
    for (; o < outputs; ++o)
      multiply_outputs<V, 1>(weight + o * inputs, input, inputs, width, sums + o * width);
  }
}

// The output's pixels of every tile of a run, A' m A, with bias and what else follows.
template <class V>
LTH_INLINE void transform_output(const WinogradConvolution& layer, const Shape& s, const Run& run,
                                 int64_t tiles, const V* __restrict__ summed) {
  constexpr int64_t parts = kParts<V>;
  const int64_t position = stride_of(layer.num_outputs, tiles * parts, parts);
  const int64_t y = run.pixels.y - s.first_row;
  const int64_t start = run.block * s.out_block + (y + 1) * s.row + run.pixels.x + 1;
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    if (s.clears)
      clear_border(layer.output + (run.block * s.out_block + o * s.out_plane) * kBlock, layer.height,
                   layer.width, run.pixels);
    const V* m = summed + (o * tiles + run.first) * parts;
    const V bias = (layer.bias ? layer.bias[o] : 0) - V{};
    for (int64_t t = 0; t < run.tiles; ++t) {
      const int64_t pixel = start + o * s.out_plane + kPixels * t;
      const int64_t columns = std::min(kPixels, run.pixels.columns - kPixels * t);
      for (int64_t p = 0; p < parts; ++p) {
        V rows[kPixels][kSide];
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) {
          V column[kSide], result[kPixels];
#pragma GCC unroll 6
          for (int i = 0; i < kSide; ++i) column[i] = m[(kSide * i + j) * position + t * parts + p];
          transform_back(column, result);
#pragma GCC unroll 4
          for (int i = 0; i < kPixels; ++i) rows[i][j] = result[i];
        }
        V* out = reinterpret_cast<V*>(layer.output + pixel * kBlock) + p;
        const V* residual = layer.residual ? at<V>(layer.residual, pixel) + p : nullptr;
#pragma GCC unroll 4
        for (int64_t i = 0; i < kPixels; ++i) {
          if (i == run.pixels.rows) break;
          V pixels[kPixels];
          transform_back(rows[i], pixels);
#pragma GCC unroll 4
          for (int64_t j = 0; j < kPixels; ++j) {
            if (j == columns) break;
            const int64_t next = (i * s.row + j) * parts;
            out[next] = finish(pixels[j] + bias, residual ? residual + next : nullptr, layer.relu);
          }
        }
      }
    }
  }
}

template <class V>
LTH_INLINE void convolve(const WinogradConvolution& layer, const Shape& s, const float* filters,
                         int64_t begin, int64_t tiles, float* scratch) {
  constexpr int64_t parts = kParts<V>;
  V* transformed = reinterpret_cast<V*>(scratch);
  V* summed = transformed + kPositions * stride_of(layer.num_inputs, s.tiles * parts, parts);
  V* room = summed + kPositions * stride_of(layer.num_outputs, s.tiles * parts, parts);
  for (int64_t t = 0; t < tiles;) {
    const Run run = run_at(layer, s, begin, t, tiles);
    transform_input(layer, s, run, tiles, transformed, room);
    t += run.tiles;
  }
  multiply_positions(layer, filters, tiles * parts, transformed, summed);
  for (int64_t t = 0; t < tiles;) {
    const Run run = run_at(layer, s, begin, t, tiles);
    transform_output(layer, s, run, tiles, summed);
    t += run.tiles;
  }
}

LTH_FOR_EACH_ISA(transform_filters, transform_filters,
                 (const WinogradConvolution& layer, int64_t begin, int64_t end, float* transformed),
                 (layer, begin, end, transformed))
LTH_FOR_EACH_ISA(convolve, convolve,
                 (const WinogradConvolution& layer, const Shape& s, const float* filters, int64_t begin,
                  int64_t tiles, float* scratch),
                 (layer, s, filters, begin, tiles, scratch))

// So many tiles at once that a band's operands fit the caches; for `count` tiles.
Shape shape_of(const WinogradConvolution& layer, const Strides& t, int64_t count) {
  Shape s{t.in_row, t.in_plane, t.out_plane, t.in_block, t.out_block};
  s.across = (layer.width + kPixels - 1) / kPixels;
  s.down = (layer.height + kPixels - 1) / kPixels;
  const int64_t fit = std::max<int64_t>(kSums, kBandVectors / layer.num_inputs / kSums * kSums);
  s.tiles = std::min(count ? count : s.across * s.down, fit);
  s.columns = kPixels * std::min(s.tiles, s.across) + 2;
  return s;
}

size_t room_of(const WinogradConvolution& layer, const Shape& s) {
  const size_t vectors =
      kPositions * (stride_of(layer.num_inputs, s.tiles) + stride_of(layer.num_outputs, s.tiles)) +
      kSide * s.columns;
  return vectors * kBlock;
}

void transform_all(const WinogradConvolution& layer, float* transformed) {
  const auto transform_some = LTH_OF_THIS_CPU(transform_filters);
  auto body = [&](int64_t begin, int64_t end) { transform_some(layer, begin, end, transformed); };
  parallel_for(layer.num_outputs, kFilters / layer.num_inputs + 1, body);
}

WinogradConvolution layer_of(const ConvolutionShape& shape, const float* weight) {
  WinogradConvolution layer{};
  layer.weight = weight;
  layer.num_inputs = shape.num_inputs;
  layer.height = shape.height;
  layer.width = shape.width;
  layer.num_outputs = shape.num_outputs;
  layer.num_blocks = 1;
  return layer;
}

class WinogradRows : public ConvolutionRows {
 public:
  WinogradRows(const WinogradConvolution& layer, const Strides& strides)
      : layer_(layer),
        shape_(shape_of(layer, strides, 0)),
        filters_(kPositions * filter_stride(layer) * sizeof(float), 0) {
    transform_all(layer, static_cast<float*>(filters_.data()));
  }

  size_t room() const override { return room_of(layer_, shape_); }

  void operator()(const float* input, float* output, int64_t begin, int64_t end, float* room) const override {
    WinogradConvolution layer = layer_;
    layer.input = input;
    layer.output = output;
    Shape shape = shape_;
    shape.first_row = begin;
    const int64_t last = (std::min(end, layer.height) + kPixels - 1) / kPixels * shape.across;
    for (int64_t tile = begin / kPixels * shape.across; tile < last; tile += shape.tiles)
      run_(layer, shape, static_cast<const float*>(filters_.data()), tile, std::min(shape.tiles, last - tile),
           room);
  }

 private:
  WinogradConvolution layer_;
  Shape shape_;
  Scratch filters_;
  void (*run_)(const WinogradConvolution&, const Shape&, const float*, int64_t, int64_t,
               float*) = LTH_OF_THIS_CPU(convolve);
};

}  // namespace

std::unique_ptr<ConvolutionRows> winograd_rows(const ConvolutionShape& shape, const Strides& strides,
                                               const float* weight) {
  return std::make_unique<WinogradRows>(layer_of(shape, weight), strides);
}

void winograd_convolution_cpu(const WinogradConvolution& layer) {
  const auto convolve_band = LTH_OF_THIS_CPU(convolve);
  ConvolutionShape sizes{};
  sizes.num_inputs = layer.num_inputs;
  sizes.num_outputs = layer.num_outputs;
  sizes.height = sizes.out_height = layer.height;
  sizes.width = sizes.out_width = layer.width;
  const int64_t side = (layer.height + kPixels - 1) / kPixels * ((layer.width + kPixels - 1) / kPixels);
  const int64_t count = layer.num_blocks * side;
  Shape s = shape_of(layer, strides_of(sizes), count);
  s.clears = true;
  const Scratch filters(kPositions * filter_stride(layer) * sizeof(float), 0);
  auto* transformed = static_cast<float*>(filters.data());
  transform_all(layer, transformed);
  // A thread begins with its own bands, whose input it wrote, and then takes what others have not begun.
  const int64_t bands = (count + s.tiles - 1) / s.tiles;
  std::vector<std::atomic<bool>> taken(bands);
  auto body = [&](int64_t begin, int64_t) {
    const Scratch room(room_of(layer, s) * sizeof(float), 0);
    for (int64_t k = begin; k < begin + bands; ++k) {
      const int64_t i = k % bands;
      if (taken[i].exchange(true, std::memory_order_relaxed)) continue;
      convolve_band(layer, s, transformed, i * s.tiles, std::min(s.tiles, count - i * s.tiles),
                    static_cast<float*>(room.data()));
    }
  };
  parallel_for(bands, 1, body);
}

}  // namespace lth
