#include "sparse_convolution.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "cpu/conv/taps.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kShared = 4;  // output channels of a dense layer that are summed at once

// Sums over the taps of a lattice: writes bias (or 0) + sums + `residual`, with a ReLU if asked.
struct Sums {
  Lattice lattice;
  Taps taps;
  const float* input;     // of position (0, 0)
  const float* values;    // of the taps
  const float* bias;      // or nullptr
  const float* residual;  // of the output's shape, or nullptr
  float* output;          // of position (0, 0)
  int64_t outputs;
  // Every weight survives, so that output channels read the same: taps.offsets are those of the first, and
  // the values of channel o begin at o * each.
  bool dense;
  int64_t each;
  bool relu;
  // Whether a band of rows clears the border beside it, of a plane of this size.
  bool clears;
  int64_t height, width;
};

// Rows [y, y + kRows), columns [x, x + kColumns) of all channels, one group of input channels after another:
// what a group's weights read then stays in the L1 cache for all output channels.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sparse_tile(const Sums& s, size_t group, const float* input, int64_t start) {
  const Lattice& l = s.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  const bool last = group + 1 == s.taps.groups();
  const int32_t* offsets = s.taps.offsets.data();
  const int32_t *first = s.taps.first[group].data(), *behind = s.taps.first[group + 1].data();
  const float* added = last ? s.residual : nullptr;
  const bool relu = last && s.relu;
  for (int64_t o = 0; o < s.outputs; ++o) {
    const int32_t begin = first[o], end = behind[o];
    const int64_t place = start + o * l.out_plane;
    V sums[kRows][kColumns][kParts<V>];
    const V bias = (s.bias ? s.bias[o] : 0) - V{};
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
        for (int p = 0; p < kParts<V>; ++p)
          sums[r][c][p] = group == 0 ? bias : at<V>(s.output, place + (r * l.out_row + c) * l.out_step)[p];
    for (int32_t i = begin; i < end; ++i) {
      const float weight = s.values[i];
      const float* from = input + offsets[i] * kBlock;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
          for (int p = 0; p < kParts<V>; ++p)
            sums[r][c][p] += weight * at<V>(from, (r * l.in_row + c) * step)[p];
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        const int64_t pixel = place + (r * l.out_row + c) * l.out_step;
        V* out = reinterpret_cast<V*>(s.output + pixel * kBlock);
        const V* residual = added ? at<V>(added, pixel) : nullptr;
#pragma GCC unroll 4
        for (int p = 0; p < kParts<V>; ++p)
          out[p] = finish(sums[r][c][p], residual ? residual + p : nullptr, relu);
      }
  }
}

// The same of a layer without pruned weights: what is loaded serves kShared output channels.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void dense_tile(const Sums& s, size_t group, const float* input, int64_t start) {
  // As many columns at once as make 16 or 8 sums.
  constexpr int kAtOnce = kParts<V> == 1 && kColumns % 4 == 0 ? 4 : 1;
  const Lattice& l = s.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  const bool last = group + 1 == s.taps.groups();
  const int32_t begin = s.taps.first[group][0], end = s.taps.first[group + 1][0];
  for (int64_t o = 0; o < s.outputs; o += kShared) {
    const float* values = s.values + o * s.each;
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < kColumns; c += kAtOnce) {
        const int64_t place = start + o * l.out_plane + (r * l.out_row + c) * l.out_step;
        const float* from = input + (r * l.in_row + c) * step * kBlock;
        V sums[kShared][kAtOnce][kParts<V>];
#pragma GCC unroll 4
        for (int64_t k = 0; k < kShared; ++k)
#pragma GCC unroll 4
          for (int64_t j = 0; j < kAtOnce; ++j)
#pragma GCC unroll 4
            for (int p = 0; p < kParts<V>; ++p)
              sums[k][j][p] = group == 0 ? (s.bias ? s.bias[o + k] : 0) - V{}
                                         : at<V>(s.output, place + k * l.out_plane + j * l.out_step)[p];
        for (int32_t i = begin; i < end; ++i) {
          const float* pixels = from + s.taps.offsets[i] * kBlock;
#pragma GCC unroll 4
          for (int64_t k = 0; k < kShared; ++k) {
            const float weight = values[i + k * s.each];
#pragma GCC unroll 4
            for (int64_t j = 0; j < kAtOnce; ++j)
#pragma GCC unroll 4
              for (int p = 0; p < kParts<V>; ++p) sums[k][j][p] += weight * at<V>(pixels, j * step)[p];
          }
        }
#pragma GCC unroll 4
        for (int64_t k = 0; k < kShared; ++k)
#pragma GCC unroll 4
          for (int64_t j = 0; j < kAtOnce; ++j) {
            const int64_t pixel = place + k * l.out_plane + j * l.out_step;
            V* out = reinterpret_cast<V*>(s.output + pixel * kBlock);
            const V* residual = last && s.residual ? at<V>(s.residual, pixel) : nullptr;
#pragma GCC unroll 4
            for (int p = 0; p < kParts<V>; ++p)
              out[p] = finish(sums[k][j][p], residual ? residual + p : nullptr, last && s.relu);
          }
      }
  }
}

// Bands of kRows rows, those of a block one after another.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void bands(const Sums& s, int64_t begin, int64_t end) {
  const Lattice& l = s.lattice;
  const int64_t step = kStep ? kStep : l.in_step, in_a_block = l.rows / kRows;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t block = i / in_a_block, y = i % in_a_block * kRows;
    if (s.clears) {
      const int64_t top = y * l.out_step, rows = std::min(kRows * l.out_step, s.height - top);
      const Pixels band{top, 0, rows, s.width};
      float* plane = s.output + (block * l.out_block - l.out_row - 1) * kBlock;
      for (int64_t o = 0; o < s.outputs; ++o)
        clear_border(plane + o * l.out_plane * kBlock, s.height, s.width, band);
    }
    for (int64_t x = 0; x < l.columns; x += kColumns) {
      const float* input = s.input + (block * l.in_block + (y * l.in_row + x) * step) * kBlock;
      const int64_t start = block * l.out_block + (y * l.out_row + x) * l.out_step;
      for (size_t group = 0; group < s.taps.groups(); ++group) {
        if (s.dense) {
          dense_tile<V, kStep, kRows, kColumns>(s, group, input, start);
        } else {
          sparse_tile<V, kStep, kRows, kColumns>(s, group, input, start);
        }
      }
    }
  }
}

LTH_TILED(bands, bands, (const Sums& s, int64_t begin, int64_t end), (s, begin, end))

void sum(const Sums& s, int64_t num_blocks, const Tile& tile) {
  const auto run = bands_for(tile, s.lattice.in_step);
  auto body = [&](int64_t begin, int64_t end) { run(s, begin, end); };
  parallel_for(num_blocks * (s.lattice.rows / tile.rows), 4, body);
}

}  // namespace

void sparse_convolution_cpu(const SparseConvolution& layer) {
  Sums s{};
  s.lattice = forward_lattice(layer);
  const Tile tile = tile_for(positions_for_this_cpu(), s.lattice.rows, s.lattice.columns);
  s.taps = forward_taps(layer, tile, layer.col_indices, layer.row_ptr);
  const int64_t start = (s.lattice.out_row + 1) * kBlock;
  s.input = layer.input;
  s.values = layer.values;
  s.bias = layer.bias;
  s.residual = layer.residual ? layer.residual + start : nullptr;
  s.output = layer.output + start;
  s.outputs = layer.num_outputs;
  s.each = layer.num_inputs * layer.kernel * layer.kernel;
  s.dense = layer.num_weights == layer.num_outputs * s.each && layer.num_outputs % kShared == 0;
  s.relu = layer.relu;
  s.clears = true;
  s.height = layer.out_height;
  s.width = layer.out_width;
  sum(s, layer.num_blocks, tile);
}

void sparse_input_gradient_cpu(const SparseInputGradient& layer) {
  const Strides t = strides_of(layer);
  const int64_t kernel = layer.kernel, area = kernel * kernel, step = layer.stride;
  // Input pixels whose row is y0 and whose column x0 modulo the stride are read by the same taps.
  for (int64_t y0 = 0; y0 < std::min(step, layer.height); ++y0)
    for (int64_t x0 = 0; x0 < std::min(step, layer.width); ++x0) {
      Sums s{};
      const int64_t rows = (layer.height - y0 + step - 1) / step,
                    columns = (layer.width - x0 + step - 1) / step;
      s.lattice = {rows, columns, 1, t.out_row, t.out_block, step, t.in_row, t.in_plane, t.in_block};
      const Tile tile = tile_for(positions_for_this_cpu(), rows, columns);
      std::vector<int32_t> ptr{0}, entries;
      std::vector<float> values;
      for (int64_t c = 0; c < layer.num_inputs; ++c) {
        for (int32_t i = layer.col_ptr[c]; i < layer.col_ptr[c + 1]; ++i) {
          const int64_t place = layer.row_indices[i] % area;
          const int64_t y = y0 + layer.padding - place / kernel, x = x0 + layer.padding - place % kernel;
          if (y % step != 0 || x % step != 0) continue;
          entries.push_back(layer.row_indices[i]);
          values.push_back(layer.values[layer.order[i]]);
          s.taps.offsets.push_back(
              int32_t(layer.row_indices[i] / area * t.out_plane + (y / step + 1) * t.out_row + x / step + 1));
        }
        ptr.push_back(int32_t(entries.size()));
      }
      const int64_t groups = count_groups(s.lattice, tile, (kernel + step - 1) / step, layer.num_outputs,
                                          layer.num_inputs, int64_t(entries.size()));
      s.taps.first = divide(ptr.data(), entries.data(), layer.num_inputs, layer.num_outputs, area, groups);
      const int64_t start = ((y0 + 1) * t.in_row + x0 + 1) * kBlock;
      s.input = layer.grad;
      s.values = values.data();
      s.residual = layer.residual ? layer.residual + start : nullptr;
      s.output = layer.output + start;
      s.outputs = layer.num_inputs;
      s.each = int64_t(entries.size()) / layer.num_inputs;
      s.dense =
          layer.num_weights == layer.num_outputs * layer.num_inputs * area && layer.num_inputs % kShared == 0;
      s.clears = y0 == 0 && x0 == 0;
      s.height = layer.height;
      s.width = layer.width;
      sum(s, layer.num_blocks, tile);
    }
}

}  // namespace lth
