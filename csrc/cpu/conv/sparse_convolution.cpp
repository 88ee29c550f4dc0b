#include "sparse_convolution.h"

#include <algorithm>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "cpu/conv/image_blocks.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kL1Bytes = 32 * 1024;  // of a core's first cache, for the input of a tile

struct Schedule {
  // In vectors of 16 images.
  int64_t in_row, in_plane, in_block, out_row, out_plane, out_block;
  bool dense;  // every weight survives, so that output channels read the same
  // Of the input that each weight multiplies: [num_weights], or of a dense layer's first output channel
  // alone.
  std::vector<int32_t> offsets;
  // Weights [first[g][o], first[g + 1][o]) of output channel o read group g of input channels.
  std::vector<std::vector<int32_t>> first;
};

constexpr int64_t kShared = 4;  // output channels, and columns, of a dense layer that are summed at once

// The input that the first weight of a kernel multiplies for the output pixel of these input coordinates.
LTH_INLINE const Images* input_at(const SparseConvolution& layer, const Schedule& s, int64_t block, int64_t y,
                                  int64_t x) {
  const int64_t border = 1 - layer.padding;
  return reinterpret_cast<const Images*>(layer.input) + block * s.in_block + (y + border) * s.in_row + x +
         border;
}

// Output rows [y, y + kRows), columns [x, x + kColumns) of all channels, one group of input channels after
// another: what a group's weights read then stays in the L1 cache for all output channels.
template <int kStride, int kRows, int kColumns>
LTH_INLINE void tile(const SparseConvolution& layer, const Schedule& s, size_t group, int64_t block,
                     int64_t y, int64_t x) {
  const int64_t stride = kStride ? kStride : layer.stride;
  const Images* input = input_at(layer, s, block, y * stride, x * stride);
  const int64_t start = block * s.out_block + (y + 1) * s.out_row + x + 1;
  const bool last = group + 2 == s.first.size();
  const int32_t* offsets = s.offsets.data();
  for (int64_t o = 0; o < layer.num_outputs; ++o) {
    const int32_t begin = s.first[group][o], end = s.first[group + 1][o];
    Images* out = reinterpret_cast<Images*>(layer.output) + start + o * s.out_plane;
    Images sums[kRows][kColumns];
    const Images bias = layer.bias[o] - Images{};
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) sums[r][c] = group == 0 ? bias : out[r * s.out_row + c];
    for (int32_t i = begin; i < end; ++i) {
      const float weight = layer.values[i];
      const Images* from = input + offsets[i];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; ++c) sums[r][c] += weight * from[r * stride * s.in_row + c * stride];
    }
    const Images* other = reinterpret_cast<const Images*>(layer.other) + start + o * s.out_plane;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        const int64_t at = r * s.out_row + c;
        const Images* added = last && layer.other ? other + at : nullptr;
        out[at] = finish(sums[r][c], added, last && layer.relu);
      }
  }
}

// The same of a layer without pruned weights: what is loaded serves kShared output channels.
template <int kStride, int kRows, int kColumns>
LTH_INLINE void dense_tile(const SparseConvolution& layer, const Schedule& s, size_t group, int64_t block,
                           int64_t y, int64_t x) {
  const int64_t stride = kStride ? kStride : layer.stride;
  const Images* input = input_at(layer, s, block, y * stride, x * stride);
  const int64_t start = block * s.out_block + (y + 1) * s.out_row + x + 1;
  const bool last = group + 2 == s.first.size();
  const int64_t each = layer.num_weights / layer.num_outputs;
  const int32_t begin = s.first[group][0], end = s.first[group + 1][0];
  for (int64_t o = 0; o < layer.num_outputs; o += kShared) {
    const float* values = layer.values + o * each;
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < kColumns; c += kShared) {
        const int64_t at = start + o * s.out_plane + r * s.out_row + c;
        Images* out = reinterpret_cast<Images*>(layer.output) + at;
        const Images* from = input + r * stride * s.in_row + c * stride;
        Images sums[kShared][kShared];
#pragma GCC unroll 4
        for (int64_t k = 0; k < kShared; ++k)
#pragma GCC unroll 4
          for (int64_t j = 0; j < kShared; ++j)
            sums[k][j] = group == 0 ? layer.bias[o + k] - Images{} : out[k * s.out_plane + j];
        for (int32_t i = begin; i < end; ++i) {
          const Images* pixels = from + s.offsets[i];
#pragma GCC unroll 4
          for (int64_t k = 0; k < kShared; ++k) {
            const float weight = values[i + k * each];
#pragma GCC unroll 4
            for (int64_t j = 0; j < kShared; ++j) sums[k][j] += weight * pixels[j * stride];
          }
        }
        const Images* other =
            last && layer.other ? reinterpret_cast<const Images*>(layer.other) + at : nullptr;
#pragma GCC unroll 4
        for (int64_t k = 0; k < kShared; ++k)
#pragma GCC unroll 4
          for (int64_t j = 0; j < kShared; ++j) {
            const int64_t place = k * s.out_plane + j;
            out[place] = finish(sums[k][j], other ? other + place : nullptr, last && layer.relu);
          }
      }
  }
}

template <int kStride, int kRows, int kColumns>
LTH_INLINE void rows(const SparseConvolution& layer, const Schedule& s, int64_t begin, int64_t end) {
  const int64_t bands = layer.out_height / kRows;
  for (int64_t i = begin; i < end; ++i) {
    const Pixels band{i % bands * kRows, 0, kRows, layer.out_width};
    for (int64_t o = 0; o < layer.num_outputs; ++o)
      clear_border(reinterpret_cast<Images*>(layer.output) + i / bands * s.out_block + o * s.out_plane,
                   layer.out_height, layer.out_width, band);
    for (int64_t x = 0; x < layer.out_width; x += kColumns)
      for (size_t group = 0; group + 1 < s.first.size(); ++group) {
        if (kColumns % kShared == 0 && s.dense) {
          dense_tile<kStride, kRows, kColumns>(layer, s, group, i / bands, i % bands * kRows, x);
        } else {
          tile<kStride, kRows, kColumns>(layer, s, group, i / bands, i % bands * kRows, x);
        }
      }
  }
}

using Rows = void (*)(const SparseConvolution&, const Schedule&, int64_t begin, int64_t end);

#define LTH_ROWS(name, target)                                                                      \
  template <int kStride, int kRows, int kColumns>                                                   \
  target void name(const SparseConvolution& layer, const Schedule& s, int64_t begin, int64_t end) { \
    rows<kStride, kRows, kColumns>(layer, s, begin, end);                                           \
  }
LTH_ROWS(rows_base, )
#if LTH_X86
LTH_ROWS(rows_v3, LTH_TARGET_V3)
LTH_ROWS(rows_v4, LTH_TARGET_V4)
#endif
#undef LTH_ROWS

template <int kStride, int kRows, int kColumns>
Rows for_this_cpu() {
#if LTH_X86
  if (detected_isa() == Isa::kV4) return rows_v4<kStride, kRows, kColumns>;
  if (detected_isa() == Isa::kV3) return rows_v3<kStride, kRows, kColumns>;
#endif
  return rows_base<kStride, kRows, kColumns>;
}

struct Shape {
  int64_t num_rows, num_columns;
  Rows rows;
};

template <int kRows, int kColumns>
Shape shape_of(int64_t stride) {
  const Rows rows = stride == 1   ? for_this_cpu<1, kRows, kColumns>()
                    : stride == 2 ? for_this_cpu<2, kRows, kColumns>()
                                  : for_this_cpu<0, kRows, kColumns>();
  return {kRows, kColumns, rows};
}

// The largest tile that divides the plane; 16 sums hide the latency of an fma and fit in AVX-512's registers.
Shape shape_for(int64_t height, int64_t width, int64_t stride) {
  if (width % 16 == 0) return shape_of<1, 16>(stride);
  if (width % 8 == 0 && height % 2 == 0) return shape_of<2, 8>(stride);
  if (width % 4 == 0 && height % 4 == 0) return shape_of<4, 4>(stride);
  if (width % 2 == 0 && height % 2 == 0) return shape_of<2, 2>(stride);
  return shape_of<1, 1>(stride);
}

Schedule make_schedule(const SparseConvolution& layer, const Shape& shape) {
  Schedule s;
  s.in_row = layer.width + 2;
  s.in_plane = (layer.height + 2) * s.in_row;
  s.in_block = layer.num_inputs * s.in_plane;
  s.out_row = layer.out_width + 2;
  s.out_plane = (layer.out_height + 2) * s.out_row;
  s.out_block = layer.num_outputs * s.out_plane;
  const int64_t area = layer.kernel * layer.kernel, num_taps = layer.num_inputs * area;
  s.dense = layer.num_weights == layer.num_outputs * num_taps && layer.num_outputs % kShared == 0 &&
            shape.num_columns % kShared == 0;
  s.offsets.resize(s.dense ? num_taps : layer.num_weights);
  for (size_t i = 0; i < s.offsets.size(); ++i) {
    const int64_t position = layer.col_indices[i] % area;
    s.offsets[i] = int32_t(layer.col_indices[i] / area * s.in_plane + position / layer.kernel * s.in_row +
                           position % layer.kernel);
  }
  const auto reach = [&](int64_t outputs) { return (outputs - 1) * layer.stride + layer.kernel; };
  const int64_t bytes = reach(shape.num_rows) * reach(shape.num_columns) * int64_t(sizeof(Images));
  const int64_t fit = std::max<int64_t>(1, kL1Bytes / bytes);
  // A group of few weights costs more in reading and writing its sums than it saves.
  const int64_t worth = std::max<int64_t>(1, layer.num_weights / (16 * layer.num_outputs));
  const int64_t groups = std::min((layer.num_inputs + fit - 1) / fit, worth);
  const int64_t num_rows = s.dense ? 1 : layer.num_outputs;
  s.first.assign(groups + 1, std::vector<int32_t>(num_rows));
  for (int64_t o = 0; o < num_rows; ++o) {
    int32_t i = layer.row_ptr[o];
    for (int64_t g = 0; g <= groups; ++g) {
      const int64_t before = layer.num_inputs * g / groups * area;  // col_indices of the groups before g
      while (i < layer.row_ptr[o + 1] && layer.col_indices[i] < before) ++i;
      s.first[g][o] = i;
    }
  }
  return s;
}

}  // namespace

void sparse_convolution_cpu(const SparseConvolution& layer) {
  const Shape shape = shape_for(layer.out_height, layer.out_width, layer.stride);
  const Schedule s = make_schedule(layer, shape);
  auto body = [&](int64_t begin, int64_t end) { shape.rows(layer, s, begin, end); };
  parallel_for(layer.num_blocks * (layer.out_height / shape.num_rows), 4, body);
}

}  // namespace lth
