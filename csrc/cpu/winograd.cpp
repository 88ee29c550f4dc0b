// A band of tiles at a time, a row of the plane or a piece of one: its input is transformed for all channels,
// one matrix product for each of the 16 positions of a tile sums over the channels, and the sums are
// transformed back. What a band needs stays in the L2 cache, one position's operands in L1.
#include "../common/winograd.h"

#include <algorithm>

#include "../common/isa.h"
#include "../common/parallel.h"
#include "image_blocks.h"
#include "scratch.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "../common/contract.h"

namespace lth {
namespace {

constexpr int64_t kBandVectors = 256;  // of one position's input: tiles of a band times input channels
constexpr int64_t kSums = 4;           // output channels, and tiles, that a product sums at once

// From a position's vectors to the next one's: channels times tiles, a power of two mostly, would put what is
// read or written together into one set of the L1 cache.
LTH_INLINE int64_t stride_of(int64_t channels, int64_t tiles) { return channels * tiles + 1; }

struct Shape {
  // In vectors of 16 images.
  int64_t row, plane, in_block, out_block;
  int64_t tiles;  // of a band
};

// The tiles of an odd plane's last row or column reach over its edge. What they would read there has no part
// in the pixels that exist: any other pixel is read in its place, and what is not there is not written.
struct Band {
  int64_t block, y, x;  // of the band's first output pixel
  int64_t tiles;
  int64_t num_rows;  // that exist, of its two
  bool cut;          // whether its last tile has one column
};

// columns[i] = row i of B' d for one column d of a tile's input, with `row` between its first three pixels.
LTH_INLINE void transform_column(const Images* d, int64_t row, int64_t last, Images columns[4]) {
  const Images d0 = d[0], d1 = d[row], d2 = d[2 * row], d3 = d[last];
  columns[0] = d0 - d2;
  columns[1] = d1 + d2;
  columns[2] = d2 - d1;
  columns[3] = d1 - d3;
}

// transformed [16][num_inputs][tiles] = B' d B of every tile d; neighbours share two of their four columns.
LTH_INLINE void transform_input(const WinogradConvolution& layer, const Shape& s, const Band& band,
                                Images* __restrict__ transformed) {
  const Images* start =
      reinterpret_cast<const Images*>(layer.input) + band.block * s.in_block + band.y * s.row + band.x;
  const int64_t position = stride_of(layer.num_inputs, band.tiles), last = (band.num_rows + 1) * s.row;
  for (int64_t c = 0; c < layer.num_inputs; ++c) {
    const Images* d = start + c * s.plane;
    Images* out = transformed + c * band.tiles;
    Images columns[4][4];
    transform_column(d, s.row, last, columns[0]);
    transform_column(d + 1, s.row, last, columns[1]);
    for (int64_t t = 0; t < band.tiles; ++t) {
      const bool cut = band.cut && t + 1 == band.tiles;
      transform_column(d + 2 * t + 2, s.row, last, columns[2]);
      transform_column(d + 2 * t + (cut ? 2 : 3), s.row, last, columns[3]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        out[(4 * i + 0) * position + t] = columns[0][i] - columns[2][i];
        out[(4 * i + 1) * position + t] = columns[1][i] + columns[2][i];
        out[(4 * i + 2) * position + t] = columns[2][i] - columns[1][i];
        out[(4 * i + 3) * position + t] = columns[1][i] - columns[3][i];
        columns[0][i] = columns[2][i];
        columns[1][i] = columns[3][i];
      }
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

// summed [16][num_outputs][tiles]: for each position the product of its weights and its input.
LTH_INLINE void multiply_positions(const WinogradConvolution& layer, int64_t tiles, const Images* transformed,
                                   Images* summed) {
  const int64_t inputs = layer.num_inputs, outputs = layer.num_outputs;
  for (int64_t p = 0; p < kWinogradPositions; ++p) {
    const float* weight = layer.weight + p * outputs * inputs;
    const Images* input = transformed + p * stride_of(inputs, tiles);
    Images* sums = summed + p * stride_of(outputs, tiles);
    int64_t o = 0;
    for (; o + kSums <= outputs; o += kSums)
      multiply_outputs<kSums>(weight + o * inputs, input, inputs, tiles, sums + o * tiles);
    for (; o < outputs; ++o) multiply_outputs<1>(weight + o * inputs, input, inputs, tiles, sums + o * tiles);
  }
}

// The output's 2x2 pixels of every tile, A' m A, with bias and what else follows.
LTH_INLINE void transform_output(const WinogradConvolution& layer, const Shape& s, const Band& band,
                                 const Images* __restrict__ summed) {
  const int64_t position = stride_of(layer.num_outputs, band.tiles);
  const int64_t start = band.block * s.out_block + (band.y + 1) * s.row + band.x + 1;
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    const Images* m = summed + o * band.tiles;
    const Images bias = layer.bias[o] - Images{};
    const int64_t at = start + o * s.plane;
    Images* out = reinterpret_cast<Images*>(layer.output) + at;
    const Images* other = layer.other ? reinterpret_cast<const Images*>(layer.other) + at : nullptr;
    for (int64_t t = 0; t < band.tiles; ++t) {
      Images rows[2][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Images m0 = m[j * position + t], m1 = m[(4 + j) * position + t], m2 = m[(8 + j) * position + t],
                     m3 = m[(12 + j) * position + t];
        rows[0][j] = m0 + m1 + m2;
        rows[1][j] = m1 - m2 - m3;
      }
      const bool cut = band.cut && t + 1 == band.tiles;
      for (int64_t i = 0; i < band.num_rows; ++i) {
        const int64_t pixel = i * s.row + 2 * t;
        const Images even = rows[i][0] + rows[i][1] + rows[i][2] + bias;
        const Images odd = rows[i][1] - rows[i][2] - rows[i][3] + bias;
        out[pixel] = finish(even, other ? other + pixel : nullptr, layer.rectified);
        if (!cut) out[pixel + 1] = finish(odd, other ? other + pixel + 1 : nullptr, layer.rectified);
      }
    }
  }
}

LTH_INLINE void convolve(const WinogradConvolution& layer, const Shape& s, const Band& band,
                         Images* scratch) {
  Images* summed = scratch + kWinogradPositions * stride_of(layer.num_inputs, s.tiles);
  transform_input(layer, s, band, scratch);
  multiply_positions(layer, band.tiles, scratch, summed);
  transform_output(layer, s, band, summed);
}

void convolve_base(const WinogradConvolution& layer, const Shape& s, const Band& band, Images* scratch) {
  convolve(layer, s, band, scratch);
}
#if LTH_X86
LTH_TARGET_V3 void convolve_v3(const WinogradConvolution& layer, const Shape& s, const Band& band,
                               Images* scratch) {
  convolve(layer, s, band, scratch);
}
LTH_TARGET_V4 void convolve_v4(const WinogradConvolution& layer, const Shape& s, const Band& band,
                               Images* scratch) {
  convolve(layer, s, band, scratch);
}
#endif

}  // namespace

void winograd_convolution_cpu(const WinogradConvolution& layer) {
  auto* function = convolve_base;
#if LTH_X86
  if (detected_isa() == Isa::kV3) function = convolve_v3;
  if (detected_isa() == Isa::kV4) function = convolve_v4;
#endif
  Shape s{};
  s.row = layer.width + 2;
  s.plane = (layer.height + 2) * s.row;
  s.in_block = layer.num_inputs * s.plane;
  s.out_block = layer.num_outputs * s.plane;
  const int64_t fit = std::max<int64_t>(kSums, kBandVectors / layer.num_inputs / kSums * kSums);
  const int64_t tiles_across = (layer.width + 1) / 2;
  s.tiles = std::min(tiles_across, fit);
  const int64_t across = (tiles_across + s.tiles - 1) / s.tiles, down = (layer.height + 1) / 2;
  clear_borders(layer.output, layer.num_blocks * layer.num_outputs, layer.height, layer.width);
  auto body = [&](int64_t begin, int64_t end) {
    const size_t vectors =
        kWinogradPositions * (stride_of(layer.num_inputs, s.tiles) + stride_of(layer.num_outputs, s.tiles));
    const Scratch scratch(vectors * sizeof(Images), 0);
    auto* room = static_cast<Images*>(scratch.data());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % across * s.tiles, y = i / across % down * 2;
      const int64_t tiles = std::min(s.tiles, tiles_across - first);
      const bool cut = layer.width % 2 == 1 && first + tiles == tiles_across;
      const Band band{i / across / down, y, 2 * first, tiles, std::min<int64_t>(2, layer.height - y), cut};
      function(layer, s, band, room);
    }
  };
  parallel_for(layer.num_blocks * down * across, 2, body);
}

}  // namespace lth
