// A band of tiles at a time, neighbours in a row, then in the next row, then in the next block: their input
// is transformed for all channels, one matrix product for each of the 36 positions of a tile sums over the
// channels, and the sums are transformed back. One position's operands stay in the L1 cache.
#include "winograd.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "cpu/conv/image_blocks.h"
#include "cpu/scratch.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kBandVectors = 64;  // of one position's input: tiles of a band times input channels
constexpr int64_t kSums = 4;          // output channels, and tiles, that a product sums at once
constexpr int64_t kPixels = 4;        // of a tile's output, in each direction
constexpr int64_t kSide = 6;          // of a transformed tile
constexpr int64_t kPositions = kSide * kSide;
constexpr int64_t kFilters = 4096;  // whose transform is worth a thread

// Polynomials are interpolated at 0, +-kA, +-kB and infinity, their products exact in float32. Of the points
// with four bits these make the smallest errors: a third of the root mean square that 1 and 2 make.
constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

// From a position's values to the next one's: their number is a power of two mostly, which would put what is
// read or written together into one set of the L1 cache.
LTH_INLINE int64_t filter_stride(const WinogradConvolution& layer) {
  return layer.num_outputs * layer.num_inputs + kBlock;
}
LTH_INLINE int64_t stride_of(int64_t channels, int64_t tiles) { return channels * tiles + 1; }

struct Shape {
  // In vectors of 16 images.
  int64_t row, plane, in_block, out_block;
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

// out[i] = row i of G w.
LTH_INLINE void transform_filter(const Images w[3], Images out[kSide]) {
  constexpr float by_a = 1 / (2 * kA2 * (kA2 - kB2)), by_b = 1 / (2 * kB2 * (kB2 - kA2));
  const Images even_a = by_a * w[0] + by_a * kA2 * w[2], odd_a = by_a * kA * w[1];
  const Images even_b = by_b * w[0] + by_b * kB2 * w[2], odd_b = by_b * kB * w[1];
  out[0] = 1 / (kA2 * kB2) * w[0];
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = w[2];
}

// `lanes` filters [lanes][3][3] as G w G', the first position's at `transformed`, `position` apart.
template <int64_t kLanes>
LTH_INLINE void transform_lanes(const float* weight, int64_t lanes, int64_t position,
                                float* __restrict__ transformed) {
  const int64_t count = kLanes ? kLanes : lanes;
  float filter[9][kBlock] = {};
  for (int64_t lane = 0; lane < count; ++lane)
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) filter[i][lane] = weight[9 * lane + i];
  Images rows[kSide][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    Images column[3], result[kSide];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) std::memcpy(&column[i], filter[3 * i + j], sizeof(Images));
    transform_filter(column, result);
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) rows[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kSide; ++i) {
    Images result[kSide];
    transform_filter(rows[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j)
      std::memcpy(transformed + (kSide * i + j) * position, &result[j], count * sizeof(float));
  }
}

// transformed [36][num_outputs][num_inputs] = G w G' of the filters w of output channels [begin, end).
LTH_INLINE void transform_filters(const WinogradConvolution& layer, int64_t begin, int64_t end,
                                  float* transformed) {
  const int64_t position = filter_stride(layer);
  const int64_t last = end * layer.num_inputs;
  int64_t i = begin * layer.num_inputs;
  for (; i + kBlock <= last; i += kBlock)
    transform_lanes<kBlock>(layer.weight + 9 * i, kBlock, position, transformed + i);
  if (i < last) transform_lanes<0>(layer.weight + 9 * i, last - i, position, transformed + i);
}

// out[i] = row i of B' d for a row or a column d of a tile's input.
LTH_INLINE void transform(const Images d[kSide], Images out[kSide]) {
  const Images even_a = d[4] - kB2 * d[2], odd_a = d[3] - kB2 * d[1];
  const Images even_b = d[4] - kA2 * d[2], odd_b = d[3] - kA2 * d[1];
  out[0] = (d[4] - (kA2 + kB2) * d[2]) + kA2 * kB2 * d[0];
  out[1] = even_a + kA * odd_a;
  out[2] = even_a - kA * odd_a;
  out[3] = even_b + kB * odd_b;
  out[4] = even_b - kB * odd_b;
  out[5] = (d[5] - (kA2 + kB2) * d[3]) + kA2 * kB2 * d[1];
}

// out[i] = row i of A' m.
LTH_INLINE void transform_back(const Images m[kSide], Images out[kPixels]) {
  const Images even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
  out[0] = m[0] + even_a + even_b;
  out[1] = kA * odd_a + kB * odd_b;
  out[2] = kA2 * even_a + kB2 * even_b;
  out[3] = kA * kA2 * odd_a + (kB * kB2 * odd_b + m[5]);
}

// transformed [36][num_inputs][tiles] = B' d B of every tile d of a run; `room` holds a row of B' d, all of
// its columns.
LTH_INLINE void transform_input(const WinogradConvolution& layer, const Shape& s, const Run& run,
                                int64_t tiles, Images* __restrict__ transformed, Images* __restrict__ room) {
  const Images* start = reinterpret_cast<const Images*>(layer.input) + run.block * s.in_block +
                        run.pixels.y * s.row + run.pixels.x;
  const int64_t position = stride_of(layer.num_inputs, tiles);
  const int64_t columns = kPixels * run.tiles + 2;
  int64_t rows[kSide];
  for (int64_t i = 0; i < kSide; ++i) rows[i] = std::min(i, run.pixels.rows + 1) * s.row;
  for (int64_t c = 0; c < layer.num_inputs; ++c) {
    const Images* d = start + c * s.plane;
    for (int64_t x = 0; x < columns; ++x) {
      const Images* from = d + std::min(x, run.pixels.columns + 1);
      Images column[kSide], result[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = from[rows[i]];
      transform(column, result);
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) room[i * s.columns + x] = result[i];
    }
    Images* out = transformed + c * tiles + run.first;
    for (int64_t i = 0; i < kSide; ++i)
      for (int64_t t = 0; t < run.tiles; ++t) {
        Images result[kSide];
        transform(room + i * s.columns + kPixels * t, result);
#pragma GCC unroll 6
        for (int64_t j = 0; j < kSide; ++j) out[(kSide * i + j) * position + t] = result[j];
      }
  }
}

// sums [kOutputs][tiles] = weight [kOutputs][num_inputs] times input [num_inputs][tiles], kTiles of the
// tiles.
template <int kOutputs, int kTiles>
LTH_INLINE void multiply(const float* weight, const Images* __restrict__ input, int64_t num_inputs,
                         int64_t tiles, Images* __restrict__ sums) {
  Images sum[kOutputs][kTiles] = {};
  for (int64_t c = 0; c < num_inputs; ++c) {
    const Images* from = input + c * tiles;
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const float w = weight[o * num_inputs + c];
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) sum[o][t] += w * from[t];
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o)
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) sums[o * tiles + t] = sum[o][t];
}

template <int kOutputs>
LTH_INLINE void multiply_outputs(const float* weight, const Images* input, int64_t num_inputs, int64_t tiles,
                                 Images* sums) {
  int64_t t = 0;
  for (; t + kSums <= tiles; t += kSums)
    multiply<kOutputs, kSums>(weight, input + t, num_inputs, tiles, sums + t);
  for (; t < tiles; ++t) multiply<kOutputs, 1>(weight, input + t, num_inputs, tiles, sums + t);
}

// summed [36][num_outputs][tiles]: for each position the product of its weights and its input.
LTH_INLINE void multiply_positions(const WinogradConvolution& layer, const float* filters, int64_t tiles,
                                   const Images* transformed, Images* summed) {
  const int64_t inputs = layer.num_inputs, outputs = layer.num_outputs;
  for (int64_t p = 0; p < kPositions; ++p) {
    const float* weight = filters + p * filter_stride(layer);
    const Images* input = transformed + p * stride_of(inputs, tiles);
    Images* sums = summed + p * stride_of(outputs, tiles);
    int64_t o = 0;
    for (; o + kSums <= outputs; o += kSums)
      multiply_outputs<kSums>(weight + o * inputs, input, inputs, tiles, sums + o * tiles);
    for (; o < outputs; ++o) multiply_outputs<1>(weight + o * inputs, input, inputs, tiles, sums + o * tiles);
  }
}

// The output's pixels of every tile of a run, A' m A, with bias and what else follows.
LTH_INLINE void transform_output(const WinogradConvolution& layer, const Shape& s, const Run& run,
                                 int64_t tiles, const Images* __restrict__ summed) {
  const int64_t position = stride_of(layer.num_outputs, tiles);
  const int64_t start = run.block * s.out_block + (run.pixels.y + 1) * s.row + run.pixels.x + 1;
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    clear_border(reinterpret_cast<Images*>(layer.output) + run.block * s.out_block + o * s.plane,
                 layer.height, layer.width, run.pixels);
    const Images* m = summed + o * tiles + run.first;
    const Images bias = layer.bias[o] - Images{};
    for (int64_t t = 0; t < run.tiles; ++t) {
      Images rows[kPixels][kSide];
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) {
        Images column[kSide], result[kPixels];
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) column[i] = m[(kSide * i + j) * position + t];
        transform_back(column, result);
#pragma GCC unroll 4
        for (int i = 0; i < kPixels; ++i) rows[i][j] = result[i];
      }
      const int64_t at = start + o * s.plane + kPixels * t;
      Images* out = reinterpret_cast<Images*>(layer.output) + at;
      const Images* other = layer.other ? reinterpret_cast<const Images*>(layer.other) + at : nullptr;
      const int64_t columns = std::min(kPixels, run.pixels.columns - kPixels * t);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kPixels; ++i) {
        if (i == run.pixels.rows) break;
        Images pixels[kPixels];
        transform_back(rows[i], pixels);
#pragma GCC unroll 4
        for (int64_t j = 0; j < kPixels; ++j) {
          if (j == columns) break;
          const int64_t pixel = i * s.row + j;
          out[pixel] = finish(pixels[j] + bias, other ? other + pixel : nullptr, layer.relu);
        }
      }
    }
  }
}

LTH_INLINE void convolve(const WinogradConvolution& layer, const Shape& s, const float* filters,
                         int64_t begin, int64_t tiles, Images* scratch) {
  Images* summed = scratch + kPositions * stride_of(layer.num_inputs, s.tiles);
  Images* room = summed + kPositions * stride_of(layer.num_outputs, s.tiles);
  for (int64_t t = 0; t < tiles;) {
    const Run run = run_at(layer, s, begin, t, tiles);
    transform_input(layer, s, run, tiles, scratch, room);
    t += run.tiles;
  }
  multiply_positions(layer, filters, tiles, scratch, summed);
  for (int64_t t = 0; t < tiles;) {
    const Run run = run_at(layer, s, begin, t, tiles);
    transform_output(layer, s, run, tiles, summed);
    t += run.tiles;
  }
}

struct Functions {
  void (*transform_filters)(const WinogradConvolution&, int64_t begin, int64_t end, float* transformed);
  void (*convolve)(const WinogradConvolution&, const Shape&, const float* filters, int64_t begin,
                   int64_t tiles, Images* scratch);
};

#define LTH_FUNCTIONS(isa, target)                                                                     \
  target void filters_##isa(const WinogradConvolution& layer, int64_t begin, int64_t end, float* to) { \
    transform_filters(layer, begin, end, to);                                                          \
  }                                                                                                    \
  target void convolve_##isa(const WinogradConvolution& layer, const Shape& s, const float* filters,   \
                             int64_t begin, int64_t tiles, Images* scratch) {                          \
    convolve(layer, s, filters, begin, tiles, scratch);                                                \
  }
LTH_FUNCTIONS(base, )
#if LTH_X86
LTH_FUNCTIONS(v3, LTH_TARGET_V3)
LTH_FUNCTIONS(v4, LTH_TARGET_V4)
#endif
#undef LTH_FUNCTIONS

Functions for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return {filters_v4, convolve_v4};
  if (detected_isa() == Isa::kV3) return {filters_v3, convolve_v3};
#endif
  return {filters_base, convolve_base};
}

}  // namespace

void winograd_convolution_cpu(const WinogradConvolution& layer) {
  const Functions functions = for_this_cpu();
  Shape s{};
  s.row = layer.width + 2;
  s.plane = (layer.height + 2) * s.row;
  s.in_block = layer.num_inputs * s.plane;
  s.out_block = layer.num_outputs * s.plane;
  s.across = (layer.width + kPixels - 1) / kPixels;
  s.down = (layer.height + kPixels - 1) / kPixels;
  const int64_t count = layer.num_blocks * s.down * s.across;
  const int64_t fit = std::max<int64_t>(kSums, kBandVectors / layer.num_inputs / kSums * kSums);
  s.tiles = std::min(count, fit);
  s.columns = kPixels * std::min(s.tiles, s.across) + 2;
  const Scratch filters(kPositions * filter_stride(layer) * sizeof(float), 0);
  auto* transformed = static_cast<float*>(filters.data());
  auto transform = [&](int64_t begin, int64_t end) {
    functions.transform_filters(layer, begin, end, transformed);
  };
  parallel_for(layer.num_outputs, kFilters / layer.num_inputs + 1, transform);
  // A thread begins with its own bands, whose input it wrote, and then takes what others have not begun.
  const int64_t bands = (count + s.tiles - 1) / s.tiles;
  std::vector<std::atomic<bool>> taken(bands);
  auto body = [&](int64_t begin, int64_t) {
    const size_t vectors =
        kPositions * (stride_of(layer.num_inputs, s.tiles) + stride_of(layer.num_outputs, s.tiles)) +
        kSide * s.columns;
    const Scratch scratch(vectors * sizeof(Images), 0);
    for (int64_t k = begin; k < begin + bands; ++k) {
      const int64_t i = k % bands;
      if (taken[i].exchange(true, std::memory_order_relaxed)) continue;
      functions.convolve(layer, s, transformed, i * s.tiles, std::min(s.tiles, count - i * s.tiles),
                         static_cast<Images*>(scratch.data()));
    }
  };
  parallel_for(bands, 1, body);
}

}  // namespace lth
