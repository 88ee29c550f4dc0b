#include "sparse_convolution.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "cpu/conv/rows.h"
#include "cpu/scratch.h"

// The sums are those of a convolution, which no two implementations round alike: fma is welcome.
#include "common/contract.h"

namespace lth {
namespace {

constexpr int64_t kShared = 4;              // output channels of a dense layer that are summed at once
constexpr int64_t kPairBytes = 640 * 1024;  // of a core's second cache, for what lies between two layers

// Sums over the taps of a lattice: writes bias (or 0) + sums + what is added, with a ReLU if asked.
struct Sums {
  Lattice lattice;
  Taps taps;
  const float* values;       // of the taps
  std::vector<float> given;  // the values, where they are no caller's
  const float* bias;         // or nullptr
  int64_t outputs;
  int64_t start;  // in the output, of position (0, 0); in blocks of 16 images
  // Every weight survives, so that output channels read the same: taps.offsets are those of the first, and
  // the values of channel o begin at o * each.
  bool dense;
  int64_t each;
  bool relu;
  // Whether a band of rows clears the border beside it, of a plane of this size.
  bool clears;
  int64_t height, width;
};

// Those of the first row's position 0; residual is nullptr where nothing is added.
struct Operands {
  const float *input, *residual;
  float* output;
};

// Rows [y, y + kRows), columns [x, x + kColumns) of all channels, one group of input channels after another:
// what a group's weights read then stays in the L1 cache for all output channels.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void sparse_tile(const Sums& s, const Operands& of, size_t group, const float* input,
                            int64_t start) {
  const Lattice& l = s.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  const bool last = group + 1 == s.taps.groups();
  const int32_t* offsets = s.taps.offsets.data();
  const int32_t *first = s.taps.first[group].data(), *behind = s.taps.first[group + 1].data();
  const float* added = last ? of.residual : nullptr;
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
          sums[r][c][p] = group == 0 ? bias : at<V>(of.output, place + (r * l.out_row + c) * l.out_step)[p];
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
        V* out = reinterpret_cast<V*>(of.output + pixel * kBlock);
        const V* residual = added ? at<V>(added, pixel) : nullptr;
#pragma GCC unroll 4
        for (int p = 0; p < kParts<V>; ++p)
          out[p] = finish(sums[r][c][p], residual ? residual + p : nullptr, relu);
      }
  }
}

// The same of a layer without pruned weights: what is loaded serves kShared output channels.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void dense_tile(const Sums& s, const Operands& of, size_t group, const float* input,
                           int64_t start) {
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
                                         : at<V>(of.output, place + k * l.out_plane + j * l.out_step)[p];
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
            V* out = reinterpret_cast<V*>(of.output + pixel * kBlock);
            const V* residual = last && of.residual ? at<V>(of.residual, pixel) : nullptr;
#pragma GCC unroll 4
            for (int p = 0; p < kParts<V>; ++p)
              out[p] = finish(sums[k][j][p], residual ? residual + p : nullptr, last && s.relu);
          }
      }
  }
}

// Rows [begin, end), a tile's at a time.
template <class V, int kStep, int kRows, int kColumns>
LTH_INLINE void bands(const Sums& s, const Operands& of, int64_t begin, int64_t end) {
  const Lattice& l = s.lattice;
  const int64_t step = kStep ? kStep : l.in_step;
  for (int64_t y = begin; y < end; y += kRows) {
    if (s.clears) {
      const int64_t top = y * l.out_step, rows = std::min(kRows * l.out_step, s.height - top);
      const Pixels band{top, 0, rows, s.width};
      float* plane = of.output - (begin * l.out_step * l.out_row + l.out_row + 1) * kBlock;
      for (int64_t o = 0; o < s.outputs; ++o)
        clear_border(plane + o * l.out_plane * kBlock, s.height, s.width, band);
    }
    for (int64_t x = 0; x < l.columns; x += kColumns) {
      const float* input = of.input + ((y - begin) * l.in_row + x) * step * kBlock;
      const int64_t start = ((y - begin) * l.out_row + x) * l.out_step;
      for (size_t group = 0; group < s.taps.groups(); ++group) {
        if (s.dense) {
          dense_tile<V, kStep, kRows, kColumns>(s, of, group, input, start);
        } else {
          sparse_tile<V, kStep, kRows, kColumns>(s, of, group, input, start);
        }
      }
    }
  }
}

LTH_TILED(bands, bands, (const Sums& s, const Operands& of, int64_t begin, int64_t end), (s, of, begin, end))

// The sums of one lattice or of several, whose positions together are those of a plane.
class SparseRows : public ConvolutionRows {
 public:
  void add(Sums&& sums) {
    const Tile tile = tile_of(sums.lattice);
    run_.push_back(bands_for(tile, sums.lattice.in_step));
    sums_.push_back(std::move(sums));
  }

  static Tile tile_of(const Lattice& l) { return tile_for(positions_for_this_cpu(), l.rows, l.columns); }

  void operator()(const float* input, float* output, int64_t begin, int64_t end, float*) const override {
    sum(input, nullptr, output, begin, end);
  }

  // The same, with a residual in planes like the output's, or nullptr.
  void sum(const float* input, const float* residual, float* output, int64_t begin, int64_t end) const {
    for (size_t i = 0; i < sums_.size(); ++i) {
      const Sums& s = sums_[i];
      const int64_t start = s.start * kBlock;
      const int64_t from = std::min(begin, s.lattice.rows), to = std::min(end, s.lattice.rows);
      run_[i](s, {input, residual ? residual + start : nullptr, output + start}, from, to);
    }
  }

 private:
  std::vector<Sums> sums_;
  std::vector<void (*)(const Sums&, const Operands&, int64_t, int64_t)> run_;
};

Sums forward_sums(const ConvolutionShape& shape, const Strides& strides, const float* values,
                  const int32_t* col_indices, const int32_t* row_ptr) {
  Sums s{};
  s.lattice = forward_lattice(shape, strides);
  s.taps = forward_taps(shape, strides, SparseRows::tile_of(s.lattice), col_indices, row_ptr);
  s.values = values;
  s.outputs = shape.num_outputs;
  s.start = s.lattice.out_row + 1;
  s.each = shape.num_inputs * shape.kernel * shape.kernel;
  s.dense = row_ptr[shape.num_outputs] == shape.num_outputs * s.each && shape.num_outputs % kShared == 0;
  return s;
}

}  // namespace

std::unique_ptr<ConvolutionRows> sparse_rows(const ConvolutionShape& shape, const Strides& strides,
                                             const Weights& weights) {
  auto rows = std::make_unique<SparseRows>();
  rows->add(forward_sums(shape, strides, weights.values, weights.col_indices, weights.row_ptr));
  return rows;
}

std::unique_ptr<ConvolutionRows> sparse_input_gradient_rows(const ConvolutionShape& shape,
                                                            const Strides& strides, const Weights& weights) {
  const Strides& t = strides;
  auto all = std::make_unique<SparseRows>();
  const int64_t kernel = shape.kernel, area = kernel * kernel, step = shape.stride;
  // Input pixels whose row is y0 and whose column x0 modulo the stride are read by the same taps.
  for (int64_t y0 = 0; y0 < std::min(step, shape.height); ++y0)
    for (int64_t x0 = 0; x0 < std::min(step, shape.width); ++x0) {
      Sums s{};
      const int64_t rows = (shape.height - y0 + step - 1) / step,
                    columns = (shape.width - x0 + step - 1) / step;
      s.lattice = {rows, columns, 1, t.out_row, step, t.in_row, t.in_plane};
      const Tile tile = SparseRows::tile_of(s.lattice);
      std::vector<int32_t> ptr{0}, entries;
      for (int64_t c = 0; c < shape.num_inputs; ++c) {
        for (int32_t i = weights.col_ptr[c]; i < weights.col_ptr[c + 1]; ++i) {
          const int64_t place = weights.row_indices[i] % area;
          const int64_t y = y0 + shape.padding - place / kernel, x = x0 + shape.padding - place % kernel;
          if (y % step != 0 || x % step != 0) continue;
          entries.push_back(weights.row_indices[i]);
          s.given.push_back(weights.values[weights.order[i]]);
          s.taps.offsets.push_back(int32_t(weights.row_indices[i] / area * t.out_plane +
                                           (y / step + 1) * t.out_row + x / step + 1));
        }
        ptr.push_back(int32_t(entries.size()));
      }
      const int64_t groups = count_groups(s.lattice, tile, (kernel + step - 1) / step, shape.num_outputs,
                                          shape.num_inputs, int64_t(entries.size()));
      s.taps.first = divide(ptr.data(), entries.data(), shape.num_inputs, shape.num_outputs, area, groups);
      s.values = s.given.data();
      s.outputs = shape.num_inputs;
      s.start = (y0 + 1) * t.in_row + x0 + 1;
      s.each = int64_t(entries.size()) / shape.num_inputs;
      s.dense = weights.num_weights == shape.num_outputs * shape.num_inputs * area &&
                shape.num_inputs % kShared == 0;
      all->add(std::move(s));
    }
  return all;
}

namespace {

SparseRows rows_of(const SparseConvolution& layer, const Strides& strides, bool clears) {
  Sums sums = forward_sums(layer, strides, layer.values, layer.col_indices, layer.row_ptr);
  sums.bias = layer.bias;
  sums.relu = layer.relu;
  sums.clears = clears;
  sums.height = layer.out_height;
  sums.width = layer.out_width;
  SparseRows rows;
  rows.add(std::move(sums));
  return rows;
}

// Rows of what a pair's second layer reads, in the cache: planes with a border, one row of room before the
// first.
class Between {
 public:
  // For so many of the second layer's rows at a time.
  Between(const SparseConvolution& second, int64_t rows)
      : shape_(second),
        row_(second.width + 2),
        plane_(plane(second, rows)),
        memory_((second.num_inputs * plane_ + row_) * kBlock * sizeof(float), 0) {
    first_ = static_cast<float*>(memory_.data()) + row_ * kBlock;
    for (int64_t i = 0; i < second.num_inputs * plane_; i += row_) {  // the sides of the border
      std::memset(first_ + i * kBlock, 0, kBlock * sizeof(float));
      std::memset(first_ + (i + row_ - 1) * kBlock, 0, kBlock * sizeof(float));
    }
  }

  static int64_t plane(const SparseConvolution& second, int64_t rows) {
    return (rows * second.stride + 2) * (second.width + 2);
  }

  // From a row with the border on, which the first one in memory is.
  float* at(int64_t row) const { return first_ + row * row_ * kBlock; }

  // A row of the border; one behind those in memory is not read.
  void clear(int64_t row) const {
    if (row * row_ == plane_) return;
    for (int64_t c = 0; c < shape_.num_inputs; ++c)
      std::memset(at(row) + c * plane_ * kBlock, 0, row_ * kBlock * sizeof(float));
  }

 private:
  const SparseConvolution& shape_;
  int64_t row_, plane_;
  Scratch memory_;
  float* first_;
};

}  // namespace

void sparse_convolution_cpu(const SparseConvolution& layer) {
  const Strides t = strides_of(layer);
  const SparseRows rows = rows_of(layer, t, true);
  const int64_t items = (layer.out_height + kRowsAtOnce - 1) / kRowsAtOnce;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / items, y = i % items * kRowsAtOnce;
      const int64_t from = (block * t.in_block + y * layer.stride * t.in_row) * kBlock,
                    to = (block * t.out_block + y * t.out_row) * kBlock;
      rows.sum(layer.input + from, layer.residual ? layer.residual + to : nullptr, layer.output + to, y,
               y + kRowsAtOnce);
    }
  };
  parallel_for(layer.num_blocks * items, 1, body);
}

void sparse_convolution_pair_cpu(const SparseConvolution& first, const SparseConvolution& second) {
  Strides of_first = strides_of(first), of_second = strides_of(second);
  // Rows of the first layer begin anywhere, so that its tiles must have one alone, or the plane be whole.
  const Tile tile = SparseRows::tile_of(forward_lattice(first, of_first));
  const int64_t bytes =
      second.stride * second.num_inputs * of_second.in_row * kBlock * int64_t(sizeof(float));
  const int64_t fit = std::max<int64_t>(kRowsAtOnce, kPairBytes / bytes / kRowsAtOnce * kRowsAtOnce);
  const int64_t whole = (second.out_height + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce;
  const int64_t each = tile.rows > 1 ? whole : std::min(fit, whole);
  const int64_t items = (second.out_height + each - 1) / each;
  of_first.out_plane = of_second.in_plane = Between::plane(second, each);
  const SparseRows make = rows_of(first, of_first, false), sum = rows_of(second, of_second, true);
  auto body = [&](int64_t begin, int64_t end) {
    const Between between(second, each);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / items, y = i % items * each, last = std::min(y + each, second.out_height);
      // Of the first layer's output, without the border, from the row above the second layer's first on.
      const int64_t start = y * second.stride, from = std::max<int64_t>(start - 1, 0);
      const int64_t to =
          items == 1 ? first.out_height : std::min((last - 1) * second.stride + 2, first.out_height);
      if (start == 0) between.clear(0);
      if (to == first.out_height) between.clear(to + 1 - start);
      make.sum(first.input + (block * of_first.in_block + from * first.stride * of_first.in_row) * kBlock,
               nullptr, between.at(from - start), from, to);
      const int64_t out = (block * of_second.out_block + y * of_second.out_row) * kBlock;
      sum.sum(between.at(0), second.residual ? second.residual + out : nullptr, second.output + out, y, last);
    }
  };
  parallel_for(second.num_blocks * items, 1, body);
}

}  // namespace lth
